//! Pictures and texts to what the towers take: the encoder's own preprocessing and tokenizer.

use anchorite_encoder::{ImageError, TextError, image::Preprocess, text::Tokenizer};

use super::{Draw, random_window};
use crate::runner::Augment;

/// How a run's pictures and texts are prepared. Shared among threads.
#[derive(Debug)]
pub struct Preparer {
    picture: Preprocess,
    text: Tokenizer,
    augment: Option<Augment>,
    tokens: usize,
    mask: bool,
}

impl Preparer {
    /// With the model's own preprocessing and tokenizer; every text has `tokens` ids, padding included, and where the text tower wants
    /// it, a mask.
    #[must_use]
    pub fn new(picture: Preprocess, text: Tokenizer, augment: Option<Augment>, mask: bool) -> Self {
        let tokens = text.context_length();
        Self { picture, text, augment, tokens, mask }
    }

    /// Rows and columns of a prepared picture.
    #[must_use]
    pub fn picture_size(&self) -> (usize, usize) {
        self.picture.geometry().output()
    }

    /// Ids of a prepared text.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Whether texts have a mask.
    #[must_use]
    pub fn masked(&self) -> bool {
        self.mask
    }

    /// `3 x height x width` values; `draw` decides the crop, where crops are random.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn pixels(&self, bytes: &[u8], draw: &mut Draw) -> Result<Vec<f32>, ImageError> {
        let Some(augment) = self.augment else { return self.whole(bytes) };
        Ok(self.picture.apply_window(bytes, |rows, columns| random_window(augment, draw, rows, columns))?.values)
    }

    /// `3 x height x width` values as the model's own preprocessing has it, whatever crops a run draws.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn whole(&self, bytes: &[u8]) -> Result<Vec<f32>, ImageError> {
        Ok(self.picture.apply(bytes)?.values)
    }

    /// Appends the text's ids, and its mask where the tower wants one.
    ///
    /// # Errors
    /// [`TextError`].
    pub fn text(&self, text: &str, ids: &mut Vec<i64>, mask: &mut Option<Vec<i64>>) -> Result<(), TextError> {
        let tokens = self.text.encode(text)?;
        let (used, all) = (tokens.ids.len(), self.tokens);
        ids.extend(tokens.ids.into_iter().map(i64::from));
        ids.extend(std::iter::repeat_n(i64::from(self.text.pad_id()), all - used));
        if let Some(mask) = mask {
            mask.extend(std::iter::repeat_n(1, used).chain(std::iter::repeat_n(0, all - used)));
        }
        Ok(())
    }
}
