//! A `tokenizer.json` run by the `tokenizers` crate, as Hugging Face defines it. Its stored truncation is replaced by the
//! tower's context and its stored padding is removed; the tokens that frame a text stay as its post-processor places them.

use std::collections::HashSet;

use tokenizers::{Encoding, Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy};

use super::{SpecialTokens, TextError, Tokens};

/// The file, loaded.
pub(super) struct HfTokenizer {
    inner: Tokenizer,
    direction: TruncationDirection,
}

/// What the file itself says; the folder may say more.
pub(super) struct Stored {
    pub(super) max_length: Option<usize>,
    pub(super) pad_id: Option<u32>,
}

/// An [`HfTokenizer`] with its length and its way with special tokens fixed.
pub(super) struct FramedTokenizer {
    inner: Tokenizer,
    direction: TruncationDirection,
    context: usize,
    frames: bool,
    /// Ids that must come from the post-processor only; empty when captions may name them.
    reserved: HashSet<u32>,
}

impl HfTokenizer {
    pub(super) fn from_json(json: &[u8]) -> Result<(Self, Stored), tokenizers::Error> {
        let mut inner = Tokenizer::from_bytes(json)?;
        let truncation = inner.get_truncation();
        let direction = truncation.map_or(TruncationDirection::Right, |stored| stored.direction);
        let max_length = truncation.map(|stored| stored.max_length);
        let pad_id = inner.get_padding().map(|stored| stored.pad_id);
        inner.with_padding(None).with_truncation(None)?;
        Ok((Self { inner, direction }, Stored { max_length, pad_id }))
    }

    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// How many tokens frame a text.
    pub(super) fn frame_length(&self) -> usize {
        self.inner.get_post_processor().map_or(0, |post| tokenizers::PostProcessor::added_tokens(post, false))
    }

    /// Fixes the length to `context` tokens, more than [`HfTokenizer::frame_length`].
    pub(super) fn frame(
        self,
        context: usize,
        pad_id: u32,
        specials: SpecialTokens,
    ) -> Result<FramedTokenizer, tokenizers::Error> {
        let frames = self.frame_length() > 0;
        let Self { mut inner, direction } = self;
        let mut reserved = HashSet::new();
        if specials == SpecialTokens::Neutralised {
            inner.set_encode_special_tokens(true);
            reserved.insert(pad_id);
            let empty = inner.encode_fast("", true)?;
            reserved.extend(with_mask(&empty).filter(|&(_, is_frame)| is_frame).map(|(id, _)| id));
        }
        // Without a frame the crate stops at the limit and cannot say whether it cut: we cut ourselves.
        if frames {
            let limit =
                TruncationParams { max_length: context, direction, strategy: TruncationStrategy::LongestFirst, stride: 0 };
            inner.with_truncation(Some(limit))?;
        }
        Ok(FramedTokenizer { inner, direction, context, frames, reserved })
    }
}

impl FramedTokenizer {
    pub(super) fn encode(&self, text: &str) -> Result<Tokens, TextError> {
        let failed = |error: tokenizers::Error| TextError::Tokenizer { reason: error.to_string() };
        let encoding = self.inner.encode_fast(text, true).map_err(failed)?;
        let keep = |&(id, is_frame): &(u32, bool)| is_frame || !self.reserved.contains(&id);
        let mut ids: Vec<u32> = with_mask(&encoding).filter(keep).map(|(id, _)| id).collect();
        let cut_here = !self.frames && ids.len() > self.context;
        if cut_here {
            match self.direction {
                TruncationDirection::Right => ids.truncate(self.context),
                TruncationDirection::Left => drop(ids.drain(..ids.len() - self.context)),
            }
        }
        Ok(Tokens { ids, truncated: cut_here || !encoding.get_overflowing().is_empty() })
    }
}

/// Ids with whether the post-processor put them there.
fn with_mask(encoding: &Encoding) -> impl Iterator<Item = (u32, bool)> + '_ {
    encoding.get_ids().iter().zip(encoding.get_special_tokens_mask()).map(|(&id, &mask)| (id, mask == 1))
}
