//! Losses as graph: appended to a program that has both towers' embeddings.
//!
//! What exists: the symmetric InfoNCE loss of CLIP.

use crate::graph::{Element, Tensor, TensorType};
use crate::program::{Program, ProgramError};

/// Appends CLIP's loss: rows of `images` and `texts` with the same index belong together, all others do not. Both are brought
/// to unit length first, which changes nothing where they have it. `log_scale` is the logarithm of the logit scale, a scalar.
///
/// With S = e^log_scale I T^T over a batch of B: loss = -1/(2B) times the sum over i of (log softmax of row i + log softmax of
/// column i) at entry i.
///
/// # Errors
/// [`ProgramError`]: a value that is not there, embeddings that are no matrices of one shape, a scale that is no scalar.
pub fn info_nce(program: &mut Program, images: &str, texts: &str, log_scale: &str) -> Result<String, ProgramError> {
    let refuse = |name: &str, reason: String| Err(ProgramError::Value { name: name.to_owned(), reason });
    let (image_kind, text_kind) = (program.known(images)?.clone(), program.known(texts)?.clone());
    let (2, true) = (image_kind.shape.len(), image_kind == text_kind) else {
        return refuse(images, format!("{image_kind} and {text_kind} are not embeddings of equally many pairs"));
    };
    let scale_kind = program.known(log_scale)?;
    if *scale_kind != TensorType::new(image_kind.element, []) {
        return refuse(log_scale, format!("{scale_kind} is no scalar of {}", image_kind.element));
    }
    let batch = image_kind.shape[0];
    let (images, texts) = (unit_rows(program, images)?, unit_rows(program, texts)?);
    let cosines = program.gemm((&images, false), (&texts, true))?;
    let scale = program.unary("Exp", log_scale)?;
    let logits = program.mul(&cosines, &scale)?;
    let diagonal = diagonal(program, batch, image_kind.element)?;
    let mut sums = Vec::new();
    for axis in [1, 0] {
        let shares = program.emit("LogSoftmax", &[&logits], &[("axis", crate::graph::Attribute::Int(axis))])?;
        let own = program.mul(&shares, &diagonal)?;
        sums.push(program.sum(&own, &[0, 1])?);
    }
    let sum = program.add(&sums[0], &sums[1])?;
    let sum = program.reshape(&sum, &[])?;
    // A batch of nothing has nothing to be divided.
    program.scale(&sum, -0.5 / batch.max(1) as f64)
}

fn unit_rows(program: &mut Program, x: &str) -> Result<String, ProgramError> {
    let axes = program.ints(&[1]);
    let length = program.emit("ReduceL2", &[x, &axes], &[("keepdims", crate::graph::Attribute::Int(1))])?;
    program.div(x, &length)
}

/// Ones where row and column are one pair.
fn diagonal(program: &mut Program, batch: usize, element: Element) -> Result<String, ProgramError> {
    let mut values = vec![0.0; batch * batch];
    values.iter_mut().step_by(batch + 1).for_each(|v| *v = 1.0);
    let refused =
        || ProgramError::Value { name: "the loss".to_owned(), reason: format!("{element} is no float type that trains") };
    let tensor = Tensor::from_floats(TensorType::new(element, [batch, batch]), &values).ok_or_else(refused)?;
    Ok(program.tensor(tensor))
}
