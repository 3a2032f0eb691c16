//! Undoes mojibake: UTF-8 that was read in a single-byte encoding. Text is touched only where neighbouring characters are
//! of kinds that seldom meet in anything else ([`is_bad`]); then each encoding is tried backwards.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::charmaps::{CHARMAPS, Charmap, SUBSTITUTE, WINDOWS_1252_HOLES, windows_1252};
use crate::text::unicode::{class, is_python_space};

/// Mojibake within mojibake: every level at least halves the text, so that no honest caption comes near.
const MAX_DEPTH: usize = 8;
/// Repairs of one piece, one after another; see `MAX_ROUNDS` in the parent.
const MAX_REPAIRS: usize = 64;

/// Kinds of characters, one bit each, in the order of `tables/make.py`.
const COMMON: u32 = 1;
const C1: u32 = 1 << 1;
const BAD: u32 = 1 << 2;
const LAW: u32 = 1 << 3;
const CURRENCY: u32 = 1 << 4;
const START: u32 = 1 << 5;
const END: u32 = 1 << 6;
const NUMERIC: u32 = 1 << 7;
const KAOMOJI: u32 = 1 << 8;
const UPPER: u32 = 1 << 9;
const LOWER: u32 = 1 << 10;
const UPPER_COMMON: u32 = 1 << 11;
const LOWER_COMMON: u32 = 1 << 12;
const BOX: u32 = 1 << 13;
const FIRST_OF_2: u32 = 1 << 14;
const FIRST_OF_3: u32 = 1 << 15;
const FIRST_OF_4: u32 = 1 << 16;
const CONTINUATION: u32 = 1 << 17;
const STRICT_CONTINUATION: u32 = 1 << 18;

const MARKS: u32 = BOX | START | END | CURRENCY | NUMERIC | LAW;
const ACCENTED: u32 = LOWER | UPPER;

/// Kinds that give mojibake away when one follows the other.
const BAD_PAIRS: [(u32, u32); 10] = [
    (BAD | ACCENTED | MARKS, BAD),
    (BAD, ACCENTED | MARKS),
    (LOWER | LOWER_COMMON | BOX | END | CURRENCY | NUMERIC, UPPER),
    (BOX | END | CURRENCY | NUMERIC, LOWER),
    (LOWER | BOX | END, CURRENCY),
    (UPPER | BOX, NUMERIC | LAW),
    (CURRENCY | NUMERIC | BOX, START),
    (BOX, KAOMOJI),
    (ACCENTED | CURRENCY | NUMERIC | START | END | LAW, BOX),
    (BOX, END),
];

/// The same for three in a row.
const BAD_TRIPLES: [(u32, u32, u32); 2] =
    [(ACCENTED | BOX | CURRENCY | END, START, NUMERIC), (ACCENTED | CURRENCY | NUMERIC | BOX | LAW, END, START)];

static KINDS: LazyLock<HashMap<char, u32>> =
    LazyLock::new(|| include_str!("../tables/mojibake.txt").lines().filter_map(kind).collect());

fn kind(line: &str) -> Option<(char, u32)> {
    let (point, mask) = line.split_once('\t')?;
    Some((char::from_u32(u32::from_str_radix(point, 16).ok()?)?, u32::from_str_radix(mask, 16).ok()?))
}

/// A character and its kinds.
#[derive(Clone, Copy)]
struct Marked {
    c: char,
    kinds: u32,
}

impl Marked {
    /// What stands behind the end: no kind, and a character that no rule names.
    const NOTHING: Self = Self { c: '\0', kinds: 0 };

    fn of(c: char) -> Self {
        let kinds = match c {
            ' ' => CONTINUATION,
            c if c.is_ascii() => 0,
            c => KINDS.get(&c).copied().unwrap_or(0),
        };
        Self { c, kinds }
    }

    fn is(self, kinds: u32) -> bool {
        self.kinds & kinds != 0
    }
}

/// A control character of the C1 range.
pub(super) fn is_c1(c: char) -> bool {
    ('\u{80}'..='\u{9f}').contains(&c)
}

