//! `benches/RESULTS.md`: one table per benchmark, between two marker lines, replaced whole, or row by row after a run of one part.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};

use crate::figure::Figure;

/// Replaces (or appends) the table of benchmark `name` in `path`.
pub(crate) fn write(path: &Path, name: &str, figures: &[Figure]) -> Result<()> {
    let old = fs::read_to_string(path).unwrap_or_else(|_| "# Measured figures\n".to_owned());
    let (begin, end) = (format!("<!-- begin {name} -->"), format!("<!-- end {name} -->"));
    let section = format!("{begin}\n{}{end}", table(name, figures));
    let new = match (old.split_once(&begin), old.split_once(&end)) {
        (Some((before, _)), Some((_, after))) => format!("{before}{section}{after}"),
        _ => format!("{}\n{section}\n", old.trim_end()),
    };
    fs::write(path, new).with_context(|| format!("write {}", path.display()))
}

/// Puts `figures` in the places of the rows with their names in the table of benchmark `name`, and behind it those that it has not.
pub(crate) fn merge(path: &Path, name: &str, figures: &[Figure]) -> Result<()> {
    let old = fs::read_to_string(path).unwrap_or_default();
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let parts = old.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?)));
    let Some((before, (section, after))) = parts else { return write(path, name, figures) };
    let new = format!("{before}{begin}{}{end}{after}", merged(section, figures));
    fs::write(path, new).with_context(|| format!("write {}", path.display()))
}

fn merged(section: &str, figures: &[Figure]) -> String {
    // With whether it is of this run: figures of one name, on other data, take one row each.
    let mut rows: Vec<(String, bool)> = section.lines().map(|line| (line.to_owned(), false)).collect();
    for figure in figures {
        let begins = format!("| {} |", figure.figure);
        let new = (row(figure), true);
        match rows.iter_mut().find(|(row, taken)| !taken && row.starts_with(&begins)) {
            Some(old) => *old = new,
            None => rows.push(new),
        }
    }
    rows.into_iter().map(|(row, _)| row + "\n").collect()
}

fn table(name: &str, figures: &[Figure]) -> String {
    let mut out = format!("## {name}\n\n");
    if let Some(first) = figures.first() {
        writeln!(out, "`cargo run --release -p benches -- {name}`; {}.\n", first.versions).expect("a string takes text");
    }
    out.push_str("| figure | value | peer | peer's value | ratio | goal | met | data |\n|---|---|---|---|---|---|---|---|\n");
    for figure in figures {
        writeln!(out, "{}", row(figure)).expect("a string takes text");
    }
    out
}

fn row(f: &Figure) -> String {
    let number = |v: f64| if v.fract() == 0.0 && v.abs() < 1e9 { format!("{v:.0}") } else { format!("{v:.4}") };
    let optional = |v: Option<f64>| v.map(number).unwrap_or_default();
    let met = f.met.map_or("", |m| if m { "yes" } else { "**no**" });
    format!(
        "| {} | {} {} | {} | {} | {} | {} | {met} | {}{} |",
        f.figure,
        number(f.value),
        f.unit,
        f.peer.as_deref().unwrap_or_default(),
        optional(f.peer_value),
        optional(f.ratio),
        f.goal.unwrap_or_default(),
        f.data,
        f.seed.map(|s| format!(", seed {s}")).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_takes_its_rows_places_and_leaves_the_others() {
        let old = "## x\n\nhow\n\n| figure | value |\n|---|---|\n| one | 1 |\n| two | 2 |\n";
        let new = merged(old, &[Figure::new("two", 3.0, "s", "d"), Figure::new("three", 4.0, "s", "d")]);
        assert!(new.starts_with("## x\n\nhow\n\n| figure | value |\n|---|---|\n| one | 1 |\n| two | 3 s |"), "{new}");
        assert!(new.contains("\n| three | 4 s |") && !new.contains("| two | 2 |"), "{new}");
    }

    #[test]
    fn figures_of_one_name_take_one_row_each() {
        let of = |value, data: &str| Figure::new("rate", value, "s", data);
        let new = merged("| rate | 1 s | on a |\n| rate | 2 s | on b |\n", &[of(3.0, "a"), of(4.0, "b")]);
        let rates: Vec<&str> = new.lines().filter_map(|row| row.strip_prefix("| rate | ")?.split(' ').next()).collect();
        assert_eq!(rates, ["3", "4"], "{new}");
    }
}
