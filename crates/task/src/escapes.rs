//! Parses output as a terminal does: text, movements of the cursor, erasures. Holds a few bytes, whatever the input is.
//!
//! Drops what only changes the looks: colours, titles, modes. A newline also ends a sequence that was left incomplete, so that a stray byte
//! hides no more than the rest of its line.

use std::str::from_utf8;

/// What stands for bytes that are not UTF-8.
const REPLACEMENT: &str = "\u{FFFD}";
/// The most parameters of a sequence that are kept. No sequence with an effect has more.
const PARAMETERS: usize = 4;

/// What output does to a terminal.
pub trait Display {
    /// Prints text where the cursor is. The text is not empty and holds no control character but tabs.
    fn print(&mut self, text: &str);

    /// Does something else than print.
    fn act(&mut self, action: Action);
}

/// What output does to a terminal besides printing. Numbers are 1 or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Goes to the beginning of the next line.
    NewLine,
    /// Goes to the beginning of the line.
    Return,
    /// Goes up so many lines.
    Up(u16),
    /// Goes down so many lines.
    Down(u16),
    /// Goes so many characters to the left.
    Left(u16),
    /// Goes so many characters to the right.
    Right(u16),
    /// Goes to a column of the line; the first one is 1.
    Column(u16),
    /// Goes to a row of the screen; the first one is 1.
    Row(u16),
    /// Remembers where the cursor is.
    Save,
    /// Goes to where the cursor was remembered.
    Restore,
    /// Erases in the line.
    EraseLine(Erase),
    /// Erases on the screen.
    EraseScreen(Erase),
    /// Erases so many characters from the cursor on.
    EraseCharacters(u16),
}

/// What is erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Erase {
    /// From the cursor on.
    ToEnd,
    /// Up to the cursor.
    ToStart,
    /// Everything.
    All,
}

/// A parser of output that comes in pieces. How it is cut into pieces never changes the result.
#[derive(Debug, Default)]
pub struct Escapes {
    state: State,
    parameters: [u16; PARAMETERS],
    /// The index of the current parameter. May be beyond the last one that is kept.
    current: usize,
    /// Whether the sequence has marks that give it another meaning.
    marked: bool,
    /// The first bytes of an incomplete character, and how many they are.
    partial: [u8; 4],
    held: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After the escape character.
    Escape,
    /// In an escape sequence of more than one character.
    Intermediate,
    /// In a control sequence.
    Sequence,
    /// In a string for the terminal, such as a title.
    String {
        /// Whether the bell character ends it too.
        bell_ends: bool,
    },
}

impl Escapes {
    /// Parses the next piece of output.
    pub fn feed(&mut self, bytes: &[u8], display: &mut impl Display) {
        let mut rest = bytes;
        while let Some((byte, after)) = rest.split_first() {
            if self.state == State::Text {
                let size = rest.iter().position(|byte| is_control(*byte)).unwrap_or(rest.len());
                if size > 0 {
                    self.text(&rest[..size], display);
                    rest = &rest[size..];
                    continue;
                }
                self.finish(display);
                self.control(*byte, display);
            } else if *byte >= 0x80 && !matches!(self.state, State::String { .. }) {
                // No sequence holds such a byte: it is text.
                self.state = State::Text;
                continue;
            } else {
                self.within(*byte, display);
            }
            rest = after;
        }
    }

    /// Ends the output: an incomplete character is shown as such. Then the parser can begin anew.
    pub fn finish(&mut self, display: &mut impl Display) {
        if std::mem::take(&mut self.held) > 0 {
            display.print(REPLACEMENT);
        }
    }

    fn text(&mut self, mut run: &[u8], display: &mut impl Display) {
        while self.held > 0
            && let Some((byte, after)) = run.split_first()
        {
            self.partial[self.held] = *byte;
            match from_utf8(&self.partial[..=self.held]) {
                Ok(character) => {
                    visible(character, display);
                    self.held = 0;
                }
                Err(error) if error.error_len().is_none() => self.held += 1,
                Err(_) => {
                    // The byte belongs to what comes next.
                    display.print(REPLACEMENT);
                    self.held = 0;
                    continue;
                }
            }
            run = after;
        }
        let mut left = run.len();
        for chunk in run.utf8_chunks() {
            visible(chunk.valid(), display);
            let invalid = chunk.invalid();
            left -= chunk.valid().len() + invalid.len();
            let incomplete = from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if left == 0 && incomplete {
                self.partial[..invalid.len()].copy_from_slice(invalid);
                self.held = invalid.len();
            } else if !invalid.is_empty() {
                display.print(REPLACEMENT);
            }
        }
    }

