//! `Constant`: a stored value. No gradient.

use super::site::{Site, bad_attribute};
use super::{Gradient, Operator};
use crate::graph::{Attribute, Element, Tensor, TensorType};
use crate::program::NodeProblem;

pub(super) const RULES: Operator = Operator { name: "Constant", shape, fold: Some(fold), gradient: Gradient::Stops };

fn value(site: &Site<'_>) -> Result<Tensor, NodeProblem> {
    let floats = |values: &[f32], shape: &[usize]| {
        let values: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        Tensor::from_floats(TensorType::new(Element::F32, shape), &values)
    };
    let found = site.node.attributes.iter().find_map(|(name, value)| match (name.as_str(), value) {
        ("value", Attribute::Tensor(tensor)) => Some(tensor.clone()),
        ("value_int", Attribute::Int(v)) => Tensor::from_integers(TensorType::new(Element::I64, []), &[*v]),
        ("value_ints", Attribute::Ints(v)) => Some(Tensor::list(v)),
        ("value_float", Attribute::Float(v)) => floats(&[*v], &[]),
        ("value_floats", Attribute::Floats(v)) => floats(v, &[v.len()]),
        _ => None,
    });
    found.ok_or_else(|| bad_attribute("value", "no value of a kind that is understood"))
}

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    Ok(vec![value(site)?.kind().clone()])
}

fn fold(site: &Site<'_>) -> Result<Option<Tensor>, NodeProblem> {
    value(site).map(Some)
}

#[cfg(test)]
mod tests {
    use crate::graph::{Attribute, Tensor};
    use crate::ops::check::Case;

    #[test]
    fn values_fold_to_what_the_runtime_computes() {
        Case::new("Constant").attribute("value", Attribute::Tensor(Tensor::list(&[1, 2]))).folds();
        Case::new("Constant").attribute("value_int", Attribute::Int(-3)).folds();
        Case::new("Constant").attribute("value_floats", Attribute::Floats(vec![0.5, -1.0])).folds();
    }
}
