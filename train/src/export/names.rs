//! Tensors under the names that PyTorch's module has them by.
//!
//! PyTorch's TorchScript exporter keeps most parameters' names (behind `model.`, the wrapper that exports one tower), but stores a linear
//! layer's weight transposed as `onnx::MatMul_N`. Which layer it is of stands in the name of the node that reads it:
//! `/vision_model/encoder/layers.0/mlp/fc1/MatMul`. A tensor whose layer cannot be told keeps its name and shape.

use std::collections::BTreeMap;

use crate::graph::{Model, Node, Tensor};

/// The model's weights, by PyTorch's names where they can be told.
#[must_use]
pub fn torch_names(model: &Model) -> BTreeMap<String, Tensor> {
    let floats = model.graph.initializers.iter().filter(|(_, tensor)| tensor.element().is_float());
    let named = |(name, tensor): &(String, Tensor)| {
        let transposed = linear(model, name, tensor);
        transposed.unwrap_or_else(|| (name.strip_prefix("model.").unwrap_or(name).to_owned(), tensor.clone()))
    };
    floats.map(named).collect()
}

/// The name and the weight of the linear layer that reads this matrix, when one and only one does.
fn linear(model: &Model, name: &str, tensor: &Tensor) -> Option<(String, Tensor)> {
    let &[rows, columns] = tensor.shape() else { return None };
    if !name.starts_with("onnx::") {
        return None;
    }
    let mut readers = model.graph.nodes.iter().filter(|node| node.inputs.iter().any(|input| input == name));
    let (reader, None) = (readers.next()?, readers.next()) else { return None };
    let layer = layer_of(reader, name)?;
    let transposed = tensor.picked(&[columns, rows], (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c)))?;
    Some((format!("{layer}.weight"), transposed))
}

/// `/a/b.0/c/MatMul` is the layer `a.b.0.c`, if it multiplies with this matrix from the right.
fn layer_of(node: &Node, matrix: &str) -> Option<String> {
    let right = node.operator == "MatMul" && node.inputs.get(1).is_some_and(|input| input == matrix);
    let path = node.name.strip_prefix('/')?.strip_suffix("/MatMul").filter(|_| right)?;
    let path = path.strip_prefix("model/").unwrap_or(path);
    Some(path.replace('/', "."))
}
