//! What an operator's shape and folding rules see of a node: types of its inputs, values of those that are constants, attributes.

use crate::graph::{Attribute, Element, Node, Tensor, TensorType};
use crate::program::NodeProblem;

/// One use of an operator.
pub(crate) struct Site<'a> {
    pub(crate) node: &'a Node,
    /// By input; `None` for one that is left out.
    pub(crate) types: Vec<Option<&'a TensorType>>,
    /// By input; `None` for one whose value is not known ahead of time.
    pub(crate) constants: Vec<Option<&'a Tensor>>,
}

impl<'a> Site<'a> {
    /// Type of a required input.
    pub(crate) fn input(&self, i: usize) -> Result<&'a TensorType, NodeProblem> {
        self.optional(i).ok_or_else(|| NodeProblem::inputs(format!("input {i} is missing")))
    }

    /// Type of an optional input.
    pub(crate) fn optional(&self, i: usize) -> Option<&'a TensorType> {
        self.types.get(i).copied().flatten()
    }

    /// Types of all inputs, none of which may be left out.
    pub(crate) fn all(&self) -> Result<Vec<&'a TensorType>, NodeProblem> {
        (0..self.types.len()).map(|i| self.input(i)).collect()
    }

    /// Value of an input, if known.
    pub(crate) fn value(&self, i: usize) -> Option<&'a Tensor> {
        self.constants.get(i).copied().flatten()
    }

    /// Values of all inputs, if all are known.
    pub(crate) fn values(&self) -> Option<Vec<&'a Tensor>> {
        self.constants.iter().copied().collect()
    }

    /// Integers of a required input that decides a shape.
    pub(crate) fn ints(&self, i: usize) -> Result<Vec<i64>, NodeProblem> {
        self.input(i)?;
        let value = self.value(i).ok_or(NodeProblem::NotConstant { input: i })?;
        value.integers().ok_or_else(|| NodeProblem::inputs(format!("input {i} is {}, not integers", value.kind())))
    }

    /// The same of an optional input.
    pub(crate) fn optional_ints(&self, i: usize) -> Result<Option<Vec<i64>>, NodeProblem> {
        self.optional(i).map(|_| self.ints(i)).transpose()
    }

    pub(crate) fn attribute(&self, name: &str) -> Option<&'a Attribute> {
        self.node.attributes.get(name)
    }

    pub(crate) fn int(&self, name: &str, default: i64) -> Result<i64, NodeProblem> {
        match self.attribute(name) {
            None => Ok(default),
            Some(Attribute::Int(value)) => Ok(*value),
            Some(_) => Err(bad_attribute(name, "not an integer")),
        }
    }

    pub(crate) fn int_list(&self, name: &str) -> Result<Option<&'a [i64]>, NodeProblem> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Ints(values)) => Ok(Some(values)),
            Some(_) => Err(bad_attribute(name, "not a list of integers")),
        }
    }

    /// Attribute `name` as an axis of an input of `rank` axes.
    pub(crate) fn axis(&self, name: &str, default: i64, rank: usize) -> Result<usize, NodeProblem> {
        axis(self.int(name, default)?, rank)
    }
}

pub(crate) fn bad_attribute(name: &str, reason: &str) -> NodeProblem {
    NodeProblem::Attribute { name: name.to_owned(), reason: reason.to_owned() }
}

/// An axis that may count from the end.
pub(crate) fn axis(value: i64, rank: usize) -> Result<usize, NodeProblem> {
    let wrapped = if value < 0 { value.checked_add(rank as i64) } else { Some(value) };
    wrapped
        .and_then(|a| usize::try_from(a).ok())
        .filter(|&a| a < rank)
        .ok_or_else(|| NodeProblem::inputs(format!("axis {value} of a value of {rank} axes")))
}

/// Several axes, sorted, each once.
pub(crate) fn axes(values: &[i64], rank: usize) -> Result<Vec<usize>, NodeProblem> {
    let mut axes = values.iter().map(|&v| axis(v, rank)).collect::<Result<Vec<_>, _>>()?;
    axes.sort_unstable();
    if axes.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
        return Err(NodeProblem::inputs("an axis is named twice"));
    }
    Ok(axes)
}

/// The shape of two shapes broadcast together.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, NodeProblem> {
    let rank = a.len().max(b.len());
    let size = |shape: &[usize], i: usize| (i + shape.len()).checked_sub(rank).and_then(|i| shape.get(i).copied()).unwrap_or(1);
    let axis = |i: usize| match (size(a, i), size(b, i)) {
        (x, y) if x == y || y == 1 => Ok(x),
        (1, y) => Ok(y),
        _ => Err(NodeProblem::inputs(format!("shapes {a:?} and {b:?} do not go together"))),
    };
    (0..rank).map(axis).collect()
}

/// For each element of `shape` in order, the position of the element of `from` that broadcasting puts there.
pub(crate) fn broadcast_positions(from: &[usize], shape: &[usize]) -> Vec<usize> {
    let lead = shape.len() - from.len().min(shape.len());
    let mut steps = vec![0; shape.len()];
    let mut step = 1;
    for (i, &size) in from.iter().enumerate().rev() {
        if let Some(slot) = steps.get_mut(lead + i).filter(|_| size != 1) {
            *slot = step;
        }
        step *= size;
    }
    positions(shape, &steps, 0)
}

/// Row-major walk over `shape`: `start` plus index times step, summed over axes.
pub(crate) fn positions(shape: &[usize], steps: &[usize], start: usize) -> Vec<usize> {
    let mut out = vec![start];
    for (&size, &step) in shape.iter().zip(steps) {
        out = out.iter().flat_map(|&base| (0..size).map(move |i| base + i * step)).collect();
    }
    out
}

/// Distance in elements between neighbours along each axis.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}

/// That inputs have one element type, which is a float that gradients go through.
pub(crate) fn same_element(kinds: &[&TensorType]) -> Result<Element, NodeProblem> {
    let first = kinds.first().ok_or_else(|| NodeProblem::inputs("no inputs"))?.element;
    match kinds.iter().find(|k| k.element != first) {
        Some(other) => Err(NodeProblem::inputs(format!("{first} and {} together", other.element))),
        None => Ok(first),
    }
}
