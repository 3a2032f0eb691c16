//! `Max`: the largest of its inputs, elementwise. Folded for two inputs; without a gradient rule, for shape arithmetic only.

use super::families::{broadcast_inputs, fold_arithmetic};
use super::{Gradient, Operator};

pub(super) const RULES: Operator = Operator {
    name: "Max",
    shape: broadcast_inputs,
    fold: Some(|site| fold_arithmetic(site, f64::max, |a, b| Some(a.max(b)))),
    gradient: Gradient::Missing,
};

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn constants_fold_to_what_the_runtime_computes() {
        Case::new("Max").integers(&[4], &[7, -7, 7, -7]).integers(&[1], &[3]).folds();
    }
}
