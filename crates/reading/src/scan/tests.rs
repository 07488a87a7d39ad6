#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
use proptest::prelude::*;

use super::*;

fn lines(offset: i64, limit: usize) -> Scan {
    Scan { query: Query::Lines { offset, limit }, stream: None }
}

fn grep(pattern: &str, context: usize, most: usize) -> Scan {
    let pattern = Pattern::regex(pattern, false).unwrap();
    Scan { query: Query::Grep(Grep { pattern, before: context, after: context, most }), stream: None }
}

fn scanned(scan: &Scan, pieces: &[&[u8]]) -> Scanned {
    let mut scanner = Scanner::new(scan);
    let mut offset = 0;
    for piece in pieces {
        scanner.push(offset, Stream::Both, piece);
        offset += piece.len() as u64;
    }
    scanner.finish()
}

/// Number and text of each line; a match has a colon, context a dash.
fn shown(scanned: &Scanned) -> Vec<String> {
    let mark = |line: &Line| if line.matched { ':' } else { '-' };
    scanned.lines.iter().map(|line| format!("{}{}{}", line.number, mark(line), line.text)).collect()
}

#[test]
fn lines_are_selected_from_both_ends() {
    let output: String = (1..=100).map(|number| format!("line {number}\n")).collect();
    let read = |offset, limit| scanned(&lines(offset, limit), &[output.as_bytes()]);
    assert_eq!(shown(&read(0, 2)), ["1-line 1", "2-line 2"]);
    assert_eq!(shown(&read(98, 50)), ["99-line 99", "100-line 100"]);
    assert_eq!(shown(&read(-2, 50)), ["99-line 99", "100-line 100"]);
    assert_eq!(shown(&read(-50, 2)), ["51-line 51", "52-line 52"]);
    assert_eq!(shown(&read(-2000, 1)), ["1-line 1"]);
    let past = read(100, 5);
    assert_eq!((past.lines.len(), past.total_lines, past.left_out, past.position), (0, 100, 0, 791 + 1));
    let first = &read(1, 1).lines[0];
    assert_eq!((first.offset, first.end, first.left_out), (7, 14, 0));
}

#[test]
fn last_line_needs_no_newline() {
    assert_eq!(shown(&scanned(&lines(0, 9), &[b"a\n\nb"])), ["1-a", "2-", "3-b"]);
    assert_eq!(shown(&scanned(&lines(-1, 9), &[b"a\nb\n"])), ["2-b"]);
    assert_eq!(scanned(&lines(0, 9), &[]), Scanned::default());
    assert_eq!(scanned(&lines(-9, 9), &[b"\n"]).total_lines, 1);
}

#[test]
fn lines_are_shown_as_a_terminal_would() {
    let output = b"\x1b[31merror\x1b[0m: x\r\n10%\r99%\r100% done\n\xFF\x07\n";
    assert_eq!(shown(&scanned(&lines(0, 9), &[output])), ["1-error: x", "2-100% done", "3-\u{FFFD}"]);
    assert_eq!(shown(&scanned(&grep("^error: x$|99%", 0, 9), &[output])), ["1:error: x"]);
}

#[test]
fn contexts_of_matches_are_merged() {
    let output: String = (1..=30).map(|number| format!("line {number}\n")).collect();
    let found = scanned(&grep("line (4|6|20)$", 2, 10), &[output.as_bytes()]);
    let numbers: Vec<u64> = found.lines.iter().map(|line| line.number).collect();
    assert_eq!(numbers, [2, 3, 4, 5, 6, 7, 8, 18, 19, 20, 21, 22]);
    assert_eq!((found.matching_lines, found.left_out, found.total_lines), (3, 0, 30));
    let matched: Vec<u64> = found.lines.iter().filter(|line| line.matched).map(|line| line.number).collect();
    assert_eq!(matched, [4, 6, 20]);
}

#[test]
fn matches_beyond_the_limit_are_counted() {
    let output = "match\nother\n".repeat(5000);
    let found = scanned(&grep("match", 0, 10), &[output.as_bytes()]);
    assert_eq!((found.lines.len(), found.matching_lines, found.left_out), (10, 5000, 4990));
    // The context of the last match ends where a match begins that is not shown.
    let found = scanned(&grep("match", 5, 1), &[output.as_bytes()]);
    assert_eq!(shown(&found), ["1:match", "2-other"]);
}

#[test]
fn what_is_found_has_a_bounded_size() {
    let output = format!("{}\n", "é".repeat(1900)).repeat(1000);
    for scan in [lines(0, 1000), lines(-1000, 1000), grep("é", 0, 1000), grep("é", 20, 1000)] {
        let found = scanned(&scan, &[output.as_bytes()]);
        let cost: usize = found.lines.iter().map(Line::cost).sum();
        assert!(cost <= SCANNED_BYTES && cost > SCANNED_BYTES - 8000, "{cost}");
        assert_eq!(found.left_out + found.lines.len() as u64, 1000);
    }
    // The newest lines are kept of a selection from the end.
    assert_eq!(scanned(&lines(-1000, 1000), &[output.as_bytes()]).lines.last().unwrap().number, 1000);
}

