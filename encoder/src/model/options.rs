//! Which files of a model folder are taken, and in which form its towers run.

use super::{Dtype, ModelLimits};

/// Which files of a folder are taken.
#[derive(Debug, Clone, Default)]
pub struct ModelOptions {
    /// Element type of the image tower's file. Default: the file without suffix.
    pub image_dtype: Dtype,
    /// Element type of the text tower's file. Default: the file without suffix.
    pub text_dtype: Dtype,
    /// What to do when a layout of two files has only one of them.
    pub missing_tower: MissingTower,
    /// How much of the last layer is computed.
    pub last_layer: LastLayer,
    /// In how many bits matrices are multiplied.
    pub arithmetic: Arithmetic,
    /// What the folder may cost.
    pub limits: ModelLimits,
}

/// In how many bits the matrices of a tower's layers are multiplied. Other bits are other embeddings: part of the fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arithmetic {
    /// As the file says. The default.
    #[default]
    AsStored,
    /// In 8 bits where the file has float32: two to three times as fast. Check it on your own data first
    /// ([`Agreement`](crate::Agreement)).
    Int8,
}

/// How much of a tower's last layer is computed. Embeddings are the same, so it is no part of the fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LastLayer {
    /// What comes after its attention only for the token that becomes the embedding, where the graph has a form in which that is
    /// known. The default: a sixteenth less work in a ViT-B/32.
    #[default]
    PickedToken,
    /// All tokens, as the file says.
    Whole,
}

/// What to do when a layout of two files has only one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissingTower {
    /// An error: most likely a download that was cut short. The default.
    #[default]
    Refuse,
    /// The folder is meant to have one tower.
    Accept,
}