/// ftfy's `fix_encoding`.
pub(super) fn fix_encoding(text: String) -> String {
    if text.is_ascii() { text } else { fix_nested(text, 0) }
}

fn fix_nested(mut text: String, depth: usize) -> String {
    for _ in 0..MAX_REPAIRS {
        match repair(&text, depth) {
            Some(fixed) if fixed != text => text = fixed,
            _ => break,
        }
    }
    text
}

/// One repair, or `None` when the text looks sound or nothing helps.
fn repair(text: &str, depth: usize) -> Option<String> {
    let marked: Vec<Marked> = text.chars().map(Marked::of).collect();
    if text.is_ascii() || !is_bad(&marked) {
        return None;
    }
    let mut is_latin_1 = false;
    for charmap in CHARMAPS.iter() {
        let Some(bytes) = charmap.encode(text) else { continue };
        is_latin_1 |= charmap.name == "latin-1";
        if let Some(fixed) = decode(charmap, bytes) {
            return Some(fixed);
        }
    }
    let fixed = decode_pieces(&marked, depth);
    if fixed != text {
        return Some(fixed);
    }
    // Latin-1 that was meant as Windows-1252; then single C1 controls in other text. Both map the same characters.
    let as_windows = || text.chars().map(c1_as_windows_1252).collect::<String>();
    let whole = is_latin_1 && !text.contains(WINDOWS_1252_HOLES);
    (whole || text.contains(is_c1)).then(as_windows)
}

fn c1_as_windows_1252(c: char) -> char {
    if is_c1(c) { u8::try_from(c).map_or(c, windows_1252) } else { c }
}

// --- looking for it -------------------------------------------------------------------------------------------------

fn is_bad(text: &[Marked]) -> bool {
    (0..text.len()).any(|at| is_bad_at(text, at))
}

fn is_bad_at(text: &[Marked], at: usize) -> bool {
    let next = |offset: usize| text.get(at + offset).copied().unwrap_or(Marked::NOTHING);
    let window = [next(0), next(1), next(2), next(3)];
    if window[0].c.is_ascii() && window[1].c.is_ascii() {
        return false;
    }
    is_bad_sequence(window)
        || window[0].is(C1)
        || is_loose_ligature(text, at)
        || is_bad_western(window.map(|m| m.c), window)
        || is_bad_elsewhere(window.map(|m| m.c), window[1])
        || is_twice_misread(text, at)
        || is_a_with_space(text, at)
}

/// The rules about kinds alone.
fn is_bad_sequence([a, b, c, _]: [Marked; 4]) -> bool {
    BAD_PAIRS.iter().any(|&(first, second)| a.is(first) && b.is(second))
        || BAD_TRIPLES.iter().any(|&(first, second, third)| a.is(first) && b.is(second) && c.is(third))
        || (a.c.is_ascii_alphabetic() && b.is(LOWER_COMMON | UPPER_COMMON) && c.is(BAD))
        || (is_python_space(a.c) && b.is(UPPER) && c.is(CURRENCY))
        || (a.c.is_ascii_lowercase() && b.is(UPPER) && c.is(START | CURRENCY))
        || (a.is(ACCENTED) && b.is(START | END) && class(c.c).is_word())
}

/// A ligature that no plain Latin letter follows.
fn is_loose_ligature(text: &[Marked], at: usize) -> bool {
    let is_ligature = text.get(at).is_some_and(|m| matches!(m.c, 'Œ' | 'œ'));
    is_ligature && text.get(at + 1).is_some_and(|m| !m.c.is_ascii_alphabetic())
}

