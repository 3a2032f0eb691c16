//! `Split`: consecutive pieces along an axis; dx is the pieces' gradients one behind the other, zeros where none arrived.

use super::site::Site;
use super::{Gradient, Operator, Reverse};
use crate::graph::{Attribute, TensorType};
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "Split", shape, fold: None, gradient: Gradient::Rule(gradient) };

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let kind = site.input(0)?;
    let axis = site.axis("axis", 0, kind.shape.len())?;
    let size = kind.shape[axis];
    let sizes = match site.optional_ints(1)? {
        Some(values) => values.into_iter().map(|v| usize::try_from(v).ok()).collect::<Option<Vec<_>>>(),
        None => {
            let pieces = site.node.outputs.len().max(1);
            let piece = size.div_ceil(pieces);
            (0..pieces).map(|i| Some(piece.min(size.checked_sub(i * piece)?))).collect()
        }
    };
    let whole = |sizes: &Vec<usize>| sizes.iter().try_fold(0_usize, |sum, &s| sum.checked_add(s)) == Some(size);
    let sizes = sizes
        .filter(whole)
        .ok_or_else(|| NodeProblem::inputs(format!("the pieces do not make up axis {axis} of size {size}")))?;
    let piece = |size| {
        let mut shape = kind.shape.clone();
        shape[axis] = size;
        TensorType::new(kind.element, shape)
    };
    Ok(sizes.into_iter().map(piece).collect())
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let axis = r.axis("axis", 0)?;
    let kinds = r.with_site(shape)?;
    let mut pieces = Vec::new();
    for (i, kind) in kinds.iter().enumerate() {
        pieces.push(match r.gradient_of(i) {
            Some(gradient) => gradient,
            None => r.program.zeros(kind)?,
        });
    }
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let dx = r.program.emit("Concat", &pieces, &[("axis", Attribute::Int(axis as i64))])?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        let even =
            Case::new("Split").float(&[2, 6]).attribute("axis", Attribute::Int(1)).attribute("num_outputs", Attribute::Int(3));
        even.outputs(3).gradients();
        Case::new("Split").float(&[5, 2]).integers(&[2], &[1, 4]).outputs(2).gradients();
    }

    #[test]
    fn a_piece_nobody_reads_counts_as_zeros() {
        Case::new("Split").float(&[5, 2]).integers(&[2], &[1, 4]).outputs(2).seeds(1).gradients();
    }
}
