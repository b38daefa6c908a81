//! Rows in columns, for a terminal or for `grep`.

/// What stands between two columns.
const GAP: &str = "  ";

/// The rows below their head, each column as wide as its widest cell. Where there is a `width`, the last column is cut to fit it.
pub(crate) fn draw<const N: usize>(head: &[&str; N], rows: impl IntoIterator<Item = [String; N]>, width: Option<usize>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join(GAP);
        text.push_str(cut(line.trim_end(), width).trim_end());
        text.push('\n');
    }
    text
}

/// The text, or as much of its beginning as fits into `width` columns.
pub(crate) fn cut(text: &str, width: Option<usize>) -> String {
    match width {
        Some(width) if text.chars().count() > width => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
        Some(_) | None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_a_terminal_gets_no_longer_lines() {
        let rows =
            || [["a".to_owned(), "1".to_owned(), "said at length".to_owned()], ["longer".to_owned(), "22".to_owned(), String::new()]];
        let head = ["NAME", "N", "WHY"];
        assert_eq!(draw(&head, rows(), None), "NAME    N   WHY\na       1   said at length\nlonger  22\n");
        assert_eq!(draw(&head, rows(), Some(17)), "NAME    N   WHY\na       1   said…\nlonger  22\n");
        assert_eq!(draw(&head, [], Some(80)), "NAME  N  WHY\n");
    }
}
