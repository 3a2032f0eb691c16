//! A model changed as a whole: cut to some outputs, given other weights.

use std::collections::{BTreeMap, HashSet};

use super::{Model, Tensor};

impl Model {
    /// The part that leads to `outputs`: other outputs, and the nodes, tensors and inputs that only they need, are left out.
    /// Names that the model does not put out are passed over.
    #[must_use]
    pub fn cut_to(&self, outputs: &[&str]) -> Self {
        let mut needed: HashSet<&str> = outputs.iter().copied().collect();
        let mut keep = vec![false; self.graph.nodes.len()];
        for (node, keep) in self.graph.nodes.iter().zip(&mut keep).rev() {
            if node.outputs.iter().any(|name| needed.contains(name.as_str())) {
                *keep = true;
                needed.extend(node.inputs.iter().map(String::as_str));
            }
        }
        let mut cut = self.clone();
        let mut kept = keep.iter();
        cut.graph.nodes.retain(|_| kept.next().copied().unwrap_or(false));
        cut.graph.initializers.retain(|(name, _)| needed.contains(name.as_str()));
        cut.graph.inputs.retain(|port| needed.contains(port.name.as_str()));
        cut.graph.outputs.retain(|port| outputs.contains(&port.name.as_str()));
        cut
    }

    /// Puts new values in place of stored tensors, by name, and everything else stays as it is. A name that an `Identity` gives to
    /// another stored tensor (exporters merge equal ones) becomes a stored tensor of its own.
    ///
    /// # Errors
    /// The first name that is no stored tensor of that type.
    pub fn set_weights(&mut self, weights: &BTreeMap<String, Tensor>) -> Result<(), String> {
        for (name, value) in weights {
            if let Some((_, stored)) = self.graph.initializers.iter_mut().find(|(n, _)| n == name) {
                if stored.kind() != value.kind() {
                    return Err(name.clone());
                }
                stored.clone_from(value);
                continue;
            }
            let nodes = &mut self.graph.nodes;
            let before = nodes.len();
            nodes.retain(|node| node.operator != "Identity" || node.outputs.first() != Some(name));
            if nodes.len() == before {
                return Err(name.clone());
            }
            self.graph.initializers.push((name.clone(), value.clone()));
        }
        Ok(())
    }
}