/// Windows-1252 (Latin, Arabic, South Asian) and MacRoman.
fn is_bad_western(text: [char; 4], marked: [Marked; 4]) -> bool {
    match text {
        ['Â' | 'Ã' | 'Î' | 'Ð', b, ..] if marked[1].is(START | END) || "€œŠš¢£Ÿž\u{a0}\u{ad}®©°·»–—´".contains(b) => {
            true
        }
        ['Ø' | 'Ù', _, 'Ø' | 'Ù', _] => is_arabic_tail(marked[1]) && is_arabic_tail(marked[3]),
        [_, '°', ..] if marked[0].is(UPPER) => true,
        ['×', '²' | '³', ..] | ['Ã', '\u{a0}' | '¡', ..] => true,
        ['à', b, ..] => "²µ¹¼½¾".contains(b),
        ['√', b, ..] => "±∂†≠®™´≤≥¥µø".contains(b),
        ['≈', b, ..] => "°¢".contains(b),
        ['‚', 'Ä', c, _] => "ìîïòôúùû†°¢π".contains(c),
        ['‚', 'â' | 'ó', c, _] => "àä°ê".contains(c),
        _ => false,
    }
}

fn is_arabic_tail(m: Marked) -> bool {
    m.is(COMMON | CURRENCY | BAD | NUMERIC | START) || matches!(m.c, 'Ÿ' | 'Š' | '®' | '°' | 'µ' | '»')
}

/// Windows-1251 (Cyrillic), 1253 (Greek) and 1257 (Baltic).
fn is_bad_elsewhere(text: [char; 4], middle: Marked) -> bool {
    let sign = middle.is(C1 | BAD | START | END | CURRENCY) || middle.c == '°';
    match text {
        ['\u{432}', '\u{402}', ..] | ['\u{101}', '€', ..] => true,
        ['\u{412}' | '\u{413}' | '\u{420}' | '\u{421}', b, '\u{412}' | '\u{413}' | '\u{420}' | '\u{421}', _] => sign || b == 'µ',
        ['\u{392}' | '\u{393}' | '\u{39e}' | '\u{39f}', _, '\u{392}' | '\u{393}' | '\u{39e}' | '\u{39f}', _] => sign,
        ['\u{3b2}', '€', '™' | '\u{a0}' | '\u{386}' | '\u{ad}' | '®' | '°', _] => true,
        _ => false,
    }
}

/// Five Cyrillic letters that come of misreading twice, any character, and a Latin letter or a space.
fn is_twice_misread(text: &[Marked], at: usize) -> bool {
    let c = |offset: usize| text.get(at + offset).map(|m| m.c);
    let letters = ['\u{413}', '\u{45e}', '\u{412}', '\u{402}', '\u{412}'];
    letters.iter().enumerate().all(|(offset, &letter)| c(offset) == Some(letter))
        && c(5).is_some_and(|any| any != '\n')
        && c(6).is_some_and(|latin| latin == ' ' || latin.is_ascii_alphabetic())
}

/// "Â" or "Ã" whose other half, a no-break space, has become a space.
fn is_a_with_space(text: &[Marked], at: usize) -> bool {
    let (here, next) = (text.get(at), text.get(at + 1));
    let before = |distance: usize| at.checked_sub(distance).and_then(|before| text.get(before));
    let is_lower = |m: &Marked| m.c.is_ascii_lowercase();
    let a = match here.map(|m| m.c) {
        Some(a @ ('Â' | 'Ã')) => a,
        _ => return false,
    };
    let follows_letter =
        before(1).is_some_and(is_lower) || (before(1).is_some_and(|m| is_python_space(m.c)) && before(2).is_some_and(is_lower));
    let follows_sign = before(1).is_some_and(|m| is_lower(m) || ".,?!".contains(m.c) || m.is(END));
    let is_space = next.is_some_and(|m| m.c == ' ');
    (is_space && (at == 0 || follows_letter))
        || (a == 'Â' && follows_sign && (is_space || next.is_some_and(|m| m.is(START | END))))
}

// --- undoing it -----------------------------------------------------------------------------------------------------

/// Bytes that were read as `charmap` read as UTF-8 again; losses on the way are made good where they are certain.
fn decode(charmap: &Charmap, mut bytes: Vec<u8>) -> Option<String> {
    // In MacRoman the altered form would also be an en dash and a space.
    if charmap.name != "macroman" && (0..bytes.len()).any(|at| altered_utf8(&bytes[at..]).is_some()) {
        bytes = restore_a0(&bytes);
    }
    if charmap.is_sloppy() {
        bytes = replace(&bytes, lossy_utf8, |_, out| out.extend("\u{fffd}".bytes()));
    }
    if bytes.contains(&0xed) || bytes.contains(&0xc0) { decode_variants(&bytes) } else { String::from_utf8(bytes).ok() }
}

