//! A model whose every value has a known type: input shapes are fixed, and what follows from shapes alone is computed ahead of
//! time.
//!
//! ```text
//!   Model + shapes of its inputs ──specialise──► Program ──losses and gradients append nodes──► Program ──to_model──► Model
//! ```
//!
//! | file | subject |
//! |---|---|
//! | `specialise` | from a model to a program: opset, types, folding, which initializers are parameters |
//! | `emit` | appending nodes: the vocabulary that losses and gradient rules are written in |
//! | `narrow` | matrix products in bfloat16 or float16 |
//! | `recompute` | cheap values are made again for the backward pass |
//! | `flow` | what a value depends on, and how much memory a run takes |
//! | `error` | why a model cannot be worked on |
//!
//! Not here: what an operator means (`ops`), the reverse walk (`grad`).
//!
//! Invariants: every name in the program has a type; every node comes after what it reads; a parameter is a float initializer
//! of other than one element and is never folded away; only standard operators of opset [`OPSET`] are in it.

pub(crate) mod emit;
mod error;
mod flow;
mod narrow;
mod recompute;
mod specialise;

use std::collections::{BTreeMap, HashMap, HashSet};

pub use error::{NodeProblem, ProgramError};
pub(crate) use narrow::Narrow;

use crate::Limits;
use crate::graph::{Dim, Element, Graph, Model, Node, Port, Tensor, TensorType};
use crate::ops::{self, Site};

/// The operator set that programs are written in. Older models are lifted to it, newer ones keep theirs.
pub const OPSET: i64 = 20;

/// A model with known types. See the module.
#[derive(Debug, Clone)]
pub struct Program {
    nodes: Vec<Node>,
    types: HashMap<String, TensorType>,
    /// Stored or folded values that nobody trains.
    constants: HashMap<String, Tensor>,
    parameters: BTreeMap<String, Tensor>,
    inputs: Vec<String>,
    outputs: Vec<String>,
    opset: i64,
    limits: Limits,
    fresh: usize,
    /// Values next to which products stay wide.
    wide: HashSet<String>,
}

/// How a program's parameters appear in the model made from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParametersAs {
    /// Stored in it, for inference and for frozen towers.
    Initializers,
    /// Fed at every run, for training: an initializer cannot change without a new session.
    Inputs,
}

impl Program {
    /// A program of nothing, to which others are added.
    #[must_use]
    pub fn empty(limits: Limits) -> Self {
        Self {
            nodes: Vec::new(),
            types: HashMap::new(),
            constants: HashMap::new(),
            parameters: BTreeMap::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            opset: OPSET,
            limits,
            fresh: 0,
            wide: HashSet::new(),
        }
    }

    /// Element type and shape of a value.
    #[must_use]
    pub fn kind(&self, name: &str) -> Option<&TensorType> {
        self.types.get(name)
    }

    /// Float initializers of other than one element, by name. Which of them are trained is the caller's choice.
    #[must_use]
    pub fn parameters(&self) -> &BTreeMap<String, Tensor> {
        &self.parameters
    }

    /// Names of the model's inputs, and of those added since.
    #[must_use]
    pub fn inputs(&self) -> &[String] {
        &self.inputs
    }

