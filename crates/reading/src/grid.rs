//! The screen of a terminal that remembers text alone: a few rows that the cursor can still reach. Rows above them are settled.

use std::collections::VecDeque;

use errand_task::escapes::{Action, Display, Erase};

/// The most characters in all rows.
const CHARACTERS: usize = 256 * 1024;
/// How much blank space movements of the cursor may add for free. Beyond that, they add one blank for eight printed characters: a few
/// bytes of output must not become thousands of blanks.
const FREE_BLANKS: u64 = 64 * 1024;
/// How many printed characters earn one more blank.
const EARNS: u64 = 8;

/// The rows that the cursor can reach.
#[derive(Debug)]
pub(crate) struct Grid {
    /// Never empty.
    rows: VecDeque<Row>,
    /// The most rows, and the most characters of one.
    height: usize,
    width: usize,
    /// Where the cursor is. The row exists; the column may be beyond the row's end.
    row: usize,
    column: usize,
    saved: (usize, usize),
    /// Characters in all rows.
    characters: usize,
    printed: u64,
    blanks: u64,
    /// The text that nothing can change any more.
    settled: String,
}

#[derive(Debug, Default)]
struct Row {
    characters: Vec<char>,
    /// The row was too long: its line goes on in the next row.
    goes_on: bool,
    /// Written to otherwise than from left to right: blanks at its end are not output.
    drawn: bool,
}

impl Row {
    fn text(&self) -> impl Iterator<Item = &char> {
        let blanks = if self.drawn { self.characters.iter().rev().take_while(|c| **c == ' ').count() } else { 0 };
        self.characters[..self.characters.len() - blanks].iter()
    }
}

impl Grid {
    pub(crate) fn new(height: usize, width: usize) -> Self {
        Self {
            rows: VecDeque::from([Row::default()]),
            height: height.max(1),
            width: width.max(1),
            row: 0,
            column: 0,
            saved: (0, 0),
            characters: 0,
            printed: 0,
            blanks: 0,
            settled: String::new(),
        }
    }

    /// Takes the text that nothing can change any more.
    pub(crate) fn settled(&mut self) -> &mut String {
        &mut self.settled
    }

    /// Settles all rows and clears the screen.
    pub(crate) fn settle_all(&mut self) {
        // Rows that were only moved over, or erased, are not output.
        while self.rows.len() > 1 && self.rows.back().is_some_and(|row| row.drawn && row.text().next().is_none()) {
            self.rows.pop_back();
        }
        let last = self.rows.len() - 1;
        for (index, row) in self.rows.drain(..).enumerate() {
            self.settled.extend(row.text());
            if index < last && !row.goes_on {
                self.settled.push('\n');
            }
        }
        let settled = std::mem::take(&mut self.settled);
        *self = Self { settled, ..Self::new(self.height, self.width) };
    }

    fn settle_first(&mut self) {
        if let Some(row) = self.rows.pop_front() {
            self.settled.extend(row.text());
            if !row.goes_on {
                self.settled.push('\n');
            }
            self.characters -= row.characters.len();
        }
        self.row = self.row.saturating_sub(1);
        self.saved.0 = self.saved.0.saturating_sub(1);
    }

    /// Goes to the next row, which is made if there is none.
    fn descend(&mut self) {
        self.column = 0;
        self.row += 1;
        match self.rows.get_mut(self.row) {
            None => self.rows.push_back(Row::default()),
            // Output ends here, even if nothing is written any more.
            Some(row) if row.characters.is_empty() => row.drawn = false,
            Some(_) => {}
        }
        self.bound();
    }

    /// Settles rows until the others are few enough.
    fn bound(&mut self) {
        while self.rows.len() > self.height || (self.characters > CHARACTERS && self.rows.len() > 1) {
            self.settle_first();
        }
    }

