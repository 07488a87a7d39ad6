//! Output: live, read later, in pieces, and never blocking the command.

use errand_bridge::{Piece, ReadError, Report};
use errand_task::{Ending, Gap, TaskSpec, sentinel::Sentinel};
use tokio::time::{Instant, timeout};

use super::bench::{Bench, DEADLINE, bytes_of, ending_of, is_end, read, text, until};

pub async fn dead_stream_disturbs_neither_command_nor_log(bench: Bench) {
    let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i + 1)); done; sleep 0.5; echo last; exit 6";
    let (id, nonce, mut attachment) = bench.launch(&text(script)).await;
    until(&mut attachment, "the start", |report| matches!(report, Report::Started { .. })).await;
    drop(attachment);
    let finding = bench.probe_until(id, nonce, "the exit file", |finding| finding.sentinel != Sentinel::Absent).await;
    assert_eq!(finding.sentinel, Sentinel::Complete(Ending::Exited(6)));
    let log = String::from_utf8(bench.log(id).await).unwrap();
    assert_eq!(log.lines().count(), 2001);
    assert!(log.ends_with("line 1999\nlast\n"));
}

pub async fn unread_attachment_does_not_slow_the_command(bench: Bench) {
    // More bytes than all pipes between the command and the reader hold.
    let (id, nonce, attachment) = bench.launch(&text("head -c 20000000 /dev/zero; exit 2")).await;
    let finding = bench.probe_until(id, nonce, "the exit file", |finding| finding.sentinel != Sentinel::Absent).await;
    assert_eq!(finding.sentinel, Sentinel::Complete(Ending::Exited(2)));
    bench.probe_until(id, nonce, "the whole log", |finding| finding.output_bytes == 20_000_000).await;
    let ran = timeout(DEADLINE, read(attachment)).await.expect("the stream ends");
    // The bridge may tell a reader that is far behind to read the log.
    let output = if ran.skipped { bench.log(id).await } else { ran.output };
    assert_eq!((output.len(), ran.over), (20_000_000, Some((20_000_000, false))));
}

pub async fn attachment_starts_at_any_byte(bench: Bench) {
    let script = "echo 0123456789; until [ -e /tmp/go ]; do sleep 0.1; done; echo more; exit 8";
    let (id, nonce, mut attachment) = bench.launch(&text(script)).await;
    until(&mut attachment, "output", |report| matches!(report, Report::Output(_))).await;
    drop(attachment);
    let mut attachment = bench.bridge.attach(id, nonce, 5, &[]).await.unwrap();
    let report = until(&mut attachment, "the old output", |report| matches!(report, Report::Output(_))).await;
    assert_eq!(bytes_of(report), (5, b"56789\n".to_vec()));
    bench.sh("touch /tmp/go").await;
    let report = until(&mut attachment, "the end", |report| matches!(report, Report::Over { .. })).await;
    assert_eq!(report, Report::Over { bytes: 16, incomplete: false, gap: None });
    assert_eq!(bench.probe(id, nonce).await.sentinel, Sentinel::Complete(Ending::Exited(8)));
}

pub async fn output_is_seen_while_the_command_runs(bench: Bench) {
    let (_, _, mut attachment) =
        bench.launch(&text("echo first; until [ -e /tmp/seen ]; do sleep 0.1; done; echo second; sleep 60")).await;
    let report = until(&mut attachment, "the first line", |report| matches!(report, Report::Output(_))).await;
    assert_eq!(bytes_of(report), (0, b"first\n".to_vec()));
    attachment.follow().await.unwrap();
    bench.sh("touch /tmp/seen").await;
    let report = until(&mut attachment, "the second line", |report| matches!(report, Report::Output(_))).await;
    assert_eq!(bytes_of(report), (6, b"second\n".to_vec()));
}

pub async fn daemon_holding_output_does_not_delay_the_end(bench: Bench) {
    let script = "(until [ -e /tmp/later ]; do sleep 0.1; done; echo from the daemon) & echo done; exit 1";
    let (id, _, mut attachment) = bench.launch(&text(script)).await;
    let report = until(&mut attachment, "the end", is_end).await;
    assert_eq!(ending_of(report), Some(Ending::Exited(1)));
    bench.sh("touch /tmp/later").await;
    let deadline = Instant::now() + DEADLINE;
    while !bench.log(id).await.ends_with(b"from the daemon\n") {
        assert!(Instant::now() < deadline, "the daemon's output goes on into the log");
    }
}

pub async fn removed_log_is_reported_beside_the_result(bench: Bench) {
    let (id, nonce, mut attachment) =
        bench.launch(&text("echo a; until [ -e /tmp/gone ]; do sleep 0.1; done; exit 5")).await;
    until(&mut attachment, "output", |report| matches!(report, Report::Output(_))).await;
    bench.sh(&format!("rm -rf {}/{id}; touch /tmp/gone", bench.root)).await;
    let report = until(&mut attachment, "the end", is_end).await;
    assert_eq!(ending_of(report), Some(Ending::Exited(5)));
    let piece = Piece::Tail { limit: 10 };
    assert!(matches!(bench.bridge.read(id, piece).await, Err(ReadError::Gone)));
    assert!(!bench.probe(id, nonce).await.directory);
}

