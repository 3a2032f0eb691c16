//! `ReduceSum`: the sum over axes; dx = d, spread.

use super::families::reduced;
use super::{Gradient, Operator, Reverse};
use crate::program::ProgramError;

pub(super) const RULES: Operator = Operator { name: "ReduceSum", shape: reduced, fold: None, gradient: Gradient::Rule(gradient) };

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (d, kept, shape) = (r.d()?, r.kept_shape()?, r.shape(0)?);
    let d = r.program.reshape(&d, &kept)?;
    let dx = r.program.expand(&d, &shape)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("ReduceSum").float(&[2, 3, 4]).gradients();
        for (axes, keep) in [(vec![1], 1), (vec![-1], 0), (vec![0, 2], 0), (vec![0, -1], 1)] {
            Case::new("ReduceSum")
                .float(&[2, 1, 4])
                .integers(&[axes.len()], &axes)
                .attribute("keepdims", Attribute::Int(keep))
                .gradients();
        }
    }
}
