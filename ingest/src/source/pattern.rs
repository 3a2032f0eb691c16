//! Arguments with braces and wildcards to paths, and the order of names.
//!
//! A shell expands an unquoted pattern before we see it, a config file or a quoted one is expanded here; both give the same
//! files. A path that exists is always taken as it is, whatever characters it has, and so are the leading folders of a pattern:
//! `my [set]/*.tar` means the folder that is called so.
//!
//! - `{00000..00331}` counts, with the zeros it is written with; `{a,b}` lists. What braces name must exist.
//! - `*`, `?`, `[a-z]` match within a name, `**` any number of folders. Hidden files are not matched.

use std::{
    cmp::Ordering,
    path::{Path, PathBuf},
};

use super::Reach;
use crate::{Limits, SourceError};

/// What an argument stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expanded {
    pub(crate) path: PathBuf,
    /// Found by a wildcard, not named.
    pub(crate) matched: bool,
}

/// The paths an argument stands for; those of a wildcard in natural order.
pub(crate) fn expand(argument: &Path, limits: &Limits, reach: &Reach) -> Result<Vec<Expanded>, SourceError> {
    let place = reach.place(argument)?;
    let plain = || vec![Expanded { path: place.clone(), matched: false }];
    let Some(text) = argument.to_str().filter(|text| text.contains(['*', '?', '[', '{'])) else { return Ok(plain()) };
    if reach.exists(&place) {
        return Ok(plain());
    }
    let (settled, pattern) = settled(text, reach);
    let mut all = Vec::new();
    for alternative in braces(pattern, limits.max_shards)? {
        match alternative.contains(['*', '?', '[']) {
            true => all.extend(wildcard(settled, &alternative, text, limits, reach)?),
            false => {
                let path = reach.place(Path::new(&format!("{settled}{alternative}")))?;
                all.push(Expanded { path, matched: false });
            }
        }
        if all.len() > limits.max_shards {
            return Err(SourceError::TooManyShards { path: argument.to_owned(), max: limits.max_shards });
        }
    }
    Ok(all)
}

/// The leading folders of `text` that are there as they are written, with their slash, and the rest.
fn settled<'t>(text: &'t str, reach: &Reach) -> (&'t str, &'t str) {
    let ends = text.char_indices().filter(|(_, c)| *c == '/').map(|(at, _)| at + 1);
    let is_there = |end: &usize| {
        let folder = text.get(..*end).and_then(|folder| reach.place(Path::new(folder)).ok());
        folder.is_some_and(|folder| reach.exists(&folder))
    };
    text.split_at(ends.take_while(is_there).last().unwrap_or(0))
}

/// What `pattern` matches in the folder `settled`.
fn wildcard(settled: &str, pattern: &str, argument: &str, limits: &Limits, reach: &Reach) -> Result<Vec<Expanded>, SourceError> {
    let bad = |reason: String| SourceError::Pattern { pattern: argument.to_owned(), reason };
    let options = glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    // Checked once more: braces may have put a `..` together.
    reach.place(Path::new(&format!("{settled}{pattern}")))?;
    let pattern = format!("{}{pattern}", glob::Pattern::escape(settled));
    let escaped = |root: &Path| format!("{}/{pattern}", glob::Pattern::escape(&root.to_string_lossy()));
    let pattern = &reach.root().map_or_else(|| pattern.clone(), escaped);
    let mut found = Vec::new();
    for path in glob::glob_with(pattern, options).map_err(|e| bad(e.to_string()))?.take(limits.max_shards + 1) {
        found.push(path.map_err(|e| SourceError::Open { path: e.path().to_owned(), source: e.into() })?);
    }
    if found.is_empty() {
        return Err(bad("it matches nothing".to_owned()));
    }
    found.sort_by(|a, b| natural(&a.to_string_lossy(), &b.to_string_lossy()));
    Ok(found.into_iter().map(|path| Expanded { path, matched: true }).collect())
}

/// The names that a path, a folder or a pattern stands for in a list of names. What it names must be there.
pub(crate) fn choose(path: &str, names: &[String], limits: &Limits) -> Result<Vec<String>, SourceError> {
    let bad = |reason: String| SourceError::Pattern { pattern: path.to_owned(), reason };
    let options = glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    let mut chosen: Vec<String> = Vec::new();
    for alternative in braces(path, limits.max_shards)? {
        let before = chosen.len();
        if alternative.contains(['*', '?', '[']) {
            let pattern = glob::Pattern::new(&alternative).map_err(|e| bad(e.to_string()))?;
            chosen.extend(names.iter().filter(|name| pattern.matches_with(name, options)).cloned());
        } else {
            let folder = format!("{alternative}/");
            chosen.extend(names.iter().filter(|name| **name == alternative || name.starts_with(&folder)).cloned());
        }
        if chosen.len() == before {
            return Err(bad(format!("{alternative} matches nothing")));
        }
    }
    chosen.sort();
    chosen.dedup();
    Ok(chosen)
}