    /// Names of the model's outputs.
    #[must_use]
    pub fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// How many nodes it has.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The value of a constant.
    pub(crate) fn constant(&self, name: &str) -> Option<&Tensor> {
        self.constants.get(name)
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(crate) fn node_mut(&mut self, index: usize) -> Option<&mut Node> {
        self.nodes.get_mut(index)
    }

    pub(crate) fn set_kind(&mut self, name: &str, kind: TensorType) {
        self.types.insert(name.to_owned(), kind);
    }

    /// Declares one more input.
    ///
    /// # Errors
    /// [`ProgramError::Value`]: the name is taken.
    pub fn add_input(&mut self, name: &str, kind: TensorType) -> Result<(), ProgramError> {
        if name.is_empty() || self.types.contains_key(name) {
            return Err(ProgramError::Value { name: name.to_owned(), reason: "this name is taken".to_owned() });
        }
        self.types.insert(name.to_owned(), kind);
        self.inputs.push(name.to_owned());
        Ok(())
    }

    /// Adds another program, with `prefix` before each of its names, so that two towers do not meet under one name.
    ///
    /// # Errors
    /// [`ProgramError`]: a name is taken, or the two rely on different operator sets.
    pub fn absorb(&mut self, other: &Self, prefix: &str) -> Result<(), ProgramError> {
        let named = |name: &str| if name.is_empty() { String::new() } else { format!("{prefix}{name}") };
        if self.nodes.is_empty() {
            self.opset = other.opset;
        }
        if self.opset != other.opset {
            return Err(ProgramError::Opset { found: other.opset, min: self.opset, max: self.opset });
        }
        if let Some(name) = other.types.keys().map(|n| named(n)).find(|n| self.types.contains_key(n)) {
            return Err(ProgramError::Value { name, reason: "this name is taken; choose another prefix".to_owned() });
        }
        self.types.extend(other.types.iter().map(|(name, kind)| (named(name), kind.clone())));
        self.constants.extend(other.constants.iter().map(|(name, value)| (named(name), value.clone())));
        self.parameters.extend(other.parameters.iter().map(|(name, value)| (named(name), value.clone())));
        self.inputs.extend(other.inputs.iter().map(|n| named(n)));
        self.outputs.extend(other.outputs.iter().map(|n| named(n)));
        let renamed = |names: &[String]| names.iter().map(|n| named(n)).collect();
        self.nodes.extend(other.nodes.iter().map(|node| Node {
            name: named(&node.name),
            inputs: renamed(&node.inputs),
            outputs: renamed(&node.outputs),
            ..node.clone()
        }));
        Ok(())
    }

    /// The part of the program that leads to `outputs`, as a model.
    ///
    /// # Errors
    /// [`ProgramError::Value`]: an output that the program does not have.
    pub fn to_model(&self, outputs: &[&str], parameters: ParametersAs) -> Result<Model, ProgramError> {
        let mut needed: HashSet<&str> = outputs.iter().copied().collect();
        let mut nodes = Vec::new();
        for node in self.nodes.iter().rev() {
            if node.outputs.iter().any(|name| needed.contains(name.as_str())) {
                needed.extend(node.inputs.iter().map(String::as_str));
                nodes.push(node.clone());
            }
        }
        nodes.reverse();
        let ports = |names: &[&str]| names.iter().map(|name| self.port(name)).collect::<Result<Vec<_>, _>>();
        let mut inputs: Vec<&str> = self.inputs.iter().map(String::as_str).filter(|n| needed.contains(n)).collect();
        let stored = |map: &HashMap<String, Tensor>| -> BTreeMap<String, Tensor> {
            map.iter().filter(|(n, _)| needed.contains(n.as_str())).map(|(n, t)| (n.clone(), t.clone())).collect()
        };
        let mut initializers = stored(&self.constants);
        for (name, tensor) in self.parameters.iter().filter(|(n, _)| needed.contains(n.as_str())) {
            match parameters {
                ParametersAs::Inputs => inputs.push(name),
                ParametersAs::Initializers => drop(initializers.insert(name.clone(), tensor.clone())),
            }
        }
        let (inputs, outputs) = (ports(&inputs)?, ports(outputs)?);
        let initializers = initializers.into_iter().collect();
        let graph = Graph { name: "anchorite".to_owned(), nodes, initializers, inputs, outputs };
        Ok(Model {
            // The oldest format that carries opset 20, and the one that carries 21 and 22.
            ir_version: if self.opset > OPSET { 10 } else { 9 },
            producer: "anchorite".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            opsets: BTreeMap::from([(String::new(), self.opset)]),
            metadata: Vec::new(),
            graph,
        })
    }

    fn port(&self, name: &str) -> Result<Port, ProgramError> {
        let TensorType { element, shape } = self.known(name)?.clone();
        Ok(Port { name: name.to_owned(), element, shape: Some(shape.iter().map(|&d| Dim::Fixed(d as u64)).collect()) })
    }

    /// The type of a value that must be there.
    pub(crate) fn known(&self, name: &str) -> Result<&TensorType, ProgramError> {
        let missing = || ProgramError::Value { name: name.to_owned(), reason: "the model has no such value".to_owned() };
        self.types.get(name).ok_or_else(missing)
    }

    pub(crate) fn element(&self, name: &str) -> Result<Element, ProgramError> {
        Ok(self.known(name)?.element)
    }

    pub(crate) fn shape(&self, name: &str) -> Result<Vec<usize>, ProgramError> {
        Ok(self.known(name)?.shape.clone())
    }

    /// What an operator's rules see of a node.
    pub(crate) fn site<'a>(&'a self, node: &'a Node) -> Result<Site<'a>, ProgramError> {
        let types = node.inputs.iter().map(|name| match (name.as_str(), self.types.get(name)) {
            ("", _) => Ok(None),
            (_, Some(kind)) => Ok(Some(kind)),
            (name, None) => Err(NodeProblem::inputs(format!("reads {name:?}, which nothing defines")).at(node)),
        });
        let types = types.collect::<Result<_, _>>()?;
        let constants = node.inputs.iter().map(|name| self.constants.get(name)).collect();
        Ok(Site { node, types, constants })
    }

    /// Types of the node's outputs by its operator's rule.
    fn infer(&self, node: &Node) -> Result<Vec<TensorType>, ProgramError> {
        let operator = ops::find(node).ok_or_else(|| NodeProblem::Unknown.at(node))?;
        let kinds = (operator.shape)(&self.site(node)?).map_err(|problem| problem.at(node))?;
        for kind in &kinds {
            let count = crate::graph::element_count(&kind.shape);
            if count.is_none_or(|count| count > self.limits.max_elements) {
                let max = self.limits.max_elements;
                return Err(NodeProblem::TooLarge { shape: kind.shape.clone(), max }.at(node));
            }
        }
        if node.outputs.len() > kinds.len() {
            return Err(NodeProblem::inputs(format!("has {} outputs, {} are known", node.outputs.len(), kinds.len())).at(node));
        }
        Ok(kinds)
    }

    fn push(&mut self, node: Node) -> Result<(), ProgramError> {
        let kinds = self.infer(&node)?;
        for (name, kind) in node.outputs.iter().zip(kinds).filter(|(name, _)| !name.is_empty()) {
            self.types.insert(name.clone(), kind);
        }
        self.nodes.push(node);
        Ok(())
    }
}