    /// A control character in text.
    fn control(&mut self, byte: u8, display: &mut impl Display) {
        match byte {
            0x08 => display.act(Action::Left(1)),
            b'\n' => display.act(Action::NewLine),
            b'\r' => display.act(Action::Return),
            0x1B => self.state = State::Escape,
            _ => {}
        }
    }

    /// A byte of a sequence.
    fn within(&mut self, byte: u8, display: &mut impl Display) {
        match (self.state, byte) {
            // These end every sequence.
            (_, 0x18 | 0x1A) => self.state = State::Text,
            (_, 0x1B) => self.state = State::Escape,
            (_, b'\n') => {
                self.state = State::Text;
                display.act(Action::NewLine);
            }
            (State::String { bell_ends: true }, 0x07) => self.state = State::Text,
            (State::String { .. }, _) => {}
            (_, 0x00..=0x1F | 0x7F) => self.control(byte, display),
            (State::Escape, _) => self.escape(byte, display),
            (State::Sequence, _) => self.sequence(byte, display),
            (State::Intermediate | State::Text, 0x20..=0x2F) => {}
            (State::Intermediate | State::Text, _) => self.state = State::Text,
        }
    }

    fn escape(&mut self, byte: u8, display: &mut impl Display) {
        self.state = match byte {
            b'[' => {
                (self.parameters, self.current, self.marked) = ([0; PARAMETERS], 0, false);
                State::Sequence
            }
            b']' => State::String { bell_ends: true },
            b'P' | b'X' | b'^' | b'_' => State::String { bell_ends: false },
            0x20..=0x2F => State::Intermediate,
            _ => State::Text,
        };
        match byte {
            b'7' => display.act(Action::Save),
            b'8' => display.act(Action::Restore),
            b'D' => display.act(Action::Down(1)),
            b'E' => display.act(Action::NewLine),
            b'M' => display.act(Action::Up(1)),
            _ => {}
        }
    }

    fn sequence(&mut self, byte: u8, display: &mut impl Display) {
        match byte {
            b'0'..=b'9' => {
                if let Some(parameter) = self.parameters.get_mut(self.current) {
                    *parameter = parameter.saturating_mul(10).saturating_add(u16::from(byte - b'0'));
                }
            }
            b';' | b':' => self.current = (self.current + 1).min(PARAMETERS),
            0x40..=0x7E => {
                self.state = State::Text;
                if !self.marked {
                    self.dispatch(byte, display);
                }
            }
            _ => self.marked = true,
        }
    }

    fn dispatch(&self, byte: u8, display: &mut impl Display) {
        let [first, second, ..] = self.parameters;
        let count = first.max(1);
        let erase = match first {
            0 => Some(Erase::ToEnd),
            1 => Some(Erase::ToStart),
            2 => Some(Erase::All),
            _ => None,
        };
        match byte {
            b'A' => display.act(Action::Up(count)),
            b'B' | b'e' => display.act(Action::Down(count)),
            b'C' | b'a' => display.act(Action::Right(count)),
            b'D' => display.act(Action::Left(count)),
            b'E' => {
                display.act(Action::Down(count));
                display.act(Action::Return);
            }
            b'F' => {
                display.act(Action::Up(count));
                display.act(Action::Return);
            }
            b'G' | b'`' => display.act(Action::Column(count)),
            b'd' => display.act(Action::Row(count)),
            b'H' | b'f' => {
                display.act(Action::Row(count));
                display.act(Action::Column(second.max(1)));
            }
            b'J' => erase.into_iter().for_each(|erase| display.act(Action::EraseScreen(erase))),
            b'K' => erase.into_iter().for_each(|erase| display.act(Action::EraseLine(erase))),
            b'X' => display.act(Action::EraseCharacters(count)),
            b's' => display.act(Action::Save),
            b'u' => display.act(Action::Restore),
            _ => {}
        }
    }
}

/// Whether a byte of text is a control character. A tab is text.
fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7F
}

/// Prints text without the control characters that UTF-8 has beyond ASCII.
fn visible(text: &str, display: &mut impl Display) {
    // All of them begin with this byte.
    if !text.as_bytes().contains(&0xC2) {
        if !text.is_empty() {
            display.print(text);
        }
        return;
    }
    let parts = text.split(|character: char| character.is_control() && character != '\t');
    parts.filter(|part| !part.is_empty()).for_each(|part| display.print(part));
}

