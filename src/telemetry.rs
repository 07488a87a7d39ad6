//! Writes the server's own log lines to standard error, as text or as JSON. Standard output belongs to the command line.
//!
//! Logged values may come from a sandbox. No value can begin a new line or contain a terminal escape sequence, and in text none is longer
//! than [`LONGEST`].

use std::{
    fmt::{self, Write as _},
    io::{self, IsTerminal as _},
};

use tracing::field::Field;
use tracing_subscriber::{
    EnvFilter,
    field::MakeExt as _,
    filter::ParseError,
    fmt::{MakeWriter, format},
};

use crate::config::LogFormat;

/// The longest value in text format, in bytes.
const LONGEST: usize = 4096;

/// Starts writing log lines. Only the first call in a process has an effect.
///
/// # Errors
/// When `filter` is invalid.
pub fn init(format: LogFormat, filter: &str) -> Result<(), ParseError> {
    // At finer levels, the Docker client prints whole requests and answers: commands, environments and output.
    let filter = EnvFilter::try_new(filter)?.add_directive("bollard=info".parse()?);
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    let begun = match format {
        LogFormat::Text => {
            let fields = format::debug_fn(field).delimited(" ");
            builder.with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).fmt_fields(fields).try_init()
        }
        LogFormat::Json => builder.with_writer(AsciiControl).json().try_init(),
    };
    // A later call fails here; the subscriber of the first call stays active.
    drop(begun);
    Ok(())
}

/// Writes one field in text format.
fn field(writer: &mut format::Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(writer, "{}=", field.name())?;
    }
    // A value that is too long ends the inner write with an error; here it is only cut.
    let mut harmless = Harmless { writer, left: LONGEST, cut: false };
    match write!(harmless, "{value:?}") {
        Err(_) if harmless.cut => writer.write_str("…"),
        other => other,
    }
}

/// Writes untrusted text: replaces characters that could end a line, control a terminal or change the reading direction by their number.
struct Harmless<'a, W> {
    writer: &'a mut W,
    left: usize,
    cut: bool,
}

impl<W: fmt::Write> fmt::Write for Harmless<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            let size = if is_harmful(letter) { letter.escape_default().len() } else { letter.len_utf8() };
            match self.left.checked_sub(size) {
                Some(left) => self.left = left,
                None => {
                    self.cut = true;
                    return Err(fmt::Error);
                }
            }
            match is_harmful(letter) {
                true => write!(self.writer, "{}", letter.escape_default())?,
                false => self.writer.write_char(letter)?,
            }
        }
        Ok(())
    }
}

/// Control characters, line separators, and direction marks.
fn is_harmful(letter: char) -> bool {
    let marks = ['\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{061c}', '\u{feff}'];
    letter.is_control()
        || marks.contains(&letter)
        || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Standard error for JSON lines. JSON already escapes the lower control characters; the remaining ones occur only inside strings.
struct AsciiControl;

impl<'a> MakeWriter<'a> for AsciiControl {
    type Writer = Self;

    fn make_writer(&'a self) -> Self::Writer {
        Self
    }
}

impl io::Write for AsciiControl {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(line) {
            Ok(text) if text.chars().any(|letter| letter != '\n' && is_harmful(letter)) => {
                io::stderr().write_all(escaped(text).as_bytes()).map(|()| line.len())
            }
            // Each line arrives as a single write.
            Ok(_) | Err(_) => io::stderr().write_all(line).map(|()| line.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Escapes as in JSON. All of these characters are in the basic plane.
fn escaped(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    for letter in line.chars() {
        if letter != '\n' && is_harmful(letter) {
            let _ = write!(text, "\\u{:04x}", u32::from(letter));
        } else {
            text.push(letter);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn harmless(text: &str) -> String {
        let mut written = String::new();
        let mut harmless = Harmless { writer: &mut written, left: LONGEST, cut: false };
        let _ = harmless.write_str(text);
        written
    }

    #[test]
    fn control_characters_are_escaped_in_logs() {
        assert_eq!(harmless("a b\tc é 漢"), "a b\\tc é 漢");
        assert_eq!(harmless("x\n\u{1b}[2J\r\u{9b}\u{202e}"), "x\\n\\u{1b}[2J\\r\\u{9b}\\u{202e}");
        assert_eq!(escaped("{\"a\":\"\u{9b}\u{202e}\"}\n"), "{\"a\":\"\\u009b\\u202e\"}\n");
    }

    #[derive(Clone, Default)]
    struct Kept(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("unharmed").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn hostile_fields_stay_on_one_plain_line() {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .fmt_fields(format::debug_fn(field).delimited(" "))
            .finish();
        let hostile = "x\n2026-01-01 ERROR forged\u{1b}]0;title\u{7}";
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("task", %hostile).entered();
            tracing::info!(why = %hostile, text = hostile, "said: {hostile}");
            drop(span);
        });
        let text = String::from_utf8(kept.0.lock().expect("unharmed").clone()).expect("a text");
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert!(text.contains("forged") && !text.trim_end().contains(char::is_control), "{text:?}");
    }

    #[test]
    fn long_value_is_cut() {
        assert_eq!(harmless(&"x".repeat(LONGEST + 1)).len(), LONGEST);
        assert!(harmless(&"\n".repeat(LONGEST)).len() <= LONGEST);
    }
}
