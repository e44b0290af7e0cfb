//! A table for people: columns as wide as what stands in them, by what a terminal shows rather than by bytes.

use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// One column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// What stands above it.
    pub(super) head: &'static str,
    /// Whether its cells can be cut where the table is too wide.
    pub(super) is_text: bool,
}

/// A cell of nothing.
pub(super) const NONE: &str = "-";

/// What stays of a text that is cut to make room.
const LEAST: usize = 8;

/// Blanks between columns.
const GAP: usize = 2;

/// Writes the table of `rows`; the last column is not filled up. Where it would be wider than `room`, columns with nothing
/// in them are left out, and then texts are cut, the widest first. Goes through the rows twice instead of holding them,
/// since there may be a million.
pub(super) fn write<const N: usize, R: Iterator<Item = [String; N]>>(
    out: &mut dyn Write,
    columns: [Column; N],
    room: Option<usize>,
    rows: impl Fn() -> R,
) -> io::Result<()> {
    let mut widths = columns.map(|column| Some(column.head.width()));
    let mut is_filled = [false; N];
    for row in rows() {
        for ((width, is_filled), cell) in widths.iter_mut().zip(&mut is_filled).zip(&row) {
            *width = (*width).max(Some(cell.width()));
            *is_filled |= !cell.is_empty() && cell != NONE;
        }
    }
    if let Some(room) = room.filter(|room| total(&widths) > *room) {
        for (width, is_filled) in widths.iter_mut().zip(is_filled) {
            *width = width.filter(|_| is_filled);
        }
        while total(&widths) > room {
            let texts = widths.iter_mut().zip(columns).filter(|(_, column)| column.is_text);
            match texts.filter_map(|(width, _)| width.as_mut()).max() {
                Some(width) if *width > LEAST => *width -= 1,
                _ => break,
            }
        }
    }
    write_row(out, &columns.map(|column| column.head), &widths)?;
    rows().try_for_each(|row| write_row(out, &row.each_ref().map(String::as_str), &widths))
}

fn total(widths: &[Option<usize>]) -> usize {
    widths.iter().flatten().map(|width| width + GAP).sum::<usize>().saturating_sub(GAP)
}

fn write_row(out: &mut dyn Write, cells: &[&str], widths: &[Option<usize>]) -> io::Result<()> {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let Some(width) = *width else { continue };
        let cell = &*clipped(cell, width);
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width()) + GAP));
    }
    writeln!(out, "{}", line.trim_end())
}

/// `text` on one line, at most `most` columns wide; what is left out shows as `…`.
pub(super) fn clipped(text: &str, most: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.width() <= most {
        return line;
    }
    let mut left = most.saturating_sub(1);
    let fits = |c: &char| match left.checked_sub(c.width().unwrap_or_default()) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    let cut: String = line.chars().take_while(fits).collect();
    format!("{}…", cut.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_a_terminal_shows() {
        let rows = [["a", "日本", "x"], ["long", "", "y"], ["b", "é", ""]].map(|row| row.map(str::to_owned));
        let mut table = Vec::new();
        let columns = ["ID", "NAME", "NOTE"].map(|head| Column { head, is_text: true });
        write(&mut table, columns, None, || rows.iter().cloned()).expect("written");
        let want = "ID    NAME  NOTE\na     日本  x\nlong        y\nb     é\n";
        assert_eq!(String::from_utf8(table).expect("text"), want);
    }

    #[test]
    fn a_table_too_wide_leaves_out_what_is_empty_and_cuts_texts() {
        let rows = [["id", "-", "a name that is long", "2027-01-01", ""], ["other", "-", "b", "-", "some words"]];
        let columns = ["ID", "ROLES", "NAME", "EXPIRES", "NOTE"]
            .map(|head| Column { head, is_text: matches!(head, "ROLES" | "NAME" | "NOTE") });
        for (room, want) in [
            (
                60,
                "ID     ROLES  NAME                 EXPIRES     NOTE\nid     -      a name that is long  2027-01-01\n",
            ),
            (50, "ID     NAME                 EXPIRES     NOTE\nid     a name that is long  2027-01-01\n"),
            (44, "ID     NAME           EXPIRES     NOTE\nid     a name that…   2027-01-01\n"),
            (10, "ID     NAME      EXPIRES     NOTE\nid     a name…   2027-01-01\n"),
        ] {
            let mut table = Vec::new();
            let rows = || rows.iter().map(|row| row.map(str::to_owned));
            write(&mut table, columns, Some(room), rows).expect("written");
            let table = String::from_utf8(table).expect("text");
            assert!(table.starts_with(want), "{room}:\n{table}");
        }
    }

    #[test]
    fn long_text_is_cut_at_what_fits() {
        for (text, most, want) in [
            ("short", 5, "short"),
            ("longer", 5, "long…"),
            ("two\nlines\tand", 20, "two lines and"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("\u{1b}[31m", 9, " [31m"),
        ] {
            assert_eq!(clipped(text, most), want);
        }
    }
}
