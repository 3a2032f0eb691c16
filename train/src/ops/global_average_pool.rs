//! `GlobalAveragePool`: the mean over all spatial axes, which stay with size 1. dx = d / count, spread.

use super::{Gradient, Operator, Reverse, Site};
use crate::graph::TensorType;
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "GlobalAveragePool", shape, fold: None, gradient: Gradient::Rule(gradient) };

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let x = site.input(0)?;
    if x.shape.len() < 3 {
        return Err(NodeProblem::inputs(format!("{x} has no spatial axes")));
    }
    let kept = x.shape.iter().enumerate().map(|(i, &size)| if i < 2 { size } else { 1 }).collect::<Vec<_>>();
    Ok(vec![TensorType::new(x.element, kept)])
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (d, shape) = (r.d()?, r.shape(0)?);
    let count: usize = shape[2..].iter().product();
    let share = r.program.scale(&d, 1.0 / count.max(1) as f64)?;
    let dx = r.program.expand(&share, &shape)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("GlobalAveragePool").float(&[2, 3, 4, 5]).gradients();
        Case::new("GlobalAveragePool").float(&[2, 1, 7]).gradients();
    }
}
