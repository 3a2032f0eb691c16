//! SigLIP's loss: every picture with every caption is a question of its own, answered by a sigmoid.
//!
//! With L = e^s I T^T + b and signs Z (+1 a pair, -1 none, 0 not asked): loss of pair i = sum_j |Z_ij| softplus(-Z_ij L_ij).
//! SigLIP divides by the number of pairs; the weights do that here.

use super::{is_scalar, logits, pairs, refuse};
use crate::graph::TensorType;
use crate::program::{Program, ProgramError};

/// Appends the sigmoid loss of each picture: `[n]`. `signs` is [`super::Targets::signs`], `[n, n]`; `bias` is added to the
/// logits.
///
/// # Errors
/// [`ProgramError`]: a value that is not there, embeddings that are no matrices of one shape, a scale or bias that is no scalar.
pub fn sigmoid(
    program: &mut Program,
    [images, texts]: [&str; 2],
    [log_scale, bias]: [&str; 2],
    signs: &str,
) -> Result<String, ProgramError> {
    let (count, element) = pairs(program, images, texts)?;
    is_scalar(program, log_scale, element)?;
    is_scalar(program, bias, element)?;
    if *program.known(signs)? != TensorType::new(element, [count, count]) {
        return refuse(signs, format!("{} are no signs of {count} pairs", program.known(signs)?));
    }
    let scaled = logits(program, images, texts, log_scale)?;
    let biased = program.add(&scaled, bias)?;
    let signed = program.mul(&biased, signs)?;
    let against = program.unary("Neg", &signed)?;
    let each = program.unary("Softplus", &against)?;
    // softplus(0) is not 0: what is not asked is taken out by |Z|.
    let asked = program.unary("Abs", signs)?;
    let each = program.mul(&each, &asked)?;
    let sums = program.sum(&each, &[1])?;
    program.reshape(&sums, &[count])
}
