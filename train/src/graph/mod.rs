//! An ONNX model by value: read from bytes, changed, written to bytes.
//!
//! ```text
//!   bytes ──encoder's scan (what a file may say)──► read ──► Model ──► write ──► bytes
//! ```
//!
//! | file | subject |
//! |---|---|
//! | `tensor` | element types and tensors by value |
//! | `read` | protobuf to [`Model`] |
//! | `write` | [`Model`] to protobuf |
//! | `branch` | one `If` on an input as two models |
//! | `cut` | a model cut to some outputs, or given other weights |
//! | `widen` | weights stored small become float32 |
//! | `order` | nodes sorted so that each comes after what it reads |
//!
//! Not here: what an operator means. Protobuf does not leave this folder.
//!
//! Left out when reading, since none of it changes what a model computes: documentation strings, shape hints of intermediate
//! values, quantization notes, metadata of nodes. Refused: subgraphs (control flow; see `branch`), sparse tensors, strings.

mod branch;
mod cut;
mod order;
mod read;
mod tensor;
mod widen;
mod write;

use std::collections::BTreeMap;

pub use anchorite_encoder::model::scan::Dim;
pub use order::CycleError;
pub use read::{ExternalFiles, ReadError};
pub use tensor::{Element, Tensor, TensorType, element_count};
pub(crate) use widen::widen;
pub(crate) use write::MAX_MODEL_BYTES;

/// A model: a graph and which operators' meaning it relies on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Model {
    /// Version of the ONNX format.
    pub ir_version: i64,
    /// Which program wrote it.
    pub producer: String,
    /// That program's version.
    pub producer_version: String,
    /// Operator sets by domain; the standard's own domain is the empty name.
    pub opsets: BTreeMap<String, i64>,
    /// Free entries for people and programs.
    pub metadata: Vec<(String, String)>,
    /// What it computes.
    pub graph: Graph,
}

/// Nodes, stored tensors, and what goes in and out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Graph {
    /// Its name; never empty in a valid file.
    pub name: String,
    /// Operators, each after what it reads.
    pub nodes: Vec<Node>,
    /// Stored tensors in the file's order.
    pub initializers: Vec<(String, Tensor)>,
    /// Declared inputs without those that have a stored value.
    pub inputs: Vec<Port>,
    /// Declared outputs.
    pub outputs: Vec<Port>,
}

impl Graph {
    /// The stored tensor of this name.
    #[must_use]
    pub fn initializer(&self, name: &str) -> Option<&Tensor> {
        self.initializers.iter().find(|(n, _)| n == name).map(|(_, tensor)| tensor)
    }
}

/// A declared input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Element type.
    pub element: Element,
    /// Shape; `None` where the graph does not say.
    pub shape: Option<Vec<Dim>>,
}

/// One use of an operator.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Node {
    /// Its name; may be empty.
    pub name: String,
    /// `op_type`.
    pub operator: String,
    /// The operator's domain; empty for the standard's own.
    pub domain: String,
    /// Values it reads; an empty name is an optional input that is left out.
    pub inputs: Vec<String>,
    /// Values it writes; an empty name is an output nobody wants.
    pub outputs: Vec<String>,
    /// Attributes by name.
    pub attributes: BTreeMap<String, Attribute>,
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Attribute {
    /// An integer.
    Int(i64),
    /// A float.
    Float(f32),
    /// Text, as bytes.
    Text(Vec<u8>),
    /// A tensor.
    Tensor(Tensor),
    /// Integers.
    Ints(Vec<i64>),
    /// Floats.
    Floats(Vec<f32>),
    /// Several texts.
    Texts(Vec<Vec<u8>>),
}
