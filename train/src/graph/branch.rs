//! A graph that is one `If` on an input, as the two graphs that it chooses between: optimum's merged decoders are such.
//!
//! ```text
//!   inputs, condition ──If──► outputs    =    inputs ──then──► outputs,  inputs ──else──► outputs
//! ```

use std::collections::HashMap;

use anchorite_encoder::model::wire;
use anchorite_encoder::model::{ModelLimits, scan};

use super::read::{self, ExternalFiles, ReadError, Reader, message, text};
use super::{Graph, Model, Node};

impl Model {
    /// The model with the input `condition` true, and with it false; none where its graph is anything else than one `If` on that input.
    /// Stored tensors of both are copied.
    ///
    /// # Errors
    /// As [`Model::read`].
    pub(crate) fn branches(bytes: &[u8], condition: &str, limits: &ModelLimits) -> Result<Option<[Self; 2]>, ReadError> {
        let scanned = scan(bytes, limits)?;
        let none = ExternalFiles::new();
        let reader = Reader { ranges: scanned.external_ranges(), external: &none };
        let (model, graph) = read::shell(bytes)?;
        let (outer, nodes) = reader.around(graph)?;
        let &[only] = &nodes[..] else { return Ok(None) };
        let Some(Choice { outputs, yes, no }) = Choice::read(only, condition)? else { return Ok(None) };
        let whole = |branch: &[u8]| -> Result<Option<Self>, ReadError> {
            let joined = join(&outer, reader.graph(branch)?, &outputs, condition);
            Ok(joined.map(|graph| Self { graph, ..model.clone() }))
        };
        Ok(whole(yes)?.zip(whole(no)?).map(|(yes, no)| [yes, no]))
    }
}

/// An `If` on an input.
struct Choice<'a> {
    outputs: Vec<String>,
    yes: &'a [u8],
    no: &'a [u8],
}

impl<'a> Choice<'a> {
    /// The node as such; none where it is another.
    fn read(node: &'a [u8], condition: &str) -> Result<Option<Self>, ReadError> {
        let (mut operator, mut inputs, mut outputs, mut graphs) = (String::new(), Vec::new(), Vec::new(), HashMap::new());
        for field in wire::fields(node) {
            let field = field?;
            match field.number {
                1 => inputs.push(text(&field, "node")?),
                2 => outputs.push(text(&field, "node")?),
                4 => operator = text(&field, "node")?,
                5 => graphs.extend(subgraph(message(&field, "node")?)?),
                _ => {}
            }
        }
        let (yes, no) = (graphs.remove("then_branch"), graphs.remove("else_branch"));
        let fits = operator == "If" && inputs == [condition];
        Ok(yes.zip(no).filter(|_| fits).map(|(yes, no)| Self { outputs, yes, no }))
    }
}

/// Name and bytes of an attribute that is a graph.
fn subgraph(attribute: &[u8]) -> Result<Option<(String, &[u8])>, ReadError> {
    let (mut name, mut graph) = (String::new(), None);
    for field in wire::fields(attribute) {
        let field = field?;
        match field.number {
            1 => name = text(&field, "attribute")?,
            6 => graph = Some(message(&field, "attribute")?),
            _ => {}
        }
    }
    Ok(graph.map(|graph| (name, graph)))
}

/// The branch in its surroundings' place; none where it reads the condition itself or does not give what is wanted of it.
fn join(outer: &Graph, branch: Graph, outputs: &[String], condition: &str) -> Option<Graph> {
    let reads_condition = branch.nodes.iter().any(|node| node.inputs.iter().any(|name| name == condition));
    if reads_condition || branch.outputs.len() != outputs.len() {
        return None;
    }
    let renamed = branch.outputs.iter().zip(outputs).filter(|(inner, outer)| inner.name != **outer).map(|(inner, outer)| Node {
        operator: "Identity".to_owned(),
        inputs: vec![inner.name.clone()],
        outputs: vec![outer.clone()],
        ..Node::default()
    });
    let mut joined = outer.clone();
    joined.inputs.retain(|port| port.name != condition);
    joined.nodes = branch.nodes.into_iter().chain(renamed).collect();
    joined.initializers.extend(branch.initializers);
    let wanted: Vec<String> = joined.outputs.iter().map(|port| port.name.clone()).collect();
    let whole = Model { graph: joined, ..Model::default() };
    Some(whole.cut_to(&wanted.iter().map(String::as_str).collect::<Vec<_>>()).graph)
}
