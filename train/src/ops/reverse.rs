//! What a gradient rule sees of a node: names of its values, their types, the gradients that arrived, and the program to append to.

use crate::graph::{Node, TensorType};
use crate::program::emit::{Emitted, no_gradient_for};
use crate::program::{NodeProblem, Program, ProgramError};

use super::families::reduced_axes;
use super::site::Site;

/// One node on the way back.
pub(crate) struct Reverse<'p> {
    pub(crate) program: &'p mut Program,
    pub(crate) node: Node,
    /// Where the node stands in the program.
    index: usize,
    arrived: Vec<Option<String>>,
    wanted: Vec<bool>,
    given: Vec<(usize, String)>,
}

impl<'p> Reverse<'p> {
    pub(crate) fn new(program: &'p mut Program, index: usize, arrived: Vec<Option<String>>, wanted: Vec<bool>) -> Self {
        let node = program.nodes()[index].clone();
        Self { program, node, index, arrived, wanted, given: Vec::new() }
    }

    /// Name of an input that the shape rule found there.
    pub(crate) fn x(&self, i: usize) -> String {
        self.node.inputs[i].clone()
    }

    /// Name of the first output.
    pub(crate) fn y(&self) -> String {
        self.node.outputs[0].clone()
    }

    /// Type of an input.
    pub(crate) fn kind(&self, i: usize) -> Result<TensorType, ProgramError> {
        self.program.known(&self.node.inputs[i]).cloned()
    }

    /// Shape of an input.
    pub(crate) fn shape(&self, i: usize) -> Result<Vec<usize>, ProgramError> {
        self.program.shape(&self.node.inputs[i])
    }

    /// Gradient of output `i`, if one arrived.
    pub(crate) fn gradient_of(&self, i: usize) -> Option<String> {
        self.arrived.get(i).cloned().flatten()
    }

    /// Gradient of the first output, for operators of which only that one is differentiated.
    pub(crate) fn d(&self) -> Emitted {
        if self.arrived.iter().skip(1).any(Option::is_some) {
            return Err(no_gradient_for(&self.node, "outputs other than the first"));
        }
        self.gradient_of(0).ok_or_else(|| no_gradient_for(&self.node, "outputs other than the first"))
    }

    /// Whether anybody needs the gradient of input `i`.
    pub(crate) fn wants(&self, i: usize) -> bool {
        self.wanted.get(i).copied().unwrap_or(false)
    }

    /// Hands over the gradient of input `i`.
    pub(crate) fn give(&mut self, i: usize, gradient: String) {
        if self.wants(i) {
            self.given.push((i, gradient));
        }
    }

    /// Hands over the gradient of a broadcast input, summed to its shape.
    pub(crate) fn give_fitted(&mut self, i: usize, gradient: &str) -> Result<(), ProgramError> {
        let shape = self.shape(i)?;
        let fitted = self.program.fit(gradient, &shape)?;
        self.give(i, fitted);
        Ok(())
    }

    /// What a shape rule's reader says of this node.
    pub(crate) fn with_site<T>(&self, read: impl FnOnce(&Site<'_>) -> Result<T, NodeProblem>) -> Result<T, ProgramError> {
        read(&self.program.site(&self.node)?).map_err(|problem| problem.at(&self.node))
    }

    /// An attribute as an axis of the first input.
    pub(crate) fn axis(&self, name: &str, default: i64) -> Result<usize, ProgramError> {
        self.with_site(|site| site.axis(name, default, site.input(0)?.shape.len()))
    }

    /// A reduction's shape with the reduced axes kept at size 1.
    pub(crate) fn kept_shape(&self) -> Result<Vec<usize>, ProgramError> {
        let axes = self.with_site(reduced_axes)?;
        let shape = self.shape(0)?;
        Ok(shape.iter().enumerate().map(|(i, &size)| if axes.contains(&i) { 1 } else { size }).collect())
    }

    /// Refuses a form of the operator.
    pub(crate) fn refuse(&self, form: &str) -> ProgramError {
        no_gradient_for(&self.node, form)
    }

    /// Asks the node itself for more outputs than it had, such as statistics of the forward pass.
    pub(crate) fn extra_outputs(&mut self, kinds: &[TensorType]) -> Vec<String> {
        let mut names = self.node.outputs.clone();
        for (i, kind) in kinds.iter().enumerate().skip(names.len()) {
            let name = self.program.fresh_name(&format!("{}_{i}", self.node.operator));
            self.program.set_kind(&name, kind.clone());
            names.push(name);
        }
        self.node.outputs.clone_from(&names);
        if let Some(node) = self.program.node_mut(self.index) {
            node.outputs.clone_from(&names);
        }
        names
    }

    /// What was handed over: input and gradient.
    pub(crate) fn finish(self) -> Vec<(usize, String)> {
        self.given
    }
}
