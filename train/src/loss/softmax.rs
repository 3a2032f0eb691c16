//! CLIP's loss: each picture picks its caption among all captions of the batch, each caption its picture.
//!
//! With S = e^s I T^T + penalty over n pairs and targets P (rows sum to one):
//! loss of pair i = -1/2 (sum_j P_ij log softmax(S_i.)_j + sum_j P_ji log softmax(S_.i)_j).

use super::{is_scalar, logits, pairs, refuse};
use crate::graph::{Attribute, Element, Tensor, TensorType};
use crate::program::{Program, ProgramError};

/// What the softmax loss is made of, by name.
#[derive(Debug, Clone, Copy)]
pub struct Softmax<'a> {
    /// Embeddings of pictures, `[n, d]`, of any length but zero.
    pub images: &'a str,
    /// Embeddings of their captions, likewise.
    pub texts: &'a str,
    /// Logarithm of the logit scale, a scalar.
    pub log_scale: &'a str,
    /// P, `[n, n]`, symmetric, rows summing to one: [`super::Targets::positives`].
    pub targets: &'a str,
    /// Added to the logits, `[n, n]`, symmetric: [`super::Targets::penalties`]. `None`: nothing is ignored.
    pub penalties: Option<&'a str>,
}

/// Appends the softmax loss of each pair: `[n]`.
///
/// # Errors
/// [`ProgramError`]: a value that is not there, embeddings that are no matrices of one shape, a scale that is no scalar.
pub fn softmax(program: &mut Program, of: Softmax<'_>) -> Result<String, ProgramError> {
    let (count, element) = pairs(program, of.images, of.texts)?;
    is_scalar(program, of.log_scale, element)?;
    let square = TensorType::new(element, [count, count]);
    for name in [Some(of.targets), of.penalties].into_iter().flatten() {
        if *program.known(name)? != square {
            return refuse(name, format!("{} belongs where {square} does", program.known(name)?));
        }
    }
    let mut logits = logits(program, of.images, of.texts, of.log_scale)?;
    if let Some(penalties) = of.penalties {
        logits = program.add(&logits, penalties)?;
    }
    let mut sides = Vec::new();
    for axis in [1, 0] {
        let shares = program.emit("LogSoftmax", &[&logits], &[("axis", Attribute::Int(axis))])?;
        let own = program.mul(&shares, of.targets)?;
        let sum = program.sum(&own, &[axis as usize])?;
        sides.push(program.reshape(&sum, &[count])?);
    }
    let both = program.add(&sides[0], &sides[1])?;
    program.scale(&both, -0.5)
}

/// Appends CLIP's loss in its plain form: pairs with the same index belong together, all others do not; the mean over the batch.
///
/// # Errors
/// As [`softmax`].
pub fn info_nce(program: &mut Program, images: &str, texts: &str, log_scale: &str) -> Result<String, ProgramError> {
    let (batch, element) = pairs(program, images, texts)?;
    let targets = diagonal(program, batch, element)?;
    let of = Softmax { images, texts, log_scale, targets: &targets, penalties: None };
    let per_pair = softmax(program, of)?;
    let mean = program.mean(&per_pair, &[0])?;
    program.reshape(&mean, &[])
}

/// Ones where row and column are one pair.
fn diagonal(program: &mut Program, batch: usize, element: Element) -> Result<String, ProgramError> {
    let mut values = vec![0.0; batch * batch];
    values.iter_mut().step_by(batch + 1).for_each(|v| *v = 1.0);
    match Tensor::from_floats(TensorType::new(element, [batch, batch]), &values) {
        Some(tensor) => Ok(program.tensor(tensor)),
        None => refuse("the loss", format!("{element} is no float type that trains")),
    }
}
