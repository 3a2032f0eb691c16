//! What an encoder is made of, for people.

use crate::model::scan::Port;
use crate::model::{ImageBinding, Layout, NotPicked, Similarity, TextBinding, TextPadding};

/// What an encoder is made of, for `doctor` and `model check`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Description {
    /// Folder or hub id.
    pub name: String,
    /// How the files lie.
    pub layout: Layout,
    /// Values per embedding.
    pub dim: usize,
    /// Hex SHA-256 over everything that decides an embedding.
    pub fingerprint: String,
    /// Where it computes.
    pub provider: String,
    /// How cosines become scores.
    pub similarity: Similarity,
    /// The image tower, if there is one.
    pub image: Option<TowerDescription<ImageBinding>>,
    /// The text tower, if there is one.
    pub text: Option<TowerDescription<TextBinding>>,
    /// Rows and columns of a prepared picture, if they are fixed.
    pub picture_size: Option<(usize, usize)>,
    /// The most tokens of a caption, if that is known.
    pub context: Option<usize>,
    /// How far captions are padded where the graph leaves it open.
    pub padding: TextPadding,
}

/// One tower of a [`Description`].
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct TowerDescription<B> {
    /// The model file, relative to the folder.
    pub file: String,
    /// What goes in.
    pub input: B,
    /// What comes out.
    pub output: Port,
    /// Sessions in its pool.
    pub sessions: usize,
    /// Whether it has been loaded.
    pub loaded: bool,
    /// Whether an embedding depends slightly on what else is in its batch (dynamic quantization).
    pub batch_sensitive: bool,
    /// Why the last layer is computed for all tokens; none where it is for the picked one only.
    pub whole_last_layer: Option<NotPicked>,
}
