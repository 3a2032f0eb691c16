//! `Add`: y = a + b, da = db = d, summed over what was broadcast.

use super::families::{broadcast_inputs, fold_arithmetic};
use super::{Gradient, Operator, Reverse};
use crate::program::ProgramError;

pub(super) const RULES: Operator = Operator {
    name: "Add",
    shape: broadcast_inputs,
    fold: Some(|site| fold_arithmetic(site, |a, b| a + b, i64::checked_add)),
    gradient: Gradient::Rule(gradient),
};

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let d = r.d()?;
    for i in (0..2).filter(|&i| r.wants(i)).collect::<Vec<_>>() {
        r.give_fitted(i, &d)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::{Case, arithmetic};

    #[test]
    fn gradients_and_constants_are_right() {
        arithmetic("Add", Case::float);
    }
}
