//! Standard input and terminals.

use bytes::Bytes;
use errand_bridge::{Input, InputError};
use errand_runtime::RuntimeError;
use errand_task::{Ending, Stdin, TaskSpec, TerminalSize};

use super::place::{EVERYWHERE, Place, Where, text};
use crate::support::{docker::Image, embedded::Root};

fn open(command: &str) -> TaskSpec {
    TaskSpec { stdin: Stdin::Open, ..text(command) }
}

fn on_terminal(command: &str) -> TaskSpec {
    TaskSpec { terminal: Some(TerminalSize { rows: 30, columns: 120 }), ..text(command) }
}

#[tokio::test]
async fn command_receives_input_and_its_end() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        let mut launched = place.launch(&open("while read -r line; do echo \"got $line\"; done; exit 3")).await;
        assert_eq!(place.write(&launched, "one\n", false).await.unwrap().taken, 4);
        launched.until_output("got one").await;
        let taken = place.write(&launched, "two\n", true).await.unwrap();
        assert_eq!((taken.taken, taken.ended), (8, true));
        let ran = launched.ran().await;
        assert_eq!((ran.text().as_str(), ran.ending), ("got two\n", Some(Ending::Exited(3))));
    }
}

#[tokio::test]
async fn input_survives_the_server_and_the_bridge() {
    for place in [Where::Docker(Image::Debian), Where::Embedded(Root::Host)] {
        let Some(mut place) = Place::on(place).await else { continue };
        let launched = place.launch(&open("cat")).await;
        place.write(&launched, "one ", false).await.unwrap();
        place.sh("kill -9 $(grep -lx errand-bridge /proc/[0-9]*/comm | cut -d/ -f3)").await;
        place.bridge = place.another();
        // The sender cannot know whether only the answer was lost, so it sends from the same position again.
        let data = Bytes::from_static(b"two\n");
        for _ in 0..2 {
            let input = Input { offset: Some(4), data: data.clone(), end: false };
            assert_eq!(place.bridge.write_input(launched.id, input).await.unwrap().taken, 8);
        }
        place.write(&launched, "", true).await.unwrap();
        let ran = place.attach(&launched, 0).await.ran().await;
        assert_eq!((ran.text().as_str(), ran.ending), ("one two\n", Some(Ending::Exited(0))));
    }
}

#[tokio::test]
async fn input_past_the_end_breaks_no_connection() {
    let Some(place) = Place::on(Image::Busybox).await else { return };
    let mut launched = place.launch(&open("cat")).await;
    let beyond = Input { offset: Some(5), data: Bytes::from_static(b"x"), end: false };
    let refused = place.bridge.write_input(launched.id, beyond).await;
    let Err(InputError::Runtime(RuntimeError::Refused { detail })) = refused else { panic!("{refused:?}") };
    assert!(detail.starts_with("offset:"), "{detail}");
    // The stream of reports is on the same connection.
    place.write(&launched, "one\n", true).await.unwrap();
    launched.until_output("one").await;
    assert_eq!(launched.ran().await.ending, Some(Ending::Exited(0)));
}

#[tokio::test]
async fn unread_input_is_not_taken() {
    for place in [Where::Docker(Image::Debian), Where::Embedded(Root::Host)] {
        let Some(place) = Place::on(place).await else { continue };
        let launched = place.launch(&open("until [ -e /tmp/go ]; do sleep 0.05; done; wc -c")).await;
        let much = "x".repeat(Input::LIMIT);
        // A pipe holds 64 KiB.
        assert_eq!(place.write(&launched, &much, false).await.unwrap().taken, 65536);
        assert_eq!(place.write(&launched, &much, false).await.unwrap().taken, 65536);
        place.sh("touch /tmp/go").await;
        let taken = place.write(&launched, &much, true).await.unwrap();
        assert_eq!((taken.taken, taken.ended), (131_072, true));
        assert_eq!(launched.ran().await.text(), "131072\n");
    }
}

#[tokio::test]
async fn a_command_without_input_refuses_it() {
    let Some(place) = Place::on(Image::Busybox).await else { return };
    let closed = place.launch(&text("cat; sleep 600")).await;
    assert!(matches!(place.write(&closed, "x", false).await, Err(InputError::NotOpen)));
    let size = TerminalSize { rows: 1, columns: 1 };
    let resized = place.bridge.resize_terminal(closed.id, size).await;
    assert!(matches!(resized, Err(InputError::NotOpen)), "{resized:?}");
    let over = place.launch(&open("exit 0")).await;
    let (id, nonce) = (over.id, over.nonce);
    over.ran().await;
    let attachment = place.bridge.attach(id, nonce, 0, &[]).await.unwrap();
    let over = super::place::Launched { id, nonce, attachment };
    assert!(matches!(place.write(&over, "x", false).await, Err(InputError::Closed)));
}

#[tokio::test]
async fn terminal_can_be_resized() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        let command = "test -t 0 && test -t 1 && test -t 2 && echo terminal; stty size; \
                       read -r line; echo \"<$line>\"; stty size; read -r line; exit 7";
        let mut launched = place.launch(&on_terminal(command)).await;
        launched.until_output("terminal\r\n30 120\r\n").await;
        let size = TerminalSize { rows: 50, columns: 99 };
        place.bridge.resize_terminal(launched.id, size).await.unwrap();
        place.write(&launched, "hello\n", false).await.unwrap();
        launched.until_output("<hello>\r\n50 99\r\n").await;
        place.write(&launched, "\n", false).await.unwrap();
        assert_eq!(launched.ran().await.ending, Some(Ending::Exited(7)));
    }
}

#[tokio::test]
async fn control_c_on_a_terminal_interrupts_the_command() {
    for place in [Where::Docker(Image::Debian), Where::Embedded(Root::Host)] {
        let Some(place) = Place::on(place).await else { continue };
        let mut launched = place.launch(&on_terminal("echo ready; exec sleep 600")).await;
        launched.until_output("ready").await;
        place.write(&launched, "\x03", false).await.unwrap();
        let ran = launched.ran().await;
        assert!(matches!(ran.ending, Some(Ending::Signaled(signal)) if signal.number() == 2), "{:?}", ran.ending);
    }
}

#[tokio::test]
async fn end_of_input_reaches_a_terminal_command() {
    for place in [Where::Docker(Image::Debian), Where::Embedded(Root::Host)] {
        let Some(place) = Place::on(place).await else { continue };
        let mut launched = place.launch(&on_terminal("echo ready; cat; exit 4")).await;
        launched.until_output("ready").await;
        place.write(&launched, "line\n", true).await.unwrap();
        assert_eq!(launched.ran().await.ending, Some(Ending::Exited(4)));
    }
}
