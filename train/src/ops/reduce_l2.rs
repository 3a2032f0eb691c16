//! `ReduceL2`: the Euclidean length over axes; dx = x d / y. Undefined at length 0, as the length is.

use super::families::reduced;
use super::{Gradient, Operator, Reverse};
use crate::program::ProgramError;

pub(super) const RULES: Operator = Operator { name: "ReduceL2", shape: reduced, fold: None, gradient: Gradient::Rule(gradient) };

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (d, kept) = (r.d()?, r.kept_shape()?);
    let d = r.program.reshape(&d, &kept)?;
    let (x, y) = (r.x(0), r.y());
    let y = r.program.reshape(&y, &kept)?;
    let share = r.program.div(&d, &y)?;
    let dx = r.program.mul(&x, &share)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("ReduceL2").positive(&[2, 3, 4]).gradients();
        for (axes, keep) in [(vec![1], 1), (vec![-1], 0), (vec![0, 2], 0), (vec![0, -1], 1)] {
            Case::new("ReduceL2")
                .positive(&[2, 1, 4])
                .integers(&[axes.len()], &axes)
                .attribute("keepdims", Attribute::Int(keep))
                .gradients();
        }
    }
}
