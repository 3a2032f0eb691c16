//! `Tanh`: y = tanh x, dx = d (1 - y^2).

use super::{Gradient, Operator, Reverse, families::like_first};
use crate::program::ProgramError;

pub(super) const RULES: Operator = Operator { name: "Tanh", shape: like_first, fold: None, gradient: Gradient::Rule(gradient) };

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (y, d) = (r.y(), r.d()?);
    let square = r.program.mul(&y, &y)?;
    let one = r.program.scalar(1.0, &y)?;
    let slope = r.program.sub(&one, &square)?;
    let dx = r.program.mul(&d, &slope)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Tanh").float(&[3, 5]).gradients();
    }
}
