//! Rows that the caller does not want although nothing is wrong with them. Each is counted by reason and listed with the
//! rejects, but does not count as one.
//!
//! What needs only the row is decided before anything is decoded; the CLIP score needs both vectors.

use std::{collections::HashSet, str::FromStr};

use unicode_script::UnicodeScript;

use crate::{Reject, Row, reject::code};

/// A script by Unicode's name for it: `Latin`, `Han`, `Cyrillic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script(unicode_script::Script);

/// A name that Unicode does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no script; Unicode's names are meant, as in Latin, Cyrillic, Greek, Han, Hiragana, Hangul, Arabic, Devanagari")]
pub struct UnknownScript(String);

impl FromStr for Script {
    type Err = UnknownScript;

    fn from_str(name: &str) -> Result<Self, UnknownScript> {
        let mut letters = name.trim().chars();
        let first = letters.next().map(|c| c.to_ascii_uppercase());
        let capitalised: String = first.into_iter().chain(letters.map(|c| c.to_ascii_lowercase())).collect();
        unicode_script::Script::from_full_name(&capitalised).map(Self).ok_or_else(|| UnknownScript(name.to_owned()))
    }
}

/// Share of a caption's letters that must be of the wanted scripts: half, so that a foreign name does no harm.
const SCRIPT_SHARE: f64 = 0.5;

/// What rows must be like. By default every row will do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filters {
    /// Fewest words of a caption, between white space.
    pub min_caption_words: Option<usize>,
    /// Most words of a caption.
    pub max_caption_words: Option<usize>,
    /// Scripts of which at least half of a caption's letters must be; empty means any. A caption without letters passes.
    pub scripts: Vec<Script>,
    /// Most of a caption's words that may have stood in it before, as a share; upper and lower case are the same.
    pub max_repetition: Option<f32>,
    /// Fewest pixels of a picture's shorter edge, by its header.
    pub min_image_edge: Option<u32>,
    /// Least cosine of image and text vector. Rows with one of them only are not held to it.
    pub min_clip_score: Option<f32>,
    /// Cosine of two picture vectors from which the later row is a near duplicate and left out: of an earlier row of this run, or of a pair
    /// of the pool under another key. 0.95 finds other sizes and qualities of a picture. Rows without a picture's vector are not compared.
    pub near_duplicate: Option<f32>,
    /// Drop a row whose picture (or vectors) and caption an earlier row of this run has, byte by byte.
    pub drop_duplicates: bool,
}

impl Filters {
    /// Whether a row's fate depends on rows before it.
    pub(crate) fn compares_rows(&self) -> bool {
        self.drop_duplicates
    }

    /// Why the row is not wanted, as far as that can be told before it is encoded.
    pub(crate) fn row(&self, row: &Row) -> Option<Reject> {
        let words = row.caption.as_ref().map(|caption| caption.split_whitespace().count());
        let refuse = |code, message| Some(Reject::new(row.source.clone(), code, message));
        if let (Some(words), Some(min)) = (words, self.min_caption_words)
            && words < min
        {
            return refuse(code::FILTERED_CAPTION_SHORT, format!("the caption has {words} words; at least {min} are wanted"));
        }
        if let (Some(words), Some(max)) = (words, self.max_caption_words)
            && words > max
        {
            return refuse(code::FILTERED_CAPTION_LONG, format!("the caption has {words} words; at most {max} are wanted"));
        }
        if let Some((code, message)) = row.caption.as_deref().and_then(|caption| self.caption(caption)) {
            return refuse(code, message);
        }
        let size = self.min_image_edge.and(row.picture.as_deref()).and_then(picture_size);
        if let (Some((width, height)), Some(min)) = (size, self.min_image_edge)
            && width.min(height) < min
        {
            let message = format!("the picture is {width} x {height}; at least {min} an edge are wanted");
            return refuse(code::FILTERED_IMAGE_SMALL, message);
        }
        None
    }

    fn caption(&self, caption: &str) -> Option<(&'static str, String)> {
        if let Some(share) = self.script_share(caption).filter(|share| *share < SCRIPT_SHARE) {
            let message =
                format!("{:.0} % of the caption's letters are of the wanted scripts; at least half must be", share * 100.0);
            return Some((code::FILTERED_CAPTION_SCRIPT, message));
        }
        let (max, share) = (self.max_repetition?, repetition(caption)?);
        let message =
            || format!("{:.0} % of the caption's words stood in it before; at most {:.0} % may", share * 100.0, max * 100.0);
        (share > max).then(|| (code::FILTERED_CAPTION_REPETITION, message()))
    }

