//! Matrix products and convolutions in bfloat16 or float16; all else, parameters above all, stays float32.
//!
//! ```text
//!   a, b ──Cast──► narrow a, b ──MatMul──► narrow ab ──Cast──► ab      where the provider has such products
//!   a, b ──Cast, Cast back──► MatMul ──Cast, Cast back──► ab           where it has not: the same roundings
//! ```
//!
//! Forward and backward products alike, so that gradients are those of what was computed. A value is narrowed once, however many read it.

use std::collections::{BTreeMap, HashMap};

use super::Program;
use crate::graph::{Attribute, Element, Node, TensorType};

/// The operators that most of the time goes into.
const PRODUCTS: [&str; 4] = ["MatMul", "Gemm", "Conv", "ConvTranspose"];

/// How products are narrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Narrow {
    /// The provider computes them so.
    Computed(Element),
    /// Their inputs and results are rounded.
    Rounded(Element),
}

impl Program {
    /// What nodes from `first` on write stays wide, and so do products that read it: the loss, whose logits are large and whose differences small.
    pub(crate) fn keep_wide(&mut self, first: usize) {
        let names: Vec<String> = self.nodes.iter().skip(first).flat_map(|node| node.outputs.iter().cloned()).collect();
        self.wide.extend(names);
    }

    /// The same with its products narrowed.
    pub(crate) fn narrowed(mut self, how: Narrow) -> Self {
        let mut made = HashMap::new();
        for mut node in std::mem::take(&mut self.nodes) {
            if !self.is_narrowed(&node) {
                self.nodes.push(node);
                continue;
            }
            for input in node.inputs.iter_mut().filter(|input| !input.is_empty()) {
                *input = match made.get(input.as_str()) {
                    Some(name) => String::clone(name),
                    None => {
                        let name = self.narrow_copy(input, how);
                        made.insert(input.clone(), name.clone());
                        name
                    }
                };
            }
            let output = std::mem::take(&mut node.outputs[0]);
            let result = self.fresh_name("narrow");
            let kind = self.types.get(&output).cloned().unwrap_or_else(|| TensorType::new(Element::F32, []));
            let element = if let Narrow::Computed(element) = how { element } else { Element::F32 };
            self.types.insert(result.clone(), TensorType { element, ..kind });
            node.outputs[0].clone_from(&result);
            self.nodes.push(node);
            match how {
                Narrow::Computed(_) => self.cast_to(&result, Element::F32, output),
                Narrow::Rounded(element) => {
                    let rounded = self.fresh_name("narrow");
                    self.cast_to(&result, element, rounded.clone());
                    self.cast_to(&rounded, Element::F32, output);
                }
            }
        }
        self
    }

    fn is_narrowed(&self, node: &Node) -> bool {
        let floats = |name: &String| name.is_empty() || self.kind(name).is_some_and(|kind| kind.element == Element::F32);
        let product = node.domain.is_empty() && PRODUCTS.contains(&node.operator.as_str()) && node.outputs.len() == 1;
        product && node.inputs.iter().all(floats) && !node.inputs.iter().chain(&node.outputs).any(|name| self.wide.contains(name))
    }

    fn narrow_copy(&mut self, name: &str, how: Narrow) -> String {
        let (Narrow::Computed(element) | Narrow::Rounded(element)) = how;
        let narrow = self.fresh_name("narrow");
        self.cast_to(name, element, narrow.clone());
        match how {
            Narrow::Computed(_) => narrow,
            Narrow::Rounded(_) => {
                let back = self.fresh_name("narrow");
                self.cast_to(&narrow, Element::F32, back.clone());
                back
            }
        }
    }

    /// Appends a cast whose result has this name.
    fn cast_to(&mut self, from: &str, element: Element, to: String) {
        let shape = self.kind(from).map(|kind| kind.shape.clone()).unwrap_or_default();
        self.types.insert(to.clone(), TensorType { element, shape });
        self.nodes.push(Node {
            name: format!("{to}/cast"),
            operator: "Cast".to_owned(),
            domain: String::new(),
            inputs: vec![from.to_owned()],
            outputs: vec![to],
            attributes: BTreeMap::from([("to".to_owned(), Attribute::Int(element.onnx()))]),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;
    use crate::program::ParametersAs;
    use crate::testing;

    /// `(a b) c`, of which the second product is the loss's.
    fn products() -> Program {
        let mut p = Program::empty(Limits::default());
        for name in ["a", "b", "c"] {
            p.add_input(name, TensorType::new(Element::F32, [2, 2])).unwrap();
        }
        let ab = p.matmul("a", "b").unwrap();
        let ab = p.named(&ab, "ab").unwrap();
        let again = p.gemm(("a", true), (&ab, false)).unwrap();
        p.named(&again, "again").unwrap();
        let first = p.node_count();
        let loss = p.matmul(&ab, "c").unwrap();
        p.named(&loss, "loss").unwrap();
        p.keep_wide(first);
        p
    }

    fn results(program: &Program) -> Vec<Vec<f32>> {
        let model = program.to_model(&["ab", "again", "loss"], ParametersAs::Inputs).unwrap();
        let of = |values: [f32; 4]| crate::graph::Tensor::from_f32([2, 2], &values).unwrap();
        let feeds = [of([1.001, 2.003, -3.007, 0.1]), of([0.3, 0.7, 1.1, -0.9]), of([1.0, 0.001, 0.002, 1.0])];
        let feeds: Vec<(&str, &crate::graph::Tensor)> = ["a", "b", "c"].into_iter().zip(&feeds).collect();
        testing::run_model(&model, &feeds).unwrap().iter().map(|t| t.f32s().unwrap()).collect()
    }

    #[test]
    fn products_but_the_losss_are_narrow_and_each_value_is_narrowed_once() {
        let program = products().narrowed(Narrow::Computed(Element::Bf16));
        let elements = |operator: &str| -> Vec<Element> {
            let nodes = program.nodes().iter().filter(|node| node.operator == operator);
            nodes.map(|node| program.kind(&node.outputs[0]).unwrap().element).collect()
        };
        assert_eq!((elements("MatMul"), elements("Gemm")), (vec![Element::Bf16, Element::F32], vec![Element::Bf16]));
        // a, b and ab down, two results up.
        let casts = elements("Cast");
        assert_eq!((casts.len(), casts.iter().filter(|e| **e == Element::Bf16).count()), (5, 3));
        assert_eq!(program.kind("ab"), Some(&TensorType::new(Element::F32, [2, 2])));
    }

    /// The processor's runtime has no such products: it computes them in float32 and leaves casts out, within the rounding of operands and result.
    #[test]
    fn a_narrowed_model_runs_and_stays_within_float16s_rounding() {
        let exact = results(&products());
        let computed = results(&products().narrowed(Narrow::Computed(Element::F16)));
        let rounded = results(&products().narrowed(Narrow::Rounded(Element::F16)));
        for ((exact, computed), rounded) in exact.iter().flatten().zip(computed.iter().flatten()).zip(rounded.iter().flatten()) {
            // Three roundings of 2^-11 each, of terms that partly cancel.
            for found in [computed, rounded] {
                assert!((exact - found).abs() <= 3e-3 * exact.abs().max(1.0), "{exact} {computed} {rounded}");
            }
        }
        assert_ne!(exact, rounded);
    }
}
