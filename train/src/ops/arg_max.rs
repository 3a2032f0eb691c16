//! `ArgMax`: where along an axis the largest value is. No gradient.

use super::site::Site;
use super::{Gradient, Operator};
use crate::graph::{Element, TensorType};
use crate::program::NodeProblem;

pub(super) const RULES: Operator = Operator { name: "ArgMax", shape, fold: None, gradient: Gradient::Stops };

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let mut shape = site.input(0)?.shape.clone();
    let axis = site.axis("axis", 0, shape.len())?;
    if site.int("keepdims", 1)? == 0 {
        shape.remove(axis);
    } else {
        shape[axis] = 1;
    }
    Ok(vec![TensorType::new(Element::I64, shape)])
}