pub async fn log_is_read_by_range_and_tail(bench: Bench) {
    let id = bench.run(&text("printf 0123456789")).await.id.unwrap();
    for (piece, start, expected) in [
        (Piece::From { offset: 0, limit: 4 }, 0, "0123"),
        (Piece::From { offset: 8, limit: 100 }, 8, "89"),
        (Piece::From { offset: 10, limit: 4 }, 10, ""),
        (Piece::From { offset: 99, limit: 4 }, 99, ""),
        (Piece::Tail { limit: 3 }, 7, "789"),
        (Piece::Tail { limit: 100 }, 0, "0123456789"),
    ] {
        let reader = bench.bridge.read(id, piece).await.unwrap();
        assert_eq!((reader.size, reader.start), (10, start), "{piece:?}");
        assert_eq!(reader.bytes().await.unwrap(), expected.as_bytes(), "{piece:?}");
    }
}

/// The output of `seq 1 100000`, in which the content of each part shows its position.
fn numbers(size: u64) -> Vec<u8> {
    let all = (1..=100_000).flat_map(|number| format!("{number}\n").into_bytes());
    all.take(usize::try_from(size).unwrap()).collect()
}

/// A command that prints this many bytes of it, in pieces of many sizes, and exits with a code of its own.
fn printing(size: u64, limit: u64) -> TaskSpec {
    let command = format!("seq 1 100000 | head -c {size} | {{ dd bs=1000 count=5 2>/dev/null; cat; }} && exit 7");
    TaskSpec { output_limit: limit, ..text(&command) }
}

pub async fn output_up_to_the_limit_is_kept_whole(bench: Bench) {
    for (size, limit) in [(65_535, 65_536), (65_536, 65_536), (200_000, 200_001), (200_001, 200_001), (300_000, 0)] {
        let (id, nonce, attachment) = bench.launch(&printing(size, limit)).await;
        let ran = timeout(DEADLINE, read(attachment)).await.expect("the stream ends");
        assert_eq!((ran.ending, ran.over), (Some(Ending::Exited(7)), Some((size, false))), "{size} of {limit}");
        assert!(bench.log(id).await == numbers(size), "{size} of {limit}");
        let finding = bench.probe(id, nonce).await;
        assert_eq!((finding.output_bytes, finding.gap, finding.incomplete), (size, None, false));
    }
}

pub async fn output_beyond_the_limit_keeps_both_ends(bench: Bench) {
    for (size, limit) in [(65_537, 65_536), (200_002, 200_001), (200_300, 200_001), (450_000, 65_536)] {
        let (id, nonce, mut attachment) = bench.launch(&printing(size, limit)).await;
        let report =
            until(&mut attachment, "the end of the output", |report| matches!(report, Report::Over { .. })).await;
        let Report::Over { bytes, incomplete: false, gap: Some(gap) } = report else { panic!("{report:?}") };
        assert_eq!((bytes, gap.end - gap.start), (size, size - limit), "{gap:?}");
        let finding = bench.probe(id, nonce).await;
        assert_eq!((finding.output_bytes, finding.gap, finding.incomplete), (size, Some(gap), false));
        assert_eq!(finding.sentinel, Sentinel::Complete(Ending::Exited(7)));
        let whole = numbers(size);
        let bytes_of =
            |from: u64, until: u64| whole[usize::try_from(from).unwrap()..usize::try_from(until).unwrap()].to_vec();
        let Gap { start, end } = gap;
        for (piece, expected) in [
            (Piece::From { offset: 0, limit: 1 << 30 }, [bytes_of(0, start), bytes_of(end, size)].concat()),
            (
                Piece::From { offset: start - 3, limit: 4 },
                [bytes_of(start - 3, start), bytes_of(end, end + 1)].concat(),
            ),
            (Piece::From { offset: start, limit: 1 }, bytes_of(end, end + 1)),
            (Piece::From { offset: size - 1, limit: 9 }, bytes_of(size - 1, size)),
            (Piece::From { offset: size, limit: 9 }, Vec::new()),
            (Piece::From { offset: 5, limit: 9 }, bytes_of(5, 14)),
            (Piece::Tail { limit: 1 }, bytes_of(size - 1, size)),
        ] {
            let reader = bench.bridge.read(id, piece).await.unwrap();
            assert_eq!((reader.size, reader.gap), (size, Some(gap)), "{piece:?}");
            let pieces = reader.collect().await.unwrap();
            for piece in &pieces {
                assert!(piece.bytes == bytes_of(piece.offset, piece.end()), "at {}", piece.offset);
            }
            let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect();
            assert!(all == expected, "{piece:?} of {size} with {gap:?}: {} bytes", all.len());
        }
    }
}
