//! `Div`: y = a / b, da = d / b, db = -d y / b, summed over what was broadcast.

use super::families::{broadcast_inputs, fold_arithmetic};
use super::{Gradient, Operator, Reverse};
use crate::program::ProgramError;

pub(super) const RULES: Operator = Operator {
    name: "Div",
    shape: broadcast_inputs,
    fold: Some(|site| fold_arithmetic(site, |a, b| a / b, i64::checked_div)),
    gradient: Gradient::Rule(gradient),
};

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let d = r.d()?;
    let (b, y) = (r.x(1), r.y());
    let quotient = r.program.div(&d, &b)?;
    if r.wants(0) {
        r.give_fitted(0, &quotient)?;
    }
    if r.wants(1) {
        let product = r.program.mul(&quotient, &y)?;
        let minus = r.program.unary("Neg", &product)?;
        r.give_fitted(1, &minus)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::{Case, arithmetic};

    #[test]
    fn gradients_and_constants_are_right() {
        arithmetic("Div", Case::positive);
    }
}
