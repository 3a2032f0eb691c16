//! Weights stored as float16 and widened when they are read: half the bytes, the same operators, the same element types of inputs and outputs.

use std::collections::BTreeMap;

use half::f16;

use crate::graph::{Attribute, Element, Model, Node, Tensor, TensorType};

/// Weights of fewer elements stay as they are: biases and norms are small and matter.
const LEAST: usize = 4_096;
/// ONNX's number of float32.
const FLOAT: i64 = 1;

/// The model with its large float32 weights in float16. One that float16 cannot hold stays as it is.
pub(super) fn narrow(model: &Model) -> Model {
    let mut narrow = model.clone();
    let mut casts = Vec::new();
    for (name, tensor) in &mut narrow.graph.initializers {
        let Some(half) = halved(tensor) else { continue };
        let stored = format!("{name}.f16");
        casts.push(Node {
            name: format!("{name}/widen"),
            operator: "Cast".to_owned(),
            inputs: vec![stored.clone()],
            outputs: vec![std::mem::replace(name, stored)],
            attributes: BTreeMap::from([("to".to_owned(), Attribute::Int(FLOAT))]),
            ..Node::default()
        });
        *tensor = half;
    }
    narrow.graph.nodes.splice(0..0, casts);
    narrow
}

fn halved(tensor: &Tensor) -> Option<Tensor> {
    if tensor.element() != Element::F32 || tensor.len() < LEAST {
        return None;
    }
    let halves: Vec<f16> = tensor.floats()?.into_iter().map(f16::from_f64).collect();
    let bytes = halves.iter().flat_map(|v| v.to_le_bytes()).collect();
    halves.iter().all(|v| v.is_finite()).then(|| Tensor::from_bytes(TensorType::new(Element::F16, tensor.shape()), bytes))?
}
