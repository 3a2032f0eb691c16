//! `Squeeze`: without axes of size 1, the named ones or all. dx = d in the shape of x.

use super::families::{fold_reshape, give_reshaped};
use super::site::{Site, axes};
use super::{Gradient, Operator};
use crate::graph::TensorType;
use crate::program::NodeProblem;

pub(super) const RULES: Operator =
    Operator { name: "Squeeze", shape, fold: Some(|site| fold_reshape(site, shape)), gradient: Gradient::Rule(give_reshaped) };

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let kind = site.input(0)?;
    let gone = match site.optional_ints(1)? {
        Some(values) => axes(&values, kind.shape.len())?,
        None => kind.shape.iter().enumerate().filter(|(_, size)| **size == 1).map(|(i, _)| i).collect(),
    };
    if let Some(axis) = gone.iter().find(|&&i| kind.shape.get(i) != Some(&1)) {
        return Err(NodeProblem::inputs(format!("axis {axis} of {:?} is not of size 1", kind.shape)));
    }
    let left: Vec<usize> = kind.shape.iter().enumerate().filter(|(i, _)| !gone.contains(i)).map(|(_, &size)| size).collect();
    Ok(vec![TensorType::new(kind.element, left)])
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Squeeze").float(&[2, 1, 4, 1]).gradients();
        Case::new("Squeeze").float(&[2, 1, 4, 1]).integers(&[1], &[-1]).gradients();
    }

    #[test]
    fn constants_fold_to_what_the_runtime_computes() {
        Case::new("Squeeze").integers(&[1, 2], &[1, 2]).integers(&[1], &[0]).folds();
    }
}
