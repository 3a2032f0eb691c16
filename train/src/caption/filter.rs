//! Captions that are no use: BLIP and its kin repeat themselves, or say almost nothing.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

/// What a caption must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaptionFilter {
    /// Words at least. Default 1.
    pub min_words: usize,
    /// Words at most. Default 60: CLIP's context cuts longer ones.
    pub max_words: usize,
    /// Share of words that were there before, at most. Default 0.6: "a dog and a dog and a dog" has 0.63.
    pub max_repetition: f64,
    /// Captions with one of these are refused, whatever their case. Default: none.
    pub without: Vec<String>,
}

impl Default for CaptionFilter {
    fn default() -> Self {
        Self { min_words: 1, max_words: 60, max_repetition: 0.6, without: Vec::new() }
    }
}

/// Why a caption is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unfit {
    /// Fewer words than wanted.
    TooShort,
    /// More words than wanted.
    TooLong,
    /// The same words again and again.
    Repetitive,
    /// It has a word that is not wanted.
    UnwantedWord,
}

impl CaptionFilter {
    /// Why the caption is refused; none if it is not.
    #[must_use]
    pub fn refuses(&self, caption: &str) -> Option<Unfit> {
        let lower = caption.to_lowercase();
        let words: Vec<&str> = lower.split_whitespace().collect();
        let distinct: HashSet<&str> = words.iter().copied().collect();
        let repeated = (words.len() - distinct.len()) as f64 / words.len().max(1) as f64;
        match () {
            () if words.len() < self.min_words => Some(Unfit::TooShort),
            () if words.len() > self.max_words => Some(Unfit::TooLong),
            () if repeated > self.max_repetition => Some(Unfit::Repetitive),
            () if self.without.iter().any(|w| lower.contains(&w.to_lowercase())) => Some(Unfit::UnwantedWord),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_refuses_what_it_is_for() {
        let filter = CaptionFilter { min_words: 2, max_words: 9, without: vec!["Logo".into()], ..CaptionFilter::default() };
        assert_eq!(filter.refuses("dog"), Some(Unfit::TooShort));
        assert_eq!(filter.refuses("a b c d e f g h i j"), Some(Unfit::TooLong));
        assert_eq!(filter.refuses("a dog and a dog and a dog"), Some(Unfit::Repetitive));
        assert_eq!(filter.refuses("the LOGO of it"), Some(Unfit::UnwantedWord));
        assert_eq!(filter.refuses("a dog on a sofa"), None);
    }
}