/// Every text that the braces stand for, in their order.
fn braces(text: &str, max: usize) -> Result<Vec<String>, SourceError> {
    let bad = |reason: &str| SourceError::Pattern { pattern: text.to_owned(), reason: reason.to_owned() };
    let mut done = Vec::new();
    let mut open = vec![text.to_owned()];
    while let Some(next) = open.pop() {
        let Some((before, inner, after)) = first_braces(&next) else {
            done.push(next);
            continue;
        };
        let choices = choices(inner, max).ok_or_else(|| bad("its braces name too many files"))?;
        if choices.len() + open.len() + done.len() > max {
            return Err(bad("its braces name too many files"));
        }
        open.extend(choices.iter().rev().map(|choice| format!("{before}{choice}{after}")));
    }
    Ok(done)
}

/// The first braces that hold a list or a range, outermost first.
fn first_braces(text: &str) -> Option<(&str, &str, &str)> {
    for (open, _) in text.match_indices('{') {
        let mut depth = 0_i64;
        let end = text.get(open..)?.find(|c| {
            depth += i64::from(c == '{') - i64::from(c == '}');
            depth == 0
        });
        let Some(close) = end.map(|at| open + at) else { continue };
        let inner = text.get(open + 1..close)?;
        if range(inner).is_some() || pieces(inner).len() > 1 {
            return Some((text.get(..open)?, inner, text.get(close + 1..)?));
        }
    }
    None
}

/// The first and last number of `00000..00331`, and the width they are written with.
fn range(inner: &str) -> Option<(u64, u64, usize)> {
    let (first, last) = inner.split_once("..")?;
    let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u64>().ok()).flatten();
    let padded = [first, last].iter().any(|t| t.len() > 1 && t.starts_with('0'));
    Some((number(first)?, number(last)?, if padded { first.len().max(last.len()) } else { 0 }))
}

/// Parts between the commas that are in no inner braces.
fn pieces(inner: &str) -> Vec<&str> {
    let mut depth = 0_i64;
    let outer = |c: char| {
        depth += i64::from(c == '{') - i64::from(c == '}');
        c == ',' && depth == 0
    };
    inner.split(outer).collect()
}

/// None when there are more than `max`.
fn choices(inner: &str, max: usize) -> Option<Vec<String>> {
    let Some((start, end, width)) = range(inner) else { return Some(pieces(inner).into_iter().map(str::to_owned).collect()) };
    if usize::try_from(start.abs_diff(end)).map_or(true, |count| count >= max) {
        return None;
    }
    let name = |n: u64| format!("{n:0width$}");
    Some(if start <= end { (start..=end).map(name).collect() } else { (end..=start).rev().map(name).collect() })
}

/// Names in the order people give them: runs of digits by value, everything else by bytes.
pub(crate) fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    loop {
        match (left, right) {
            ([], _) | (_, []) => return left.len().cmp(&right.len()).then_with(|| a.cmp(b)),
            ([x, ..], [y, ..]) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let ((m, left_rest), (n, right_rest)) = (digits(left), digits(right));
                match m.len().cmp(&n.len()).then_with(|| m.cmp(n)) {
                    Ordering::Equal => (left, right) = (left_rest, right_rest),
                    other => return other,
                }
            }
            ([x, left_rest @ ..], [y, right_rest @ ..]) => match x.cmp(y) {
                Ordering::Equal => (left, right) = (left_rest, right_rest),
                other => return other,
            },
        }
    }
}

/// The leading number without its zeros, and the rest.
fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let (number, rest) = text.split_at(text.iter().take_while(|b| b.is_ascii_digit()).count());
    let zeros = number.iter().take_while(|b| **b == b'0').count();
    (number.get(zeros..).unwrap_or_default(), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_count_and_list_as_a_shell_does() {
        let of = |text: &str| braces(text, 1_000).unwrap();
        assert_eq!(of("a/{00008..00011}.tar"), ["a/00008.tar", "a/00009.tar", "a/00010.tar", "a/00011.tar"]);
        assert_eq!(of("{3..1}"), ["3", "2", "1"]);
        assert_eq!(of("{8..10}"), ["8", "9", "10"]);
        assert_eq!(of("{train,test}/{0..1}.tar"), ["train/0.tar", "train/1.tar", "test/0.tar", "test/1.tar"]);
        assert_eq!(of("{a,b{1..2}}"), ["a", "b1", "b2"]);
        // No list and no range: the braces are part of the name.
        for plain in ["{x}/y}", "{a..e}", "{", "}{", "{0..99999999999999999999999}", "{é"] {
            assert_eq!(of(plain), [plain]);
        }
        assert_eq!(of("{x}{a,b}"), ["{x}a", "{x}b"]);
        for many in ["{0..99999999999}", "{0..999}{0..999}", "{0..2000}"] {
            assert!(braces(many, 1_000).is_err(), "{many}");
        }
    }

    #[test]
    fn digits_are_ordered_by_value() {
        let mut names = ["b10", "b9", "b", "b09", "a2/x", "a10/x", "B1", "b1a", "b1"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["B1", "a2/x", "a10/x", "b", "b1", "b1a", "b09", "b9", "b10"]);
    }
}
