//! What ftfy 6.3.1 (Apache-2.0) does to text under its default settings, as `open_clip` calls it: mojibake is undone, quotes
//! are uncurled, ligatures, full-width forms and control characters go, the rest is composed (NFC). Written anew from its
//! behaviour; the character tables are made from it by `tables/make.py`.
//!
//! ```text
//!   line ──► entities ──► encoding ──► C1 ──► ligatures ──► width ──► quotes ──► line breaks ──► escapes ──► controls ──► NFC ─┐
//!     ▲                                                                                                                      │
//!     └───────────────────────────────────────── until nothing changes ──────────────────────────────────────────────────────┘
//! ```
//!
//! Left out: lone surrogates, which a Rust string cannot hold.

pub(super) mod charmaps;
mod mojibake;

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::entities;
use super::unicode::class;

/// ftfy repeats until nothing changes, which text made for the purpose (`&amp;amp;amp;...`) turns into quadratic time.
/// Deeper nesting than this is left as it is.
const MAX_ROUNDS: usize = 64;

/// ftfy's `fix_text`.
pub(super) fn fix_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // Once a line holds a "<", it and all lines after it are taken for real HTML, whose entities are meant.
    let mut unescape = true;
    for line in text.split_inclusive('\n') {
        unescape &= !line.contains('<');
        out.push_str(&fix_line(line, unescape));
    }
    out
}

fn fix_line(line: &str, unescape: bool) -> String {
    let mut text = line.to_owned();
    for _ in 0..MAX_ROUNDS {
        let fixed = fix_once(&text, unescape);
        if fixed == text {
            break;
        }
        text = fixed;
    }
    text
}

fn fix_once(text: &str, unescape: bool) -> String {
    let unescaped = if unescape && text.contains('&') { entities::unescape_strict(text) } else { text.to_owned() };
    let decoded = mojibake::fix_encoding(unescaped);
    let replaced: String = if decoded.is_ascii() { decoded } else { replace_characters(&decoded) };
    let one_break = replaced.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n");
    let plain: String = remove_escapes(&one_break).chars().filter(|&c| !is_stray_control(c)).collect();
    compose(plain)
}

fn compose(text: String) -> String {
    match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => text,
        _ => text.nfc().collect(),
    }
}

/// The steps that look at one character: C1 controls, ligatures, width, quotes. Each sees what those before it
/// made of the character, as in the reference.
fn replace_characters(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let c = if mojibake::is_c1(c) { u8::try_from(c).map_or(c, charmaps::windows_1252) } else { c };
        match ligature(c) {
            Some(letters) => letters.chars().for_each(|letter| push_plain(letter, &mut out)),
            None => push_plain(c, &mut out),
        }
    }
    out
}

fn push_plain(c: char, out: &mut String) {
    match c {
        '\u{3000}' => out.push(' '),
        '\u{ff01}'..='\u{ffef}' => std::iter::once(c).nfkc().for_each(|wide| out.push(uncurl(wide))),
        c => out.push(uncurl(c)),
    }
}

fn uncurl(c: char) -> char {
    match c {
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => '\'',
        '\u{201c}'..='\u{201f}' => '"',
        c => c,
    }
}

fn ligature(c: char) -> Option<&'static str> {
    Some(match c {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "ʼn",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => return None,
    })
}

/// Takes out terminal colours and the like: escape, bracket, digits (any script's) and semicolons, one ASCII letter.
fn remove_escapes(text: &str) -> Cow<'_, str> {
    const START: &str = "\u{1b}[";
    if !text.contains(START) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(START) {
        out.push_str(before);
        let command = after.trim_start_matches(|c: char| c == ';' || class(c).is_digit());
        rest = match command.strip_prefix(|c: char| c.is_ascii_alphabetic()) {
            Some(tail) => tail,
            None => {
                out.push_str(START);
                after
            }
        };
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn is_stray_control(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{206a}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffc}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_fixed_as_the_reference_documents() {
        for (text, expected) in [
            ("âœ” No problems", "✔ No problems"),
            ("&macr;\\_(ã\u{83}\u{84})_/&macr;", "¯\\_(ツ)_/¯"),
            ("Broken text&hellip; it&#x2019;s ﬂubberiﬁc!", "Broken text… it's flubberific!"),
            ("ＬＯＵＤ　ＮＯＩＳＥＳ", "LOUD NOISES"),
            ("sÃ³", "só"),
            ("voilÃ le travail", "voilà le travail"),
            ("\u{1b}[36;44mI'm blue\u{1b}[0m", "I'm blue"),
            ("a\u{85}b\r\nc\rd\u{2028}e", "a\u{2026}b\nc\nd\ne"),
            ("<b>&amp;</b>\n&amp;", "<b>&amp;</b>\n&amp;"),
            ("e\u{301} \u{feff}x\u{b}y", "é xy"),
        ] {
            assert_eq!(fix_text(text), expected, "{text:?}");
        }
    }

    #[test]
    fn nested_entities_end() {
        let text = format!("&{}", "amp;".repeat(15_000));
        assert!(fix_text(&text).len() < text.len());
    }
}
