//! How an encoder prepares its inputs and runs, and why it could not be opened.

use std::num::NonZeroUsize;

use crate::model::{ModelError, Tower};
use crate::session::SessionError;
use crate::{EncodeError, ImageError, Pixels, TextError, Tokens};

/// Picture bytes to pixels, as the model's preprocessing file says.
pub trait PreparePicture: Send + Sync {
    /// Decodes, resizes, crops, normalises.
    ///
    /// # Errors
    /// [`ImageError`].
    fn prepare(&self, bytes: &[u8]) -> Result<Pixels, ImageError>;

    /// Rows and columns of what comes out, when they do not depend on the picture.
    fn size(&self) -> Option<(usize, usize)>;
}

/// A caption to tokens, as the model's tokenizer file says.
pub trait PrepareText: Send + Sync {
    /// Cleans, tokenizes, cuts to the context; adds no padding.
    ///
    /// # Errors
    /// [`TextError`].
    fn prepare(&self, text: &str) -> Result<Tokens, TextError>;

    /// The id that fills short captions.
    fn pad_id(&self) -> u32;

    /// The most tokens that `prepare` gives.
    fn context_length(&self) -> usize;
}

/// How inputs are prepared. A part that is missing makes its tower refuse raw input; prepared input still works.
#[derive(Default)]
pub struct Preparation {
    /// For the image tower.
    pub picture: Option<Box<dyn PreparePicture>>,
    /// For the text tower.
    pub text: Option<Box<dyn PrepareText>>,
}

impl std::fmt::Debug for Preparation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = |there: bool| if there { "given" } else { "missing" };
        let (picture, text) = (part(self.picture.is_some()), part(self.text.is_some()));
        f.debug_struct("Preparation").field("picture", &picture).field("text", &text).finish()
    }
}

/// When towers are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Load {
    /// On first use: a server that never sees a caption never pays for the text tower. The default.
    #[default]
    OnUse,
    /// Both while opening, so that a model that cannot run is found then.
    Now,
    /// The image tower while opening, the other on use.
    ImageNow,
    /// The text tower while opening, the other on use.
    TextNow,
}

/// How an [`Encoder`] runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderOptions {
    /// Sessions of the image tower, hence pictures' batches in parallel. Default 1.
    pub image_sessions: NonZeroUsize,
    /// Sessions of the text tower. Default 1.
    pub text_sessions: NonZeroUsize,
    /// Threads inside one run. Default 0, all cores; ingest does better with one session a core and 1 here.
    pub threads: usize,
    /// Whether idle threads spin. Default no: it starves a server's other threads.
    pub spinning: bool,
    /// Pictures a run. Default 16: more adds latency and memory, not speed.
    pub max_image_batch: NonZeroUsize,
    /// Captions a run. Default 32.
    pub max_text_batch: NonZeroUsize,
    /// When towers are loaded.
    pub load: Load,
}

impl Default for EncoderOptions {
    fn default() -> Self {
        let count = |n: usize| NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN);
        Self {
            image_sessions: count(1),
            text_sessions: count(1),
            threads: 0,
            spinning: false,
            max_image_batch: count(16),
            max_text_batch: count(32),
            load: Load::OnUse,
        }
    }
}

/// Why an encoder could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncoderError {
    /// A tower's file changed or cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// ONNX Runtime does not take a tower.
    #[error("the {tower} tower: {source}")]
    Session {
        /// Which tower.
        tower: Tower,
        /// Why.
        source: SessionError,
    },
    /// The preprocessing file belongs to another model.
    #[error(
        "the image tower takes pictures of {graph_height} x {graph_width}, but the preprocessing file makes {height} x {width}; \
         take the preprocessing file that came with this model"
    )]
    PictureSize {
        /// Rows the graph fixes.
        graph_height: usize,
        /// Columns the graph fixes.
        graph_width: usize,
        /// Rows that come out of preprocessing.
        height: usize,
        /// Columns that come out of preprocessing.
        width: usize,
    },
    /// The tokenizer gives more tokens than the graph takes.
    #[error("the text tower takes {graph} tokens, but the tokenizer gives up to {tokenizer}; set its maximum length to {graph}")]
    Context {
        /// Tokens the graph fixes.
        graph: usize,
        /// Tokens that may come out of the tokenizer.
        tokenizer: usize,
    },
    /// Nothing says how many values an embedding has.
    #[error("neither the graphs nor config.json say how many values an embedding has; add \"projection_dim\" to config.json")]
    UnknownDimension,
    /// A trial run failed.
    #[error("a trial run failed: {0}")]
    Trial(EncodeError),
}
