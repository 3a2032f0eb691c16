//! From a model folder to an [`Encoder`] in one call: towers, preprocessing and tokenizer as the folder's own files say.

use std::path::Path;

use crate::image::{Preprocess, PreprocessError};
use crate::model::{Folder, ModelError, ModelOptions};
use crate::runtime::{Provider, Runtime, RuntimeError};
use crate::session::{self, Engine};
use crate::text::{Tokenizer, TokenizerError, TokenizerOptions};
use crate::{
    Encoder, EncoderError, EncoderOptions, ImageError, Pixels, Preparation, PreparePicture, PrepareText, TextError, Tokens,
};

/// Why a model folder does not make an encoder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The provider is not there.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The model files.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The preprocessing file.
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    /// The tokenizer file.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The parts do not fit, or ONNX Runtime refuses one.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
}

/// Opens the model in `folder` on `provider`. A folder with one tower needs only that tower's preparation files.
///
/// # Errors
/// [`OpenError`], which names the file and what to do.
pub fn open(
    runtime: &Runtime,
    provider: Provider,
    folder: &Path,
    model: &ModelOptions,
    options: EncoderOptions,
) -> Result<Encoder, OpenError> {
    runtime.check_provider(provider)?;
    let towers = Folder::open(folder, model)?;
    let picture = towers.image().map(|_| Preprocess::find(folder)).transpose()?;
    let text = towers.text().map(|tower| tokenizer(folder, tower.binding().sequence)).transpose()?;
    let preparation = Preparation {
        picture: picture.map(|p| Box::new(p) as Box<dyn PreparePicture>),
        text: text.map(|t| Box::new(t) as Box<dyn PrepareText>),
    };
    Ok(Encoder::open(towers, preparation, engine(runtime, provider), options)?)
}

/// The folder's tokenizer; where the graph fixes how many tokens it takes, that is the context.
fn tokenizer(folder: &Path, sequence: Option<usize>) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::find_with(folder, &TokenizerOptions { context_length: sequence, ..TokenizerOptions::default() })
}

/// ONNX Runtime as sessions are made on it, with this provider.
#[must_use]
pub fn engine(runtime: &Runtime, provider: Provider) -> Engine {
    let (device, half) = (provider.device(), provider.has_half());
    let named = |dispatch| session::Provider { name: provider.to_string(), dispatch, device: device.clone(), half };
    Engine { environment: runtime.environment().clone(), providers: provider.dispatch().into_iter().map(named).collect() }
}

impl PreparePicture for Preprocess {
    fn prepare(&self, bytes: &[u8]) -> Result<Pixels, ImageError> {
        self.apply(bytes)
    }

    fn size(&self) -> Option<(usize, usize)> {
        Some(self.geometry().output())
    }
}

impl PrepareText for Tokenizer {
    fn prepare(&self, text: &str) -> Result<Tokens, TextError> {
        self.encode(text)
    }

    fn pad_id(&self) -> u32 {
        Tokenizer::pad_id(self)
    }

    fn context_length(&self) -> usize {
        Tokenizer::context_length(self)
    }
}
