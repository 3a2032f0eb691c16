//! The single-byte encodings through which UTF-8 is most often misread, in the order in which they are tried.

use std::collections::HashMap;
use std::sync::LazyLock;

/// The control code by which the "sloppy" encodings carry U+FFFD.
pub(super) const SUBSTITUTE: u8 = 0x1a;

/// One encoding: what bytes 80 to FF mean, and back.
pub(super) struct Charmap {
    pub(super) name: &'static str,
    high: Vec<char>,
    bytes: HashMap<char, u8>,
}

impl Charmap {
    /// Windows encodings with their holes filled by the control characters of the same number.
    pub(super) fn is_sloppy(&self) -> bool {
        self.name.starts_with("sloppy")
    }

    /// The bytes that this text was, were it read in this encoding; `None` when a character is foreign to it.
    pub(super) fn encode(&self, text: &str) -> Option<Vec<u8>> {
        text.chars().map(|c| self.byte(c)).collect()
    }

    fn byte(&self, c: char) -> Option<u8> {
        match c {
            '\u{1a}' if self.is_sloppy() => None,
            char::REPLACEMENT_CHARACTER if self.is_sloppy() => Some(SUBSTITUTE),
            c if c.is_ascii() => u8::try_from(c).ok(),
            c => self.bytes.get(&c).copied(),
        }
    }

    fn parse(line: &'static str) -> Option<Self> {
        let (name, values) = line.split_once('\t')?;
        let point = |hex| char::from_u32(u32::from_str_radix(hex, 16).ok()?);
        let high = values.split(' ').map(point).collect::<Option<Vec<_>>>()?;
        let bytes = high.iter().zip(0x80..=0xff_u8).map(|(&c, byte)| (c, byte)).collect();
        Some(Self { name, high, bytes })
    }
}

/// All of them.
pub(super) static CHARMAPS: LazyLock<Vec<Charmap>> =
    LazyLock::new(|| include_str!("../tables/charmaps.txt").lines().filter_map(Charmap::parse).collect());

static WINDOWS_1252: LazyLock<Option<&'static Charmap>> =
    LazyLock::new(|| CHARMAPS.iter().find(|map| map.name == "sloppy-windows-1252"));

/// A byte of Windows-1252; its five holes are the control characters of the same number.
pub(in super::super) fn windows_1252(byte: u8) -> char {
    let high = usize::from(byte).checked_sub(0x80).and_then(|at| WINDOWS_1252.and_then(|map| map.high.get(at)));
    high.copied().unwrap_or(char::from(byte))
}

/// The bytes that Windows-1252 leaves without a meaning.
pub(super) const WINDOWS_1252_HOLES: [char; 5] = ['\u{81}', '\u{8d}', '\u{8f}', '\u{90}', '\u{9d}'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_encodings_of_128_characters_are_read() {
        assert_eq!(CHARMAPS.len(), 10);
        assert!(CHARMAPS.iter().all(|map| map.high.len() == 128 && map.bytes.len() == 128));
        assert_eq!((windows_1252(0x80), windows_1252(0x81), windows_1252(b'a')), ('€', '\u{81}', 'a'));
    }
}