/// Rewrites every place where `found` gives a length, from left to right.
fn replace(bytes: &[u8], found: impl Fn(&[u8]) -> Option<usize>, write: impl Fn(&[u8], &mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        match found(rest).and_then(|length| rest.split_at_checked(length)) {
            Some((part, behind)) => {
                write(part, &mut out);
                rest = behind;
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

/// Puts the no-break space back where UTF-8 wants one and a plain space stands.
fn restore_a0(bytes: &[u8]) -> Vec<u8> {
    // "à" as a word of its own keeps its space; Portuguese words that begin with it do not.
    let a_grave = |rest: &[u8]| {
        let tail = rest.strip_prefix(b"\xc3 ")?;
        let joined = [&b" "[..], b"quele", b"quela", b"quilo", b"s "].iter().any(|word| tail.starts_with(word));
        (!joined).then_some(2)
    };
    let spaced = replace(bytes, a_grave, |_, out| out.extend(b"\xc3\xa0 "));
    replace(&spaced, altered_utf8, |part, out| out.extend(part.iter().map(|&b| if b == b' ' { 0xa0 } else { b })))
}

/// The length of a UTF-8 sequence in which a space stands for byte A0.
fn altered_utf8(bytes: &[u8]) -> Option<usize> {
    let likely = |b: u8| matches!(b, 0x80..=0x84 | 0x86..=0x9f | 0xa1..=0xbf);
    let tail = |b: u8| matches!(b, 0x80..=0xbf);
    match *bytes {
        [0xc2 | 0xc3 | 0xc5 | 0xce | 0xd0 | 0xd9, b' ', ..] => Some(2),
        [0xe2 | 0xe3, b' ', b, ..] if likely(b) => Some(3),
        [0xe0..=0xe3, b, b' ', ..] if likely(b) => Some(3),
        [0xf0, b' ', b, c, ..] | [0xf0, b, b' ', c, ..] | [0xf0, b, c, b' ', ..] if tail(b) && tail(c) => Some(4),
        _ => None,
    }
}

/// The length of a UTF-8 sequence that lost bytes to U+FFFD (carried as [`SUBSTITUTE`]) or to "?".
fn lossy_utf8(bytes: &[u8]) -> Option<usize> {
    let gone = |b: u8| matches!(b, SUBSTITUTE | b'?');
    let tail = |b: u8| matches!(b, 0x80..=0xbf);
    let kept = |b: u8| b == SUBSTITUTE || tail(b);
    match *bytes {
        [0xc2..=0xdf, SUBSTITUTE, ..] | [0xc2 | 0xc3, b'?', ..] => Some(2),
        [0xed, 0xa0..=0xaf, b, 0xed, 0xb0..=0xbf, c, ..]
            if (gone(b) && (gone(c) || tail(c))) || ((gone(b) || tail(b)) && gone(c)) =>
        {
            Some(6)
        }
        [0xe0..=0xef, b, c, ..] if (gone(b) && kept(c)) || (kept(b) && gone(c)) => Some(3),
        [0xf0..=0xf4, b, c, d, ..]
            if (gone(b) && kept(c) && kept(d)) || (kept(b) && gone(c) && kept(d)) || (kept(b) && kept(c) && gone(d)) =>
        {
            Some(4)
        }
        [SUBSTITUTE, ..] => Some(1),
        _ => None,
    }
}

/// UTF-8 in which surrogate pairs (CESU-8) and Java's two-byte NUL also occur.
fn decode_variants(bytes: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = (0..rest.len()).find(|&at| variant(&rest[at..]).is_some()) {
        let (plain, special) = rest.split_at_checked(at)?;
        out.push_str(std::str::from_utf8(plain).ok()?);
        let (c, length) = variant(special)?;
        out.push(c);
        rest = special.get(length..)?;
    }
    out.push_str(std::str::from_utf8(rest).ok()?);
    Some(out)
}

/// A special form at the start of `bytes`. Python's `$` also matches before a last newline, and the reference then
/// swallows it; so do we.
fn variant(bytes: &[u8]) -> Option<(char, usize)> {
    let bits = |b: u8, mask: u8| u32::from(b & mask);
    match *bytes {
        [0xc0, 0x80, ..] | [0xc0, b'\n'] => Some(('\0', 2)),
        [0xed, a @ 0xa0..=0xaf, b @ 0x80..=0xbf, 0xed, c @ 0xb0..=0xbf, d, ..]
            if matches!(d, 0x80..=0xbf) || (d == b'\n' && bytes.len() == 6) =>
        {
            let value = (bits(a, 0x0f) << 16) + (bits(b, 0x3f) << 10) + (bits(c, 0x0f) << 6) + bits(d, 0x3f) + 0x10000;
            char::from_u32(value).map(|c| (c, 6))
        }
        _ => None,
    }
}

/// Repairs sequences that look like misread UTF-8 one by one, in text that as a whole is in no encoding.
fn decode_pieces(text: &[Marked], depth: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&m) = text.get(at) {
        let length = if follows_strict(text, at) { 0 } else { misread_length(&text[at..]) };
        if length == 0 {
            out.push(m.c);
            at += 1;
            continue;
        }
        let piece = &text[at..at + length];
        let same: String = piece.iter().map(|m| m.c).collect();
        // Shorter than the whole, or this would not end.
        let mend = length < text.len() && depth < MAX_DEPTH && is_bad(piece);
        out.push_str(&if mend { fix_nested(same, depth + 1) } else { same });
        at += length;
    }
    out
}

fn follows_strict(text: &[Marked], at: usize) -> bool {
    at.checked_sub(1).and_then(|before| text.get(before)).is_some_and(|m| m.is(STRICT_CONTINUATION))
}

/// How many characters from the start on look like UTF-8 sequences, one after another.
fn misread_length(text: &[Marked]) -> usize {
    let tails =
        |from: usize, count: usize| text.get(from..from + count).is_some_and(|part| part.iter().all(|m| m.is(CONTINUATION)));
    let mut at = 0;
    while let Some(first) = text.get(at) {
        let length = [(FIRST_OF_2, 1), (FIRST_OF_3, 2), (FIRST_OF_4, 3)]
            .into_iter()
            .find(|&(kind, count)| first.is(kind) && tails(at + 1, count))
            .map(|(_, count)| count + 1);
        match length {
            Some(length) => at += length,
            None => break,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(text: &str) -> bool {
        is_bad(&text.chars().map(Marked::of).collect::<Vec<_>>())
    }

    #[test]
    fn every_line_of_the_table_is_read() {
        assert_eq!(KINDS.len(), include_str!("../tables/mojibake.txt").lines().count());
    }

    #[test]
    fn sound_text_is_not_suspected() {
        for text in ["naïve café", "Œuvre", "Привет, мир", "20 °C", "日本語", "«¿Qué?»", "plain", "à la carte"]
        {
            assert!(!bad(text), "{text}");
        }
    }

    #[test]
    fn misread_text_is_suspected_and_repaired() {
        for (text, expected) in [
            ("cafÃ©", "café"),
            ("â€œquotedâ€\u{9d}", "“quoted”"),
            ("РџСЂРёРІРµС‚", "Привет"),
            ("Ã la mode", "à la mode"),
            ("l’humanitÃ©", "l’humanité"),
            ("\u{81}", "\u{81}"),
        ] {
            assert!(bad(text), "{text}");
            assert_eq!(fix_encoding(text.to_owned()), expected);
        }
    }

    #[test]
    fn surrogate_pairs_and_the_long_nul_are_decoded() {
        assert_eq!(decode_variants(b"a\xed\xa0\xbd\xed\xb2\xa9b").as_deref(), Some("a\u{1f4a9}b"));
        assert_eq!(decode_variants(b"x\xc0\x80").as_deref(), Some("x\0"));
        assert_eq!(decode_variants(b"\xed\xa0\xbd"), None);
        assert_eq!(decode_variants("한국".as_bytes()).as_deref(), Some("한국"));
    }
}
