//! The trained model back in the layout it came from, checked against the live one before it has its name.
//!
//! ```text
//!   Model (each tower) ──write──► .model.unfinished/ ──encoder::open──► embeddings ══ live embeddings? ──rename──► model/
//! ```
//!
//! | file | subject |
//! |---|---|
//! | `folder` | files of the layout: towers, configuration with the new logit scale, weights by name |
//! | `head` | the classifier's head and its classes |
//! | `classifier` | image tower and head as one graph |
//! | `names` | PyTorch's names of tensors that an exporter renamed and transposed |
//! | `narrow` | float16 weights |
//! | `card` | README.md: all that is needed to make the model again |
//! | `compare` | the written model against the live one |
//!
//! Not here: what was trained. What holds: a folder that has its name gives the live model's embeddings within [`TOLERANCE`].

mod card;
mod classifier;
mod compare;
mod error;
mod folder;
mod head;
mod names;
mod narrow;

use std::path::{Path, PathBuf};

pub use card::Card;
pub use classifier::{CLASSIFIER_FILE, compare_classifier};
pub use compare::{Live, compare};
pub use error::ExportError;
pub use head::{CLASSES_FILE, HEAD_FILE};
pub use names::torch_names;

use crate::{
    checkpoint::{remove, sync_folder},
    graph::{Model, Tensor},
};

/// Greatest difference of a component of two unit vectors, live and written: rounding of float32 through another session's fusions. With
/// float16 weights [`TOLERANCE_F16`].
pub const TOLERANCE: f32 = 1e-4;
/// As [`TOLERANCE`], for float16 weights: their rounding is 5e-4 a weight, and adds up over layers.
pub const TOLERANCE_F16: f32 = 1e-2;

/// One tower and where its file goes.
#[derive(Debug)]
pub struct TowerFile {
    /// The file as the source folder has it, relative to it.
    pub file: String,
    /// Its graph with the trained weights.
    pub model: Model,
}

/// A classifier's head: logits are the unit image embedding times each row.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassifierHead {
    /// Names of the classes, row by row.
    pub classes: Vec<String>,
    /// `[classes, values]`.
    pub weights: Tensor,
    /// The image tower's output that is its embedding.
    pub embedding: String,
}

/// What is written, and where.
#[derive(Debug)]
pub struct ExportJob<'a> {
    /// The folder of the model that training started from.
    pub source: &'a Path,
    /// The image tower.
    pub vision: TowerFile,
    /// The text tower.
    pub text: TowerFile,
    /// What cosines are multiplied with.
    pub logit_scale: f64,
    /// What is added to that, where the model was trained by a sigmoid.
    pub logit_bias: Option<f64>,
    /// The classifier's head, where it has one.
    pub head: Option<ClassifierHead>,
    /// Also write float16 weights.
    pub f16: bool,
    /// What the model card says.
    pub card: Card,
}

/// Writes the model into `out` (replacing it), after `check` has found the unfinished folder good.
///
/// # Errors
/// [`ExportError`]; a folder that was there before stays.
pub fn export(job: &ExportJob<'_>, out: &Path, check: &dyn Fn(&Path) -> Result<(), ExportError>) -> Result<PathBuf, ExportError> {
    let parent = out.parent().unwrap_or(Path::new("."));
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = parent.join(format!(".{name}.unfinished"));
    remove(&unfinished)?;
    let written = folder::write(job, &unfinished).and_then(|()| check(&unfinished));
    if let Err(e) = written {
        // The first failure is what is told.
        let _ = std::fs::remove_dir_all(&unfinished);
        return Err(e);
    }
    remove(out)?;
    std::fs::rename(&unfinished, out).map_err(crate::checkpoint::io("rename", out))?;
    sync_folder(parent)?;
    Ok(out.to_owned())
}
