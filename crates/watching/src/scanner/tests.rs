//! The same output gives the same matches, however it is cut into pieces.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use proptest::prelude::*;

use super::*;

fn text(text: &str) -> ArmedWatch {
    ArmedWatch { index: 0, pattern: WatchPattern::Text(text.to_owned()), once: false, from: 0 }
}

fn regex(pattern: &str) -> ArmedWatch {
    ArmedWatch { pattern: WatchPattern::Regex(pattern.to_owned()), ..text("") }
}

fn numbered(watches: Vec<ArmedWatch>) -> Vec<ArmedWatch> {
    (0..).zip(watches).map(|(index, watch)| ArmedWatch { index, ..watch }).collect()
}

/// Searches pieces that follow each other. Returns what was found of each watch: how many matches, the first position, and the next one.
fn searched(watches: &[ArmedWatch], pieces: &[&[u8]]) -> Vec<(u32, u64, u64, u64)> {
    let mut scanner = Scanner::new(watches).unwrap();
    let (mut found, mut position) = (Vec::<(u32, u64, u64, u64)>::new(), 0);
    let mut note = |scanner: &mut Scanner| {
        for new in scanner.take() {
            match found.iter_mut().find(|known| known.0 == new.index) {
                Some(known) => (known.1, known.3) = (known.1 + new.count, new.next),
                None => found.push((new.index, new.count, new.offset, new.next)),
            }
        }
    };
    for piece in pieces {
        scanner.push(position, piece);
        position += piece.len() as u64;
        note(&mut scanner);
    }
    scanner.settle();
    note(&mut scanner);
    found.sort_unstable();
    found
}

#[test]
fn comment_in_one_pattern_hides_no_other() {
    let watches = numbered(vec![regex("(?x)a #"), text("b\nc")]);
    let found = searched(&watches, &[b"a\nb\nc\n"]);
    assert_eq!(found.iter().map(|found| (found.0, found.1)).collect::<Vec<_>>(), [(0, 1), (1, 1)]);
}

fn shown(watch: ArmedWatch, pieces: &[&str]) -> (String, bool) {
    let mut scanner = Scanner::new(&[watch]).unwrap();
    let mut position = 0;
    for piece in pieces {
        scanner.push(position, piece.as_bytes());
        position += piece.len() as u64;
    }
    scanner.settle();
    let found = scanner.take().remove(0);
    (String::from_utf8(found.lines).unwrap(), found.cut)
}

#[test]
fn match_is_found_across_pieces() {
    assert_eq!(searched(&[text("ready")], &[b"not re", b"a", b"dy"]), [(0, 1, 4, 9)]);
    let euro = "a€".as_bytes().split_at(2);
    assert_eq!(searched(&[text("€")], &[euro.0, euro.1]), [(0, 1, 1, 4)]);
    let listening = regex(r"^listening on \d+$");
    assert_eq!(searched(&[listening], &[b"x\nlist", b"ening on 80", b"80\nmore"]), [(0, 1, 2, 19)]);
    assert_eq!(searched(&[regex("two\nthree")], &[b"one\ntwo", b"\nthree\n"]), [(0, 1, 4, 13)]);
}

#[test]
fn unfinished_line_matches_without_a_newline() {
    let mut scanner = Scanner::new(&numbered(vec![text("Password:"), regex(r"\? $")])).unwrap();
    scanner.push(0, b"Password:");
    assert!(scanner.is_unsettled() && !scanner.has_found());
    scanner.settle();
    assert_eq!(scanner.take().len(), 1);
    scanner.push(9, b"\nGo on? ");
    assert!(scanner.take().is_empty(), "the line may go on");
    scanner.settle();
    let found = scanner.take();
    assert_eq!((found[0].index, found[0].offset, &found[0].lines[..]), (1, 15, &b"Go on? "[..]));
}

#[test]
fn same_output_never_matches_twice() {
    let piece = b"error error\n";
    assert_eq!(searched(&[text("error")], &[piece, piece]), [(0, 4, 0, 23)]);
    // Overlapping occurrences count once.
    assert_eq!(searched(&[text("aa")], &[b"aa", b"a", b"aa"]), [(0, 2, 0, 4)]);
    let mut scanner = Scanner::new(&[text("error")]).unwrap();
    scanner.push(0, piece);
    scanner.push(0, piece);
    scanner.push(6, b"error\n");
    assert_eq!(scanner.take()[0].count, 2, "output that is pushed again is not searched again");
}

#[test]
fn search_begins_at_each_own_position() {
    let at = |from, watch: ArmedWatch| ArmedWatch { from, ..watch };
    let watches =
        numbered(vec![at(1, text("ready")), at(6, regex("^ready")), at(7, text("ready")), at(1, regex("^eady"))]);
    assert_eq!(searched(&watches, &[b"ready\nready\n"]), [(0, 1, 6, 11), (1, 1, 6, 11)]);
}

#[test]
fn once_ends_a_watch_and_no_other() {
    let once = ArmedWatch { once: true, ..text("a") };
    let watches = numbered(vec![once.clone(), text("a"), regex("b+")]);
    assert_eq!(searched(&watches, &[b"a a", b" a bb a"]), [(0, 1, 0, 1), (1, 4, 0, 10), (2, 1, 6, 8)]);
    let mut scanner = Scanner::new(&[once]).unwrap();
    scanner.push(0, b"a");
    assert!(scanner.is_done());
}

