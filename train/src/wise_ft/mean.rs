//! The weighted mean of models, tensor by tensor.

use std::collections::HashMap;

use half::{bf16, f16};

use crate::graph::{Element, Graph, Model, Tensor};

/// Why models cannot be mixed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MixError {
    /// No model, or shares that do not belong to them.
    #[error("{models} models and {shares} shares; each model needs one, and they must be finite and add up to 1")]
    Shares {
        /// Models.
        models: usize,
        /// Shares.
        shares: usize,
    },
    /// A tensor that one model does not have.
    #[error("tensor {tensor:?} is in {present} and not in {missing}: the two were not exported alike; export both the same way")]
    Missing {
        /// Its name.
        tensor: String,
        /// The model that has it.
        present: String,
        /// The model that has not.
        missing: String,
    },
    /// A tensor of another type or shape.
    #[error("tensor {tensor:?} is {a} in {model_a} and {b} in {model_b}: these are not two states of one model")]
    Kind {
        /// Its name.
        tensor: String,
        /// Its type in the first.
        a: String,
        /// The first model.
        model_a: String,
        /// Its type in the other.
        b: String,
        /// The other model.
        model_b: String,
    },
    /// A tensor that is no float and differs.
    #[error(
        "tensor {tensor:?} holds {kind} and differs between {model_a} and {model_b}; only floats can be averaged: export without quantization"
    )]
    NotFloat {
        /// Its name.
        tensor: String,
        /// Its type.
        kind: String,
        /// The first model.
        model_a: String,
        /// The other model.
        model_b: String,
    },
    /// Operators differ.
    #[error("{model_a} and {model_b} compute differently, first at node {node:?}: these are not two states of one model")]
    Graph {
        /// Its name, or its first output's.
        node: String,
        /// The first model.
        model_a: String,
        /// The other model.
        model_b: String,
    },
}

/// A model and what it is called in messages.
pub type NamedModel<'a> = (&'a str, &'a Model);

/// The mean of `models`, each with its share. Sums are in float64, in the models' order. A share of exactly 1 gives that model itself.
///
/// # Errors
/// [`MixError`].
pub fn mix(models: &[NamedModel<'_>], shares: &[f64]) -> Result<Model, MixError> {
    let sum: f64 = shares.iter().sum();
    if models.is_empty() || models.len() != shares.len() || !((sum - 1.0).abs() < 1e-9) {
        return Err(MixError::Shares { models: models.len(), shares: shares.len() });
    }
    for other in &models[1..] {
        comparable(models[0], *other)?;
    }
    // Not by arithmetic: 1 x -0.0 + 0 x 1.0 is +0.0.
    if let Some(at) = shares.iter().position(|&share| share == 1.0)
        && shares.iter().enumerate().all(|(i, &share)| i == at || share == 0.0)
    {
        return Ok(models[at].1.clone());
    }
    let mut mixed = models[0].1.clone();
    let others: Vec<HashMap<&str, &Tensor>> = models.iter().map(|(_, model)| by_name(&model.graph)).collect();
    for (name, tensor) in &mut mixed.graph.initializers {
        let all: Vec<&Tensor> = others.iter().filter_map(|model| model.get(name.as_str()).copied()).collect();
        if all.windows(2).any(|pair| pair[0] != pair[1]) {
            *tensor = mean(&all, shares).unwrap_or_else(|| tensor.clone());
        }
    }
    Ok(mixed)
}

/// Shares of an exponential moving average over checkpoints, the oldest first: `m <- decay m + (1 - decay) w`, started from the first.
#[must_use]
pub fn ema_shares(checkpoints: usize, decay: f64) -> Vec<f64> {
    let late = |i: usize| if i == 0 { 1.0 } else { 1.0 - decay };
    (0..checkpoints).map(|i| late(i) * decay.powi((checkpoints - 1 - i) as i32)).collect()
}

fn by_name(graph: &Graph) -> HashMap<&str, &Tensor> {
    graph.initializers.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect()
}

fn comparable(a: NamedModel<'_>, b: NamedModel<'_>) -> Result<(), MixError> {
    let (in_a, in_b) = (by_name(&a.1.graph), by_name(&b.1.graph));
    for (from, to, there) in [(a, b, &in_b), (b, a, &in_a)] {
        if let Some((tensor, _)) = from.1.graph.initializers.iter().find(|(name, _)| !there.contains_key(name.as_str())) {
            let (present, missing) = (from.0.to_owned(), to.0.to_owned());
            return Err(MixError::Missing { tensor: tensor.clone(), present, missing });
        }
    }
    for (name, tensor) in &a.1.graph.initializers {
        let other = in_b[name.as_str()];
        let names = (name.clone(), a.0.to_owned(), b.0.to_owned());
        if tensor.kind() != other.kind() {
            let (tensor_name, model_a, model_b) = names;
            let (a, b) = (tensor.kind().to_string(), other.kind().to_string());
            return Err(MixError::Kind { tensor: tensor_name, a, model_a, b, model_b });
        }
        if !tensor.element().is_float() && tensor != other {
            let (tensor_name, model_a, model_b) = names;
            return Err(MixError::NotFloat { tensor: tensor_name, kind: tensor.element().to_string(), model_a, model_b });
        }
    }
    let nodes = a.1.graph.nodes.iter().zip(&b.1.graph.nodes).find(|(x, y)| x != y).map(|(x, _)| x);
    let extra = || {
        let (x, y) = (&a.1.graph.nodes, &b.1.graph.nodes);
        if x.len() > y.len() { x.get(y.len()) } else { y.get(x.len()) }
    };
    match nodes.or_else(extra) {
        None => Ok(()),
        Some(node) => {
            let first = || node.outputs.first().cloned().unwrap_or_default();
            let node = if node.name.is_empty() { first() } else { node.name.clone() };
            Err(MixError::Graph { node, model_a: a.0.to_owned(), model_b: b.0.to_owned() })
        }
    }
}

/// None for tensors that are no floats.
fn mean(tensors: &[&Tensor], shares: &[f64]) -> Option<Tensor> {
    let first = tensors.first()?;
    let mut sums = vec![0.0_f64; first.len()];
    for (tensor, &share) in tensors.iter().zip(shares) {
        sums.iter_mut().zip(floats(tensor)?).for_each(|(sum, value)| *sum += share * value);
    }
    let bytes = match first.element() {
        Element::F16 => sums.iter().flat_map(|&v| f16::from_f64(v).to_le_bytes()).collect(),
        Element::Bf16 => sums.iter().flat_map(|&v| bf16::from_f64(v).to_le_bytes()).collect(),
        _ => return Tensor::from_floats(first.kind().clone(), &sums),
    };
    Tensor::from_bytes(first.kind().clone(), bytes)
}

fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    let words = || tensor.bytes().as_chunks::<2>().0.iter();
    match tensor.element() {
        Element::F16 => Some(words().map(|b| f16::from_le_bytes(*b).to_f64()).collect()),
        Element::Bf16 => Some(words().map(|b| bf16::from_le_bytes(*b).to_f64()).collect()),
        _ => tensor.floats(),
    }
}
