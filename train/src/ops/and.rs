//! `And`: a and b, both boolean. No gradient.

use super::families::{compared_inputs, fold_comparison};
use super::{Gradient, Operator};

pub(super) const RULES: Operator = Operator {
    name: "And",
    shape: compared_inputs,
    fold: Some(|site| fold_comparison(site, |_, _| false, |a, b| a & b != 0)),
    gradient: Gradient::Stops,
};

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn constants_fold_to_what_the_runtime_computes() {
        Case::new("And").booleans(&[2, 2], &[0, 1, 0, 1]).booleans(&[2], &[0, 1]).folds();
    }
}
