//! Questions about a program as a whole: what a value depends on, and how much memory a run takes.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::Program;
use crate::graph::TensorType;
use crate::ops::{self, Gradient};

/// Operators whose result is their input's memory under another shape.
pub(super) const VIEWS: [&str; 5] = ["Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"];

impl Program {
    /// The parameters that `output` depends on through operators that gradients pass, and that look like weights: what can be
    /// trained for it.
    #[must_use]
    pub fn trainable_for(&self, output: &str) -> BTreeSet<String> {
        let mut needed: HashSet<&str> = HashSet::from([output]);
        for node in self.nodes().iter().rev() {
            let passes = ops::find(node).is_some_and(|o| !matches!(o.gradient, Gradient::Stops));
            if passes && node.outputs.iter().any(|name| needed.contains(name.as_str())) {
                // Running statistics are not learnt by gradients.
                let count = if node.operator == "BatchNormalization" { 3 } else { node.inputs.len() };
                needed.extend(node.inputs.iter().take(count).map(String::as_str));
            }
        }
        let names = self.parameters().keys().filter(|name| needed.contains(name.as_str()) && self.is_trainable(name));
        names.cloned().collect()
    }

    /// The most memory that values are expected to take at one time in a run that gives `outputs`, parameters, inputs and constants
    /// left out: each value lives from the node that writes it to the last that reads it, nodes run in their order. A runtime that
    /// orders nodes otherwise or computes in place takes somewhat more or less.
    #[must_use]
    pub fn peak_bytes(&self, outputs: &[&str]) -> u64 {
        let owner = self.owners();
        let of = |name: &str| owner.get(name).copied().unwrap_or_default().to_owned();
        let mut needed: HashSet<String> = outputs.iter().map(|name| of(name)).collect();
        let mut runs = Vec::new();
        for (i, node) in self.nodes().iter().enumerate().rev() {
            if node.outputs.iter().any(|name| needed.contains(&of(name))) {
                runs.push(i);
                needed.extend(node.inputs.iter().map(|name| of(name)));
            }
        }
        runs.reverse();
        let mut last: HashMap<String, usize> = HashMap::new();
        for &i in &runs {
            last.extend(self.nodes()[i].inputs.iter().map(|name| (of(name), i)));
        }
        last.extend(outputs.iter().map(|name| (of(name), usize::MAX)));
        let (mut live, mut peak) = (0_u64, 0_u64);
        let mut sizes: HashMap<String, u64> = HashMap::new();
        for &i in &runs {
            let node = &self.nodes()[i];
            for name in node.outputs.iter().filter(|name| of(name) == **name) {
                let bytes = self.kind(name).map_or(0, bytes);
                live += bytes;
                sizes.insert(name.clone(), bytes);
            }
            peak = peak.max(live);
            let ending: HashSet<String> = node.inputs.iter().chain(&node.outputs).map(|name| of(name)).collect();
            for name in ending.iter().filter(|name| last.get(*name).is_none_or(|&end| end <= i)) {
                live -= sizes.remove(name).unwrap_or(0);
            }
        }
        peak
    }

    /// What is fed to a run, in bytes.
    pub(crate) fn input_bytes(&self) -> u64 {
        self.inputs().iter().filter_map(|name| self.kind(name)).map(bytes).sum()
    }

    /// For each value that nodes write, the value whose memory it is.
    fn owners(&self) -> HashMap<&str, &str> {
        let mut owner: HashMap<&str, &str> = HashMap::new();
        for node in self.nodes() {
            for name in &node.outputs {
                let from = node.inputs.first().filter(|_| VIEWS.contains(&node.operator.as_str()));
                // A view of what no node writes (a parameter, an input) costs nothing: it keeps no owner.
                let root = match from {
                    Some(from) => owner.get(from.as_str()).copied().unwrap_or_default(),
                    None => name.as_str(),
                };
                owner.insert(name, root);
            }
        }
        owner
    }
}

fn bytes(kind: &TensorType) -> u64 {
    let count = crate::graph::element_count(&kind.shape).unwrap_or(usize::MAX);
    (count as u64).saturating_mul(kind.element.width_bytes() as u64)
}
