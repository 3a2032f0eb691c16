//! `Transpose`: axes in another order; dx = d in the inverse order.

use super::site::{Site, axes, positions, strides};
use super::{Gradient, Operator, Reverse};
use crate::graph::{Tensor, TensorType};
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "Transpose", shape, fold: Some(fold), gradient: Gradient::Rule(gradient) };

/// Axis i of the output is axis order[i] of the input.
fn order(site: &Site<'_>) -> Result<Vec<usize>, NodeProblem> {
    let rank = site.input(0)?.shape.len();
    let Some(values) = site.int_list("perm")? else { return Ok((0..rank).rev().collect()) };
    if axes(values, rank)?.len() != rank {
        return Err(NodeProblem::inputs(format!("an order of {} axes for {rank}", values.len())));
    }
    values.iter().map(|&v| super::site::axis(v, rank)).collect()
}

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let kind = site.input(0)?;
    let sizes: Vec<usize> = order(site)?.into_iter().filter_map(|i| kind.shape.get(i).copied()).collect();
    Ok(vec![TensorType::new(kind.element, sizes)])
}

fn fold(site: &Site<'_>) -> Result<Option<Tensor>, NodeProblem> {
    let Some(x) = site.value(0) else { return Ok(None) };
    let (order, all) = (order(site)?, strides(x.shape()));
    let steps: Vec<usize> = order.iter().filter_map(|&i| all.get(i).copied()).collect();
    let shape: Vec<usize> = order.iter().filter_map(|&i| x.shape().get(i).copied()).collect();
    Ok(x.picked(&shape, positions(&shape, &steps, 0)))
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let order = r.with_site(order)?;
    let mut inverse = vec![0; order.len()];
    for (i, &axis) in order.iter().enumerate() {
        inverse[axis] = i;
    }
    let d = r.d()?;
    let dx = r.program.transpose(&d, &inverse)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Transpose").float(&[2, 3, 4]).gradients();
        Case::new("Transpose").float(&[2, 3, 1, 4]).attribute("perm", Attribute::Ints(vec![2, 0, 3, 1])).gradients();
    }

    #[test]
    fn constants_fold_to_what_the_runtime_computes() {
        let case = Case::new("Transpose").integers(&[2, 3, 1], &[1, 2, 3, 4, 5, 6]);
        case.attribute("perm", Attribute::Ints(vec![1, 2, 0])).folds();
    }
}
