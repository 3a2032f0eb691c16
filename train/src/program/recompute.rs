//! Cheap values are made again for the backward pass instead of being kept for it.
//!
//! ```text
//!   x ─► sigmoid(a x) = s ─► x s = y ─► ...        x, s and y would live until the backward pass has read them
//!   └──────────────► x, flat ─► s' ─► y' ─► ...    x alone does; forward, a runtime may fuse the three nodes into one
//! ```
//!
//! A value is cheap if operators of one result for each element, and views, lead to it from values that are kept anyway. An
//! activation between two matrix products is three or four times as wide as anything else of a transformer's layer. The copies work on a flat view: runtimes join nodes that read the same, and these must stay apart.

use std::collections::{HashMap, HashSet};

use super::emit::Emitted;
use super::flow::VIEWS;
use super::{Program, ProgramError};
use crate::graph::Node;

/// Operators that give one number for each element, in about the time that reading it takes.
const CHEAP: [&str; 13] =
    ["Add", "Clip", "Div", "Erf", "Gelu", "HardSigmoid", "HardSwish", "Mul", "Neg", "Relu", "Sigmoid", "Sub", "Tanh"];
/// Nodes that one value may take: GELU written out has five.
const LONGEST: usize = 6;

impl Program {
    /// Makes the nodes from `forward` on read copies of what is cheap among what earlier nodes write.
    pub(crate) fn recompute(&mut self, forward: usize) -> Result<(), ProgramError> {
        let backward = self.nodes.split_off(forward);
        let plan = Plan::new(self, &backward);
        let mut flat = HashMap::new();
        for mut node in backward {
            for input in &mut node.inputs {
                if plan.again.contains(input.as_str()) {
                    let shape = self.shape(input)?;
                    let copy = self.copy(input, &plan, &mut flat)?;
                    *input = self.reshape(&copy, &shape)?;
                }
            }
            self.nodes.push(node);
        }
        Ok(())
    }

    /// A copy of a value in one axis.
    fn copy(&mut self, name: &str, plan: &Plan, flat: &mut HashMap<String, String>) -> Emitted {
        if let Some(made) = flat.get(name) {
            return Ok(made.clone());
        }
        let count = self.shape(name)?.iter().product();
        let made = match plan.writers.get(name) {
            Some(node) if !plan.kept.contains(name) => {
                let node = node.clone();
                let mut inputs = Vec::new();
                for input in &node.inputs {
                    inputs.push(if self.is_number(input) { input.clone() } else { self.copy(input, plan, flat)? });
                }
                if is_view(&node) {
                    inputs.swap_remove(0)
                } else {
                    let outputs = vec![self.fresh_name(&node.operator)];
                    let copy = Node { name: outputs[0].clone(), inputs, outputs: outputs.clone(), ..node };
                    self.push(copy)?;
                    outputs[0].clone()
                }
            }
            _ => self.reshape(name, &[count])?,
        };
        flat.insert(name.to_owned(), made.clone());
        Ok(made)
    }

    /// Whether a value is left out, or one number that is known.
    fn is_number(&self, name: &str) -> bool {
        name.is_empty() || self.constant(name).is_some_and(|tensor| tensor.len() == 1)
    }
}

fn is_view(node: &Node) -> bool {
    VIEWS.contains(&node.operator.as_str())
}

/// What is kept for the backward pass, and what is made again.
struct Plan {
    writers: HashMap<String, Node>,
    kept: HashSet<String>,
    again: HashSet<String>,
}

impl Plan {
    fn new(program: &Program, backward: &[Node]) -> Self {
        let read: HashSet<&str> = backward.iter().flat_map(|node| &node.inputs).map(String::as_str).collect();
        let one = |node: &Node| (node.outputs.len() == 1).then(|| (node.outputs[0].clone(), node.clone()));
        let writers = program.nodes().iter().filter_map(one).collect();
        let mut plan = Self { writers, kept: HashSet::new(), again: HashSet::new() };
        // In the order of writing, so that what a value is made of has been decided before it.
        for name in program.nodes().iter().flat_map(|node| &node.outputs).filter(|name| read.contains(name.as_str())) {
            let is_view = plan.writers.get(name).is_some_and(is_view);
            let place = if plan.cost(program, name, LONGEST).is_some() && !(is_view && plan.views_kept(name)) {
                &mut plan.again
            } else {
                &mut plan.kept
            };
            place.insert(name.clone());
        }
        plan
    }

    /// Whether a view leads to what is kept by views alone: it takes no memory.
    fn views_kept(&self, name: &str) -> bool {
        match self.writers.get(name) {
            _ if self.kept.contains(name) => true,
            Some(node) if is_view(node) => self.views_kept(&node.inputs[0]),
            Some(_) => false,
            None => true,
        }
    }

    /// Nodes that a value takes from what is kept; `None` where something dear stands between, or more than `left` nodes do.
    fn cost(&self, program: &Program, name: &str, left: usize) -> Option<usize> {
        if self.kept.contains(name) {
            return Some(0);
        }
        let node = self.writers.get(name)?;
        if is_view(node) {
            return self.cost(program, node.inputs.first()?, left);
        }
        let values = || node.inputs.iter().filter(|input| !program.is_number(input));
        let cheap = node.domain.is_empty() && CHEAP.contains(&node.operator.as_str());
        // A broadcast has no flat form; a stored tensor has no writer, and none is as large as an activation.
        let same = |input: &String| program.kind(input) == program.kind(name);
        if !cheap || !values().all(same) {
            return None;
        }
        let rest = left.checked_sub(1)?;
        let parts: Option<Vec<usize>> = values().map(|input| self.cost(program, input, rest)).collect();
        let cost = parts?.into_iter().sum::<usize>() + 1;
        (cost <= left).then_some(cost)
    }
}
