//! Output is searched in the sandbox, beside the log.

use errand_bridge::Report;
use errand_task::{ArmedWatch, Nonce, TaskId, TaskSpec, WatchMatches, WatchPattern};

use super::place::{EVERYWHERE, Launched, Place, SETTINGS, text};
use crate::support::wait::soon;

fn watch(index: u32, pattern: &str, from: u64) -> ArmedWatch {
    ArmedWatch { index, pattern: WatchPattern::Text(pattern.to_owned()), once: false, from }
}

async fn launch(place: &Place, spec: &TaskSpec, watches: &[ArmedWatch]) -> Launched {
    let (id, nonce) = (TaskId::new(), Nonce::new());
    let attachment = place.bridge.launch(id, nonce, spec, SETTINGS, watches).await.unwrap();
    Launched { id, nonce, attachment }
}

/// Reads until the end. Whether the sandbox searches, and what it found before the end: how many matches, and the last position.
async fn found(mut launched: Launched) -> (bool, u64, u64) {
    let (mut watching, mut count, mut last) = (false, 0, 0);
    soon("the end of the command", async {
        loop {
            match launched.attachment.next().await.unwrap() {
                Report::Watching => watching = true,
                Report::Matched { matches, unsearched } => {
                    assert_eq!(unsearched, 0);
                    for WatchMatches { count: more, offset, next, .. } in matches {
                        assert!(last <= offset && offset < next, "{offset} after {last}");
                        (count, last) = (count + more, next);
                    }
                }
                Report::Ended { .. } => return (watching, count, last),
                Report::Broken => panic!("the attachment broke"),
                _ => {}
            }
        }
    })
    .await
}

#[tokio::test]
async fn sandbox_finds_every_match_before_the_end() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        for (command, wanted) in [
            ("echo needle", (true, 1, 6)),
            ("printf need; sleep 0.2; printf 'le '; printf needle; exit 3", (true, 2, 13)),
            ("seq 1 200000 | sed 's/^.*99$/needle/'", (true, 2000, 1_282_890)),
        ] {
            let launched = launch(&place, &text(command), &[watch(0, "needle", 0)]).await;
            let seen = found(launched).await;
            assert_eq!((seen.0, seen.1), (wanted.0, wanted.1), "{command}");
            assert!(wanted.1 > 2 || seen.2 == wanted.2, "{command}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn later_attachment_searches_from_its_own_position() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        let gate = "until [ -e /tmp/watches-go ]; do sleep 0.05; done; rm /tmp/watches-go";
        let mut launched = launch(&place, &text(&format!("echo needle needle; {gate}; echo needle")), &[]).await;
        launched.until_output("needle needle\n").await;
        let (id, nonce) = (launched.id, launched.nonce);
        let attachment = place.bridge.attach(id, nonce, 14, &[watch(0, "needle", 5)]).await.unwrap();
        drop(launched);
        let mut attached = Launched { id, nonce, attachment };
        let searches = |report| (report == Report::Watching).then_some(());
        attached.until("the sandbox searches", searches).await;
        place.sh("touch /tmp/watches-go").await;
        // The second one was printed before, the third one later.
        let (_, count, last) = found(attached).await;
        assert_eq!((count, last), (2, 20));
    }
}
