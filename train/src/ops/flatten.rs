//! `Flatten`: two axes, those before `axis` and the others. dx = d in the shape of x.

use super::families::{fold_reshape, give_reshaped};
use super::site::{Site, axis};
use super::{Gradient, Operator};
use crate::graph::TensorType;
use crate::program::NodeProblem;

pub(super) const RULES: Operator =
    Operator { name: "Flatten", shape, fold: Some(|site| fold_reshape(site, shape)), gradient: Gradient::Rule(give_reshaped) };

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let kind = site.input(0)?;
    // The axis may be the rank itself: everything before it.
    let cut = match site.int("axis", 1)? {
        at if at == kind.shape.len() as i64 => kind.shape.len(),
        at => axis(at, kind.shape.len())?,
    };
    let (before, behind) = kind.shape.split_at(cut);
    let size = |sizes: &[usize]| sizes.iter().try_fold(1_usize, |n, &s| n.checked_mul(s));
    let sizes = size(before).zip(size(behind)).ok_or_else(|| NodeProblem::inputs("too many elements"))?;
    Ok(vec![TensorType::new(kind.element, [sizes.0, sizes.1])])
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Flatten").float(&[2, 3, 4]).gradients();
        Case::new("Flatten").float(&[5]).gradients();
    }

    #[test]
    fn constants_fold_to_what_the_runtime_computes() {
        Case::new("Flatten").integers(&[2, 1, 2], &[1, 2, 3, 4]).folds();
    }
}
