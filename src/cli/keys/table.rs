//! A table for people: columns as wide as what stands in them, by what a terminal shows rather than by bytes.

use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Writes the table with `heads` above `rows`; the last column is not filled up. Goes through the rows twice instead of
/// holding them, since there may be a million.
pub(super) fn write<const N: usize, R: Iterator<Item = [String; N]>>(
    out: &mut dyn Write,
    heads: [&str; N],
    rows: impl Fn() -> R,
) -> io::Result<()> {
    let mut widths = heads.map(|head| head.width());
    for row in rows() {
        for (width, cell) in widths.iter_mut().zip(&row) {
            *width = (*width).max(cell.width());
        }
    }
    write_row(out, &heads, &widths)?;
    rows().try_for_each(|row| write_row(out, &row.each_ref().map(String::as_str), &widths))
}

fn write_row(out: &mut dyn Write, cells: &[&str], widths: &[usize]) -> io::Result<()> {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width()) + 2));
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
        write(&mut table, ["ID", "NAME", "NOTE"], || rows.iter().cloned()).expect("written");
        let want = "ID    NAME  NOTE\na     日本  x\nlong        y\nb     é\n";
        assert_eq!(String::from_utf8(table).expect("text"), want);
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
