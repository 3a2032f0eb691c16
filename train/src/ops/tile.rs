//! `Tile`: the input repeated along each axis; dx = d summed over the repeats.

use super::site::Site;
use super::{Gradient, Operator, Reverse};
use crate::graph::TensorType;
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "Tile", shape, fold: None, gradient: Gradient::Rule(gradient) };

fn repeats(site: &Site<'_>) -> Result<Vec<usize>, NodeProblem> {
    let rank = site.input(0)?.shape.len();
    let repeats = site.ints(1)?.into_iter().map(usize::try_from).collect::<Result<Vec<_>, _>>();
    let repeats = repeats.ok().filter(|repeats| repeats.len() == rank);
    repeats.ok_or_else(|| NodeProblem::inputs(format!("a number of repeats is needed for each of {rank} axes")))
}

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let kind = site.input(0)?;
    let sizes: Option<Vec<usize>> = kind.shape.iter().zip(repeats(site)?).map(|(size, times)| size.checked_mul(times)).collect();
    Ok(vec![TensorType::new(kind.element, sizes.ok_or_else(|| NodeProblem::inputs("too many elements"))?)])
}

/// d seen as [repeats, size] for each axis.
fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (repeats, shape, d) = (r.with_site(repeats)?, r.shape(0)?, r.d()?);
    let split: Vec<usize> = repeats.iter().zip(&shape).flat_map(|(&times, &size)| [times, size]).collect();
    let axes: Vec<usize> = (0..shape.len()).map(|axis| 2 * axis).collect();
    let d = r.program.reshape(&d, &split)?;
    let sum = r.program.sum(&d, &axes)?;
    let dx = r.program.reshape(&sum, &shape)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Tile").float(&[2, 1, 3]).integers(&[3], &[2, 4, 1]).gradients();
        Case::new("Tile").float(&[3]).integers(&[1], &[2]).gradients();
    }
}
