//! `Reciprocal`: y = 1 / x, dx = -d y^2.

use super::{
    Gradient, Operator, Reverse,
    families::{fold_unary, like_first},
};
use crate::program::ProgramError;

pub(super) const RULES: Operator = Operator {
    name: "Reciprocal",
    shape: like_first,
    fold: Some(|site| fold_unary(site, |x| 1.0 / x)),
    gradient: Gradient::Rule(gradient),
};

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (y, d) = (r.y(), r.d()?);
    let square = r.program.mul(&y, &y)?;
    let product = r.program.mul(&d, &square)?;
    let dx = r.program.unary("Neg", &product)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Reciprocal").positive(&[4, 2]).gradients();
    }
}
