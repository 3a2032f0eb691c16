//! `ReduceMean`: the mean over axes; dx = d / number of elements, spread.

use super::families::reduced;
use super::{Gradient, Operator, Reverse};
use crate::program::ProgramError;

pub(super) const RULES: Operator =
    Operator { name: "ReduceMean", shape: reduced, fold: None, gradient: Gradient::Rule(gradient) };

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (d, kept, shape) = (r.d()?, r.kept_shape()?, r.shape(0)?);
    let d = r.program.reshape(&d, &kept)?;
    // A kept axis of size 1 counts once either way.
    let count: usize = shape.iter().zip(&kept).filter(|(_, kept)| **kept == 1).map(|(size, _)| *size).product();
    // An empty axis has no elements, so nothing reads what would be divided by zero.
    let share = r.program.scale(&d, 1.0 / count.max(1) as f64)?;
    let dx = r.program.expand(&share, &shape)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("ReduceMean").float(&[2, 3, 4]).gradients();
        for (axes, keep) in [(vec![1], 1), (vec![-1], 0), (vec![0, 2], 0), (vec![0, -1], 1)] {
            Case::new("ReduceMean")
                .float(&[2, 1, 4])
                .integers(&[axes.len()], &axes)
                .attribute("keepdims", Attribute::Int(keep))
                .gradients();
        }
    }
}
