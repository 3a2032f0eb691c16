//! Tensors under the names that PyTorch's module has them by.
//!
//! PyTorch's exporters keep most parameters' names (behind `model.`, the wrapper that exports one tower), but store a linear layer's weight
//! transposed and without a name: `onnx::MatMul_N` in TorchScript's, `val_N` in dynamo's. Which layer it is of stands in the name of the bias that is
//! added to the product, else, in TorchScript's, in that of the node: `/vision_model/encoder/layers.0/mlp/fc1/MatMul`. A tensor whose layer cannot be
//! told keeps its name and shape. Class tokens and positions that an exporter folded into another shape are told by what reads them.

use std::collections::BTreeMap;

use crate::graph::{Model, Node, Tensor};

/// The model's weights, by PyTorch's names where they can be told.
#[must_use]
pub fn torch_names(model: &Model) -> BTreeMap<String, Tensor> {
    let floats = model.graph.initializers.iter().filter(|(_, tensor)| tensor.element().is_float());
    let named = |(name, tensor): &(String, Tensor)| {
        linear(model, name, tensor)
            .or_else(|| folded(model, name, tensor))
            .unwrap_or_else(|| (name.strip_prefix("model.").unwrap_or(name).to_owned(), tensor.clone()))
    };
    floats.map(named).collect()
}

/// The name and the weight of the linear layer that reads this matrix, when one and only one does.
fn linear(model: &Model, name: &str, tensor: &Tensor) -> Option<(String, Tensor)> {
    let &[rows, columns] = tensor.shape() else { return None };
    if !["onnx::", "val_"].iter().any(|made_up| name.starts_with(made_up)) {
        return None;
    }
    let mut readers = model.graph.nodes.iter().filter(|node| node.inputs.iter().any(|input| input == name));
    let (reader, None) = (readers.next()?, readers.next()) else { return None };
    let right = reader.operator == "MatMul" && reader.inputs.get(1).is_some_and(|input| input == name);
    let weight = if right { by_bias(model, reader).or_else(|| by_path(reader))? } else { return None };
    let transposed = tensor.picked(&[columns, rows], (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c)))?;
    Some((weight, transposed))
}

/// Of a tower by transformers, else by open_clip: class token and positions, where they came without a name.
fn folded(model: &Model, name: &str, tensor: &Tensor) -> Option<(String, Tensor)> {
    let has = |part: &str| model.graph.initializers.iter().any(|(name, _)| name.starts_with(part));
    let (class, positions) = match (has("model.vision_model."), has("model.text_model."), has("model.visual.")) {
        (true, ..) => ("vision_model.embeddings.class_embedding", "vision_model.embeddings.position_embedding.weight"),
        (_, true, _) => ("", "text_model.embeddings.position_embedding.weight"),
        (.., true) => ("visual.class_embedding", "visual.positional_embedding"),
        _ => ("", "positional_embedding"),
    };
    let sizes: Vec<usize> = tensor.shape().iter().copied().skip_while(|&size| size == 1).collect();
    let mut readers = model.graph.nodes.iter().filter(|node| node.inputs.iter().any(|input| input == name));
    let (reader, None, false) = (readers.next()?, readers.next(), name.contains('.')) else { return None };
    let found = match (reader.operator.as_str(), &sizes[..]) {
        ("Expand", [_]) => class,
        ("Add", [_, _]) => positions,
        _ => return None,
    };
    let there = found.is_empty() || has(&format!("model.{found}"));
    let count = sizes.iter().product();
    (!there).then(|| Some((found.to_owned(), tensor.picked(&sizes, 0..count)?)))?
}

/// The weight whose bias, `a.b.bias` or `a.in_proj_bias`, is added to the product.
fn by_bias(model: &Model, product: &Node) -> Option<String> {
    let sum = model.graph.nodes.iter().find(|node| node.operator == "Add" && node.inputs.contains(&product.outputs[0]))?;
    let bias = sum.inputs.iter().find_map(|name| name.strip_suffix("bias"))?;
    let stored = |name: &str| model.graph.initializers.iter().any(|(stored, _)| stored == name);
    stored(&format!("{bias}bias")).then(|| format!("{}weight", bias.strip_prefix("model.").unwrap_or(bias)))
}

/// `/a/b.0/c/MatMul` is of the layer `a.b.0.c`.
fn by_path(product: &Node) -> Option<String> {
    let path = product.name.strip_prefix('/')?.strip_suffix("/MatMul")?;
    let path = path.strip_prefix("model/").unwrap_or(path);
    Some(format!("{}.weight", path.replace('/', ".")))
}
