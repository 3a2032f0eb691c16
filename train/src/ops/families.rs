//! Rules that several operators share.

use super::Reverse;
use super::site::{Site, axes, broadcast, broadcast_positions, same_element};
use crate::graph::{Element, Tensor, TensorType, element_count};
use crate::program::{NodeProblem, ProgramError};

/// The type of the first input.
pub(super) fn like_first(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    Ok(vec![site.input(0)?.clone()])
}

/// Booleans in the shape of the first input.
pub(super) fn mask_like_first(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    Ok(vec![TensorType::new(Element::Bool, site.input(0)?.shape.clone())])
}

fn broadcast_all(kinds: &[&TensorType]) -> Result<Vec<usize>, NodeProblem> {
    kinds.iter().try_fold(Vec::new(), |shape, kind| broadcast(&shape, &kind.shape))
}

/// Inputs of one type, broadcast together.
pub(super) fn broadcast_inputs(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let kinds = site.all()?;
    Ok(vec![TensorType::new(same_element(&kinds)?, broadcast_all(&kinds)?)])
}

/// Inputs of one type, compared after broadcasting.
pub(super) fn compared_inputs(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let kinds = site.all()?;
    same_element(&kinds)?;
    Ok(vec![TensorType::new(Element::Bool, broadcast_all(&kinds)?)])
}

/// Both inputs' values in the shape they broadcast to; `None` where they are not known.
struct Pair<T> {
    values: Vec<(T, T)>,
    kind: TensorType,
}

fn pair<T: Copy>(site: &Site<'_>, read: fn(&Tensor) -> Option<Vec<T>>) -> Result<Option<Pair<T>>, NodeProblem> {
    let Some([a, b]) = site.values().and_then(|v| <[&Tensor; 2]>::try_from(v).ok()) else { return Ok(None) };
    let shape = broadcast(a.shape(), b.shape())?;
    let (Some(left), Some(right)) = (read(a), read(b)) else { return Ok(None) };
    let (at, bt) = (broadcast_positions(a.shape(), &shape), broadcast_positions(b.shape(), &shape));
    let values = at.iter().zip(&bt).filter_map(|(&i, &j)| Some((*left.get(i)?, *right.get(j)?))).collect();
    Ok(Some(Pair { values, kind: TensorType::new(a.element(), shape) }))
}

/// Folds arithmetic: by one function for floats, by another, which may fail, for integers.
pub(super) fn fold_arithmetic(
    site: &Site<'_>,
    float: fn(f64, f64) -> f64,
    int: fn(i64, i64) -> Option<i64>,
) -> Result<Option<Tensor>, NodeProblem> {
    if let Some(pair) = pair(site, Tensor::floats)? {
        // Exact in float32 too: one operation in float64, rounded, is that operation in float32.
        let values: Vec<f64> = pair.values.iter().map(|&(a, b)| float(a, b)).collect();
        return Ok(Tensor::from_floats(pair.kind, &values));
    }
    let Some(pair) = pair(site, Tensor::integers)? else { return Ok(None) };
    let values: Option<Vec<i64>> = pair.values.iter().map(|&(a, b)| int(a, b)).collect();
    let values = values.ok_or_else(|| NodeProblem::inputs("integer overflow or division by zero"))?;
    Ok(Tensor::from_integers(pair.kind, &values))
}

/// Folds a comparison or a logical operator.
pub(super) fn fold_comparison(
    site: &Site<'_>,
    float: fn(f64, f64) -> bool,
    int: fn(i64, i64) -> bool,
) -> Result<Option<Tensor>, NodeProblem> {
    let (values, shape): (Vec<i64>, _) = if let Some(pair) = pair(site, Tensor::floats)? {
        (pair.values.iter().map(|&(a, b)| i64::from(float(a, b))).collect(), pair.kind.shape)
    } else if let Some(pair) = pair(site, Tensor::integers)? {
        (pair.values.iter().map(|&(a, b)| i64::from(int(a, b))).collect(), pair.kind.shape)
    } else {
        return Ok(None);
    };
    Ok(Tensor::from_integers(TensorType::new(Element::Bool, shape), &values))
}

/// Folds a function of one float.
pub(super) fn fold_unary(site: &Site<'_>, float: fn(f64) -> f64) -> Result<Option<Tensor>, NodeProblem> {
    let Some(x) = site.value(0) else { return Ok(None) };
    let values = x.floats().map(|values| values.into_iter().map(float).collect::<Vec<_>>());
    Ok(values.and_then(|values| Tensor::from_floats(x.kind().clone(), &values)))
}

/// The first input's elements in the output's shape: reshapes of all kinds.
pub(super) fn fold_reshape(
    site: &Site<'_>,
    shape: fn(&Site<'_>) -> Result<Vec<TensorType>, NodeProblem>,
) -> Result<Option<Tensor>, NodeProblem> {
    let Some(x) = site.value(0) else { return Ok(None) };
    Ok(shape(site)?.first().and_then(|kind| x.reshaped(&kind.shape)))
}

/// The gradient of [`fold_reshape`]'s operators: dx = d in the shape of x.
pub(super) fn give_reshaped(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (d, shape) = (r.d()?, r.shape(0)?);
    let dx = r.program.reshape(&d, &shape)?;
    r.give(0, dx);
    Ok(())
}

/// The axes a reduction goes over.
pub(super) fn reduced_axes(site: &Site<'_>) -> Result<Vec<usize>, NodeProblem> {
    let rank = site.input(0)?.shape.len();
    let given = site.optional_ints(1)?.unwrap_or_default();
    if !given.is_empty() {
        return axes(&given, rank);
    }
    Ok(if site.int("noop_with_empty_axes", 0)? == 0 { (0..rank).collect() } else { Vec::new() })
}

/// The shape of a reduction.
pub(super) fn reduced(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let kind = site.input(0)?;
    let axes = reduced_axes(site)?;
    let keep = site.int("keepdims", 1)? != 0;
    let size = |(i, &size): (usize, &usize)| match (axes.contains(&i), keep) {
        (false, _) => Some(size),
        (true, true) => Some(1),
        (true, false) => None,
    };
    Ok(vec![TensorType::new(kind.element, kind.shape.iter().enumerate().filter_map(size).collect::<Vec<_>>())])
}

/// That two shapes have equally many elements.
pub(super) fn same_count(a: &[usize], b: &[usize]) -> Result<(), NodeProblem> {
    match (element_count(a), element_count(b)) {
        (Some(x), Some(y)) if x == y => Ok(()),
        _ => Err(NodeProblem::inputs(format!("{a:?} cannot become {b:?}"))),
    }
}
