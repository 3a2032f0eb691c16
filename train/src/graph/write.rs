//! [`Model`] to protobuf. Tensors go out as `raw_data`.

use anchorite_encoder::model::scan::Dim;
use anchorite_encoder::model::wire::{put_bytes, put_varint};

use super::{Attribute, Graph, Model, Node, Port, Tensor};

/// Bytes of an `.onnx` file, at most: protobuf's bound of a message.
pub(crate) const MAX_MODEL_BYTES: usize = (1 << 31) - 1;

impl Model {
    /// The model as the bytes of an `.onnx` file. Weights are inside, so that 2 GiB, protobuf's own bound, is the most a reader takes.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_integer(&mut out, 1, self.ir_version);
        put_text(&mut out, 2, &self.producer);
        put_text(&mut out, 3, &self.producer_version);
        put_bytes(&mut out, 7, &graph(&self.graph));
        for (domain, &version) in &self.opsets {
            let mut opset = Vec::new();
            put_text(&mut opset, 1, domain);
            put_integer(&mut opset, 2, version);
            put_bytes(&mut out, 8, &opset);
        }
        for (key, value) in &self.metadata {
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, key.as_bytes());
            put_bytes(&mut entry, 2, value.as_bytes());
            put_bytes(&mut out, 14, &entry);
        }
        out
    }
}

fn put_integer(out: &mut Vec<u8>, number: u32, value: i64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value as u64);
}

fn put_float(out: &mut Vec<u8>, number: u32, value: f32) {
    put_varint(out, u64::from(number) << 3 | 5);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Nothing for an empty text, which is what a missing one is read as.
fn put_text(out: &mut Vec<u8>, number: u32, value: &str) {
    if !value.is_empty() {
        put_bytes(out, number, value.as_bytes());
    }
}

fn graph(graph: &Graph) -> Vec<u8> {
    let mut out = Vec::new();
    for item in &graph.nodes {
        put_bytes(&mut out, 1, &node(item));
    }
    put_text(&mut out, 2, &graph.name);
    for (name, item) in &graph.initializers {
        put_bytes(&mut out, 5, &tensor(name, item));
    }
    for item in &graph.inputs {
        put_bytes(&mut out, 11, &port(item));
    }
    for item in &graph.outputs {
        put_bytes(&mut out, 12, &port(item));
    }
    out
}

fn node(node: &Node) -> Vec<u8> {
    let mut out = Vec::new();
    // Empty names are positions here: an optional input that is left out.
    for name in &node.inputs {
        put_bytes(&mut out, 1, name.as_bytes());
    }
    for name in &node.outputs {
        put_bytes(&mut out, 2, name.as_bytes());
    }
    put_text(&mut out, 3, &node.name);
    put_text(&mut out, 4, &node.operator);
    for (name, value) in &node.attributes {
        put_bytes(&mut out, 5, &attribute(name, value));
    }
    put_text(&mut out, 7, &node.domain);
    out
}

fn attribute(name: &str, value: &Attribute) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, 1, name);
    let kind = match value {
        Attribute::Float(value) => {
            put_float(&mut out, 2, *value);
            1
        }
        Attribute::Int(value) => {
            put_integer(&mut out, 3, *value);
            2
        }
        Attribute::Text(value) => {
            put_bytes(&mut out, 4, value);
            3
        }
        Attribute::Tensor(value) => {
            put_bytes(&mut out, 5, &tensor("", value));
            4
        }
        Attribute::Floats(values) => {
            values.iter().for_each(|&v| put_float(&mut out, 7, v));
            6
        }
        Attribute::Ints(values) => {
            values.iter().for_each(|&v| put_integer(&mut out, 8, v));
            7
        }
        Attribute::Texts(values) => {
            values.iter().for_each(|v| put_bytes(&mut out, 9, v));
            8
        }
    };
    put_integer(&mut out, 20, kind);
    out
}

fn tensor(name: &str, tensor: &Tensor) -> Vec<u8> {
    let mut out = Vec::with_capacity(tensor.bytes().len() + name.len() + 64);
    for &size in tensor.shape() {
        put_integer(&mut out, 1, size as i64);
    }
    put_integer(&mut out, 2, tensor.element().onnx());
    put_text(&mut out, 8, name);
    put_bytes(&mut out, 9, tensor.bytes());
    out
}

fn port(port: &Port) -> Vec<u8> {
    let mut kind = Vec::new();
    put_integer(&mut kind, 1, port.element.onnx());
    if let Some(dims) = &port.shape {
        let mut shape = Vec::new();
        for dim in dims {
            let mut out = Vec::new();
            match dim {
                Dim::Fixed(size) => put_integer(&mut out, 1, *size as i64),
                Dim::Dynamic(name) => put_text(&mut out, 2, name),
            }
            put_bytes(&mut shape, 1, &out);
        }
        put_bytes(&mut kind, 2, &shape);
    }
    let mut tensor_type = Vec::new();
    put_bytes(&mut tensor_type, 1, &kind);
    let mut out = Vec::new();
    put_text(&mut out, 1, &port.name);
    put_bytes(&mut out, 2, &tensor_type);
    out
}
