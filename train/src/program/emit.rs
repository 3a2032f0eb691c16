//! Appending nodes: the vocabulary that losses and gradient rules are written in. Every function gives the new value's name.

use std::collections::BTreeMap;

use super::{NodeProblem, Program, ProgramError};
use crate::graph::{Attribute, Element, Node, Tensor, TensorType};

/// A value's name, or why it could not be made.
pub(crate) type Emitted = Result<String, ProgramError>;

impl Program {
    /// A name nothing has.
    pub(crate) fn fresh_name(&mut self, about: &str) -> String {
        loop {
            self.fresh += 1;
            let name = format!("anchorite/{about}_{}", self.fresh);
            if !self.types.contains_key(&name) {
                return name;
            }
        }
    }

    /// Appends a node of one output.
    pub(crate) fn emit(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> Emitted {
        let name = self.fresh_name(operator);
        let node = Node {
            name: name.clone(),
            operator: operator.to_owned(),
            domain: String::new(),
            inputs: inputs.iter().map(|&s| s.to_owned()).collect(),
            outputs: vec![name.clone()],
            attributes: attributes.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect::<BTreeMap<_, _>>(),
        };
        self.push(node)?;
        Ok(name)
    }

    /// Gives the result of an appended node another name, here and where it is read.
    pub(crate) fn named(&mut self, value: &str, name: &str) -> Emitted {
        let taken = || ProgramError::Value { name: name.to_owned(), reason: "this name is taken".to_owned() };
        if self.types.contains_key(name) {
            return Err(taken());
        }
        let kind = self.known(value)?.clone();
        self.types.insert(name.to_owned(), kind);
        let renamed = |names: &mut Vec<String>| names.iter_mut().filter(|n| *n == value).for_each(|n| name.clone_into(n));
        // From the end: what reads a value comes after what writes it.
        for node in self.nodes.iter_mut().rev() {
            renamed(&mut node.inputs);
            if node.outputs.iter().any(|n| n == value) {
                renamed(&mut node.outputs);
                break;
            }
        }
        Ok(name.to_owned())
    }

    /// A constant.
    pub(crate) fn tensor(&mut self, tensor: Tensor) -> String {
        let name = self.fresh_name("constant");
        self.types.insert(name.clone(), tensor.kind().clone());
        self.constants.insert(name.clone(), tensor);
        name
    }

    /// A constant list of integers.
    pub(crate) fn ints(&mut self, values: &[i64]) -> String {
        self.tensor(Tensor::list(values))
    }

    /// A constant scalar of the element type of `like`.
    pub(crate) fn scalar(&mut self, value: f64, like: &str) -> Emitted {
        let element = self.element(like)?;
        self.filled(value, &TensorType::new(element, []))
    }

    /// A constant filled with one value.
    pub(crate) fn filled(&mut self, value: f64, kind: &TensorType) -> Emitted {
        let count = crate::graph::element_count(&kind.shape).unwrap_or(usize::MAX);
        if count > self.limits.max_elements {
            let reason = format!("shape {:?} has more than {} elements", kind.shape, self.limits.max_elements);
            return Err(ProgramError::Value { name: "a constant".to_owned(), reason });
        }
        let refused =
            || ProgramError::Value { name: "a constant".to_owned(), reason: format!("{kind} is no float type that trains") };
        let tensor = Tensor::from_floats(kind.clone(), &vec![value; count]).ok_or_else(refused)?;
        Ok(self.tensor(tensor))
    }

    /// Zeros made at run time, so that the model file does not grow by them.
    pub(crate) fn zeros(&mut self, kind: &TensorType) -> Emitted {
        let zero = self.filled(0.0, &TensorType::new(kind.element, []))?;
        self.expand(&zero, &kind.shape)
    }

    pub(crate) fn unary(&mut self, operator: &str, x: &str) -> Emitted {
        self.emit(operator, &[x], &[])
    }

    pub(crate) fn binary(&mut self, operator: &str, a: &str, b: &str) -> Emitted {
        self.emit(operator, &[a, b], &[])
    }

    pub(crate) fn add(&mut self, a: &str, b: &str) -> Emitted {
        self.binary("Add", a, b)
    }

    pub(crate) fn sub(&mut self, a: &str, b: &str) -> Emitted {
        self.binary("Sub", a, b)
    }

    pub(crate) fn mul(&mut self, a: &str, b: &str) -> Emitted {
        self.binary("Mul", a, b)
    }

    pub(crate) fn div(&mut self, a: &str, b: &str) -> Emitted {
        self.binary("Div", a, b)
    }

    /// `x` times a number.
    pub(crate) fn scale(&mut self, x: &str, factor: f64) -> Emitted {
        let factor = self.scalar(factor, x)?;
        self.mul(x, &factor)
    }

    pub(crate) fn reshape(&mut self, x: &str, shape: &[usize]) -> Emitted {
        if self.shape(x)? == shape {
            return Ok(x.to_owned());
        }
        let sizes = self.ints(&signed(shape));
        // Without allowzero an axis of size 0 would mean "as before".
        self.emit("Reshape", &[x, &sizes], &[("allowzero", Attribute::Int(1))])
    }

    pub(crate) fn transpose(&mut self, x: &str, order: &[usize]) -> Emitted {
        self.emit("Transpose", &[x], &[("perm", Attribute::Ints(signed(order)))])
    }

    /// `x` with its last two axes exchanged.
    pub(crate) fn matrix_transpose(&mut self, x: &str) -> Emitted {
        let rank = self.shape(x)?.len();
        let mut order: Vec<usize> = (0..rank).collect();
        if rank >= 2 {
            order.swap(rank - 1, rank - 2);
        }
        self.transpose(x, &order)
    }

    pub(crate) fn expand(&mut self, x: &str, shape: &[usize]) -> Emitted {
        if self.shape(x)? == shape {
            return Ok(x.to_owned());
        }
        let sizes = self.ints(&signed(shape));
        self.emit("Expand", &[x, &sizes], &[])
    }

    fn reduce(&mut self, operator: &str, x: &str, axes: &[usize]) -> Emitted {
        // No axes would mean all of them.
        if axes.is_empty() {
            return Ok(x.to_owned());
        }
        let axes = self.ints(&signed(axes));
        self.emit(operator, &[x, &axes], &[("keepdims", Attribute::Int(1))])
    }

    /// The sum over `axes`, which stay with size 1.
    pub(crate) fn sum(&mut self, x: &str, axes: &[usize]) -> Emitted {
        self.reduce("ReduceSum", x, axes)
    }

    /// The mean over `axes`, which stay with size 1.
    pub(crate) fn mean(&mut self, x: &str, axes: &[usize]) -> Emitted {
        self.reduce("ReduceMean", x, axes)
    }

    /// Undoes broadcasting: sums `d` over the axes that `shape` lacks or has with size 1.
    pub(crate) fn fit(&mut self, d: &str, shape: &[usize]) -> Emitted {
        let from = self.shape(d)?;
        if from == shape {
            return Ok(d.to_owned());
        }
        let lead = from.len().saturating_sub(shape.len());
        let stretched = |(axis, &size): (usize, &usize)| axis < lead || (size != 1 && shape.get(axis - lead) == Some(&1));
        let axes: Vec<usize> = from.iter().enumerate().filter(|&entry| stretched(entry)).map(|(axis, _)| axis).collect();
        let summed = self.sum(d, &axes)?;
        self.reshape(&summed, shape)
    }

    pub(crate) fn matmul(&mut self, a: &str, b: &str) -> Emitted {
        self.binary("MatMul", a, b)
    }

    /// The product of two matrices, either of them transposed.
    pub(crate) fn gemm(&mut self, a: (&str, bool), b: (&str, bool)) -> Emitted {
        let flag = |on| Attribute::Int(i64::from(on));
        self.emit("Gemm", &[a.0, b.0], &[("transA", flag(a.1)), ("transB", flag(b.1))])
    }

    /// The entries `start..end` of one axis.
    pub(crate) fn slice(&mut self, x: &str, axis: usize, start: usize, end: usize) -> Emitted {
        let [start, end, axis] = [start, end, axis].map(|v| self.ints(&signed(&[v])));
        self.emit("Slice", &[x, &start, &end, &axis], &[])
    }

    /// `x` with zeros before and behind on each axis, as many as given.
    pub(crate) fn pad(&mut self, x: &str, before: &[usize], behind: &[usize]) -> Emitted {
        let pads = self.ints(&signed(&[before, behind].concat()));
        self.binary("Pad", x, &pads)
    }

    pub(crate) fn select(&mut self, condition: &str, yes: &str, no: &str) -> Emitted {
        self.emit("Where", &[condition, yes, no], &[])
    }

    pub(crate) fn cast(&mut self, x: &str, element: Element) -> Emitted {
        self.emit("Cast", &[x], &[("to", Attribute::Int(element.onnx()))])
    }
}

impl Program {
    /// Puts a low-rank addition on a matrix of `[rows, columns]`: whoever read `weight` reads weight + scale A B from here on. A,
    /// `[rows, rank]`, and B, `[rank, columns]`, become inputs of the names given.
    pub(crate) fn adapt(&mut self, weight: &str, names: [&str; 2], rank: usize, scale: f64) -> Result<(), ProgramError> {
        let kind = self.known(weight)?.clone();
        let [rows, columns] = kind.shape[..] else {
            return Err(ProgramError::Value { name: weight.to_owned(), reason: format!("{kind} is no matrix") });
        };
        self.add_input(names[0], TensorType::new(kind.element, [rows, rank]))?;
        self.add_input(names[1], TensorType::new(kind.element, [rank, columns]))?;
        let readers = self.nodes.len();
        let product = self.gemm((names[0], false), (names[1], false))?;
        let scaled = self.scale(&product, scale)?;
        let adapted = self.add(weight, &scaled)?;
        // They read nothing but parameters, so they may come first, and must: the readers follow.
        let made = self.nodes.split_off(readers);
        for node in &mut self.nodes {
            node.inputs.iter_mut().filter(|name| *name == weight).for_each(|name| name.clone_from(&adapted));
        }
        self.nodes.splice(0..0, made);
        Ok(())
    }
}

/// Sizes and axes as ONNX has them.
pub(crate) fn signed(values: &[usize]) -> Vec<i64> {
    // No size exceeds the limits, which are far below the sign bit.
    values.iter().map(|&v| v as i64).collect()
}

/// A gradient rule's refusal.
pub(crate) fn no_gradient_for(node: &Node, form: impl Into<String>) -> ProgramError {
    NodeProblem::NoGradientFor { form: form.into() }.at(node)
}
