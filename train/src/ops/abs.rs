//! `Abs`: y = |x|, dx = d sign x; 0 at 0.

use super::{Gradient, Operator, Reverse, families::like_first};
use crate::program::ProgramError;

pub(super) const RULES: Operator = Operator { name: "Abs", shape: like_first, fold: None, gradient: Gradient::Rule(gradient) };

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (x, d) = (r.x(0), r.d()?);
    let sign = r.program.unary("Sign", &x)?;
    let dx = r.program.mul(&d, &sign)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Abs").float(&[3, 5]).gradients();
    }
}
