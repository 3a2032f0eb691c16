//! The end of the last layer for the picked token only: exact, and a sixteenth less work in a ViT-B/32.
//!
//! A tower picks one token of each item (the class token; a caption's end mark) after a layer that was computed for all of them. What
//! comes after the last attention works on each token by itself, so picking first gives the same numbers:
//!
//! ```text
//!   before   h ──────────────┬─► add ─► norm, MLP, add ─► norm ─► pick ─► project
//!            attention ──────┘         [batch, token, ...]
//!
//!   after    h ─────► pick ──┬─► add ─► norm, MLP, add ─► norm ─────────► project
//!            attention ► pick┘              [batch, ...]
//! ```
//!
//! The region between is found from the pick backwards: nodes that treat every token alike ([`Graph::operands`]) and whose results
//! nobody else reads. At its edges the picking nodes are copied; inside, operators stay as they are and see one dimension less, which they
//! do not mind: constants have at most one dimension, matrices two, norms and means run along the last. A node that asks for the
//! shape of a result is sent to a value of the same shape outside.
//!
//! Where this form is not found the model stays as it is, with a [`NotPicked`] that says why. Dynamically quantized layers are
//! such: their scale is that of all tokens, so picking first would change them.
//!
//! Not done: the attention's own query for the picked token only, which would save another hundredth.

use std::collections::{HashMap, HashSet};

use super::node::{INPUT, NAME, OPERATOR, OUTPUT, attribute, constant_dimensions, declared_name, node_body, node_field, text};
use super::scan::{Node, Scanned};
use super::wire;

/// Why a model's last layer is computed for all tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NotPicked {
    /// The caller wants the model as it is.
    #[error("it is asked for as it is")]
    Off,
    /// Attention pooling, a mean, or an operator that is not known here.
    #[error("no operator picks one token of each item in a way that is known here")]
    NoPick,
    /// The picked tokens come out of something that cannot be computed for one token alone.
    #[error("what is picked from is not made by operators that treat each token by itself")]
    NoLayer,
}

/// A node as it is written: what it reads and writes decides the order.
struct Written {
    reads: Vec<String>,
    writes: Vec<String>,
    raw: Vec<u8>,
}

/// The kept nodes of a graph with the end of the last layer after the pick: fields of the graph, in an order in which every node comes
/// after what it reads.
pub(crate) fn pick_first<'a>(scanned: &Scanned<'a>, keep: &[bool], output: &str) -> Result<Vec<Vec<u8>>, NotPicked> {
    let graph = Graph::new(scanned, keep, output);
    let picks: Vec<Pick<'_>> = (0..graph.nodes.len()).filter_map(|at| graph.pick_at(at)).collect();
    if picks.is_empty() {
        return Err(NotPicked::NoPick);
    }
    // A model has one; were there several, the one whose region is a layer is it.
    let mut found = picks.iter().filter_map(|pick| Some((pick, graph.region(pick)?)));
    let (pick, region) = found.next().ok_or(NotPicked::NoLayer)?;
    in_order(graph.rewrite(pick, &region)).ok_or(NotPicked::NoLayer)
}

/// The nodes that take one token of each item out of `[batch, token, width]`.
struct Pick<'a> {
    /// What they pick from.
    from: &'a str,
    /// Of the node that reads `from`: the pick itself, or the flattening before it.
    first: usize,
    /// Of the node whose result is `[batch, width]`.
    last: usize,
}

/// Nodes that are computed for the picked token only.
struct Region<'a> {
    nodes: HashSet<usize>,
    /// Values that come from outside, to be picked from.
    edges: HashSet<&'a str>,
}

/// Products with a matrix that a layer's MLP has.
const MLP_PRODUCTS: usize = 2;

struct Graph<'g, 'a> {
    nodes: Vec<&'g Node<'a>>,
    writer: HashMap<&'a str, usize>,
    readers: HashMap<&'a str, Vec<usize>>,
    /// Dimensions of values that do not depend on what is fed.
    constants: HashMap<&'a str, usize>,
    /// Values that depend on more than the shape of what is fed.
    fed: HashSet<&'a str>,
    output: &'g str,
}

