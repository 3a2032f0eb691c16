//! `Reshape`: the same elements in another shape. dx = d in the shape of x.

use super::families::{fold_reshape, give_reshaped, same_count};
use super::site::Site;
use super::{Gradient, Operator};
use crate::graph::TensorType;
use crate::program::NodeProblem;

pub(super) const RULES: Operator =
    Operator { name: "Reshape", shape, fold: Some(|site| fold_reshape(site, shape)), gradient: Gradient::Rule(give_reshaped) };

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let kind = site.input(0)?;
    let copies = site.int("allowzero", 0)? == 0;
    let mut shape = Vec::new();
    let mut open = None;
    for (i, size) in site.ints(1)?.into_iter().enumerate() {
        shape.push(match (size, usize::try_from(size)) {
            (-1, _) if open.replace(i).is_some() => return Err(NodeProblem::inputs("two axes of unknown size")),
            (-1, _) => 1,
            (0, _) if copies => {
                *kind.shape.get(i).ok_or_else(|| NodeProblem::inputs("size 0 stands for an axis that is not there"))?
            }
            (_, Ok(size)) => size,
            _ => return Err(NodeProblem::inputs(format!("an axis of size {size}"))),
        });
    }
    if let Some(slot) = open.and_then(|i| shape.get_mut(i)) {
        *slot = 0;
        let mut others = shape.iter().enumerate().filter(|(i, _)| Some(*i) != open).map(|(_, &size)| size);
        let others = others.try_fold(1_usize, usize::checked_mul).filter(|&n| n > 0);
        let count = crate::graph::element_count(&kind.shape);
        let size = others.zip(count).map(|(others, count)| count / others);
        let rest = size.ok_or_else(|| NodeProblem::inputs(format!("{:?} has no axis to be worked out", kind.shape)))?;
        if let Some(slot) = open.and_then(|i| shape.get_mut(i)) {
            *slot = rest;
        }
    }
    same_count(&kind.shape, &shape)?;
    Ok(vec![TensorType::new(kind.element, shape)])
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Reshape").float(&[2, 3, 4]).integers(&[2], &[0, -1]).gradients();
        Case::new("Reshape").float(&[2, 6]).integers(&[3], &[3, 1, 4]).gradients();
        Case::new("Reshape").float(&[1, 1]).integers(&[0], &[]).gradients();
    }

    #[test]
    fn constants_fold_to_what_the_runtime_computes() {
        Case::new("Reshape").integers(&[2, 3], &[1, 2, 3, 4, 5, 6]).integers(&[2], &[3, -1]).folds();
    }
}
