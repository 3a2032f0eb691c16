//! `Expand`: broadcast to a shape; dx = d summed over what was broadcast.

use super::site::{Site, broadcast, broadcast_positions};
use super::{Gradient, Operator, Reverse};
use crate::graph::{Tensor, TensorType};
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "Expand", shape, fold: Some(fold), gradient: Gradient::Rule(gradient) };

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let kind = site.input(0)?;
    let sizes =
        site.ints(1)?.into_iter().map(|v| usize::try_from(v).map_err(|_| NodeProblem::inputs(format!("an axis of size {v}"))));
    let sizes = sizes.collect::<Result<Vec<_>, _>>()?;
    Ok(vec![TensorType::new(kind.element, broadcast(&kind.shape, &sizes)?)])
}

fn fold(site: &Site<'_>) -> Result<Option<Tensor>, NodeProblem> {
    let Some(x) = site.value(0) else { return Ok(None) };
    Ok(shape(site)?.first().and_then(|kind| x.picked(&kind.shape, broadcast_positions(x.shape(), &kind.shape))))
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let d = r.d()?;
    r.give_fitted(0, &d)
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Expand").float(&[3, 1]).integers(&[3], &[2, 1, 4]).gradients();
        Case::new("Expand").float(&[1, 1, 5]).integers(&[3], &[4, 1, 1]).gradients();
        Case::new("Expand").float(&[2]).integers(&[1], &[2]).gradients();
    }

    #[test]
    fn constants_fold_to_what_the_runtime_computes() {
        Case::new("Expand").integers(&[2, 1], &[1, 2]).integers(&[3], &[2, 1, 3]).folds();
    }
}