impl<'g, 'a> Graph<'g, 'a> {
    fn new(scanned: &'g Scanned<'a>, keep: &[bool], output: &'g str) -> Self {
        let nodes: Vec<&Node<'a>> = scanned.nodes.iter().zip(keep).filter(|(_, keep)| **keep).map(|(node, _)| node).collect();
        let constants: HashMap<&str, usize> = scanned.initializers.iter().map(|i| (i.name, i.dims.len())).collect();
        let stored = |name: &str| constants.contains_key(name);
        let inputs = scanned.inputs.iter().filter_map(|input| declared_name(input.raw)).filter(|name| !stored(name));
        let fed = inputs.collect();
        let mut graph = Self { nodes, writer: HashMap::new(), readers: HashMap::new(), constants, fed, output };
        for at in 0..graph.nodes.len() {
            graph.enter(at);
        }
        graph
    }

    /// Nodes come after what they read, as ONNX demands.
    fn enter(&mut self, at: usize) {
        let node = self.nodes[at];
        for &name in &node.reads {
            self.readers.entry(name).or_default().push(at);
        }
        let dimensions = self.constant_dimensions(node);
        let fed = !matches!(node.operator, "Shape" | "Size") && node.reads.iter().any(|name| self.fed.contains(name));
        for &name in &node.writes {
            self.writer.insert(name, at);
            self.constants.extend(dimensions.map(|dimensions| (name, dimensions)));
            self.fed.extend(fed.then_some(name));
        }
    }

    /// Dimensions of what a node computes of constants, for nodes that exporters leave standing.
    fn constant_dimensions(&self, node: &Node<'a>) -> Option<usize> {
        match node.operator {
            "Constant" => constant_dimensions(node.raw),
            "Cast" | "Identity" | "Sqrt" | "Neg" | "Add" | "Sub" | "Mul" | "Div" | "Pow" => {
                let all = node.reads.iter().map(|name| self.constants.get(name).copied()).collect::<Option<Vec<_>>>()?;
                all.into_iter().max()
            }
            _ => None,
        }
    }

    fn dimensions(&self, name: &str) -> Option<usize> {
        self.constants.get(name).copied()
    }

