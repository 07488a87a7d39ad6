//! Turns output into the text that a terminal would show.

use crate::grid::Grid;
use errand_task::escapes::Escapes;

/// Rows of the screen where the command has no terminal: the size that programs take for granted.
pub const DEFAULT_ROWS: u16 = 24;
/// The most rows that the cursor can reach.
const ROWS_LIMIT: u16 = 200;
/// The most characters of a row. A longer line goes on in the next row; in the text it stays one line.
const WIDTH: usize = 4096;

/// Renders output that comes in pieces. Carriage returns, backspaces, movements of the cursor and erasures have their effect, as far as the
/// cursor can reach; colours and the like are dropped. Holds at most 256 Ki characters.
#[derive(Debug)]
pub struct Renderer {
    escapes: Escapes,
    grid: Grid,
}

impl Renderer {
    /// A screen with so many rows, at most 200.
    pub fn new(rows: u16) -> Self {
        Self { escapes: Escapes::default(), grid: Grid::new(rows.clamp(1, ROWS_LIMIT).into(), WIDTH) }
    }

    /// A screen of one row: text is settled with each newline, and no movement reaches an earlier line.
    pub fn of_lines() -> Self {
        Self::new(1)
    }

    /// Renders the next piece, and appends the text that nothing can change any more.
    pub fn feed(&mut self, bytes: &[u8], settled: &mut String) {
        self.escapes.feed(bytes, &mut self.grid);
        settled.push_str(self.grid.settled());
        self.grid.settled().clear();
    }

    /// Appends the rest of the text. The renderer then begins anew.
    pub fn finish(&mut self, settled: &mut String) {
        self.escapes.finish(&mut self.grid);
        self.escapes = Escapes::default();
        self.grid.settle_all();
        settled.push_str(self.grid.settled());
        self.grid.settled().clear();
    }
}

#[cfg(test)]
impl Renderer {
    /// Bytes that are held.
    pub(crate) fn held(&self) -> usize {
        self.grid.held().1 * size_of::<char>()
    }
}

