//! `Erf`: y = 2/sqrt(pi) times the integral of e^-t^2 from 0 to x, dx = d 2/sqrt(pi) e^-x^2.

use super::{Gradient, Operator, Reverse, families::like_first};
use crate::program::ProgramError;

pub(super) const RULES: Operator = Operator { name: "Erf", shape: like_first, fold: None, gradient: Gradient::Rule(gradient) };

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (x, d) = (r.x(0), r.d()?);
    let square = r.program.mul(&x, &x)?;
    let minus = r.program.unary("Neg", &square)?;
    let bell = r.program.unary("Exp", &minus)?;
    let slope = r.program.scale(&bell, std::f64::consts::FRAC_2_SQRT_PI)?;
    let dx = r.program.mul(&d, &slope)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Erf").float(&[3, 5]).gradients();
    }
}