    fn operator(&self, name: &str) -> Option<&'a str> {
        self.writer.get(name).map(|&at| self.nodes[at].operator)
    }

    fn readers(&self, name: &str) -> &[usize] {
        self.readers.get(name).map_or(&[], Vec::as_slice)
    }

    /// The picks that exporters write: a token by its fixed place, by a pair (item, place), or by its place among the tokens of all items.
    fn pick_at(&self, at: usize) -> Option<Pick<'a>> {
        let node = self.nodes[at];
        let [from, places] = node.reads[..] else { return None };
        if !self.fed.contains(from) {
            return None;
        }
        let axis = attribute(node.raw, "axis").and_then(|a| a.integer).unwrap_or(0);
        match node.operator {
            "Gather" if axis == 1 && self.dimensions(places) == Some(0) => Some(Pick { from, first: at, last: at }),
            "Gather" if axis == 0 && self.operator(from) == Some("Flatten") && self.fed.contains(places) => {
                let flatten = *self.writer.get(from)?;
                let whole = attribute(self.nodes[flatten].raw, "axis").and_then(|a| a.integer) == Some(2);
                let alone = self.readers(from) == [at];
                let from = *self.nodes[flatten].reads.first()?;
                (whole && alone).then_some(Pick { from, first: flatten, last: at })
            }
            "GatherND" if self.is_pair(places) => {
                let batched = attribute(node.raw, "batch_dims").and_then(|a| a.integer).unwrap_or(0);
                (batched == 0).then_some(Pick { from, first: at, last: at })
            }
            _ => None,
        }
    }

    /// Whether a value is two columns side by side.
    fn is_pair(&self, name: &str) -> bool {
        let Some(&at) = self.writer.get(name) else { return false };
        let node = self.nodes[at];
        let column = |name: &&str| self.operator(name) == Some("Unsqueeze");
        node.operator == "Concat" && node.reads.len() == 2 && node.reads.iter().all(column)
    }

    /// The inputs of a node that have a token dimension, if it treats every token alike.
    fn operands(&self, node: &Node<'a>) -> Option<Vec<&'a str>> {
        if node.writes.iter().filter(|name| !name.is_empty()).count() != 1 {
            return None;
        }
        let low = |name: &&str| self.dimensions(name).is_some_and(|dimensions| dimensions <= 1);
        match (node.operator, &node.reads[..]) {
            ("Sigmoid" | "Erf" | "Tanh" | "Relu" | "Sqrt" | "Neg" | "Cast" | "Identity" | "Gelu" | "QuickGelu", &[one]) => {
                Some(vec![one])
            }
            ("Add" | "Sub" | "Mul" | "Div" | "Pow", both) => {
                let (constant, operands): (Vec<&str>, Vec<&str>) = both.iter().partition(|name| self.dimensions(name).is_some());
                (constant.iter().all(low) && !operands.is_empty()).then_some(operands)
            }
            ("MatMul", &[one, matrix]) => {
                (self.dimensions(matrix) == Some(2) && self.dimensions(one).is_none()).then(|| vec![one])
            }
            ("LayerNormalization", &[one, ref constant @ ..]) => {
                let axis = attribute(node.raw, "axis").and_then(|a| a.integer).unwrap_or(-1);
                (axis == -1 && constant.iter().all(low)).then(|| vec![one])
            }
            // Up to operator set 17 the axes are an attribute.
            ("ReduceMean", &[one]) => {
                let last = attribute(node.raw, "axes").is_some_and(|a| a.integers == [-1]);
                let kept = attribute(node.raw, "keepdims").and_then(|a| a.integer) != Some(0);
                (last && kept).then(|| vec![one])
            }
            _ => None,
        }
    }

    /// The nodes before the pick that may come after it, from the last to the first; `None` if they are no layer's end.
    fn region(&self, pick: &Pick<'a>) -> Option<Region<'a>> {
        let mut region = Region { nodes: HashSet::new(), edges: HashSet::new() };
        let mut wanted = HashSet::from([pick.from]);
        let mut before = pick.first;
        while before > 0 {
            before -= 1;
            let node = self.nodes[before];
            let Some(&name) = node.writes.iter().find(|name| wanted.contains(*name)) else { continue };
            let only_inside = |&reader: &usize| {
                region.nodes.contains(&reader) || reader == pick.first || self.nodes[reader].operator == "Shape"
            };
            let movable = name != self.output && self.readers(name).iter().all(only_inside);
            match self.operands(node).filter(|_| movable) {
                Some(operands) => {
                    region.nodes.insert(before);
                    wanted.extend(operands);
                }
                None => {
                    region.edges.insert(name);
                }
            }
        }
        let products = region.nodes.iter().filter(|&&at| self.nodes[at].operator == "MatMul").count();
        let shapes_known = region.nodes.iter().all(|&at| {
            let name = self.nodes[at].writes[0];
            let asked = self.readers(name).iter().any(|&reader| self.nodes[reader].operator == "Shape");
            !asked || self.same_shape(name, &region).is_some()
        });
        let from_outside = wanted.iter().all(|name| self.writer.contains_key(name));
        let tokens = region.edges.iter().all(|name| self.fed.contains(name));
        (products >= MLP_PRODUCTS && shapes_known && from_outside && tokens).then_some(region)
    }

    /// A value at the edge of the region of the same shape as one inside.
    fn same_shape(&self, name: &'a str, region: &Region<'a>) -> Option<&'a str> {
        if region.edges.contains(name) {
            return Some(name);
        }
        let node = self.nodes[*self.writer.get(name)?];
        if matches!(node.operator, "MatMul" | "ReduceMean") {
            return None;
        }
        self.operands(node)?.into_iter().find_map(|operand| self.same_shape(operand, region))
    }

    fn rewrite(&self, pick: &Pick<'a>, region: &Region<'a>) -> Vec<Written> {
        let mut written = Vec::with_capacity(self.nodes.len() + 2 * region.edges.len());
        for (at, node) in self.nodes.iter().enumerate() {
            if at == pick.last {
                written.push(Written::identity(pick.from, node.writes[0]));
            } else if at == pick.first {
                // The flattening before a pick, which nobody else reads.
            } else if region.nodes.contains(&at) {
                let renamed = |name: &str| region.edges.contains(name).then(|| picked(name));
                written.push(Written::of(node, renamed, str::to_owned));
            } else if node.operator == "Shape" {
                let inside = |name: &str| self.writer.get(name).is_some_and(|writer| region.nodes.contains(writer));
                let outside = |name: &str| {
                    let (&own, _) = self.writer.get_key_value(name).filter(|_| inside(name))?;
                    self.same_shape(own, region).map(str::to_owned)
                };
                written.push(Written::of(node, outside, str::to_owned));
            } else {
                written.push(Written::of(node, |_| None, str::to_owned));
            }
        }
        for edge in &region.edges {
            let flat = format!("{}/flat", picked(edge));
            if pick.first != pick.last {
                let renamed = |name: &str| (name == pick.from).then(|| (*edge).to_owned());
                written.push(Written::of(self.nodes[pick.first], renamed, |_| flat.clone()));
            }
            let last = self.nodes[pick.last];
            let source = if pick.first == pick.last { (*edge).to_owned() } else { flat.clone() };
            let renamed = |name: &str| (name == last.reads[0]).then(|| source.clone());
            written.push(Written::of(last, renamed, |_| picked(edge)));
        }
        written
    }
}