/// The text that a terminal of so many rows would show, with what scrolled out of it.
pub fn rendered(bytes: &[u8], rows: u16) -> String {
    let (mut renderer, mut text) = (Renderer::new(rows), String::new());
    renderer.feed(bytes, &mut text);
    renderer.finish(&mut text);
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(output: &str) -> String {
        rendered(output.as_bytes(), DEFAULT_ROWS)
    }

    #[test]
    fn colours_and_titles_are_dropped() {
        assert_eq!(shown("\u{1b}[1;32mok\u{1b}[0m\u{1b}]0;title\u{7} done\n"), "ok done\n");
        assert_eq!(shown("plain\ttext  \n\n"), "plain\ttext  \n\n");
        assert_eq!(shown(""), "");
    }

    #[test]
    fn later_text_overwrites_earlier_text() {
        assert_eq!(shown("10%\r99%\r100% ready\n"), "100% ready\n");
        // A terminal leaves what was not overwritten.
        assert_eq!(shown("downloading\rdone"), "doneloading");
        assert_eq!(shown("downloading\r\u{1b}[Kdone\n"), "done\n");
        assert_eq!(shown("abc\u{8}\u{8}X\n"), "aXc\n");
        assert_eq!(shown("|\u{8}/\u{8}-\u{8}\\\u{8} \n"), " \n");
        assert_eq!(shown("line\r\nnext\r\n"), "line\nnext\n");
        assert_eq!(shown("abcdef\u{1b}[3D\u{1b}[1X!"), "abc!ef");
        assert_eq!(shown("abc\u{1b}[1Kx"), "   x");
    }

    #[test]
    fn rows_are_redrawn_within_the_screen() {
        let frames = "a: 1%\nb: 1%\n\u{1b}[2A\ra: 50%\nb: 50%\n\u{1b}[2A\u{1b}[Ka: done\n\u{1b}[Kb: done\n";
        assert_eq!(shown(frames), "a: done\nb: done\n");
        // What has scrolled out of the screen stays as it is.
        assert_eq!(rendered(b"1\n2\n3\n\x1b[9Ax", 2), "1\n2\nx\n");
        assert_eq!(rendered(b"one\ntwo\x1b[Ax\n", 1), "one\ntwox\n");
    }

    #[test]
    fn absolute_positions_address_the_screen() {
        assert_eq!(shown("old\n\u{1b}[H\u{1b}[2Jframe 1\nrow\u{1b}[H\u{1b}[2Jframe 2"), "frame 2");
        assert_eq!(shown("\u{1b}[2;3Hx\u{1b}[1;1Hy"), "y\n  x");
        // A status line at the bottom, as apt draws it.
        let apt =
            "Setting up a\n\u{1b}7\u{1b}[5;0fProgress: [ 50%]\u{1b}8Setting up b\n\u{1b}7\u{1b}[5;0f\u{1b}[K\u{1b}8";
        assert_eq!(rendered(apt.as_bytes(), 5), "Setting up a\nSetting up b\n");
    }

    #[test]
    fn long_lines_stay_one_line() {
        let line = "é".repeat(3 * WIDTH + 5);
        assert_eq!(shown(&format!("{line}\nend")), format!("{line}\nend"));
        // The carriage return goes back in the last row, as in a terminal.
        let (text, mut renderer) = (&mut String::new(), Renderer::of_lines());
        renderer.feed(format!("{line}\rX\n").as_bytes(), text);
        assert_eq!((text.len(), text.matches('X').count()), (line.len(), 1));
    }

    #[test]
    fn movements_cannot_blow_up_the_text() {
        let hostile = "\u{1b}[65535Cx\r\n\u{1b}[200;4000Hy".repeat(20_000);
        assert!(shown(&hostile).len() < 300_000, "{}", shown(&hostile).len());
    }

    #[test]
    fn memory_is_bounded_whatever_the_output() {
        for piece in
            [vec![b'x'; 64 * 1024], b"\x1b]0;".repeat(10_000), b"\x1b[4000C.\n".repeat(5000), vec![0xE2; 64 * 1024]]
        {
            let (mut renderer, mut settled) = (Renderer::new(u16::MAX), String::new());
            for _ in 0..50 {
                renderer.feed(&piece, &mut settled);
                settled.clear();
                let (counted, held) = renderer.grid.held();
                assert_eq!(counted, held);
                assert!(held <= 256 * 1024 + WIDTH, "{held}");
            }
        }
    }

    /// Output of which movements are likely.
    fn output() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            (0u8..40, prop::sample::select(b"ABCDEFGHJKXdfsu".to_vec())).prop_map(|(number, end)| format!(
                "\u{1b}[{number}{}",
                char::from(end)
            )
            .into_bytes()),
            Just("€𐍈".as_bytes().to_vec()),
            Just(b"\r".to_vec()),
            Just(b"\n".to_vec()),
            prop::collection::vec(any::<u8>(), 0..4),
            "[a-z ]{0,6}".prop_map(String::into_bytes),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn pieces_change_no_text(output in output(), cut in 0usize..200, rows in 1u16..6) {
            let (whole, mut renderer, mut text) = (rendered(&output, rows), Renderer::new(rows), String::new());
            let cut = cut.min(output.len());
            renderer.feed(&output[..cut], &mut text);
            renderer.feed(&output[cut..], &mut text);
            prop_assert_eq!(renderer.grid.held().0, renderer.grid.held().1);
            renderer.finish(&mut text);
            prop_assert_eq!(&text, &whole);
            // The renderer begins anew.
            text.clear();
            output.chunks(1).for_each(|byte| renderer.feed(byte, &mut text));
            renderer.finish(&mut text);
            prop_assert_eq!(text, whole);
        }

        #[test]
        fn plain_text_is_rendered_unchanged(text in "[\\PC\t\n]{0,200}", rows in 1u16..30) {
            prop_assert_eq!(rendered(text.as_bytes(), rows), text);
        }
    }
}
