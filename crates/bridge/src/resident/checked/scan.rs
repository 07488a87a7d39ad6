//! The bounds of lines that the guest found in a log.

use super::{Breach, holds, position, proto, stream};
use crate::{ScannedLog, resident::convert};
use errand_reading::{LINE_CHARACTERS, Line, Query, SCANNED_BYTES, Scan, Scanned};

/// The largest message with lines of a log, in bytes. All lines have at most 512 KiB.
pub(in crate::resident) const SCAN_MESSAGE: usize = 640 * 1024;

/// Checks what the guest found: only what was asked for, in order, within the bounds, and possible. The text of lines is made safe.
pub(in crate::resident) fn scanned(answer: proto::ScanLogResponse, scan: &Scan) -> Result<ScannedLog, Breach> {
    let proto::ScanLogResponse { size, gap, position: end, cut_short, total_lines, matching_lines, left_out, lines } =
        answer;
    let size = position(size);
    holds(end <= size && total_lines <= size && matching_lines <= total_lines && left_out <= total_lines, || {
        format!("{total_lines} lines, {matching_lines} matching and {left_out} left out, up to {end} of {size} bytes")
    })?;
    let most = scan.most_lines();
    holds(lines.len() <= most, || format!("{} lines where at most {most} were asked for", lines.len()))?;
    let lines: Vec<Line> = lines.into_iter().map(line).collect::<Result<_, _>>()?;
    let cost: usize = lines.iter().map(Line::cost).sum();
    holds(cost <= SCANNED_BYTES, || format!("lines of {cost} bytes, more than {SCANNED_BYTES}"))?;
    in_order(&lines, total_lines, size)?;
    asked_for(&lines, total_lines, matching_lines, scan)?;
    let found = Scanned { lines, total_lines, matching_lines, left_out, position: end };
    Ok(ScannedLog { found, size, gap: gap.map(convert::gap), cut_short })
}

fn line(line: proto::ScannedLine) -> Result<Line, Breach> {
    let stream = stream(line.stream());
    let proto::ScannedLine { number, offset, end, text, left_out, matched, .. } = line;
    let characters = text.chars().count();
    holds(characters <= LINE_CHARACTERS, || format!("a line of {characters} characters, more than {LINE_CHARACTERS}"))?;
    let safe = |letter: &char| !letter.is_control() || *letter == '\t';
    let text = if text.chars().all(|letter| safe(&letter)) { text } else { text.chars().filter(safe).collect() };
    Ok(Line { number, offset, end, text, left_out: position(left_out), matched, stream })
}

/// Numbers and positions ascend, and lines do not overlap.
fn in_order(lines: &[Line], total_lines: u64, size: u64) -> Result<(), Breach> {
    let (mut number, mut at) = (0, 0);
    for line in lines {
        let possible = line.number > number && line.number <= total_lines;
        holds(possible && line.offset >= at && line.end > line.offset && line.end <= size, || {
            format!(
                "line {} of {total_lines} from {} to {} after line {number} up to {at}",
                line.number, line.offset, line.end
            )
        })?;
        (number, at) = (line.number, line.end);
    }
    Ok(())
}

