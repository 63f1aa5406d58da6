//! Data to stdout as a table, JSON or plain columns; notes to stderr.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde_json::Value;

use crate::cli::failure::Failure;

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns with a head, for people.
    Table,
    /// The JSON of admin HTTP.
    Json,
    /// Columns between tabs, without a head.
    Plain,
}

/// What a verb shows: the same in all formats.
#[derive(Debug)]
pub(super) struct Page {
    /// For `json`.
    pub(super) json: Value,
    /// The head of the columns; empty for none.
    pub(super) head: &'static [&'static str],
    /// The rows.
    pub(super) rows: Vec<Vec<String>>,
}

/// Where and how data is printed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    /// The format.
    pub(super) format: Format,
    /// Whether stdout is a terminal.
    pub(super) terminal: bool,
}

impl Output {
    /// To this program's stdout.
    pub(super) fn new(format: Format) -> Self {
        Self { format, terminal: io::stdout().is_terminal() }
    }

    /// Prints a page.
    pub(super) fn page(self, page: &Page) -> Result<(), Failure> {
        write(self.text_of(page).as_bytes())
    }

    /// Prints a page in the place of the one before: on a terminal on a cleared screen, elsewhere
    /// as one line of JSON.
    pub(super) fn redraw(self, page: &Page) -> Result<(), Failure> {
        if self.terminal {
            write(format!("\x1b[2J\x1b[H{}", self.text_of(page)).as_bytes())
        } else {
            write(format!("{}\n", page.json).as_bytes())
        }
    }

    fn text_of(self, page: &Page) -> String {
        match self.format {
            Format::Json => format!("{:#}\n", page.json),
            Format::Plain => page.rows.iter().map(|row| row.join("\t") + "\n").collect(),
            Format::Table => table(page),
        }
    }
}

/// Prints raw bytes. That nobody reads any more is no fault of the verb's.
pub(super) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("cannot write to stdout: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn table(page: &Page) -> String {
    if page.rows.is_empty() && page.head.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if !page.head.is_empty() {
        table.set_header(page.head.to_vec());
    }
    table.add_rows(page.rows.clone());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

/// One line to stderr; that nobody reads it is no fault.
pub(super) fn note(line: &str) {
    let _nobody_reads = writeln!(io::stderr().lock(), "{line}");
}

/// Text that came from elsewhere, with control characters escaped: a terminal obeys them.
pub(super) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
    text.chars().map(escape).collect()
}

/// A span as people say it.
pub(super) fn span(seconds: f64) -> String {
    match seconds {
        s if s < 0.000_95 => format!("{:.0}us", s * 1e6),
        s if s < 0.95 => format!("{:.1}ms", s * 1e3),
        s if s < 120.0 => format!("{s:.0}s"),
        s if s < 7200.0 => format!("{:.0}m", s / 60.0),
        s if s < 172_800.0 => format!("{:.1}h", s / 3600.0),
        s => format!("{:.1}d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let rows = vec![vec!["n1".into(), "alive".into()], vec!["node-2".into(), "dead".into()]];
        Page { json: serde_json::json!([1, 2]), head: &["NAME", "STATE"], rows }
    }

    #[test]
    fn the_three_formats() {
        let text = |format| Output { format, terminal: false }.text_of(&page());
        assert_eq!(text(Format::Table), "NAME    STATE\nn1      alive\nnode-2  dead\n");
        assert_eq!(text(Format::Plain), "n1\talive\nnode-2\tdead\n");
        assert_eq!(text(Format::Json), "[\n  1,\n  2\n]\n");
    }

    #[test]
    fn a_terminal_gets_no_control_characters() {
        assert_eq!(printable(b"a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }

    #[test]
    fn spans_are_short() {
        let said: Vec<String> = [0.0004, 0.0123, 3.0, 600.0, 9000.0, 200_000.0].map(span).to_vec();
        assert_eq!(said, ["400us", "12.3ms", "3s", "10m", "2.5h", "2.3d"]);
    }
}
