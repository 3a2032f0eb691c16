//! Captions to token ids, as the model's own files want it.
//!
//! ```text
//!   model folder ──► Folder (files, context, cleaning) ──► Tokenizer
//!
//!   HuggingFace:  caption ─────────────────────────────► tokenizer.json (crate `tokenizers`) ──► Tokens
//!   OpenClip:     caption ──► Clean (ftfy, HTML, case) ──► CLIP's byte pairs, or tokenizer.json ──► Tokens
//! ```
//!
//! The two ways differ on one caption in four of a nasty set, so that a model must be asked with the way that its users
//! have in their indexes: the layout of the folder decides ([`Mode`]), an option overrides. Not here: padding, which the
//! text tower needs and which depends on its graph; ids come without it.
//!
//! # Parity
//!
//! The references are Python's `tokenizers` with the folder's own `tokenizer.json`, and `open_clip`'s `SimpleTokenizer` with
//! ftfy; `benches/reference/tokens.py` holds their versions and 5,000 nasty captions, on which no id differs in either way.
//! What is known to differ:
//!
//! - **Special tokens within a caption, on purpose** (`<|endoftext|>`, `</s>`, `<end_of_text>`): the references take them for
//!   the end of the text, which moves the place where a CLIP tower pools. They are read as ordinary text here, and should a
//!   vocabulary still give the id of a framing or padding token for it, that token is left out.
//!   [`SpecialTokens::AsReference`] turns this off; parity is measured so.
//! - **Captions made to be slow, on purpose**: entities or mojibake nested more than 64 deep are not undone to the end, and a
//!   character reference of more than 4,300 digits is U+FFFD where Python raises.
//! - **Young capitals** in open_clip's way: letters that Unicode gained after its version 14 are lower-cased here and not by
//!   CPython 3.11; later CPythons do it too. All other classes of characters are read from a table made by the reference.

mod clean;
mod clip_bpe;
mod entities;
mod folder;
mod ftfy;
mod hf;
mod unicode;

use std::path::{Path, PathBuf};

pub use clean::Clean;

use crate::{TextError, Tokens};
use clip_bpe::ClipBpe;
use folder::Folder;
use hf::{FramedTokenizer, HfTokenizer};

/// Whose ids are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What the `tokenizers` library makes of the folder's `tokenizer.json`.
    HuggingFace,
    /// What `open_clip`'s tokenizer for this model makes of it, cleaning included.
    OpenClip,
}

/// What becomes of special tokens that stand in a caption as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpecialTokens {
    /// Ordinary text. A caption cannot end itself early.
    #[default]
    Neutralised,
    /// As the reference does: they are the special token.
    AsReference,
}

/// Bounds on what comes from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextLimits {
    /// Bytes of one caption, 65,536 by default: a hundred times what fills any context, and little enough that repairing
    /// it takes milliseconds.
    pub max_text_bytes: usize,
    /// Bytes of one tokenizer file, 64 MiB by default: twice the largest in use (Gemma's 256,000 pieces).
    pub max_file_bytes: u64,
}

impl Default for TextLimits {
    fn default() -> Self {
        Self { max_text_bytes: 1 << 16, max_file_bytes: 1 << 26 }
    }
}

/// What a caller may set; by default all is read from the folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenizerOptions {
    /// Whose ids are wanted, when the folder's layout is not to decide.
    pub mode: Option<Mode>,
    /// Tokens that the text tower takes, when the graph fixes it; otherwise the least number that the files name.
    pub context_length: Option<usize>,
    /// Special tokens within captions.
    pub special_tokens: SpecialTokens,
    /// Bounds.
    pub limits: TextLimits,
}

/// Why a folder gave no tokenizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// No `tokenizer.json`.
    #[error("{} holds no tokenizer.json, nor does its folder textual/; export the model with its fast tokenizer", dir.display())]
    Missing {
        /// The model folder.
        dir: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A file beyond [`TextLimits::max_file_bytes`].
    #[error("{} has {bytes} bytes; at most {max} are read", path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Found.
        bytes: u64,
        /// Limit.
        max: u64,
    },
    /// Not JSON.
    #[error("{} is no valid JSON: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// JSON, but no tokenizer.
    #[error("{} is no tokenizer: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The tokenizer library's word.
        reason: String,
    },
    /// Something that would give other ids than the reference.
    #[error("{} needs {what}, which is not supported", path.display())]
    Unsupported {
        /// The tokenizer's file.
        path: PathBuf,
        /// What it asks for.
        what: String,
    },
    /// No file says how long a text may be.
    #[error("no file in {} says how many tokens the text tower takes; give the context length", dir.display())]
    NoContext {
        /// The model folder.
        dir: PathBuf,
    },
    /// A context that leaves no room for text.
    #[error("a context of {context} tokens leaves no room for text beside {frame} special tokens")]
    ContextTooShort {
        /// Tokens in all.
        context: usize,
        /// Special tokens around every text.
        frame: usize,
    },
}

/// A model's tokenizer. Shared among threads: encoding takes no lock of ours.
pub struct Tokenizer {
    core: Core,
    mode: Mode,
    clean: Option<Clean>,
    context: usize,
    pad_id: u32,
    /// A separator that becomes 0, as open_clip does for some towers.
    stripped: Option<u32>,
    options: TokenizerOptions,
    files: Vec<PathBuf>,
}

