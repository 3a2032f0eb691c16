//! Weights from noise in a model's shapes, by what reads them: CLIP's own rules, as far as a graph tells them.
//!
//! Matrices of linear layers and convolutions: normal with deviation 1 / sqrt(values that go in). Tables (words, places) and other matrices:
//! normal, 0.02. A norm's scale is 1; every other list of numbers (biases, shifts) is 0, but for a class token, normal with deviation
//! 1 / sqrt(its length). Single numbers stay, being constants of formulas.

use crate::{
    data::{Draw, stream},
    graph::{Element, Model, Node, Tensor, TensorType},
};

/// Deviation of tables.
const TABLE: f64 = 0.02;

enum Rule {
    Normal(f64),
    Constant(f64),
    Keep,
}

/// The model with new weights; `tower` tells two towers of one seed apart.
pub(crate) fn from_noise(model: &Model, seed: u64, tower: u64) -> Model {
    let mut fresh = model.clone();
    for (place, (name, tensor)) in fresh.graph.initializers.iter_mut().enumerate() {
        if tensor.element() != Element::F32 {
            continue;
        }
        let mut draw = Draw::at(&[seed, stream::WEIGHTS, tower, place as u64]);
        let values: Vec<f64> = match rule(model, name, tensor) {
            Rule::Keep => continue,
            Rule::Constant(value) => vec![value; tensor.len()],
            Rule::Normal(deviation) => (0..tensor.len()).map(|_| draw.normal() * deviation).collect(),
        };
        if let Some(new) = Tensor::from_floats(TensorType::new(Element::F32, tensor.shape()), &values) {
            *tensor = new;
        }
    }
    fresh
}

fn rule(model: &Model, name: &str, tensor: &Tensor) -> Rule {
    let readers: Vec<(&Node, usize)> = readers(model, name);
    let shape = tensor.shape();
    let Some((node, input)) = readers.first() else { return Rule::Keep };
    match (node.operator.as_str(), input, shape) {
        (_, _, []) | (_, _, [1]) => Rule::Keep,
        ("Conv", 1, [_, inner @ ..]) => Rule::Normal(fan(inner.iter().product())),
        ("MatMul", _, [rows, _]) => Rule::Normal(fan(*rows)),
        ("Gemm", 1, [a, b]) => Rule::Normal(fan(if is_transposed(node) { *b } else { *a })),
        ("Gather", 0, _) => Rule::Normal(TABLE),
        ("LayerNormalization" | "BatchNormalization", 1, _) => Rule::Constant(1.0),
        ("Expand" | "Concat", _, _) => Rule::Normal(fan(shape.last().copied().unwrap_or(1))),
        // The scale of a norm that was exported in parts.
        ("Mul", _, [_]) => Rule::Constant(1.0),
        (_, _, [_]) => Rule::Constant(0.0),
        _ => Rule::Normal(TABLE),
    }
}

/// The nodes that read a stored tensor, through those that only reshape or transpose it.
fn readers<'m>(model: &'m Model, name: &str) -> Vec<(&'m Node, usize)> {
    let reads = model.graph.nodes.iter().filter_map(|node| Some((node, node.inputs.iter().position(|input| input == name)?)));
    let through = |(node, input): (&'m Node, usize)| match node.operator.as_str() {
        "Identity" | "Reshape" | "Unsqueeze" | "Transpose" if input == 0 => {
            let next = node.outputs.first().map(|output| readers(model, output)).unwrap_or_default();
            if next.is_empty() { vec![(node, input)] } else { next }
        }
        _ => vec![(node, input)],
    };
    reads.flat_map(through).collect()
}

fn fan(values: usize) -> f64 {
    1.0 / (values.max(1) as f64).sqrt()
}

fn is_transposed(node: &Node) -> bool {
    node.attributes.get("transB") == Some(&crate::graph::Attribute::Int(1))
}