/// What a value is called once it is picked from.
fn picked(name: &str) -> String {
    format!("anchorite/picked/{name}")
}

impl Written {
    /// A node with other names; its own name is left out, since copies would share it.
    fn of(node: &Node<'_>, read: impl Fn(&str) -> Option<String>, write: impl Fn(&str) -> String) -> Self {
        let mut body = Vec::with_capacity(node.raw.len());
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        for field in wire::fields(node_body(node.raw)).map_while(Result::ok) {
            match (field.number, text(field.value)) {
                (INPUT, Some(name)) => {
                    let name = read(name).unwrap_or_else(|| name.to_owned());
                    wire::put_bytes(&mut body, INPUT, name.as_bytes());
                    reads.push(name);
                }
                (OUTPUT, Some(name)) => {
                    let name = write(name);
                    wire::put_bytes(&mut body, OUTPUT, name.as_bytes());
                    writes.push(name);
                }
                (NAME, _) => {}
                _ => body.extend_from_slice(field.raw),
            }
        }
        // What subgraphs read from around them comes after the node's own inputs.
        reads.extend(node.reads.iter().skip(reads.len()).map(|&name| name.to_owned()));
        Self { reads, writes, raw: node_field(&body) }
    }

    fn identity(from: &str, to: &str) -> Self {
        let mut body = Vec::new();
        wire::put_bytes(&mut body, INPUT, from.as_bytes());
        wire::put_bytes(&mut body, OUTPUT, to.as_bytes());
        wire::put_bytes(&mut body, OPERATOR, b"Identity");
        Self { reads: vec![from.to_owned()], writes: vec![to.to_owned()], raw: node_field(&body) }
    }
}

/// Each node after what it reads; `None` if they read each other in a circle.
fn in_order(mut nodes: Vec<Written>) -> Option<Vec<Vec<u8>>> {
    let mut missing: HashSet<String> = nodes.iter().flat_map(|node| node.writes.iter().cloned()).collect();
    let mut ordered = Vec::with_capacity(nodes.len());
    // They nearly are in order, so few rounds are needed.
    while !nodes.is_empty() {
        let mut later = Vec::new();
        let before = ordered.len();
        for node in nodes {
            if node.reads.iter().any(|name| missing.contains(name)) {
                later.push(node);
                continue;
            }
            for name in &node.writes {
                missing.remove(name);
            }
            ordered.push(node.raw);
        }
        if ordered.len() == before {
            return None;
        }
        nodes = later;
    }
    Some(ordered)
}