    /// Share of the caption's letters that are of the wanted scripts; none without letters or wishes. What several scripts share
    /// (the long vowel mark of Japanese) counts for neither side.
    fn script_share(&self, caption: &str) -> Option<f64> {
        if self.scripts.is_empty() {
            return None;
        }
        let scripts = caption.chars().filter(|c| c.is_alphabetic()).map(|c| c.script());
        let own = scripts.filter(|s| !matches!(s, unicode_script::Script::Common | unicode_script::Script::Inherited));
        let (wanted, all) = own
            .fold((0_u32, 0_u32), |(wanted, all), script| (wanted + u32::from(self.scripts.contains(&Script(script))), all + 1));
        (all > 0).then(|| f64::from(wanted) / f64::from(all))
    }

    /// Why the pair is not wanted.
    pub(crate) fn score(&self, row: &Row, image: Option<&[f32]>, text: Option<&[f32]>) -> Option<Reject> {
        let (min, image, text) = (self.min_clip_score?, image?, text?);
        // Unit vectors: the product is the cosine.
        let score: f32 = image.iter().zip(text).map(|(a, b)| a * b).sum();
        let message = || format!("picture and caption have a CLIP score of {score:.4}; at least {min} is wanted");
        (score < min).then(|| Reject::new(row.source.clone(), code::FILTERED_CLIP_SCORE, message()))
    }
}

/// Share of the words that stood in the caption before; none without words.
fn repetition(caption: &str) -> Option<f32> {
    let mut met = HashSet::new();
    let (mut again, mut all) = (0_u32, 0_u32);
    for word in caption.split_whitespace() {
        all += 1;
        again += u32::from(!met.insert(word.to_lowercase()));
    }
    (all > 0).then(|| again as f32 / all as f32)
}

/// Width and height by the header; none for a picture that is damaged or of another kind, which the decoder says better.
fn picture_size(bytes: &[u8]) -> Option<(u32, u32)> {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Some((be32(bytes, 16)?, be32(bytes, 20)?));
    }
    if bytes.starts_with(b"RIFF") && bytes.get(8..12)? == b"WEBP" {
        return webp_size(bytes);
    }
    if bytes.starts_with(b"\xff\xd8") { jpeg_size(bytes) } else { None }
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn le24(bytes: &[u8], at: usize) -> Option<u32> {
    let [a, b, c] = *bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes([a, b, c, 0]))
}

/// The three kinds of WebP: extended, lossless, lossy.
fn webp_size(bytes: &[u8]) -> Option<(u32, u32)> {
    match bytes.get(12..16)? {
        b"VP8X" => Some((le24(bytes, 24)? + 1, le24(bytes, 27)? + 1)),
        b"VP8L" => {
            let bits = u32::from_le_bytes(*bytes.get(21..)?.first_chunk()?);
            Some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
        }
        b"VP8 " => Some((le24(bytes, 26)? & 0x3fff, le24(bytes, 28)? & 0x3fff)),
        _ => None,
    }
}

/// The first frame header among the segments.
fn jpeg_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        let [mark, kind, high, low] = *bytes.get(at..)?.first_chunk()?;
        match (mark, kind) {
            (0xff, 0xff) => at += 1,
            (0xff, 0xc0..=0xcf) if !matches!(kind, 0xc4 | 0xc8 | 0xcc) => {
                let [h1, h0, w1, w0] = *bytes.get(at + 5..)?.first_chunk()?;
                return Some((u16::from_be_bytes([w1, w0]).into(), u16::from_be_bytes([h1, h0]).into()));
            }
            (0xff, _) => at += 2 + usize::from(u16::from_be_bytes([high, low])),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_pillow_wrote_and_junk_has_none() {
        let tar = include_bytes!("../tests/data/webdataset/cc3m-train-0000.tar");
        let starts = [&b"\xff\xd8\xff"[..], b"\x89PNG\r\n", b"RIFF"];
        for start in starts {
            let at = tar.windows(start.len()).position(|w| w == start).unwrap();
            assert_eq!(picture_size(&tar[at..]), Some((16, 12)), "{start:?}");
            for length in 0..40 {
                let _ = picture_size(&tar[at..at + length]);
            }
        }
        assert_eq!(picture_size(b"GIF89a"), None);
        assert_eq!(picture_size(&[0xff; 64]), None);
    }
}