#[test]
fn no_match_spans_a_gap() {
    let mut scanner = Scanner::new(&[text("ab")]).unwrap();
    scanner.push(0, b"a");
    scanner.push(9, b"b ab");
    scanner.settle();
    let found = scanner.take();
    assert_eq!((found.len(), found[0].offset, found[0].count), (1, 11, 1));
}

#[test]
fn memory_is_bounded_at_any_output() {
    let watches = numbered(vec![regex("(?s)x.*y"), text("never"), regex("x")]);
    let mut scanner = Scanner::new(&watches).unwrap();
    let piece = vec![b'x'; 64 * 1024];
    for round in 0..100 {
        scanner.push(round * piece.len() as u64, &piece);
        assert!(scanner.buffer.len() <= 2 * (LONGEST + CONTEXT), "{}", scanner.buffer.len());
    }
    for size in 1..2000 {
        scanner.push(scanner.position(), &piece[..size]);
        assert!(scanner.buffer.len() <= 4 * (LONGEST + CONTEXT), "{}", scanner.buffer.len());
    }
    scanner.settle();
    let lines: usize = scanner.take().iter().map(|found| found.lines.len()).sum();
    assert!(lines <= TEXT_LIMIT);
}

#[test]
fn shown_lines_are_those_of_the_matches() {
    assert_eq!(
        shown(text("ready"), &["one\nserver re", "ady on 80", "80\nnext"]),
        ("server ready on 8080".to_owned(), false)
    );
    assert_eq!(shown(text("50%"), &["10%\r50%\r100%\n"]), ("50%".to_owned(), false));
    assert_eq!(shown(text("error"), &["error 1 error\nok\nerror 2\n"]), ("error 1 error\nerror 2".to_owned(), false));
    assert_eq!(shown(regex("two\nthree"), &["one two\nthree four\n"]), ("one two\nthree four".to_owned(), false));
    let (line, cut) = shown(text("ready"), &[&format!("{}ready{}", "a".repeat(5000), "b".repeat(20_000))]);
    assert!(line.contains("ready") && cut && line.len() == TEXT_LIMIT, "{}", line.len());
    let many: Vec<String> = (0..100).map(|number| format!("error {number}\n")).collect();
    assert_eq!(shown(text("error"), &[&many.concat()]).0.lines().count(), 20);
}

#[test]
fn patterns_that_do_not_join_are_searched_alone() {
    let watches = numbered(vec![regex("(?x) a b # a comment"), text("c")]);
    assert_eq!(searched(&watches, &[b"c ab c"]), [(0, 1, 2, 4), (1, 2, 0, 6)]);
    // Empty matches count for nothing.
    assert_eq!(searched(&[regex(r"\b")], &[b"two words"]), []);
}

/// Every match of a pattern, each after the one before it.
fn all(pattern: &WatchPattern, output: &str) -> (u64, Option<u64>) {
    let compiled = compile(pattern).unwrap();
    let found: Vec<u64> = compiled.find_iter(output.as_bytes()).map(|found| found.start() as u64).collect();
    (found.len() as u64, found.first().copied())
}

fn cut(output: &str, mut cuts: Vec<usize>) -> Vec<&[u8]> {
    cuts.iter_mut().for_each(|at| *at = (*at).min(output.len()));
    cuts.extend([0, output.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| &output.as_bytes()[cut[0]..cut[1]]).collect()
}

proptest! {
    #[test]
    fn pieces_change_no_match(output in "[ab\n]{0,60}", cuts in prop::collection::vec(0usize..60, 0..6)) {
        let watches = numbered(vec![text("ab"), text("aab"), regex("a+b"), regex("^a"), regex("b$"), regex("a\nb|ba"), regex(r"\ba+\b")]);
        let found = searched(&watches, &cut(&output, cuts));
        for watch in &watches {
            let (count, first) = all(&watch.pattern, &output);
            let of_watch = found.iter().find(|found| found.0 == watch.index);
            prop_assert_eq!(of_watch.map_or(0, |found| found.1), count, "{:?} in {:?}", watch.pattern, output);
            prop_assert_eq!(of_watch.map(|found| found.2), first);
        }
    }

    #[test]
    fn large_pieces_change_no_match(seed in any::<u64>(), cuts in prop::collection::vec(0usize..60_000, 0..8)) {
        // Words at irregular distances, some of them across the places at which the scanner splits a piece.
        let mut output = String::new();
        let mut number = seed;
        while output.len() < 60_000 {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            output.push_str(["x", "needle", "\n", "number 17 ", "xxxxxxxxxxxxxxxx"][(number >> 33) as usize % 5]);
        }
        let watches = numbered(vec![text("needle"), regex(r"number \d+"), regex("needle\n+x"), text("absent")]);
        let found = searched(&watches, &cut(&output, cuts));
        for watch in &watches {
            let count = found.iter().find(|found| found.0 == watch.index).map_or(0, |found| found.1);
            prop_assert_eq!(count, all(&watch.pattern, &output).0, "{:?}", watch.pattern);
        }
    }
}