enum Core {
    Clip(Box<ClipBpe>),
    Hf(Box<FramedTokenizer>),
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mode, clean, context, pad_id, .. } = self;
        write!(f, "Tokenizer {{ mode: {mode:?}, clean: {clean:?}, context: {context}, pad_id: {pad_id} }}")
    }
}

impl Tokenizer {
    /// The tokenizer of the model in `dir`, by what its files say.
    ///
    /// # Errors
    /// [`TokenizerError`] when a file is missing, broken, or says something that is not supported.
    pub fn find(dir: &Path) -> Result<Self, TokenizerError> {
        Self::find_with(dir, &TokenizerOptions::default())
    }

    /// As [`Tokenizer::find`], with some of it set by the caller.
    ///
    /// # Errors
    /// As [`Tokenizer::find`].
    pub fn find_with(dir: &Path, options: &TokenizerOptions) -> Result<Self, TokenizerError> {
        let folder = Folder::read(dir, &options.limits)?;
        match options.mode.unwrap_or_else(|| folder.mode()) {
            Mode::HuggingFace => Self::by_file(dir, folder, *options, None),
            Mode::OpenClip => Self::open_clip(dir, folder, *options),
        }
    }

    /// By the folder's `tokenizer.json`: as it is, or behind open_clip's cleaning.
    fn by_file(dir: &Path, folder: Folder, options: TokenizerOptions, clean: Option<Clean>) -> Result<Self, TokenizerError> {
        let invalid =
            |error: tokenizers::Error| TokenizerError::Invalid { path: folder.tokenizer_path.clone(), reason: error.to_string() };
        let (tokenizer, stored) = HfTokenizer::from_json(&folder.tokenizer).map_err(invalid)?;
        let context = context(dir, &folder, stored.max_length, &options, tokenizer.frame_length())?;
        let role = |role: &str| folder.special(role).and_then(|token| tokenizer.id(token));
        let pad_id = stored.pad_id.or_else(|| role("pad_token")).unwrap_or(0);
        let stripped = role("sep_token").filter(|_| clean.is_some() && folder.strips_separator());
        let framed = tokenizer.frame(context, pad_id, options.special_tokens).map_err(invalid)?;
        let mode = if clean.is_some() { Mode::OpenClip } else { Mode::HuggingFace };
        Ok(Self { core: Core::Hf(Box::new(framed)), mode, clean, context, pad_id, stripped, options, files: folder.files })
    }

    fn open_clip(dir: &Path, folder: Folder, options: TokenizerOptions) -> Result<Self, TokenizerError> {
        folder.check_open_clip()?;
        let clean = folder.clean()?;
        // open_clip runs its own tokenizer unless the model names another; an export with another file means that one.
        let own = if folder.names_hf_tokenizer() { None } else { clip_vocabulary(&folder)? };
        let Some(clip) = own else {
            return Self::by_file(dir, folder, options, Some(clean.unwrap_or(Clean::Whitespace)));
        };
        let context = context(dir, &folder, None, &options, clip_bpe::FRAME)?;
        let (core, clean) = (Core::Clip(Box::new(clip)), Some(clean.unwrap_or(Clean::Lower)));
        let mode = Mode::OpenClip;
        Ok(Self { core, mode, clean, context, pad_id: 0, stripped: None, options, files: folder.files })
    }

    /// The caption's ids, special tokens included, without padding; at most [`Tokenizer::context_length`].
    ///
    /// # Errors
    /// [`TextError::TooLong`] beyond [`TextLimits::max_text_bytes`]; [`TextError::Tokenizer`] when the model's own file fails.
    pub fn encode(&self, text: &str) -> Result<Tokens, TextError> {
        let max = self.options.limits.max_text_bytes;
        if text.len() > max {
            return Err(TextError::TooLong { bytes: text.len(), max });
        }
        let cleaned = self.clean.map(|clean| clean.apply(text));
        let text = cleaned.as_deref().unwrap_or(text);
        let mut tokens = match &self.core {
            Core::Clip(clip) => clip.encode(text, self.context, self.options.special_tokens),
            Core::Hf(hf) => hf.encode(text)?,
        };
        tokens.ids.iter_mut().filter(|id| Some(**id) == self.stripped).for_each(|id| *id = 0);
        Ok(tokens)
    }

    /// What fills a batch up behind the ids.
    #[must_use]
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// The most ids that [`Tokenizer::encode`] gives.
    #[must_use]
    pub fn context_length(&self) -> usize {
        self.context
    }

    /// Whose ids these are.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// How captions are cleaned first; `None` for Hugging Face's way.
    #[must_use]
    pub fn clean(&self) -> Option<Clean> {
        self.clean
    }

    /// The files that decided the ids, in reading order.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }
}

fn clip_vocabulary(folder: &Folder) -> Result<Option<ClipBpe>, TokenizerError> {
    ClipBpe::from_json(&folder.tokenizer)
        .map_err(|broken| TokenizerError::Invalid { path: folder.tokenizer_path.clone(), reason: broken.to_string() })
}

/// The context by option or by the files, if it leaves room beside `frame` special tokens.
fn context(
    dir: &Path,
    folder: &Folder,
    stored: Option<usize>,
    options: &TokenizerOptions,
    frame: usize,
) -> Result<usize, TokenizerError> {
    let said = options.context_length.or_else(|| folder.context(stored));
    let context = said.ok_or_else(|| TokenizerError::NoContext { dir: dir.to_owned() })?;
    if context > frame { Ok(context) } else { Err(TokenizerError::ContextTooShort { context, frame }) }
}
