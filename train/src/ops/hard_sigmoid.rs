//! `HardSigmoid`: y = alpha x + beta kept between 0 and 1. dx = alpha d where nothing was cut off.

use super::families::like_first;
use super::{Gradient, Operator, Reverse};
use crate::graph::Attribute;
use crate::program::ProgramError;

pub(super) const RULES: Operator =
    Operator { name: "HardSigmoid", shape: like_first, fold: None, gradient: Gradient::Rule(gradient) };

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let alpha = match r.node.attributes.get("alpha") {
        Some(Attribute::Float(value)) => f64::from(*value),
        _ => 0.2,
    };
    let (y, d) = (r.y(), r.d()?);
    let p = &mut *r.program;
    // y (1 - y) is positive inside and zero at both bounds.
    let one = p.scalar(1.0, &y)?;
    let rest = p.sub(&one, &y)?;
    let room = p.mul(&y, &rest)?;
    let inside = p.unary("Sign", &room)?;
    let scaled = p.scale(&d, alpha)?;
    let dx = p.mul(&inside, &scaled)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("HardSigmoid").float(&[4, 5]).attribute("alpha", Attribute::Float(0.5)).gradients();
        let case = Case::new("HardSigmoid").float(&[4, 5]).attribute("alpha", Attribute::Float(0.75));
        case.attribute("beta", Attribute::Float(0.25)).gradients();
    }
}
