//! A graph to the part before the first trained weight, and the rest.

use std::collections::{BTreeSet, HashSet};

use crate::graph::{Element, Model, Port};

/// A tower in two parts.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Inputs to the value at the seam.
    pub trunk: Model,
    /// The value at the seam to the embedding.
    pub head: Model,
    /// The value that leaves the one and enters the other.
    pub seam: String,
}

/// Cuts the part of `model` that leads to `output` where the trained weights begin: exactly one value must lead from what depends on
/// inputs alone to what depends on a trained weight.
///
/// # Errors
/// What is in the way: no weight is trained, every value depends on one, or several values cross.
pub fn cut(model: &Model, output: &str, trained: &dyn Fn(&str) -> bool) -> Result<Cut, String> {
    let model = model.cut_to(&[output]);
    let graph = &model.graph;
    let inputs: HashSet<&str> = graph.inputs.iter().map(|port| port.name.as_str()).collect();
    let mut fed = inputs.clone();
    let mut changing: HashSet<&str> = graph.initializers.iter().map(|(name, _)| name.as_str()).filter(|n| trained(n)).collect();
    if changing.is_empty() {
        return Err("no weight of that name is trained in it".to_owned());
    }
    let (mut seams, mut after) = (BTreeSet::new(), Vec::with_capacity(graph.nodes.len()));
    for node in &graph.nodes {
        let reads = |set: &HashSet<&str>| node.inputs.iter().any(|name| set.contains(name.as_str()));
        let (changes, depends) = (reads(&changing), reads(&fed));
        if changes {
            seams.extend(node.inputs.iter().map(String::as_str).filter(|n| fed.contains(n) && !changing.contains(n)));
        }
        // What depends on no input (a folded constant) may be needed on either side.
        after.push(changes || !depends);
        changing.extend(node.outputs.iter().map(String::as_str).filter(|_| changes));
        fed.extend(node.outputs.iter().map(String::as_str).filter(|_| depends));
    }
    let names: Vec<&str> = seams.iter().copied().collect();
    let &[seam] = &names[..] else {
        return Err(format!("{} values lead into what is trained ({}); one must", names.len(), names.join(", ")));
    };
    if inputs.contains(seam) {
        return Err(format!("its input {seam:?} leads right into what is trained: nothing of it stays as it is"));
    }
    let port = Port { name: seam.to_owned(), element: Element::F32, shape: None };
    let mut trunk = model.clone();
    trunk.graph.outputs.push(port.clone());
    let mut head = model.clone();
    let mut kept = after.into_iter();
    head.graph.nodes.retain(|_| kept.next().unwrap_or(false));
    head.graph.inputs = vec![port];
    Ok(Cut { trunk: trunk.cut_to(&[seam]), head: head.cut_to(&[output]), seam: seam.to_owned() })
}
