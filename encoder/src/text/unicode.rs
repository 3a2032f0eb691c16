//! Character classes as the Python references see them. Not the standard library's: `regex` reads `\p{L}` under IGNORECASE
//! (so that U+0345, which folds to a letter, is neither a letter nor anything else, and vanishes), and Python's white space and word characters
//! have members of their own. The table is measured from the references by `tables/make.py`.

use std::sync::LazyLock;

/// What open_clip's pattern and ftfy's rules ask of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class(u8);

impl Class {
    const LETTER: u8 = 1;
    const NUMBER: u8 = 2;
    const OTHER: u8 = 4;
    const WORD: u8 = 8;
    const DIGIT: u8 = 16;

    /// Matches `[\p{L}]`, case ignored.
    pub(super) fn is_letter(self) -> bool {
        self.0 & Self::LETTER != 0
    }

    /// Matches `[\p{N}]`, case ignored.
    pub(super) fn is_number(self) -> bool {
        self.0 & Self::NUMBER != 0
    }

    /// Matches `[^\s\p{L}\p{N}]`, case ignored.
    pub(super) fn is_other(self) -> bool {
        self.0 & Self::OTHER != 0
    }

    /// Matches Python's `\w`.
    pub(super) fn is_word(self) -> bool {
        self.0 & Self::WORD != 0
    }

    /// Matches Python's `\d`.
    pub(super) fn is_digit(self) -> bool {
        self.0 & Self::DIGIT != 0
    }
}

struct Classes {
    low: [u8; 256],
    /// First, last, mask; ascending, without overlap.
    ranges: Vec<(u32, u32, u8)>,
}

static CLASSES: LazyLock<Classes> = LazyLock::new(|| {
    let ranges: Vec<_> = include_str!("tables/classes.txt").lines().filter_map(range).collect();
    let low = std::array::from_fn(|cp| search(&ranges, cp as u32));
    Classes { low, ranges }
});

fn range(line: &str) -> Option<(u32, u32, u8)> {
    let mut fields = line.split('\t').map(|field| u32::from_str_radix(field, 16).ok());
    Some((fields.next()??, fields.next()??, u8::try_from(fields.next()??).ok()?))
}

fn search(ranges: &[(u32, u32, u8)], cp: u32) -> u8 {
    let after = ranges.partition_point(|&(first, ..)| first <= cp);
    match after.checked_sub(1).and_then(|at| ranges.get(at)) {
        Some(&(_, last, mask)) if cp <= last => mask,
        _ => Class::OTHER,
    }
}

/// The class of `c`.
pub(super) fn class(c: char) -> Class {
    let cp = u32::from(c);
    Class(match CLASSES.low.get(cp as usize) {
        Some(&mask) => mask,
        None => search(&CLASSES.ranges, cp),
    })
}

/// Python's `str.isspace` for one character: white space, and the four information separators that Unicode leaves out.
pub(super) fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Python's `" ".join(text.split())`.
pub(super) fn collapse_white_space(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split(is_python_space).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_class_table_is_read() {
        assert_eq!(CLASSES.ranges.len(), include_str!("tables/classes.txt").lines().count());
        assert!(CLASSES.ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
    }

    #[test]
    fn classes_follow_the_python_references() {
        assert!(class('a').is_letter() && class('a').is_word() && !class('a').is_other());
        assert!(class('²').is_number() && class('_').is_other() && class('_').is_word());
        assert!(!class('\u{345}').is_letter() && !class('\u{345}').is_other());
        assert!(!class(' ').is_other() && class('😀').is_other());
    }

    #[test]
    fn white_space_is_collapsed_as_python_splits() {
        assert_eq!(collapse_white_space("\u{1c} a\u{85}b \u{3000}\n c\u{200b}"), "a b c\u{200b}");
    }
}
