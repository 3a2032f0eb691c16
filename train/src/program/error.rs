//! Why a model cannot be worked on.

use crate::graph::Node;

/// Why a model cannot be given shapes or differentiated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// The operator set is too old or too new.
    #[error("the model uses operator set {found}; {min} to {max} are understood, so export it for one of them")]
    Opset {
        /// The model's; 0 where it names none.
        found: i64,
        /// Oldest understood.
        min: i64,
        /// Newest understood.
        max: i64,
    },
    /// A graph input or output, or a value that was asked for.
    #[error("value {name:?}: {reason}")]
    Value {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A node.
    #[error("node {node:?} ({operator}): {problem}")]
    Node {
        /// Its name, or its first output's where it has none.
        node: String,
        /// Its operator.
        operator: String,
        /// What is wrong.
        problem: NodeProblem,
    },
}

/// What is wrong with a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeProblem {
    /// No such operator here.
    #[error(
        "this operator is not known here; it needs a shape rule and a gradient rule, so export the model without it (unfused, in float32)"
    )]
    Unknown,
    /// A gradient is to flow through an operator that has no gradient rule.
    #[error("the operator has no gradient rule; freeze what leads to it, or export the model without it")]
    NoGradient,
    /// A gradient is to flow through a form of the operator whose rule is not written.
    #[error("no gradient for {form}; freeze what leads to it, or export the model without it")]
    NoGradientFor {
        /// Which form.
        form: String,
    },
    /// Inputs that do not go together, or a missing one.
    #[error("{0}")]
    Inputs(String),
    /// An attribute that is missing, of the wrong kind, or out of range.
    #[error("attribute {name:?}: {reason}")]
    Attribute {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A shape that depends on what is fed.
    #[error(
        "input {input} decides a shape and must follow from the inputs' shapes alone; export the model without data-dependent shapes"
    )]
    NotConstant {
        /// Which input.
        input: usize,
    },
    /// A value with more elements than allowed.
    #[error("a value of shape {shape:?} has more than {max} elements")]
    TooLarge {
        /// Its shape.
        shape: Vec<usize>,
        /// Limit.
        max: usize,
    },
}

impl NodeProblem {
    /// With the node it was met at.
    pub(crate) fn at(self, node: &Node) -> ProgramError {
        let label = if node.name.is_empty() { node.outputs.first().cloned().unwrap_or_default() } else { node.name.clone() };
        let operator = if node.domain.is_empty() { node.operator.clone() } else { format!("{}.{}", node.domain, node.operator) };
        ProgramError::Node { node: label, operator, problem: self }
    }

    pub(crate) fn inputs(reason: impl Into<String>) -> Self {
        Self::Inputs(reason.into())
    }
}
