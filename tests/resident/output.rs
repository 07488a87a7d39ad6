//! Separate output streams, and logs with a limit.

use errand_bridge::{OutputPiece, Piece};
use errand_task::{Ending, Gap, Stream, TaskSpec, sentinel::Sentinel};

use super::place::{EVERYWHERE, Place, Where, text};
use crate::support::{docker::Image, embedded::Root};

#[tokio::test]
async fn streams_are_separate_live_and_in_logs() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        // Each output waits until the previous one was read.
        let command = "echo one; sleep 0.2; echo two >&2; sleep 0.2; echo three";
        let launched = place.launch(&TaskSpec { separate_stderr: true, ..text(command) }).await;
        let (id, nonce) = (launched.id, launched.nonce);
        let wanted = [(0, Stream::Stdout, "one\n"), (4, Stream::Stderr, "two\n"), (8, Stream::Stdout, "three\n")];
        let ran = launched.ran().await;
        let seen: Vec<_> = ran.pieces.iter().map(|piece| (piece.offset, piece.stream, piece.bytes.as_ref())).collect();
        assert_eq!(seen, wanted.map(|(offset, stream, text)| (offset, stream, text.as_bytes())));
        let launched =
            super::place::Launched { id, nonce, attachment: place.bridge.attach(id, nonce, 0, &[]).await.unwrap() };
        assert_eq!(place.log(&launched).await, ran.pieces);
        let piece = Piece::From { offset: 5, limit: 5 };
        let part = place.bridge.read(id, piece).await.unwrap().collect().await.unwrap();
        let seen: Vec<_> = part.iter().map(|piece| (piece.offset, piece.stream, piece.bytes.as_ref())).collect();
        assert_eq!(seen, [(5, Stream::Stderr, b"wo\n".as_slice()), (8, Stream::Stdout, b"th".as_slice())]);
    }
}

#[tokio::test]
async fn prompt_after_much_output_is_seen() {
    for place in [Where::Docker(Image::Debian), Where::Embedded(Root::Host)] {
        let Some(place) = Place::on(place).await else { continue };
        let mut launched = place.launch(&text("seq 1 300000; printf 'Go on? '; sleep 600")).await;
        launched.until_output("\n300000\nGo on? ").await;
        assert!(place.find(&launched).await.alive, "only its end brought it");
    }
}

#[tokio::test]
async fn merged_output_keeps_the_write_order() {
    for place in [Where::Docker(Image::Debian), Where::Embedded(Root::Host)] {
        let Some(place) = Place::on(place).await else { continue };
        let command = "i=0; while [ $i -lt 1000 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done";
        let ran = place.run(&text(command)).await;
        let wanted: String = (0..1000).map(|i| format!("o{i}\ne{i}\n")).collect();
        assert_eq!(ran.text(), wanted);
    }
}

#[tokio::test]
async fn output_limit_keeps_head_tail_and_gap() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        let limit = 1 << 20;
        let spec = TaskSpec { output_limit: limit, ..text("seq 1 2000000; exit 3") };
        let launched = place.launch(&spec).await;
        let (id, nonce) = (launched.id, launched.nonce);
        let ran = launched.ran().await;
        let whole: Vec<u8> = (1..=2_000_000).flat_map(|number| format!("{number}\n").into_bytes()).collect();
        assert_eq!((ran.ending.clone(), ran.bytes), (Some(Ending::Exited(3)), Some(whole.len() as u64)));
        assert_eq!(ran.gap, Some(Gap { start: limit / 2, end: whole.len() as u64 - limit / 2 }));
        let attachment = place.bridge.attach(id, nonce, 0, &[]).await.unwrap();
        let pieces = place.log(&super::place::Launched { id, nonce, attachment }).await;
        for piece in pieces.iter().chain(&ran.pieces) {
            let start = usize::try_from(piece.offset).unwrap();
            assert_eq!(piece.bytes, whole[start..start + piece.bytes.len()]);
        }
        assert_eq!(pieces.last().map(|piece| piece.end()), Some(whole.len() as u64));
        let kilobytes = place.sh(&format!("du -k /tmp/errand/{id}/output.log | cut -f1")).await;
        let kilobytes: u64 = kilobytes.trim().parse().unwrap();
        assert!(kilobytes <= limit / 1024 + 64, "{kilobytes} kB on the disk");
    }
}

