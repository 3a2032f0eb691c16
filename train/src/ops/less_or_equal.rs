//! `LessOrEqual`: a <= b. No gradient.

use super::families::{compared_inputs, fold_comparison};
use super::{Gradient, Operator};

pub(super) const RULES: Operator = Operator {
    name: "LessOrEqual",
    shape: compared_inputs,
    fold: Some(|site| fold_comparison(site, |a, b| a <= b, |a, b| a <= b)),
    gradient: Gradient::Stops,
};

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn constants_fold_to_what_the_runtime_computes() {
        Case::new("LessOrEqual").integers(&[3], &[1, 2, 3]).integers(&[1], &[2]).folds();
        Case::new("LessOrEqual").constant(&[3], &[0.1, -7.3, 1e9]).constant(&[], &[0.1]).folds();
    }
}
