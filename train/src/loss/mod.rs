//! Losses as graph: appended to a program that has both towers' embeddings.
//!
//! ```text
//!   groups, weights ──targets──► matrices that are fed ─┐
//!   embeddings of pictures and captions, logit scale ───┴─► a loss for each pair ──► weighted sum
//! ```
//!
//! | file | subject |
//! |---|---|
//! | `targets` | which pairs of a batch attract, repel or ignore each other, as matrices |
//! | `softmax` | the symmetric InfoNCE of CLIP, with several positives and masks |
//! | `sigmoid` | SigLIP's pairwise sigmoid |
//! | `classifier` | cross-entropy over a head of one row per class |
//!
//! One vocabulary for all: a loss graph gives one number for each pair of the batch; the loss is their sum, each times the weight
//! that is fed for it. Streams, their weights, and whether they share one softmax are then matters of what is fed.

mod classifier;
mod sigmoid;
mod softmax;
pub mod targets;

pub use classifier::classifier;
pub use sigmoid::sigmoid;
pub use softmax::{Softmax, info_nce, softmax};
pub use targets::{SameGroup, Targets};

use crate::graph::{Element, TensorType};
use crate::program::emit::Emitted;
use crate::program::{Program, ProgramError};

/// The sum over pairs of `per_pair` times `weights`, both `[pairs]`: a scalar.
///
/// # Errors
/// [`ProgramError`]: a value that is not there.
pub fn weighted_sum(program: &mut Program, per_pair: &str, weights: &str) -> Result<String, ProgramError> {
    let weighted = program.mul(per_pair, weights)?;
    let sum = program.sum(&weighted, &[0])?;
    program.reshape(&sum, &[])
}

fn refuse<T>(name: &str, reason: String) -> Result<T, ProgramError> {
    Err(ProgramError::Value { name: name.to_owned(), reason })
}

/// That two values are embeddings of equally many pairs; how many, and their element type.
fn pairs(program: &Program, images: &str, texts: &str) -> Result<(usize, Element), ProgramError> {
    let (image_kind, text_kind) = (program.known(images)?, program.known(texts)?);
    if image_kind.shape.len() != 2 || image_kind != text_kind {
        return refuse(images, format!("{image_kind} and {text_kind} are not embeddings of equally many pairs"));
    }
    Ok((image_kind.shape[0], image_kind.element))
}

fn is_scalar(program: &Program, name: &str, element: Element) -> Result<(), ProgramError> {
    let kind = program.known(name)?;
    if *kind == TensorType::new(element, []) { Ok(()) } else { refuse(name, format!("{kind} is no scalar of {element}")) }
}

/// Rows brought to unit length.
fn unit_rows(program: &mut Program, x: &str) -> Emitted {
    let axes = program.ints(&[1]);
    let length = program.emit("ReduceL2", &[x, &axes], &[("keepdims", crate::graph::Attribute::Int(1))])?;
    program.div(x, &length)
}

/// Cosines of every picture with every caption, times e^`log_scale`: `[pictures, captions]`.
fn logits(program: &mut Program, images: &str, texts: &str, log_scale: &str) -> Emitted {
    let (images, texts) = (unit_rows(program, images)?, unit_rows(program, texts)?);
    let cosines = program.gemm((&images, false), (&texts, true))?;
    let scale = program.unary("Exp", log_scale)?;
    program.mul(&cosines, &scale)
}
