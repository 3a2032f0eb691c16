//! What a decoder makes of the pictures alone, taken out of it: run once a batch instead of once a token.
//!
//! ```text
//!   decoder(ids, hidden states, cache)  ──►  prelude(hidden states) ─seams─► rest(ids, seams, cache)
//! ```
//!
//! Exports of GPT-2 and BLIP decoders project the pictures' hidden states to cross-attention's keys and values in every step: most of the arithmetic of a
//! short caption. The seams are the last floats that depend on `encoder_hidden_states` and on no other input; whole numbers (shapes) stay where
//! they are used. The arithmetic is the export's own, node by node.

use std::collections::HashSet;

use crate::graph::{Element, Model, Port};

/// The pictures' input.
pub(super) const HIDDEN: &str = "encoder_hidden_states";

/// A decoder in two parts.
#[derive(Debug)]
pub(super) struct Hoisted {
    /// Hidden states to seams.
    pub(super) prelude: Model,
    /// The decoder that reads the seams.
    pub(super) rest: Model,
}

/// The decoder in two parts; none where nothing is to be gained.
pub(super) fn hoist(model: &Model) -> Option<Hoisted> {
    let early = early(model);
    let made: HashSet<&str> = names(model, &early, true).collect();
    let outputs: Vec<&str> = model.graph.outputs.iter().map(|port| port.name.as_str()).collect();
    if outputs.iter().any(|name| made.contains(name)) {
        return None;
    }
    let mut rest = model.clone();
    let mut late = early.iter().map(|early| !early);
    rest.graph.nodes.retain(|_| late.next().unwrap_or(true));
    let ports = names(model, &early, true).map(|name| Port { name: name.to_owned(), element: Element::F32, shape: None });
    rest.graph.inputs.extend(ports.clone());
    let rest = rest.cut_to(&outputs);
    let mut prelude = model.clone();
    prelude.graph.outputs = ports.filter(|port| rest.graph.inputs.contains(port)).collect();
    let seams: Vec<String> = prelude.graph.outputs.iter().map(|port| port.name.clone()).collect();
    let prelude = prelude.cut_to(&seams.iter().map(String::as_str).collect::<Vec<_>>());
    let heavy = prelude.graph.nodes.iter().any(|node| matches!(node.operator.as_str(), "MatMul" | "Gemm" | "Conv"));
    heavy.then_some(Hoisted { prelude, rest })
}

/// Of each node, whether it makes floats of the pictures and of nothing else that is fed.
fn early(model: &Model) -> Vec<bool> {
    let mut fed: HashSet<&str> =
        model.graph.inputs.iter().map(|port| port.name.as_str()).filter(|name| *name != HIDDEN).collect();
    let (mut floats, mut whole): (HashSet<&str>, HashSet<&str>) = (HashSet::from([HIDDEN]), HashSet::new());
    let mut early = Vec::with_capacity(model.graph.nodes.len());
    for node in &model.graph.nodes {
        let reads = |set: &HashSet<&str>| node.inputs.iter().any(|name| set.contains(name.as_str()));
        let of_others = reads(&fed);
        let of_floats = reads(&floats) && !matches!(node.operator.as_str(), "Shape" | "Size");
        let outputs = node.outputs.iter().map(String::as_str);
        let is_early = of_floats && !of_others;
        match (of_others, is_early) {
            (true, _) => fed.extend(outputs),
            (false, true) => floats.extend(outputs),
            (false, false) if reads(&floats) || reads(&whole) => whole.extend(outputs),
            _ => {}
        }
        early.push(is_early);
    }
    early
}

/// Names of what the nodes make that are `wanted`.
fn names<'m>(model: &'m Model, early: &'m [bool], wanted: bool) -> impl Iterator<Item = &'m str> + Clone {
    let nodes = model.graph.nodes.iter().zip(early).filter(move |(_, is)| **is == wanted);
    nodes.flat_map(|(node, _)| node.outputs.iter().map(String::as_str).filter(|name| !name.is_empty()))
}
