//! A table for people: columns as wide as what stands in them, by what a terminal shows rather than by bytes.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// The table with `heads` above `rows`; the last column is not filled up. Ends with a line break.
pub(super) fn table<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = heads.map(|head| head.width());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let mut out = String::new();
    write_row(&mut out, &heads, &widths);
    for row in rows {
        write_row(&mut out, &row.each_ref().map(String::as_str), &widths);
    }
    out
}

fn write_row(out: &mut String, cells: &[&str], widths: &[usize]) {
    let start = out.len();
    for (cell, width) in cells.iter().zip(widths) {
        out.push_str(cell);
        out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width()) + 2));
    }
    let end = start + out.get(start..).unwrap_or_default().trim_end().len();
    out.truncate(end);
    out.push('\n');
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
        assert_eq!(table(["ID", "NAME", "NOTE"], &rows), "ID    NAME  NOTE\na     日本  x\nlong        y\nb     é\n");
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