/// Removes terminal escapes and control characters from output. Newlines and tabs stay. Movements and erasures have no effect.
pub fn strip(bytes: &[u8]) -> String {
    let mut stripped = Stripped(String::with_capacity(bytes.len()));
    let mut escapes = Escapes::default();
    escapes.feed(bytes, &mut stripped);
    escapes.finish(&mut stripped);
    stripped.0
}

struct Stripped(String);

impl Display for Stripped {
    fn print(&mut self, text: &str) {
        self.0.push_str(text);
    }

    fn act(&mut self, action: Action) {
        if action == Action::NewLine {
            self.0.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Keeps everything that happens.
    #[derive(Default)]
    struct Seen(Vec<String>);

    impl Display for Seen {
        fn print(&mut self, text: &str) {
            assert!(!text.is_empty() && !text.chars().any(|c| c.is_control() && c != '\t'), "{text:?}");
            // Pieces of text are one text.
            match self.0.last_mut().filter(|last| last.starts_with("print ")) {
                Some(last) => last.push_str(text),
                None => self.0.push(format!("print {text}")),
            }
        }

        fn act(&mut self, action: Action) {
            self.0.push(format!("{action:?}"));
        }
    }

    fn seen(pieces: &[&[u8]]) -> Vec<String> {
        let (mut escapes, mut seen) = (Escapes::default(), Seen::default());
        pieces.iter().for_each(|piece| escapes.feed(piece, &mut seen));
        escapes.finish(&mut seen);
        seen.0
    }

    #[test]
    fn looks_are_dropped_and_movements_told() {
        assert_eq!(seen(&[b"\x1b[1;31mred\x1b[0m\x1b]0;title\x07!\x1b(B\x1bP1$r\x1b\\"]), ["print red!"]);
        assert_eq!(seen(&[b"a\rb\x08\n"]), ["print a", "Return", "print b", "Left(1)", "NewLine"]);
        assert_eq!(seen(&[b"\x1b[3A\x1b[K\x1b[2J\x1b[5;7H\x1b[G"]).join(" "), {
            "Up(3) EraseLine(ToEnd) EraseScreen(All) Row(5) Column(7) Column(1)"
        });
        // Marks give a sequence another meaning, and large numbers do not overflow.
        assert_eq!(seen(&[b"\x1b[?25l\x1b[99999999C\x1b[1;2;3;4;5;6A"]), ["Right(65535)", "Up(1)"]);
    }

    #[test]
    fn newline_ends_an_incomplete_sequence() {
        assert_eq!(seen(&[b"\x1b]0;title\nseen"]), ["NewLine", "print seen"]);
        assert_eq!(seen(&[b"\x1b[12\nseen\x1b"]), ["NewLine", "print seen"]);
        assert_eq!(seen(&["\x1b[3€".as_bytes()]), ["print €"]);
    }

    #[test]
    fn stripped_text_keeps_tabs_and_marks_invalid_bytes() {
        assert_eq!(strip(b"a\tb\x07\xFF\xE2\x82\n\xC2\x9B31mc\xE2"), "a\tb\u{FFFD}\u{FFFD}\n31mc\u{FFFD}");
    }

    /// Bytes of which sequences are likely.
    fn output() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"\x1b".to_vec()),
            Just(b"\x1b[".to_vec()),
            Just(b"\x1b]0;".to_vec()),
            Just("€𐍈".as_bytes().to_vec()),
            Just(b"12;3".to_vec()),
            Just(b"\r\n".to_vec()),
            prop::collection::vec(any::<u8>(), 0..4),
            "[A-Ka-z ]{0,3}".prop_map(String::into_bytes),
        ];
        prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn pieces_change_nothing(output in output(), cut in 0usize..120, other in 0usize..120) {
            let (cut, other) = (cut.min(output.len()), other.min(output.len()));
            let (cut, other) = (cut.min(other), cut.max(other));
            let pieces = [&output[..cut], &output[cut..other], &output[other..]];
            prop_assert_eq!(seen(&pieces), seen(&[&output]));
            let bytes: Vec<&[u8]> = output.chunks(1).collect();
            prop_assert_eq!(seen(&bytes), seen(&[&output]));
        }

        #[test]
        fn text_without_controls_is_unchanged(text in "[\\PC\t]{0,40}") {
            prop_assert_eq!(strip(text.as_bytes()), text);
        }

        #[test]
        fn invalid_text_is_marked_as_everywhere_else(bytes in prop::collection::vec(0x80u8..=0xFF, 0..12)) {
            let lossy = String::from_utf8_lossy(&bytes).replace(|c: char| c.is_control(), "");
            prop_assert_eq!(strip(&bytes), lossy);
        }
    }
}
