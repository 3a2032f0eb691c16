//! A model folder: which files make a dual encoder, what they declare, and whether they may be run.
//!
//! ```text
//!   folder ──layout──► model files ──read, hash──► bytes ──scan──► Scanned ──cut to one output──► inputs and output bound
//!                                                                                        │
//!                                            bytes for ONNX Runtime ◄──inline / hand over external data
//! ```
//!
//! | file | subject |
//! |---|---|
//! | `layout` | which files of which layout are there, and which element type was asked for |
//! | `files` | opening and reading inside the folder, and never outside it |
//! | `wire`, `scan` | protobuf, and what an ONNX file may say |
//! | `prune` | the part of a graph that leads to one output |
//! | `node` | attributes and names of a graph's nodes |
//! | `pick` | the end of the last layer for the picked token only |
//! | `quantize` | matrices in 8 bits, made while loading |
//! | `bind` | names, types and shapes of inputs and outputs, by what the graph declares |
//! | `config` | what `config.json` adds: similarity, padding |
//! | `reader`, `tower` | the folder's files to its towers; one tower: [`TowerModel`] |
//! | `options` | which files are taken, in which form towers run |
//! | `folder` | all of it together: [`Folder`] |
//!
//! Not here: running a model, preprocessing, tokenization, downloads.
//!
//! Invariants: no byte of a model reaches ONNX Runtime that was not scanned; what is loaded later has the digest of what was
//! scanned; ONNX Runtime never gets a path.

mod bind;
mod config;
mod files;
mod folder;
mod layout;
mod node;
mod options;
mod pick;
mod prune;
mod quantize;
mod reader;
pub mod scan;
mod tower;
pub mod wire;

use std::path::PathBuf;

pub use bind::{BindError, ImageBinding, Input, TextBinding, Tower};
pub use config::{Similarity, SimilarityKind, SimilaritySource, TextPadding};
pub use folder::Folder;
pub use layout::{Dtype, Layout, UnknownDtype};
pub use options::{Arithmetic, LastLayer, MissingTower, ModelOptions};
pub use pick::NotPicked;
pub use reader::configuration_files;
pub use scan::{ScanError, scan};
pub(crate) use tower::{LoadedModel, LoadedTensor};
pub use tower::{TowerModel, TowerSource};
pub use wire::WireError;

/// What a model folder may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelLimits {
    /// Bytes of one `.onnx` file. Default 2 GiB less one, which is protobuf's own bound.
    pub max_model_bytes: u64,
    /// Bytes of external data, per tower. Default 32 GiB: the largest CLIP towers published have about 10 in float32.
    pub max_external_bytes: u64,
    /// Bytes of a configuration or tokenizer file. Default 64 MiB: multilingual `tokenizer.json` files reach about 35.
    pub max_config_bytes: u64,
    /// Nodes, subgraphs included. Default 200,000: a quantized ViT-H has about 10,000.
    pub max_nodes: u64,
    /// Tensors, constants included. Default 400,000.
    pub max_tensors: u64,
    /// Graphs within graphs. Default 8: exporters nest two or three; the walk recurses this deep.
    pub max_graph_depth: u32,
}

impl Default for ModelLimits {
    fn default() -> Self {
        Self {
            max_model_bytes: (1 << 31) - 1,
            max_external_bytes: 32 << 30,
            max_config_bytes: 64 << 20,
            max_nodes: 200_000,
            max_tensors: 400_000,
            max_graph_depth: 8,
        }
    }
}

/// A file of the folder that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: FileProblem,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileProblem {
    /// The system's word.
    #[error("{0}")]
    Io(std::io::Error),
    /// A symbolic link that does not lead into the hub cache's own blobs.
    #[error("a symbolic link; put the file itself into the folder (links are followed only inside a Hugging Face hub cache)")]
    Symlink,
    /// The file has other names elsewhere.
    #[error("the file has {links} hard links; external data must have one name only, so copy it")]
    HardLink {
        /// How many names it has.
        links: u64,
    },
    /// A folder, pipe or device.
    #[error("not a regular file")]
    NotRegular,
    /// A name that leaves the folder or is none.
    #[error("not the plain name of a file inside the folder")]
    Name,
    /// Larger than allowed.
    #[error("{bytes} bytes; at most {max} are allowed")]
    TooLarge {
        /// Found.
        bytes: u64,
        /// Limit.
        max: u64,
    },
    /// A tensor's range ends behind the file.
    #[error("{bytes} bytes at offset {offset} are declared, but the file has {len}; it is cut short or belongs to another model")]
    Short {
        /// Where the range begins.
        offset: u64,
        /// Its length.
        bytes: u64,
        /// The file's length.
        len: u64,
    },
    /// No memory for it.
    #[error("no memory for its {bytes} bytes")]
    NoMemory {
        /// Its length.
        bytes: u64,
    },
    /// The file is not what it was when the folder was opened.
    #[error("changed since the model folder was opened; restart to load it anew")]
    Changed,
}

impl From<rustix::io::Errno> for FileProblem {
    fn from(errno: rustix::io::Errno) -> Self {
        match errno {
            rustix::io::Errno::LOOP => Self::Symlink,
            other => Self::Io(other.into()),
        }
    }
}

/// Why a model folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file cannot be opened or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// No layout matches.
    #[error(
        "{}: no ONNX model found. Expected onnx/vision_model.onnx and onnx/text_model.onnx (Hugging Face), visual/model.onnx \
         and textual/model.onnx (open_clip), visual.onnx and textual.onnx, or model.onnx. .onnx files that are there: {found}",
        path.display()
    )]
    NoLayout {
        /// The folder.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// The layout is there, but not in the element type asked for.
    #[error("{}: {wanted} is missing; choose one that is there with {flag}: {found}", path.display())]
    NoSuchDtype {
        /// The folder.
        path: PathBuf,
        /// The file asked for.
        wanted: String,
        /// The option that chooses.
        flag: &'static str,
        /// The names to choose from.
        found: String,
    },
    /// One of the layout's two files is not there.
    #[error(
        "{}: {missing} is missing, while {present} is there; fetch the whole model, or say that it is meant to have one tower \
         (--one-tower)",
        path.display()
    )]
    MissingTower {
        /// The folder.
        path: PathBuf,
        /// The file that should be there.
        missing: String,
        /// The file that is.
        present: String,
    },
    /// A model file is refused before it is run.
    #[error("{}: refused: {source}", path.display())]
    Scan {
        /// The model file.
        path: PathBuf,
        /// Why.
        source: ScanError,
    },
    /// A model file's inputs or outputs fit no tower.
    #[error("{}: {source}", path.display())]
    Bind {
        /// The model file.
        path: PathBuf,
        /// Why.
        source: BindError,
    },
    /// The two towers embed into different spaces.
    #[error("{}: the image tower gives {image} values, the text tower {text}; the two files belong to different models", path.display())]
    Dimension {
        /// The folder.
        path: PathBuf,
        /// Values per picture.
        image: usize,
        /// Values per caption.
        text: usize,
    },
    /// `config.json` is no JSON.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The parser's word.
        reason: String,
    },
    /// Nothing to multiply in 8 bits.
    #[error("{}: no layer has a float32 matrix of its own, so there is nothing to multiply in 8 bits; leave --int8 out", path.display())]
    NoMatrices {
        /// The model file.
        path: PathBuf,
    },
    /// Neither folder of a pair, or both, has the tower it was given for.
    #[error("{}: this folder has no {tower} tower", path.display())]
    NotThisTower {
        /// The folder.
        path: PathBuf,
        /// The tower that is missing.
        tower: Tower,
    },
}
