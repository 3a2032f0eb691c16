//! Plain cross-entropy over a head of one row per class: what CLIP is finetuned with when its text tower is thrown away.
//!
//! With logits L = I H^T, where I has unit rows: loss of picture i = -sum_c Y_ic log softmax(L_i.)_c. The head starts as the class
//! embeddings times the logit scale (WiSE-FT's zero-shot head), so no scale is applied here.

use super::{refuse, unit_rows};
use crate::graph::Attribute;
use crate::program::{Program, ProgramError};

/// Appends the cross-entropy of each picture: `[n]`. `images` is `[n, d]`, `head` `[classes, d]`, `labels` `[n, classes]` with
/// rows that sum to one.
///
/// # Errors
/// [`ProgramError`]: a value that is not there, shapes that do not go together.
pub fn classifier(program: &mut Program, images: &str, head: &str, labels: &str) -> Result<String, ProgramError> {
    let (image, rows, target) = (program.shape(images)?, program.shape(head)?, program.shape(labels)?);
    let fits = matches!((&image[..], &rows[..], &target[..]),
        ([n, d], [classes, width], [m, c]) if n == m && d == width && classes == c);
    if !fits {
        return refuse(head, format!("a head of shape {rows:?} does not go with pictures {image:?} and labels {target:?}"));
    }
    let images = unit_rows(program, images)?;
    let logits = program.gemm((&images, false), (head, true))?;
    let shares = program.emit("LogSoftmax", &[&logits], &[("axis", Attribute::Int(1))])?;
    let own = program.mul(&shares, labels)?;
    let sums = program.sum(&own, &[1])?;
    let flat = program.reshape(&sums, &image[..1])?;
    program.unary("Neg", &flat)
}
