//! `LogSoftmax` over one axis: dx = d - e^y sum(d).

use super::softmax::shape;
use super::{Gradient, Operator, Reverse};
use crate::program::ProgramError;

pub(super) const RULES: Operator = Operator { name: "LogSoftmax", shape, fold: None, gradient: Gradient::Rule(gradient) };

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let axis = r.axis("axis", -1)?;
    let (y, d) = (r.y(), r.d()?);
    let share = r.program.unary("Exp", &y)?;
    let sum = r.program.sum(&d, &[axis])?;
    let common = r.program.mul(&share, &sum)?;
    let dx = r.program.sub(&d, &common)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("LogSoftmax").float(&[2, 3, 4]).gradients();
        Case::new("LogSoftmax").float(&[4, 3]).attribute("axis", Attribute::Int(0)).gradients();
    }
}
