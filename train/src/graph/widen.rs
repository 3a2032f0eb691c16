//! Weights that a file stores small become float32 weights, which is what training moves.
//!
//! Published towers keep weights as float16 (a `Cast` widens them) or as int8 with a scale (`Cast`, then `Mul`). Such nodes are carried
//! out once, and their result takes their place as a stored tensor under the name of what they gave out. What depends on an input, as an
//! int8 table of words does, stays as it is: its scale still learns.

use std::collections::HashMap;

use half::f16;

use super::{Attribute, Element, Model, Node, Tensor, TensorType};

/// ONNX's number of float32.
const FLOAT: i64 = 1;

/// The model with every stored weight in float32.
pub(crate) fn widen(mut model: Model) -> Model {
    let mut stored: HashMap<String, Tensor> = model.graph.initializers.iter().cloned().collect();
    let mut made: Vec<(String, Tensor)> = Vec::new();
    model.graph.nodes.retain(|node| {
        let Some((name, tensor)) = carried_out(node, &stored) else { return true };
        stored.insert(name.clone(), tensor.clone());
        made.push((name, tensor));
        false
    });
    model.graph.initializers.extend(made);
    let used: std::collections::HashSet<&str> = model.graph.nodes.iter().flat_map(|n| &n.inputs).map(String::as_str).collect();
    let outputs: std::collections::HashSet<&str> = model.graph.outputs.iter().map(|o| o.name.as_str()).collect();
    model.graph.initializers.retain(|(name, _)| used.contains(name.as_str()) || outputs.contains(name.as_str()));
    model
}

/// What a node gives out, if it widens a stored weight or scales one.
fn carried_out(node: &Node, stored: &HashMap<String, Tensor>) -> Option<(String, Tensor)> {
    let [output] = &node.outputs[..] else { return None };
    let tensor = match (node.operator.as_str(), &node.inputs[..]) {
        ("Cast", [x]) if node.attributes.get("to") == Some(&Attribute::Int(FLOAT)) => widened(stored.get(x)?),
        ("Mul", [a, b]) => scaled(stored.get(a)?, stored.get(b)?),
        _ => None,
    };
    tensor.map(|tensor| (output.clone(), tensor))
}

fn widened(tensor: &Tensor) -> Option<Tensor> {
    let values: Vec<f64> = match tensor.element() {
        Element::F16 => tensor.bytes().as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f64()).collect(),
        Element::I8 | Element::U8 => tensor.integers()?.into_iter().map(|v| v as f64).collect(),
        _ => return None,
    };
    Tensor::from_floats(TensorType::new(Element::F32, tensor.shape()), &values)
}

/// A matrix times a row or a column of scales.
fn scaled(matrix: &Tensor, scale: &Tensor) -> Option<Tensor> {
    let (&[rows, columns], &[r, c]) = (matrix.shape(), scale.shape()) else { return None };
    let fits = (r == 1 || r == rows) && (c == 1 || c == columns) && matrix.element() == Element::F32;
    let (values, scales) = (matrix.floats().filter(|_| fits)?, scale.floats()?);
    let at = |i: usize| scales[(i / columns % r) * c + i % columns % c];
    let product: Vec<f64> = values.iter().enumerate().map(|(i, v)| f64::from((*v as f32) * (at(i) as f32))).collect();
    Tensor::from_floats(TensorType::new(Element::F32, [rows, columns]), &product)
}
