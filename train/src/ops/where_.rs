//! `Where`: a where the condition holds, b elsewhere; da = d where it holds, db = d elsewhere, summed over what was broadcast.

use super::site::{Site, broadcast, broadcast_positions, same_element};
use super::{Gradient, Operator, Reverse};
use crate::graph::{Element, Tensor, TensorType, element_count};
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "Where", shape, fold: Some(fold), gradient: Gradient::Rule(gradient) };

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let (condition, a, b) = (site.input(0)?, site.input(1)?, site.input(2)?);
    let element = same_element(&[a, b])?;
    if condition.element != Element::Bool {
        return Err(NodeProblem::inputs(format!("a condition of {}", condition.element)));
    }
    Ok(vec![TensorType::new(element, broadcast(&condition.shape, &broadcast(&a.shape, &b.shape)?)?)])
}

fn fold(site: &Site<'_>) -> Result<Option<Tensor>, NodeProblem> {
    let (Some(condition), Some(a), Some(b)) = (site.value(0), site.value(1), site.value(2)) else { return Ok(None) };
    let Some(kind) = shape(site)?.pop() else { return Ok(None) };
    let holds = condition.integers().unwrap_or_default();
    // Both sides in a row, and then which element of it stands where.
    let row = TensorType::new(kind.element, [a.len() + b.len()]);
    let Some(row) = Tensor::from_bytes(row, [a.bytes(), b.bytes()].concat()) else { return Ok(None) };
    let [ct, at, bt] = [condition, a, b].map(|t| broadcast_positions(t.shape(), &kind.shape));
    let pick = |i: usize| if holds.get(ct[i]) == Some(&0) { a.len() + bt[i] } else { at[i] };
    Ok(row.picked(&kind.shape, (0..element_count(&kind.shape).unwrap_or(0)).map(pick)))
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (condition, d) = (r.x(0), r.d()?);
    let zero = r.program.scalar(0.0, &d)?;
    if r.wants(1) {
        let da = r.program.select(&condition, &d, &zero)?;
        r.give_fitted(1, &da)?;
    }
    if r.wants(2) {
        let db = r.program.select(&condition, &zero, &d)?;
        r.give_fitted(2, &db)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Where").booleans(&[2, 3], &[1, 0, 1, 0, 0, 1]).float(&[2, 3]).float(&[2, 3]).gradients();
        Case::new("Where").booleans(&[2, 1], &[1, 0]).float(&[3]).float(&[1, 1]).gradients();
        Case::new("Where").booleans(&[2], &[1, 0]).float(&[]).float(&[3, 1]).gradients();
    }

    #[test]
    fn constants_fold_to_what_the_runtime_computes() {
        Case::new("Where").booleans(&[2, 1], &[1, 0]).integers(&[3], &[1, 2, 3]).integers(&[], &[9]).folds();
        Case::new("Where").booleans(&[2], &[1, 0]).constant(&[2], &[1.0, 2.0]).constant(&[1], &[f64::NEG_INFINITY]).folds();
    }
}
