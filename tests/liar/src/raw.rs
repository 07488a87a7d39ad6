//! Lies below the protocol: bytes that are not HTTP/2, or not gRPC, or never come.

use std::{
    convert::Infallible,
    io::{self, Read as _, Write as _},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::Frame;

/// An empty HTTP/2 SETTINGS frame, which a server sends first.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// A PING frame.
const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
/// A SETTINGS frame that changes the initial window.
const WINDOW: [u8; 15] = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 255, 255];
/// A HEADERS frame without END_HEADERS, and a CONTINUATION frame that another one follows. Each sets one header named `a`.
const HEADERS: [u8; 14] = [0, 0, 5, 1, 0, 0, 0, 0, 1, 0x88, 0x40, 1, b'a', 0];
const CONTINUATION: [u8; 13] = [0, 0, 4, 9, 0, 0, 0, 0, 1, 0x00, 1, b'a', 0];

/// Tells a lie of this kind to its end. Returns false when `lie` is of another kind.
pub(crate) fn tell(lie: &str) -> bool {
    match lie {
        "silent" => listen(),
        "mute" => {
            say(&SETTINGS);
            listen();
        }
        "slow" => {
            for byte in SETTINGS.into_iter().cycle() {
                if !say(&[byte]) {
                    break;
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        "half_close" => {
            say(&SETTINGS);
            if let Ok(nothing) = std::fs::File::options().write(true).open("/dev/null") {
                let _ = rustix::stdio::dup2_stdout(nothing);
            }
            listen();
        }
        "garbage" => {
            let mut state = 0x9e37_79b9_7f4a_7c15_u64;
            let noise: Vec<u8> = std::iter::repeat_with(|| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[3]
            })
            .take(64 * 1024)
            .collect();
            say(&[0]);
            flood(&noise);
        }
        "endless_words" => flood(&b"I am not a bridge, and I go on about it. ".repeat(1000)),
        "ping_flood" => {
            say(&SETTINGS);
            flood(&PING.repeat(1000));
        }
        "settings_flood" => flood(&WINDOW.repeat(1000)),
        "header_flood" => {
            say(&SETTINGS);
            say(&HEADERS);
            flood(&CONTINUATION.repeat(1000));
        }
        _ => return false,
    }
    true
}

fn say(bytes: &[u8]) -> bool {
    let mut stdout = io::stdout();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).is_ok()
}

/// Sends the same bytes again and again, as fast as the server reads them. Ignores what the server sends.
fn flood(bytes: &[u8]) {
    while say(bytes) {}
}

/// Reads until the server closes the connection.
fn listen() {
    let mut heard = [0; 4096];
    while matches!(io::stdin().read(&mut heard), Ok(1..)) {}
}

/// A response that never ends.
pub(crate) struct Endless {
    first: Option<Bytes>,
    rest: Bytes,
}

impl Endless {
    /// The response to this call, if the lie is about it.
    pub(crate) fn of(lie: &str, path: &str) -> Option<Self> {
        let hello = path.ends_with("/Hello");
        let call = path.ends_with("/Probe") || path.ends_with("/Signal") || path.ends_with("/StatFile");
        match lie {
            // One message that claims 4 GiB.
            "huge_hello" if hello => Some(Self::message(&[0, 255, 255, 255, 255], 0)),
            "huge_answers" if call => Some(Self::message(&[0, 255, 255, 255, 255], 0)),
            // Empty messages without end.
            "endless_hello" if hello => Some(Self::message(&[0, 0, 0, 0, 0], 0)),
            "endless_answers" if call => Some(Self::message(&[0, 0, 0, 0, 0], 0)),
            // A message flagged as compressed.
            "noise_in_answers" if call => Some(Self::message(&[7], 0xa5)),
            _ => None,
        }
    }

    fn message(head: &[u8], filling: u8) -> Self {
        // Each 5 zeros are one empty message.
        Self { first: Some(Bytes::copy_from_slice(head)), rest: vec![filling; 5 * 3000].into() }
    }
}

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.first.take().unwrap_or_else(|| self.rest.clone());
        Poll::Ready(Some(Ok(Frame::data(next))))
    }
}
