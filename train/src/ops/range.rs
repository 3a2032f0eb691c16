//! `Range`: numbers from start to limit by delta, known ahead of time or refused. No gradient.

use super::site::{Site, same_element};
use super::{Gradient, Operator};
use crate::graph::{Tensor, TensorType};
use crate::program::NodeProblem;

pub(super) const RULES: Operator = Operator { name: "Range", shape, fold: Some(fold), gradient: Gradient::Stops };

/// Start, delta and how many.
fn plan(site: &Site<'_>) -> Result<(i64, i64, usize), NodeProblem> {
    same_element(&site.all()?)?;
    let one = |i: usize| site.ints(i)?.first().copied().ok_or_else(|| NodeProblem::inputs(format!("input {i} is empty")));
    let (start, limit, delta) = (one(0)?, one(1)?, one(2)?);
    let span = limit.checked_sub(start).ok_or_else(|| NodeProblem::inputs("integer overflow"))?;
    let count = match delta {
        0 => return Err(NodeProblem::inputs("a step of 0")),
        _ if span.signum() != delta.signum() => 0,
        _ => span.unsigned_abs().div_ceil(delta.unsigned_abs()),
    };
    usize::try_from(count).map(|count| (start, delta, count)).map_err(|_| NodeProblem::inputs("too many elements"))
}

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let (_, _, count) = plan(site)?;
    Ok(vec![TensorType::new(site.input(0)?.element, [count])])
}

fn fold(site: &Site<'_>) -> Result<Option<Tensor>, NodeProblem> {
    let (start, delta, count) = plan(site)?;
    let values: Vec<i64> = (0..count as i64).map(|i| start + i * delta).collect();
    Ok(Tensor::from_integers(TensorType::new(site.input(0)?.element, [count]), &values))
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn ranges_fold_to_what_the_runtime_computes() {
        for (start, limit, delta) in [(0, 5, 1), (1, 8, 3), (5, 0, -2)] {
            Case::new("Range").integers(&[], &[start]).integers(&[], &[limit]).integers(&[], &[delta]).folds();
        }
    }
}
