//! Tables in plain text: columns padded with blanks, no lines. The last column is not padded, so free text belongs there.

use super::text;

/// The widest that a cell may be.
const WIDEST: usize = 60;

/// A table for people.
#[derive(Debug)]
pub(super) struct Table {
    header: &'static [&'static str],
    rows: Vec<Vec<Cell>>,
}

/// One cell.
#[derive(Debug)]
pub(super) struct Cell {
    text: String,
    colour: Option<Colour>,
}

/// What a colour means.
#[derive(Debug, Clone, Copy)]
pub(super) enum Colour {
    /// Success.
    Good,
    /// Failure.
    Bad,
    /// Ended on purpose, or in a transitional state.
    Odd,
    /// In progress.
    Live,
}

impl Colour {
    fn ansi(self) -> &'static str {
        match self {
            Self::Good => "\u{1b}[32m",
            Self::Bad => "\u{1b}[31m",
            Self::Odd => "\u{1b}[33m",
            Self::Live => "\u{1b}[36m",
        }
    }
}

impl Cell {
    /// A cell with a colour.
    pub(super) fn coloured(text: &str, colour: Option<Colour>) -> Self {
        Self { text: text::one_line(text, WIDEST), colour }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::coloured(text.as_ref(), None)
    }
}

impl Table {
    /// A table without rows.
    pub(super) fn new(header: &'static [&'static str]) -> Self {
        Self { header, rows: Vec::new() }
    }

    /// Adds a row with one cell for each column.
    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.header.len());
        self.rows.push(cells);
    }

    /// The whole table. Each line ends with a newline.
    pub(super) fn render(&self, coloured: bool) -> String {
        let mut widths: Vec<usize> = self.header.iter().map(|name| name.len()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let mut rendered = String::new();
        push_line(&mut rendered, &widths, self.header.iter().map(|name| (*name, None)));
        for row in &self.rows {
            let cells = row.iter().map(|cell| (cell.text.as_str(), cell.colour.filter(|_| coloured)));
            push_line(&mut rendered, &widths, cells);
        }
        rendered
    }
}

fn push_line<'a>(rendered: &mut String, widths: &[usize], cells: impl Iterator<Item = (&'a str, Option<Colour>)>) {
    let start = rendered.len();
    for ((text, colour), width) in cells.zip(widths) {
        match colour {
            Some(colour) => rendered.extend([colour.ansi(), text, "\u{1b}[0m"]),
            None => rendered.push_str(text),
        }
        // Two blanks separate the columns, in addition to the padding.
        let padding = width.saturating_sub(text.chars().count()) + 2;
        rendered.extend(std::iter::repeat_n(' ', padding));
    }
    let end = start + rendered[start..].trim_end_matches(' ').len();
    rendered.truncate(end);
    rendered.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(&["TASK", "STATUS", "COMMAND"]);
        table.row(vec!["0192".into(), Cell::coloured("running", Some(Colour::Live)), "sleep 5\necho".into()]);
        table.row(vec!["0193-long".into(), Cell::coloured("lost", Some(Colour::Bad)), "é".into()]);
        table
    }

    #[test]
    fn table_without_colours_is_padded_text() {
        let expected = "TASK       STATUS   COMMAND\n0192       running  sleep 5 echo\n0193-long  lost     é\n";
        assert_eq!(sample().render(false), expected);
    }

    #[test]
    fn colours_keep_the_text_unchanged() {
        let coloured = sample().render(true);
        assert!(coloured.contains("\u{1b}[31mlost\u{1b}[0m "));
        assert_eq!(errand_task::escapes::strip(coloured.as_bytes()), sample().render(false));
    }
}
