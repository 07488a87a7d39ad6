//! Streams told apart, and logs with a limit.

use errand::{
    bridge::{ExecBridge, Piece},
    task::{Ending, Stream, TaskSpec},
};

use super::place::{EVERYWHERE, Place, Where, text};
use crate::support::{docker::Image, embedded::Root};

#[tokio::test]
async fn streams_are_told_apart_live_and_in_the_log() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        // Each waits until the one before was read.
        let command = "echo one; sleep 0.2; echo two >&2; sleep 0.2; echo three";
        let launched = place.launch(&TaskSpec { separate_stderr: true, ..text(command) }).await;
        let (id, nonce) = (launched.id, launched.nonce);
        let wanted = [(0, Stream::Stdout, "one\n"), (4, Stream::Stderr, "two\n"), (8, Stream::Stdout, "three\n")];
        let ran = launched.ran().await;
        let seen: Vec<_> = ran.pieces.iter().map(|piece| (piece.offset, piece.stream, piece.bytes.as_ref())).collect();
        assert_eq!(seen, wanted.map(|(offset, stream, text)| (offset, stream, text.as_bytes())));
        let launched = super::place::Launched {
            id,
            nonce,
            attachment: place.bridge.attach(&place.sandbox, id, nonce, 0).await.unwrap(),
        };
        assert_eq!(place.log(&launched).await, ran.pieces);
        let piece = Piece::From { offset: 5, limit: 5 };
        let part = place.bridge.read(&place.sandbox, id, piece).await.unwrap().collect().await.unwrap();
        let seen: Vec<_> = part.iter().map(|piece| (piece.offset, piece.stream, piece.bytes.as_ref())).collect();
        assert_eq!(seen, [(5, Stream::Stderr, b"wo\n".as_slice()), (8, Stream::Stdout, b"th".as_slice())]);
    }
}

#[tokio::test]
async fn merged_output_keeps_the_order_of_every_write() {
    for place in [Where::Docker(Image::Debian), Where::Embedded(Root::Host)] {
        let Some(place) = Place::on(place).await else { continue };
        let command = "i=0; while [ $i -lt 1000 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done";
        let ran = place.run(&text(command)).await;
        let wanted: String = (0..1000).map(|i| format!("o{i}\ne{i}\n")).collect();
        assert_eq!(ran.text(), wanted);
    }
}

#[tokio::test]
async fn the_output_limit_keeps_head_and_tail_and_says_what_is_missing() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        let limit = 1 << 20;
        let spec = TaskSpec { output_limit: limit, ..text("seq 1 2000000; exit 3") };
        let launched = place.launch(&spec).await;
        let (id, nonce) = (launched.id, launched.nonce);
        let ran = launched.ran().await;
        let whole: Vec<u8> = (1..=2_000_000).flat_map(|number| format!("{number}\n").into_bytes()).collect();
        assert_eq!((ran.ending.clone(), ran.bytes), (Some(Ending::Exited(3)), Some(whole.len() as u64)));
        let gap = ran.gap.expect("a gap");
        assert!(gap.start >= limit / 2 && whole.len() as u64 - gap.end >= limit * 3 / 8, "{gap:?}");
        let attachment = place.bridge.attach(&place.sandbox, id, nonce, 0).await.unwrap();
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
async fn a_whole_log_passes_unchanged_however_large() {
    for place in [Where::Docker(Image::Debian), Where::Embedded(Root::Host)] {
        let Some(place) = Place::on(place).await else { continue };
        let spec = TaskSpec { output_limit: 0, ..text("seq 1 3000000") };
        let ran = place.run(&spec).await;
        let mut expected = 0;
        let mut position = 0;
        let mut line = Vec::new();
        for piece in &ran.pieces {
            assert_eq!(piece.offset, position);
            position = piece.end();
            for byte in &piece.bytes {
                if *byte == b'\n' {
                    expected += 1;
                    assert_eq!(line, expected.to_string().into_bytes());
                    line.clear();
                } else {
                    line.push(*byte);
                }
            }
        }
        assert_eq!(expected, 3_000_000);
    }
}
