//! `Softmax` over one axis: with q = d y, dx = q - y sum(q).

use super::site::Site;
use super::{Gradient, Operator, Reverse};
use crate::graph::TensorType;
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "Softmax", shape, fold: None, gradient: Gradient::Rule(gradient) };

/// Of both softmaxes: the axis must exist.
pub(super) fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let kind = site.input(0)?;
    site.axis("axis", -1, kind.shape.len())?;
    Ok(vec![kind.clone()])
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let axis = r.axis("axis", -1)?;
    let (y, d) = (r.y(), r.d()?);
    let q = r.program.mul(&d, &y)?;
    let sum = r.program.sum(&q, &[axis])?;
    let common = r.program.mul(&y, &sum)?;
    let dx = r.program.sub(&q, &common)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Softmax").float(&[2, 3, 4]).gradients();
        Case::new("Softmax").float(&[2, 3, 4]).attribute("axis", Attribute::Int(1)).gradients();
        Case::new("Softmax").float(&[3, 2]).attribute("axis", Attribute::Int(-2)).gradients();
    }
}
