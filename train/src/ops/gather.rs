//! `Gather`: entries of one axis by index. dx: d added up at its indices into zeros (ScatterND); for one constant index, d with
//! zeros around it, which needs no scatter.

use super::site::{Site, axis, positions, strides};
use super::{Gradient, Operator, Reverse};
use crate::graph::{Attribute, Tensor, TensorType};
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "Gather", shape, fold: Some(fold), gradient: Gradient::Rule(gradient) };

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let (kind, indices) = (site.input(0)?, site.input(1)?);
    let axis = site.axis("axis", 0, kind.shape.len())?;
    let sizes = [&kind.shape[..axis], &indices.shape, &kind.shape[axis + 1..]].concat();
    Ok(vec![TensorType::new(kind.element, sizes)])
}

fn fold(site: &Site<'_>) -> Result<Option<Tensor>, NodeProblem> {
    let (Some(x), Some(indices)) = (site.value(0), site.value(1)) else { return Ok(None) };
    let along = site.axis("axis", 0, x.shape().len())?;
    let all = strides(x.shape());
    let indices = indices.integers().unwrap_or_default();
    let indices = indices.into_iter().map(|i| axis(i, x.shape()[along])).collect::<Result<Vec<_>, _>>()?;
    let mut order = Vec::new();
    for start in positions(&x.shape()[..along], &all[..along], 0) {
        for &i in &indices {
            order.extend(positions(&x.shape()[along + 1..], &all[along + 1..], start + i * all[along]));
        }
    }
    Ok(shape(site)?.first().and_then(|kind| x.picked(&kind.shape, order)))
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let along = r.axis("axis", 0)?;
    let kind = r.kind(0)?;
    let ids = r.x(1);
    let constant = r.program.constant(&ids).filter(|t| t.shape().is_empty()).and_then(Tensor::integers);
    let dx = match constant.as_deref() {
        Some(&[index]) => one_index(r, &kind, along, index)?,
        _ => scattered(r, &kind, along, &ids)?,
    };
    r.give(0, dx);
    Ok(())
}

fn one_index(r: &mut Reverse<'_>, kind: &TensorType, along: usize, index: i64) -> Result<String, ProgramError> {
    let size = kind.shape[along];
    let index = axis(index, size).map_err(|problem| problem.at(&r.node))?;
    let d = r.d()?;
    let mut shape = kind.shape.clone();
    shape[along] = 1;
    let d = r.program.reshape(&d, &shape)?;
    let (mut before, mut behind) = (vec![0; shape.len()], vec![0; shape.len()]);
    before[along] = index;
    behind[along] = size - index - 1;
    r.program.pad(&d, &before, &behind)
}

/// ScatterND wants the indexed axis first: d and dx are turned so that it is.
fn scattered(r: &mut Reverse<'_>, kind: &TensorType, along: usize, ids: &str) -> Result<String, ProgramError> {
    let d = r.d()?;
    let p = &mut *r.program;
    let ids_shape = p.shape(ids)?;
    let (rank, index_rank) = (kind.shape.len(), ids_shape.len());
    let indices = p.reshape(ids, &[&ids_shape[..], &[1]].concat())?;
    let front: Vec<usize> = std::iter::once(along).chain((0..rank).filter(|&i| i != along)).collect();
    let sizes: Vec<usize> = front.iter().map(|&i| kind.shape[i]).collect();
    let zeros = p.zeros(&TensorType::new(kind.element, sizes))?;
    let order: Vec<usize> =
        (along..along + index_rank).chain(0..along).chain(along + index_rank..rank - 1 + index_rank).collect();
    let d = if along == 0 { d } else { p.transpose(&d, &order)? };
    let sum = p.emit("ScatterND", &[&zeros, &indices, &d], &[("reduction", Attribute::Text(b"add".to_vec()))])?;
    let mut back = vec![0; rank];
    for (i, &axis) in front.iter().enumerate() {
        back[axis] = i;
    }
    if along == 0 { Ok(sum) } else { p.transpose(&sum, &back) }
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Gather").float(&[5, 3]).integers(&[2, 4], &[0, 4, 4, 1, -1, 0, 2, 4]).gradients();
        Case::new("Gather").float(&[2, 3, 4]).integers(&[], &[-1]).attribute("axis", Attribute::Int(1)).gradients();
        let case = Case::new("Gather").float(&[2, 3, 4]).integers(&[2, 3], &[0, 2, 1, 1, -1, 0]);
        case.attribute("axis", Attribute::Int(1)).gradients();
        Case::new("Gather").float(&[2, 3]).integers(&[2], &[2, 2]).attribute("axis", Attribute::Int(-1)).gradients();
    }

    #[test]
    fn constants_fold_to_what_the_runtime_computes() {
        Case::new("Gather").integers(&[4], &[1, 2, 3, 4]).integers(&[], &[-2]).folds();
        let case = Case::new("Gather").integers(&[2, 3], &[1, 2, 3, 4, 5, 6]).integers(&[2], &[2, 0]);
        case.attribute("axis", Attribute::Int(1)).folds();
    }
}
