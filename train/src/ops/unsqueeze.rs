//! `Unsqueeze`: with axes of size 1 put in. dx = d in the shape of x.

use super::families::{fold_reshape, give_reshaped};
use super::site::{Site, axes};
use super::{Gradient, Operator};
use crate::graph::TensorType;
use crate::program::NodeProblem;

pub(super) const RULES: Operator =
    Operator { name: "Unsqueeze", shape, fold: Some(|site| fold_reshape(site, shape)), gradient: Gradient::Rule(give_reshaped) };

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let kind = site.input(0)?;
    let values = site.ints(1)?;
    let rank = kind.shape.len() + values.len();
    let new = axes(&values, rank)?;
    let mut old = kind.shape.iter().copied();
    let size = |i: usize| if new.contains(&i) { 1 } else { old.next().unwrap_or(1) };
    Ok(vec![TensorType::new(kind.element, (0..rank).map(size).collect::<Vec<_>>())])
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Unsqueeze").float(&[2, 3]).integers(&[2], &[0, -1]).gradients();
        Case::new("Unsqueeze").float(&[]).integers(&[1], &[0]).gradients();
    }

    #[test]
    fn constants_fold_to_what_the_runtime_computes() {
        Case::new("Unsqueeze").integers(&[2], &[1, 2]).integers(&[1], &[1]).folds();
    }
}
