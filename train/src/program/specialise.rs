//! From a model to a program: the model's operator set is lifted, input shapes are fixed, types follow node by node, and what
//! follows from shapes and stored integers alone is computed now and leaves the graph.
//!
//! Which initializers are constants: integers, booleans, and float tensors of one element (exponents, scales; open_clip's dynamo
//! export has the attention scale as a list of one). All other float tensors are
//! parameters, even those that should not be trained, such as a causal mask: [`Program::is_trainable`] tells them apart.
//! Exporters merge equal tensors and give one back its other names by `Identity`; an `Identity` of a parameter is a parameter of
//! its own here, under its own name, since tied weights would train as one.

use super::{NodeProblem, OPSET, Program, ProgramError};
use crate::Limits;
use crate::graph::{Attribute, Dim, Model, Node, Port, Tensor, TensorType};
use crate::ops;

/// Operator sets that are understood: from 13 on axes of ReduceSum, Squeeze and Unsqueeze are inputs; after 22 nothing was tried.
const OPSETS: (i64, i64) = (13, 22);

/// Below this a stored value is a mask and no weight.
const MASK_VALUE: f64 = -1e4;

impl Program {
    /// Fixes the shapes of the model's inputs and works out everything that follows from them. Inputs that are not named keep the
    /// shape the model declares, which must then be fixed.
    ///
    /// # Errors
    /// [`ProgramError`]: an operator that is not known, a shape that does not fit or depends on what is fed, a limit.
    pub fn specialise(model: &Model, shapes: &[(&str, &[usize])], limits: &Limits) -> Result<Self, ProgramError> {
        let found = model.opsets.get("").copied().unwrap_or(0);
        let (min, max) = OPSETS;
        if !(min..=max).contains(&found) {
            return Err(ProgramError::Opset { found, min, max });
        }
        let mut program = Self { opset: found.max(OPSET), ..Self::empty(limits.clone()) };
        if let Some((name, _)) = shapes.iter().find(|(name, _)| !model.graph.inputs.iter().any(|port| port.name == *name)) {
            return Err(ProgramError::Value { name: (*name).to_owned(), reason: "the model has no such input".to_owned() });
        }
        for port in &model.graph.inputs {
            let given = shapes.iter().find(|(name, _)| *name == port.name).map(|(_, shape)| *shape);
            program.add_input(&port.name, TensorType { element: port.element, shape: input_shape(port, given)? })?;
        }
        for (name, tensor) in &model.graph.initializers {
            program.store(name, tensor.clone());
        }
        for node in &model.graph.nodes {
            let node = program.lifted(node, found);
            program.take(node)?;
        }
        for port in &model.graph.outputs {
            program.known(&port.name)?;
            program.outputs.push(port.name.clone());
        }
        Ok(program)
    }

    /// Whether a parameter looks like a weight: finite, and without values that only a mask has.
    #[must_use]
    pub fn is_trainable(&self, parameter: &str) -> bool {
        let Some(tensor) = self.parameters.get(parameter) else { return false };
        tensor.element().is_differentiable()
            && tensor.floats().is_some_and(|values| values.iter().all(|v| v.is_finite() && *v > MASK_VALUE))
    }

    fn store(&mut self, name: &str, tensor: Tensor) {
        self.types.insert(name.to_owned(), tensor.kind().clone());
        if tensor.element().is_float() && tensor.len() != 1 {
            self.parameters.insert(name.to_owned(), tensor);
        } else {
            self.constants.insert(name.to_owned(), tensor);
        }
    }

    fn store_constant(&mut self, name: &str, tensor: Tensor) {
        self.types.insert(name.to_owned(), tensor.kind().clone());
        self.constants.insert(name.to_owned(), tensor);
    }

    /// One node of the model: folded, copied, or kept.
    fn take(&mut self, node: Node) -> Result<(), ProgramError> {
        let operator = ops::find(&node).ok_or_else(|| NodeProblem::Unknown.at(&node))?;
        if let (true, [from], [to]) = (node.operator == "Identity", &node.inputs[..], &node.outputs[..])
            && let Some(tensor) = self.parameters.get(from).cloned()
        {
            self.store(to, tensor);
            return Ok(());
        }
        // Types first: they hold the limits, so that nothing is computed that is larger than allowed.
        let kinds = self.infer(&node)?;
        let small =
            |kind: &TensorType| crate::graph::element_count(&kind.shape).is_some_and(|n| n <= self.limits.max_folded_elements);
        if let Some(fold) = operator.fold.filter(|_| kinds.iter().all(small)) {
            let value = fold(&self.site(&node)?).map_err(|problem| problem.at(&node))?;
            if let (Some(tensor), [name]) = (value, &node.outputs[..]) {
                self.store_constant(name, tensor);
                return Ok(());
            }
        }
        self.push(node)
    }
}

fn input_shape(port: &Port, given: Option<&[usize]>) -> Result<Vec<usize>, ProgramError> {
    let refuse = |reason: String| Err(ProgramError::Value { name: port.name.clone(), reason });
    let declared: Option<Vec<Option<usize>>> = port.shape.as_ref().map(|dims| dims.iter().map(Dim::fixed).collect());
    match (given, declared) {
        (Some(given), Some(declared)) => {
            let fits = given.len() == declared.len() && declared.iter().zip(given).all(|(d, g)| d.is_none_or(|d| d == *g));
            if fits { Ok(given.to_vec()) } else { refuse(format!("shape {given:?} is given, the model declares {declared:?}")) }
        }
        (Some(given), None) => Ok(given.to_vec()),
        (None, Some(declared)) => match declared.iter().copied().collect::<Option<Vec<_>>>() {
            Some(shape) => Ok(shape),
            None => refuse("its shape is dynamic and was not given".to_owned()),
        },
        (None, None) => refuse("its shape is not declared and was not given".to_owned()),
    }
}

impl Program {
    /// The node as opset 20 writes it. Of the operators known here only reductions changed between 13 and 20: their axes became an
    /// input in 18 (ReduceSum's had before).
    fn lifted(&mut self, node: &Node, opset: i64) -> Node {
        let mut node = node.clone();
        let reduction = matches!(node.operator.as_str(), "ReduceMean" | "ReduceL2");
        if opset < 18
            && reduction
            && let Some(Attribute::Ints(axes)) = node.attributes.remove("axes")
        {
            let name = self.ints(&axes);
            node.inputs.push(name);
        }
        node
    }
}
