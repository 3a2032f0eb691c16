//! open_clip's cleaning of a caption before its tokenizer sees it.

use std::borrow::Cow;

use super::unicode::collapse_white_space;
use super::{entities, ftfy};

/// What open_clip does to a caption first; `text_cfg.tokenizer_kwargs.clean` in a model's configuration. All three begin
/// with ftfy's repairs and HTML unescaping (twice).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clean {
    /// White space collapsed, lower case. CLIP's own vocabulary.
    #[default]
    Lower,
    /// White space collapsed. Vocabularies of Hugging Face tokenizers.
    Whitespace,
    /// ASCII punctuation removed ("_" becomes a space), lower case, white space collapsed. SigLIP.
    Canonicalize,
}

impl Clean {
    /// By its name in a model's configuration.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "lower" => Some(Self::Lower),
            "whitespace" => Some(Self::Whitespace),
            "canonicalize" => Some(Self::Canonicalize),
            _ => None,
        }
    }

    /// The caption as the tokenizer shall see it.
    #[must_use]
    pub fn apply(self, text: &str) -> String {
        let basic = basic(text);
        match self {
            Self::Lower => lower(collapse_white_space(&basic)),
            Self::Whitespace => collapse_white_space(&basic),
            Self::Canonicalize => {
                let kept = basic.replace('_', " ").replace(|c: char| c.is_ascii_punctuation(), "");
                collapse_white_space(&lower(kept))
            }
        }
    }
}

/// Repairs and unescapes; text that cannot need either is passed through.
fn basic(text: &str) -> Cow<'_, str> {
    if text.bytes().all(is_untouched) {
        return Cow::Borrowed(text);
    }
    let fixed = ftfy::fix_text(text);
    if fixed.contains('&') { Cow::Owned(entities::unescape(&entities::unescape(&fixed))) } else { Cow::Owned(fixed) }
}

/// ASCII but for the ampersand and the controls; line breaks of every kind end as a space anyway.
fn is_untouched(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | 0x0c | b'\r' | b' '..=b'~') && byte != b'&'
}

/// Python's and Rust's rules are one, final sigma included.
fn lower(mut text: String) -> String {
    if text.is_ascii() {
        text.make_ascii_lowercase();
        text
    } else {
        text.to_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_variant_cleans_as_open_clip_does() {
        let text = "  A &amp;lt; B_C\u{201c}d\u{201d}\n\u{3a3}\u{391}\u{3a3} 4.5! ";
        assert_eq!(Clean::Lower.apply(text), "a < b_c\"d\" \u{3c3}\u{3b1}\u{3c2} 4.5!");
        assert_eq!(Clean::Whitespace.apply(text), "A < B_C\"d\" \u{3a3}\u{391}\u{3a3} 4.5!");
        assert_eq!(Clean::Canonicalize.apply(text), "a b cd \u{3c3}\u{3b1}\u{3c2} 45");
    }
}
