//! Pictures and texts to what the towers take: the encoder's own preprocessing and tokenizer, or what frozen trunks made of them.

use std::sync::Arc;

use anchorite_encoder::{ImageError, TextError, image::Preprocess, text::Tokenizer};

use super::{Draw, random_window};
use crate::{
    frozen::{Features, UNIT, image_error, text_error},
    runner::Augment,
};

/// How a run's pictures and texts are prepared. Shared among threads.
#[derive(Debug)]
pub struct Preparer {
    way: Way,
    tokens: usize,
    mask: bool,
}

/// What towers are fed.
#[derive(Debug)]
enum Way {
    /// Pixels and token ids.
    Whole { picture: Box<Preprocess>, text: Box<Tokenizer>, augment: Option<Augment> },
    /// Values at the seam: pictures as `3 x 1 x width` filled up with zeros, texts as whole numbers.
    Frozen { features: Arc<Features>, width: usize },
}

impl Preparer {
    /// With the model's own preprocessing and tokenizer; every text has `tokens` ids, padding included, and where the text tower wants
    /// it, a mask.
    #[must_use]
    pub fn new(picture: Preprocess, text: Tokenizer, augment: Option<Augment>, mask: bool) -> Self {
        let tokens = text.context_length();
        Self { way: Way::Whole { picture: Box::new(picture), text: Box::new(text), augment }, tokens, mask }
    }

    /// With remembered features, for a trainer of heads alone ([`crate::frozen::Frozen::trainer`]).
    #[must_use]
    pub fn frozen(features: Arc<Features>) -> Self {
        let size = |shape: &[usize]| shape.iter().product::<usize>();
        let (width, tokens) = (size(features.picture_shape()).div_ceil(3), size(features.text_shape()));
        Self { way: Way::Frozen { features, width }, tokens, mask: false }
    }

    /// Rows and columns of a prepared picture.
    #[must_use]
    pub fn picture_size(&self) -> (usize, usize) {
        match &self.way {
            Way::Whole { picture, .. } => picture.geometry().output(),
            Way::Frozen { width, .. } => (1, *width),
        }
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
        match &self.way {
            Way::Whole { augment: None, .. } => self.whole(bytes),
            Way::Whole { picture, augment: Some(augment), .. } => {
                Ok(picture.apply_window(bytes, |rows, columns| random_window(*augment, draw, rows, columns))?.values)
            }
            Way::Frozen { .. } => self.whole(bytes),
        }
    }

    /// `3 x height x width` values as the model's own preprocessing has it, whatever crops a run draws.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn whole(&self, bytes: &[u8]) -> Result<Vec<f32>, ImageError> {
        match &self.way {
            Way::Whole { picture, .. } => Ok(picture.apply(bytes)?.values),
            Way::Frozen { features, width } => {
                let mut values = features.picture(bytes).map_err(image_error)?;
                values.resize(3 * width, 0.0);
                Ok(values)
            }
        }
    }

    /// Appends the text's ids, and its mask where the tower wants one.
    ///
    /// # Errors
    /// [`TextError`].
    pub fn text(&self, text: &str, ids: &mut Vec<i64>, mask: &mut Option<Vec<i64>>) -> Result<(), TextError> {
        let tokenizer = match &self.way {
            Way::Whole { text, .. } => text,
            Way::Frozen { features, .. } => {
                let values = features.text(text).map_err(text_error)?;
                ids.extend(values.into_iter().map(|v| (v / UNIT).round() as i64));
                return Ok(());
            }
        };
        let tokens = tokenizer.encode(text)?;
        let (used, all) = (tokens.ids.len(), self.tokens);
        ids.extend(tokens.ids.into_iter().map(i64::from));
        ids.extend(std::iter::repeat_n(i64::from(tokenizer.pad_id()), all - used));
        if let Some(mask) = mask {
            mask.extend(std::iter::repeat_n(1, used).chain(std::iter::repeat_n(0, all - used)));
        }
        Ok(())
    }
}