fn asked_for(lines: &[Line], total_lines: u64, matching_lines: u64, scan: &Scan) -> Result<(), Breach> {
    let matched = lines.iter().filter(|line| line.matched).count() as u64;
    match &scan.query {
        Query::Lines { offset, limit } => {
            let before = match u64::try_from(*offset) {
                Ok(skip) => skip,
                Err(_) => total_lines.saturating_sub(offset.unsigned_abs()),
            };
            let wanted = |line: &Line| line.number > before && line.number <= before.saturating_add(*limit as u64);
            holds(matched == 0 && matching_lines == 0 && lines.iter().all(wanted), || {
                format!("other lines than those after line {before}, at most {limit}")
            })
        }
        Query::Grep(grep) => {
            let most = grep.most as u64;
            let possible = matched <= matching_lines && matched <= most && (matched > 0 || lines.is_empty());
            holds(possible, || format!("{matched} matching lines of {matching_lines} where {most} were asked for"))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;
    use errand_reading::{Grep, Pattern};

    fn lines(offset: i64, limit: usize) -> Scan {
        Scan { query: Query::Lines { offset, limit }, stream: None }
    }

    fn grep(context: usize, most: usize) -> Scan {
        let pattern = Pattern::text("x", false).unwrap();
        Scan { query: Query::Grep(Grep { pattern, before: context, after: context, most }), stream: None }
    }

    fn told(number: u64, matched: bool) -> proto::ScannedLine {
        let (offset, end) = (number.saturating_mul(10), number.saturating_mul(10) + 10);
        proto::ScannedLine { number, offset, end, text: "x".to_owned(), matched, ..proto::ScannedLine::default() }
    }

    fn answer(lines: Vec<proto::ScannedLine>) -> proto::ScanLogResponse {
        let matching_lines = lines.iter().filter(|line| line.matched).count() as u64;
        proto::ScanLogResponse {
            size: 1000,
            position: 1000,
            total_lines: 50,
            matching_lines,
            lines,
            ..proto::ScanLogResponse::default()
        }
    }

    #[test]
    fn only_lines_that_were_asked_for_pass() {
        let plain = |numbers: &[u64]| answer(numbers.iter().map(|number| told(*number, false)).collect());
        assert!(scanned(plain(&[3, 4]), &lines(2, 2)).is_ok() && scanned(plain(&[49, 50]), &lines(-2, 9)).is_ok());
        for (numbers, asked) in [
            (&[2, 3][..], lines(2, 2)),
            (&[4, 5], lines(2, 2)),
            (&[3, 4, 5], lines(2, 2)),
            (&[48], lines(-2, 9)),
            (&[4, 3], lines(0, 9)),
            (&[3, 3], lines(0, 9)),
            (&[0], lines(0, 9)),
            (&[51], lines(0, 99)),
            (&[1], grep(3, 9)),
        ] {
            assert!(scanned(plain(numbers), &asked).is_err(), "{numbers:?} {asked:?}");
        }
        let matching = |count: u64| answer((1..=count).map(|number| told(number, true)).collect());
        assert!(scanned(matching(2), &grep(0, 2)).is_ok());
        assert!(scanned(matching(3), &grep(0, 2)).is_err() && scanned(matching(3), &grep(5, 2)).is_err());
        assert!(scanned(matching(1), &lines(0, 9)).is_err());
    }

    #[test]
    fn impossible_lines_are_breaches() {
        let honest = || answer(vec![told(1, true)]);
        let found = scanned(honest(), &grep(0, 9)).unwrap();
        assert_eq!((found.size, found.found.lines[0].end, found.found.matching_lines), (1000, 20, 1));
        let lies: [fn(&mut proto::ScanLogResponse); 10] = [
            |answer| answer.position = 1001,
            |answer| answer.total_lines = u64::MAX,
            |answer| answer.matching_lines = 51,
            |answer| answer.matching_lines = 0,
            |answer| answer.left_out = 51,
            |answer| answer.lines[0].end = 1001,
            |answer| answer.lines[0].end = 10,
            |answer| answer.lines[0].offset = u64::MAX,
            |answer| answer.lines[0].text = "x".repeat(2001),
            |answer| answer.lines.push(proto::ScannedLine { offset: 15, ..told(2, false) }),
        ];
        for (index, lie) in lies.iter().enumerate() {
            let mut told = honest();
            lie(&mut told);
            assert!(scanned(told, &grep(1, 9)).is_err(), "{index}");
        }
        let large = |number| proto::ScannedLine { text: "€".repeat(2000), ..told(number, true) };
        let flood = answer((1..90).map(large).collect());
        assert!(scanned(proto::ScanLogResponse { total_lines: 90, ..flood }, &grep(0, 1000)).is_err());
    }

    #[test]
    fn text_of_lines_is_made_safe() {
        let text = "a\u{1b}[2J\tb\n\u{9b}c".to_owned();
        let told = answer(vec![proto::ScannedLine { text, left_out: u64::MAX, ..told(1, false) }]);
        let line = &scanned(told, &lines(0, 9)).unwrap().found.lines[0];
        assert_eq!((line.text.as_str(), line.left_out), ("a[2J\tbc", i64::MAX as u64));
    }
}
