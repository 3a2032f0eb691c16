//! The written model against the live one, on some of the run's own pairs.

use anchorite_encoder::{Embedding, Encode, Pixels, Tokens};

use super::ExportError;

/// Pairs and what the live model makes of them.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Prepared pictures.
    pub pictures: Vec<Pixels>,
    /// Tokenized texts.
    pub texts: Vec<Tokens>,
    /// The live image tower's embeddings, of unit length.
    pub images: Vec<Vec<f32>>,
    /// The live text tower's embeddings, of unit length.
    pub captions: Vec<Vec<f32>>,
}

/// The greatest difference of a component, over both towers.
///
/// # Errors
/// [`ExportError::Differs`] beyond `tolerance`, [`ExportError::Encode`].
pub fn compare(written: &dyn Encode, live: &Live, tolerance: f32) -> Result<f32, ExportError> {
    let images: Vec<Vec<f32>> = written.encode_images(&live.pictures)?.into_iter().map(Embedding::into_vec).collect();
    let captions: Vec<Vec<f32>> = written.encode_texts(&live.texts)?.into_iter().map(Embedding::into_vec).collect();
    let mut worst: f32 = 0.0;
    for (tower, ours, theirs) in [("image", &live.images, &images), ("text", &live.captions, &captions)] {
        let components = ours.iter().flatten().zip(theirs.iter().flatten());
        // A NaN is no small difference.
        let difference =
            components.map(|(a, b)| (a - b).abs()).fold(0.0_f32, |worst, d| if d > worst || d.is_nan() { d } else { worst });
        let whole = ours.len() == theirs.len();
        if !(whole && difference <= tolerance) {
            return Err(ExportError::Differs { tower, difference, tolerance });
        }
        worst = worst.max(difference);
    }
    Ok(worst)
}
