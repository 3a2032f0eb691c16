//! Cuts a scanned model down to what leads to one output, and writes it again.
//!
//! A combined export (`model.onnx` with both towers) declares the other tower's inputs, and ONNX Runtime wants every declared
//! input and computes every node. What remains after the cut asks only for what it needs. Kept parts are copied byte for byte;
//! shape hints of intermediate values are left out, since they are recomputed.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::pick::{NotPicked, pick_first};
use super::scan::{ExternalRange, Initializer, Port, Scanned};
use super::wire;

/// An initializer whose data is handed to ONNX Runtime beside the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExternalTensor {
    pub(crate) name: String,
    pub(crate) data_type: i32,
    pub(crate) dims: Vec<i64>,
    pub(crate) range: ExternalRange,
}

/// What is left of a model: which parts lead to the output.
#[derive(Debug)]
pub(crate) struct Cut<'s, 'a> {
    scanned: &'s Scanned<'a>,
    nodes: Vec<bool>,
    needed: HashSet<&'a str>,
    output: String,
    /// The kept nodes, written anew.
    rewritten: Option<Vec<Vec<u8>>>,
}

impl<'s, 'a> Cut<'s, 'a> {
    /// Keeps what leads to `output`; `None` when the graph declares no such output.
    pub(crate) fn to_output(scanned: &'s Scanned<'a>, output: &str) -> Option<Self> {
        if !scanned.outputs.iter().any(|o| o.port.name == output) {
            return None;
        }
        let mut writer: HashMap<&str, usize> = HashMap::new();
        for (i, node) in scanned.nodes.iter().enumerate() {
            writer.extend(node.writes.iter().map(|&name| (name, i)));
        }
        let mut nodes = vec![false; scanned.nodes.len()];
        let mut needed: HashSet<&'a str> = HashSet::new();
        let mut open: Vec<usize> = writer.get(output).copied().into_iter().collect();
        while let Some(i) = open.pop() {
            if std::mem::replace(&mut nodes[i], true) {
                continue;
            }
            for &name in &scanned.nodes[i].reads {
                needed.insert(name);
                open.extend(writer.get(name));
            }
        }
        // The empty name stands for an optional input that is left out.
        needed.remove("");
        Some(Self { scanned, nodes, needed, output: output.to_owned(), rewritten: None })
    }

    /// Moves the end of the last layer behind the pick of one token ([`super::pick`]).
    ///
    /// # Errors
    /// [`NotPicked`]; nothing changed then.
    pub(crate) fn pick_first(&mut self) -> Result<(), NotPicked> {
        self.rewritten = Some(pick_first(self.scanned, &self.nodes, &self.output)?);
        Ok(())
    }

    fn keeps(&self, name: &str) -> bool {
        name == self.output || self.needed.contains(name)
    }

    /// Inputs that must be fed: declared, needed, and without a stored value.
    pub(crate) fn inputs(&self) -> Vec<Port> {
        let stored: HashSet<&str> = self.stored().collect();
        let fed = |name: &str| self.keeps(name) && !stored.contains(name);
        self.scanned.inputs.iter().filter(|i| fed(&i.port.name)).map(|i| i.port.clone()).collect()
    }

    fn stored(&self) -> impl Iterator<Item = &'a str> {
        let plain = self.scanned.initializers.iter().map(|i| i.name);
        plain.chain(self.scanned.sparse.iter().map(|(name, _)| *name))
    }

    /// Whether a kept node is one of `operators`.
    pub(crate) fn uses(&self, operators: &[&str]) -> bool {
        let kept = self.scanned.nodes.iter().zip(&self.nodes).filter(|(_, keep)| **keep);
        kept.into_iter().any(|(node, _)| operators.contains(&node.operator))
    }

    /// Kept initializers with external data.
    pub(crate) fn external(&self) -> Vec<ExternalTensor> {
        let tensor = |i: &Initializer<'_>| {
            let range = i.external.clone()?;
            Some(ExternalTensor { name: i.name.to_owned(), data_type: i.data_type, dims: i.dims.clone(), range })
        };
        self.kept_initializers().filter_map(tensor).collect()
    }

    fn kept_initializers(&self) -> impl Iterator<Item = &Initializer<'a>> {
        self.scanned.initializers.iter().filter(|i| self.keeps(i.name))
    }

    fn is_whole(&self) -> bool {
        self.rewritten.is_none()
            && self.nodes.iter().all(|&keep| keep)
            && self.scanned.outputs.len() == 1
            && self.stored().all(|name| self.keeps(name))
            && self.scanned.inputs.iter().all(|i| self.keeps(&i.port.name))
    }

    /// The model's bytes, with the data of the tensors in `inline` put in place of their reference to another file. The file's
    /// own bytes when nothing changes.
    pub(crate) fn write(&self, inline: &HashMap<&str, &[u8]>) -> Cow<'a, [u8]> {
        if inline.is_empty() && self.is_whole() {
            return Cow::Borrowed(self.scanned.bytes);
        }
        let graph = self.write_graph(inline);
        let mut model = Vec::with_capacity(graph.len() + 1024);
        for raw in &self.scanned.model_fields {
            model.extend_from_slice(raw);
        }
        wire::put_bytes(&mut model, 7, &graph);
        Cow::Owned(model)
    }

    fn write_graph(&self, inline: &HashMap<&str, &[u8]>) -> Vec<u8> {
        let mut graph = Vec::new();
        let kept = self.scanned.nodes.iter().zip(&self.nodes).filter(|(_, keep)| **keep);
        let nodes: Vec<&[u8]> = match &self.rewritten {
            Some(nodes) => nodes.iter().map(Vec::as_slice).collect(),
            None => kept.map(|(node, _)| node.raw).collect(),
        };
        for raw in nodes.into_iter().chain(self.scanned.graph_fields.iter().copied()) {
            graph.extend_from_slice(raw);
        }
        for tensor in self.kept_initializers() {
            match inline.get(tensor.name) {
                Some(data) => wire::put_bytes(&mut graph, 5, &with_data(tensor, data)),
                None => wire::put_bytes(&mut graph, 5, tensor.body),
            }
        }
        let sparse = self.scanned.sparse.iter().filter(|(name, _)| self.keeps(name)).map(|(_, raw)| *raw);
        let inputs = self.scanned.inputs.iter().filter(|i| self.keeps(&i.port.name)).map(|i| i.raw);
        let outputs = self.scanned.outputs.iter().filter(|o| o.port.name == self.output).map(|o| o.raw);
        for raw in sparse.chain(inputs).chain(outputs) {
            graph.extend_from_slice(raw);
        }
        graph
    }
}

/// The tensor with `data` inside: everything but the reference (13), its marker (14), and then the data (9).
fn with_data(tensor: &Initializer<'_>, data: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(tensor.body.len() + data.len());
    for field in wire::fields(tensor.body).map_while(Result::ok).filter(|f| !matches!(f.number, 13 | 14)) {
        body.extend_from_slice(field.raw);
    }
    wire::put_bytes(&mut body, 9, data);
    body
}
