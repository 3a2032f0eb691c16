//! `Not`: the other boolean. No gradient.

use super::families::like_first;
use super::site::Site;
use super::{Gradient, Operator};
use crate::graph::Tensor;
use crate::program::NodeProblem;

pub(super) const RULES: Operator = Operator { name: "Not", shape: like_first, fold: Some(fold), gradient: Gradient::Stops };

fn fold(site: &Site<'_>) -> Result<Option<Tensor>, NodeProblem> {
    let Some(x) = site.value(0) else { return Ok(None) };
    let flipped = x.integers().map(|values| values.into_iter().map(|v| i64::from(v == 0)).collect::<Vec<_>>());
    Ok(flipped.and_then(|values| Tensor::from_integers(x.kind().clone(), &values)))
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn constants_fold_to_what_the_runtime_computes() {
        Case::new("Not").booleans(&[3], &[0, 1, 0]).folds();
    }
}
