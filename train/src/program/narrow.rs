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
