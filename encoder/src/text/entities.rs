//! HTML character references: Python's `html.unescape`, which is what browsers do with loose text, and ftfy's stricter
//! form, which wants the semicolon and knows some names in capitals.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::ftfy::charmaps;

/// The longest name that `html.unescape` looks for, in characters, without its semicolon.
const MAX_NAME: usize = 32;
/// The longest name that ftfy looks for.
const MAX_STRICT_NAME: usize = 24;

/// Name (with its semicolon, where it has one) to text.
static NAMED: LazyLock<HashMap<&'static str, String>> =
    LazyLock::new(|| include_str!("tables/entities.txt").lines().filter_map(entity).collect());

/// Names in capitals that mean nothing to HTML (`&EACUTE;`), to the capital of what they mean in small letters.
static SHOUTED: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    let small = NAMED.iter().filter(|(name, _)| name.ends_with(';') && !name.bytes().any(|b| b.is_ascii_uppercase()));
    let shouted = small.map(|(name, text)| (name.to_ascii_uppercase(), text.to_uppercase()));
    shouted.filter(|(name, _)| longest_prefix(name).is_none()).collect()
});

fn entity(line: &'static str) -> Option<(&'static str, String)> {
    let (name, points) = line.split_once('\t')?;
    let text = points.split(' ').map(|hex| char::from_u32(u32::from_str_radix(hex, 16).ok()?));
    Some((name, text.collect::<Option<String>>()?))
}

/// The longest leading part of `name` that is a name, of two characters or more, with its text.
fn longest_prefix(name: &str) -> Option<(usize, &'static str)> {
    let ends = name.char_indices().map(|(at, c)| at + c.len_utf8()).skip(1);
    ends.collect::<Vec<_>>().into_iter().rev().find_map(|end| Some((end, NAMED.get(name.get(..end)?)?.as_str())))
}

/// Python's `html.unescape`. One difference: a number too long for Python to read is U+FFFD here and an exception there.
pub(super) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        rest = match reference(after, &mut out) {
            Some(used) => after.get(used..).unwrap_or_default(),
            None => {
                out.push('&');
                after
            }
        };
    }
    out.push_str(rest);
    out
}

/// Writes the text of the reference at the start of `after` (behind its ampersand); says how many bytes it took.
fn reference(after: &str, out: &mut String) -> Option<usize> {
    if let Some(number) = after.strip_prefix('#') {
        let (value, used) = numeric(number)?;
        out.extend(from_number(value));
        return Some(1 + used);
    }
    let stop = |c: char| matches!(c, '\t' | '\n' | '\u{c}' | ' ' | '<' | '&' | '#' | ';');
    let mut end = 0;
    for (at, c) in after.char_indices().take(MAX_NAME).take_while(|&(_, c)| !stop(c)) {
        end = at + c.len_utf8();
    }
    let with_semicolon = end + usize::from(after.get(end..)?.starts_with(';'));
    let (name, whole) = (after.get(..end)?, after.get(..with_semicolon)?);
    if name.is_empty() {
        return None;
    }
    if let Some(text) = NAMED.get(whole) {
        out.push_str(text);
        return Some(with_semicolon);
    }
    let (used, text) = longest_prefix(whole)?;
    out.push_str(text);
    Some(used)
}

/// Reads the digits of `#...` with their optional semicolon; `u32::MAX` stands for all that is too large.
fn numeric(number: &str) -> Option<(u32, usize)> {
    let (digits, radix, skipped) = match number.strip_prefix(['x', 'X']) {
        Some(hex) => (hex, 16, 1),
        None => (number, 10, 0),
    };
    let length = digits.bytes().take_while(|&b| char::from(b).is_digit(radix)).count();
    let value = u32::from_str_radix(digits.get(..length).filter(|d| !d.is_empty())?, radix).unwrap_or(u32::MAX);
    let semicolon = usize::from(digits.get(length..)?.starts_with(';'));
    Some((value, skipped + length + semicolon))
}

/// What HTML makes of a numeric reference: Windows-1252 for the C1 range, nothing for code points that are no text.
fn from_number(value: u32) -> Option<char> {
    match value {
        0 => Some(char::REPLACEMENT_CHARACTER),
        0x80..=0x9f => u8::try_from(value).ok().map(charmaps::windows_1252),
        0x1..=0x8 | 0xb | 0xe..=0x1f | 0x7f | 0xfdd0..=0xfdef => None,
        0..=0x10ffff if value & 0xfffe == 0xfffe => None,
        _ => Some(char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER)),
    }
}

/// ftfy's step: only references that are closed by a semicolon and mean one thing.
pub(super) fn unescape_strict(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        rest = match strict_reference(after) {
            Some((value, used)) => {
                out.push_str(&value);
                after.get(used..).unwrap_or_default()
            }
            None => {
                out.push('&');
                after
            }
        };
    }
    out.push_str(rest);
    out
}

fn strict_reference(after: &str) -> Option<(String, usize)> {
    let hash = usize::from(after.starts_with('#'));
    let name = after.get(hash..)?.bytes().take(MAX_STRICT_NAME).take_while(u8::is_ascii_alphanumeric).count();
    let end = hash + name + 1;
    let whole = after.get(..end).filter(|whole| name > 0 && whole.ends_with(';'))?;
    if hash == 0 {
        return NAMED.get(whole).or_else(|| SHOUTED.get(whole)).map(|text| (text.clone(), end));
    }
    // A reference to the semicolon itself, or one only partly read, stays as it is.
    let value = unescape(&format!("&{whole}"));
    (!value.contains(';')).then_some((value, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_entity_table_is_read() {
        assert_eq!(NAMED.len(), include_str!("tables/entities.txt").lines().count());
    }

    #[test]
    fn loose_references_are_read_as_python_reads_them() {
        for (text, expected) in [
            ("&lt;b&gt; &amp &notit; &notin; &nosuch;", "<b> & ¬it; ∉ &nosuch;"),
            ("&#65;&#x42&#x80;&#0;&#xd800;&#x110000;&#99999999999;", "AB€\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            ("&#1;&#x1f;&#xfdd0;&#xfffe;|&#; &#x; & &;", "|&#; &#x; & &;"),
            ("&NotEqualTilde;", "≂\u{338}"),
        ] {
            assert_eq!(unescape(text), expected, "{text}");
        }
    }

    #[test]
    fn strict_references_want_their_semicolon_and_know_capitals() {
        for (text, expected) in [
            ("this&not that &eacute; &EACUTE; &SZLIG;", "this&not that é É SS"),
            ("&#59; &#x41; &#zz; &nTILDE;", "&#59; A &#zz; &nTILDE;"),
        ] {
            assert_eq!(unescape_strict(text), expected, "{text}");
        }
    }
}