#[tokio::test]
async fn output_up_to_the_limit_is_kept_whole() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        let limit = 200_001;
        for separate_stderr in [false, true] {
            for size in [limit - 1, limit, limit + 1, limit + 70_000, 3 * limit] {
                let command = format!("head -c {} /dev/zero; head -c {} /dev/zero >&2", size / 3, size - size / 3);
                let spec = TaskSpec { output_limit: limit, separate_stderr, ..text(&command) };
                let launched = place.launch(&spec).await;
                let (id, nonce) = (launched.id, launched.nonce);
                let ran = launched.ran().await;
                let gap = (size > limit).then(|| Gap { start: limit / 2, end: size - limit.div_ceil(2) });
                assert_eq!((ran.bytes, ran.gap), (Some(size), gap), "{size} {separate_stderr}");
                let attachment = place.bridge.attach(id, nonce, 0, &[]).await.unwrap();
                let pieces = place.log(&super::place::Launched { id, nonce, attachment }).await;
                let kept: usize = pieces.iter().map(|piece| piece.bytes.len()).sum();
                assert_eq!(kept as u64, size.min(limit), "{size} {separate_stderr}");
            }
        }
    }
}

/// The first and the last position of these pieces of the output of `seq 1 3000000`. Checks that each piece matches its position.
fn check_numbers(pieces: &[OutputPiece]) -> (u64, u64) {
    let whole: Vec<u8> = (1..=3_000_000).flat_map(|number| format!("{number}\n").into_bytes()).collect();
    for piece in pieces {
        let start = usize::try_from(piece.offset).unwrap();
        assert!(piece.bytes == whole[start..start + piece.bytes.len()], "at {start}");
    }
    (pieces[0].offset, whole.len() as u64)
}

#[tokio::test]
async fn large_log_passes_unchanged() {
    for place in [Where::Docker(Image::Debian), Where::Embedded(Root::Host)] {
        let Some(place) = Place::on(place).await else { continue };
        let launched = place.launch(&TaskSpec { output_limit: 0, ..text("seq 1 3000000") }).await;
        place.find_until(&launched, "the end", |finding| !matches!(finding.sentinel, Sentinel::Absent)).await;
        let pieces = place.log(&launched).await;
        assert!(pieces.windows(2).all(|pair| pair[0].end() == pair[1].offset));
        let (begin, end) = check_numbers(&pieces);
        assert_eq!((begin, pieces.last().map(OutputPiece::end)), (0, Some(end)));
    }
}

#[tokio::test]
async fn slow_follower_gets_tail_and_end_at_once() {
    for place in [Where::Docker(Image::Debian), Where::Embedded(Root::Host)] {
        let Some(place) = Place::on(place).await else { continue };
        let launched = place.launch(&TaskSpec { output_limit: 0, ..text("seq 1 3000000") }).await;
        // The attachment is not read before all of the output was printed.
        place.find_until(&launched, "the end", |finding| !matches!(finding.sentinel, Sentinel::Absent)).await;
        let ran = launched.ran().await;
        let (_, end) = check_numbers(&ran.pieces);
        assert_eq!((ran.ending, ran.bytes), (Some(Ending::Exited(0)), Some(end)));
        let skip = *ran.skips.last().expect("something was left out");
        assert!(end - skip <= 256 * 1024, "{} bytes after the last skip", end - skip);
        let carried: usize = ran.pieces.iter().map(|piece| piece.bytes.len()).sum();
        assert!(carried < 12 << 20, "{carried} of {end} bytes were carried");
        let mut position = 0;
        for piece in &ran.pieces {
            assert!(piece.offset == position || ran.skips.contains(&piece.offset), "{position}: {piece:?}");
            position = piece.end();
        }
        assert_eq!(position, end);
    }
}