#[test]
fn long_lines_are_cut_around_the_match() {
    let output = format!("{}needle{}\nnext\n", "x".repeat(100_000), "y".repeat(1_000_000));
    let found = scanned(&grep("needle", 0, 9), &[output.as_bytes()]);
    let line = &found.lines[0];
    assert!(line.text.starts_with(&"x".repeat(500)) && line.text[500..].starts_with("needleyyy"));
    assert_eq!((line.text.len() as u64 + line.left_out, line.end), (1_100_006, 1_100_007));
    let first = &scanned(&lines(0, 1), &[output.as_bytes()]).lines[0];
    assert_eq!((first.text.len(), first.left_out), (2000, 1_100_006 - 2000));
    // Wherever the match is in the long line, and however the line is cut.
    for at in [0, 24_576, 32_765, 32_768, 65_530, 65_536, 99_994] {
        let line = format!("{}needle{}", "x".repeat(at), "x".repeat(99_994 - at));
        let pieces: Vec<&[u8]> = line.as_bytes().chunks(7001).collect();
        assert_eq!(scanned(&grep("needle", 0, 9), &pieces).matching_lines, 1, "{at}");
        assert_eq!(scanned(&grep("^needle", 0, 9), &pieces).matching_lines, u64::from(at == 0), "{at}");
        assert_eq!(scanned(&grep("needle$", 0, 9), &pieces).matching_lines, u64::from(at == 99_994), "{at}");
    }
}

#[test]
fn streams_are_told_apart() {
    let scan = |stream| {
        let mut scanner = Scanner::new(&Scan { stream, ..lines(0, 9) });
        for (offset, stream, text) in [
            (0, Stream::Stdout, "o1\no"),
            (4, Stream::Stderr, "e1\n"),
            (7, Stream::Stdout, "2\n"),
            (9, Stream::Stderr, "e2"),
        ] {
            scanner.push(offset, stream, text.as_bytes());
        }
        scanner.finish()
    };
    assert_eq!(shown(&scan(Some(Stream::Stdout))), ["1-o1", "2-o2"]);
    assert_eq!(shown(&scan(Some(Stream::Stderr))), ["1-e1", "2-e2"]);
    let both = scan(None);
    assert_eq!(shown(&both), ["1-o1", "2-oe1", "3-2", "4-e2"]);
    let streams: Vec<Stream> = both.lines.iter().map(|line| line.stream).collect();
    assert_eq!(streams, [Stream::Stdout, Stream::Both, Stream::Stdout, Stream::Stderr]);
    assert_eq!(both.position, 11);
}

#[test]
fn missing_output_ends_a_line() {
    let mut scanner = Scanner::new(&lines(0, 9));
    scanner.push(0, Stream::Both, b"a\nb");
    scanner.push(100, Stream::Both, b"c\nd\n");
    let found = scanner.finish();
    assert_eq!(shown(&found), ["1-a", "2-b", "3-c", "4-d"]);
    assert_eq!((found.lines[1].end, found.lines[2].offset), (3, 100));
}

#[test]
fn memory_is_bounded_by_what_is_found() {
    let mut scanner = Scanner::new(&grep("(?s)x.*needle", 20, 1000));
    let piece = vec![b'x'; 1 << 20];
    for round in 0..20 {
        scanner.push(round << 20, Stream::Both, &piece);
        assert!(scanner.assembly.held() < 300 * 1024, "{}", scanner.assembly.held());
    }
    assert_eq!(scanner.finish().lines, []);
}

fn output() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\x1b[31m".to_vec()),
        Just("é€".as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..3),
        "[ab]{0,4}".prop_map(String::into_bytes),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn pieces_change_nothing_that_is_found(output in output(), cut in 0usize..200, offset in -9i64..9, context in 0usize..3) {
        let cut = cut.min(output.len());
        for scan in [lines(offset, 5), grep("a+b?$|é", context, 3)] {
            let whole = scanned(&scan, &[&output]);
            prop_assert_eq!(&scanned(&scan, &[&output[..cut], &output[cut..]]), &whole);
            let bytes: Vec<&[u8]> = output.chunks(1).collect();
            prop_assert_eq!(scanned(&scan, &bytes), whole);
        }
    }

    #[test]
    fn every_matching_line_is_found_and_counted(output in "[ab\n]{0,200}", context in 0usize..4, most in 1usize..6) {
        let found = scanned(&grep("^a+$", context, most), &[output.as_bytes()]);
        let all: Vec<&str> = output.split_inclusive('\n').map(|line| line.trim_end_matches('\n')).collect();
        let matching: Vec<usize> = (1..=all.len())
            .filter(|number| !all[number - 1].is_empty() && all[number - 1].chars().all(|c| c == 'a'))
            .collect();
        prop_assert_eq!(found.matching_lines, matching.len() as u64);
        prop_assert_eq!(found.left_out, matching.len().saturating_sub(most) as u64);
        prop_assert_eq!(found.total_lines, all.len() as u64);
        // As grep does it: each line within the context of a match that is shown, once, in order.
        let end = matching.get(most).copied().unwrap_or(usize::MAX);
        let kept = &matching[..matching.len().min(most)];
        let expected: Vec<u64> = (1..=all.len())
            .filter(|number| *number < end && kept.iter().any(|at| at.saturating_sub(context) <= *number && *number <= at + context))
            .map(|number| number as u64)
            .collect();
        prop_assert_eq!(found.lines.iter().map(|line| line.number).collect::<Vec<_>>(), expected);
        for line in &found.lines {
            let (from, to) = (usize::try_from(line.offset).unwrap(), usize::try_from(line.end).unwrap());
            prop_assert_eq!(output[from..to].trim_end_matches('\n'), &line.text);
        }
    }
}