    /// How many blanks movements may still add, at most `wanted`.
    fn earned(&mut self, wanted: usize) -> usize {
        let left = (FREE_BLANKS + self.printed / EARNS).saturating_sub(self.blanks);
        let granted = wanted.min(usize::try_from(left).unwrap_or(usize::MAX));
        self.blanks += granted as u64;
        granted
    }

    /// Fills the row with blanks up to the cursor.
    fn reach_cursor(&mut self) {
        let missing = self.column.saturating_sub(self.rows[self.row].characters.len());
        if missing > 0 {
            let blanks = self.earned(missing);
            let row = &mut self.rows[self.row];
            row.characters.extend(std::iter::repeat_n(' ', blanks));
            row.drawn = true;
            self.characters += blanks;
            self.column = row.characters.len();
        }
    }

    fn cut(&mut self, row: usize, from: usize) {
        let row = &mut self.rows[row];
        self.characters -= row.characters.len().saturating_sub(from);
        row.characters.truncate(from);
        (row.drawn, row.goes_on) = (true, false);
    }

    fn blank(&mut self, from: usize, until: usize) {
        let row = &mut self.rows[self.row];
        let until = until.min(row.characters.len());
        row.characters[from.min(until)..until].fill(' ');
        row.drawn = true;
    }

    fn erase_line(&mut self, erase: Erase) {
        match erase {
            Erase::ToEnd => self.cut(self.row, self.column),
            Erase::ToStart => self.blank(0, self.column + 1),
            Erase::All => self.cut(self.row, 0),
        }
    }

    fn erase_screen(&mut self, erase: Erase) {
        if erase != Erase::ToStart {
            while self.rows.len() > self.row + 1 {
                self.characters -= self.rows.pop_back().map_or(0, |row| row.characters.len());
            }
        }
        if erase != Erase::ToEnd {
            (0..self.row).for_each(|row| self.cut(row, 0));
        }
        self.erase_line(erase);
    }

    fn go_to_row(&mut self, row: usize) {
        let target = row.min(self.height - 1);
        let missing = (target + 1).saturating_sub(self.rows.len());
        for _ in 0..self.earned(missing) {
            self.rows.push_back(Row { drawn: true, ..Row::default() });
        }
        self.row = target.min(self.rows.len() - 1);
    }
}

impl Display for Grid {
    fn print(&mut self, text: &str) {
        self.reach_cursor();
        for character in text.chars() {
            if self.column >= self.width {
                self.rows[self.row].goes_on = true;
                self.descend();
            }
            let row = &mut self.rows[self.row];
            match row.characters.get_mut(self.column) {
                Some(cell) => *cell = character,
                None => {
                    row.characters.push(character);
                    self.characters += 1;
                }
            }
            self.column += 1;
            self.printed += 1;
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::NewLine => self.descend(),
            Action::Return => self.column = 0,
            Action::Up(rows) => self.row = self.row.saturating_sub(rows.into()),
            Action::Down(rows) => self.row = (self.row + usize::from(rows)).min(self.rows.len() - 1),
            Action::Left(columns) => self.column = self.column.saturating_sub(columns.into()),
            Action::Right(columns) => self.column = (self.column + usize::from(columns)).min(self.width - 1),
            Action::Column(column) => self.column = usize::from(column - 1).min(self.width - 1),
            Action::Row(row) => self.go_to_row(usize::from(row - 1)),
            Action::Save => self.saved = (self.row, self.column),
            Action::Restore => {
                self.row = self.saved.0.min(self.rows.len() - 1);
                self.column = self.saved.1;
            }
            Action::EraseLine(erase) => self.erase_line(erase),
            Action::EraseScreen(erase) => self.erase_screen(erase),
            Action::EraseCharacters(count) => self.blank(self.column, self.column + usize::from(count)),
        }
        self.bound();
    }
}

#[cfg(test)]
impl Grid {
    /// Characters held in all rows, as counted and as they are.
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.characters, self.rows.iter().map(|row| row.characters.len()).sum())
    }
}
