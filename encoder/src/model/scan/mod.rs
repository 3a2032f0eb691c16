//! What a model file is allowed to say, decided before ONNX Runtime sees one byte of it.
//!
//! ONNX Runtime's own containment checks have been wrong four times and still miss hard links and the sparse forms, so they are
//! not our boundary. This walk is. It knows every message of ONNX that can carry a tensor, an operator or a graph, and refuses
//! what it does not know:
//!
//! - operators of other domains than [`DOMAINS`]; in `com.microsoft`, other operators than [`CONTRIB_OPERATORS`]
//!   (the list is what quantizers and optimizers write; `EPContext`, which names a file to open, is not on it);
//! - model-local functions and training information;
//! - external data anywhere but in the main graph's plain initializers, and there under any name that is not a single plain
//!   file name (which also shuts out ONNX Runtime's `*/_ORT_MEM_ADDR_/*`, an address in memory);
//! - fields that appear twice where protobuf would merge them, fields this version does not know, numbers out of range;
//! - files in ONNX Runtime's own format, which it would recognise by four bytes in the middle of an otherwise good model.
//!
//! | file | |
//! | --- | --- |
//! | `operators.rs` | which operators may appear |
//! | `message.rs` | which fields each message may have |
//! | `tensor.rs` | tensors, and their ranges of files beside the model |
//! | `port.rs` | declared inputs and outputs |
//! | `error.rs` | why a file is refused |
//!
//! Bytes go in, a borrowed [`Scanned`] comes out; no files here.

mod error;
mod message;
mod operators;
mod port;
mod tensor;

use std::collections::HashMap;

use super::ModelLimits;
use super::wire::{self, Field, Value, WireError};
use message::{ATTRIBUTE, GRAPH, MODEL, NODE, SPARSE, TENSOR};
use operators::{operator, opset};
use port::{port, value_name};
use tensor::{element_count, entry, external_range, integers};

pub use error::ScanError;
pub use operators::{CONTRIB_OPERATORS, DOMAINS};
pub use port::{Dim, ElementType, Port};
pub use tensor::ExternalRange;
pub(crate) use tensor::{Initializer, is_plain_name};

/// A node of the main graph, by reference to the file's bytes.
#[derive(Debug, Clone)]
pub(crate) struct Node<'a> {
    pub(crate) raw: &'a [u8],
    /// Names it reads: its inputs, and what its subgraphs take from around them.
    pub(crate) reads: Vec<&'a str>,
    pub(crate) writes: Vec<&'a str>,
    pub(crate) operator: &'a str,
}

/// A graph input or output and the bytes it came from.
#[derive(Debug, Clone)]
pub(crate) struct Declared<'a> {
    pub(crate) port: Port,
    pub(crate) raw: &'a [u8],
}

/// A model that passed: everything that cutting and binding need, borrowed from its bytes.
#[derive(Debug)]
pub struct Scanned<'a> {
    /// Fields of the model other than the graph, unchanged.
    pub(crate) model_fields: Vec<&'a [u8]>,
    /// The graph's name and documentation, unchanged.
    pub(crate) graph_fields: Vec<&'a [u8]>,
    pub(crate) nodes: Vec<Node<'a>>,
    pub(crate) initializers: Vec<Initializer<'a>>,
    /// Name and bytes.
    pub(crate) sparse: Vec<(&'a str, &'a [u8])>,
    pub(crate) inputs: Vec<Declared<'a>>,
    pub(crate) outputs: Vec<Declared<'a>>,
    pub(crate) bytes: &'a [u8],
}

impl Scanned<'_> {
    /// Declared outputs.
    #[must_use]
    pub fn outputs(&self) -> Vec<Port> {
        self.outputs.iter().map(|o| o.port.clone()).collect()
    }

    /// Names of the files that hold initializers' data, each once, in order of first use.
    #[must_use]
    pub fn external_files(&self) -> Vec<String> {
        let mut files: Vec<String> = Vec::new();
        for range in self.initializers.iter().filter_map(|i| i.external.as_ref()) {
            if !files.contains(&range.file) {
                files.push(range.file.clone());
            }
        }
        files
    }

    /// Initializers whose data lies in another file, by name.
    #[must_use]
    pub fn external_ranges(&self) -> HashMap<&str, &ExternalRange> {
        self.initializers.iter().filter_map(|i| Some((i.name, i.external.as_ref()?))).collect()
    }
}

/// Walks the model in `bytes` to its last field.
///
/// # Errors
/// [`ScanError`]: damaged, or something that is refused.
pub fn scan<'a>(bytes: &'a [u8], limits: &ModelLimits) -> Result<Scanned<'a>, ScanError> {
    if bytes.get(4..8) == Some(b"ORTM") {
        return Err(ScanError::OrtFormat);
    }
    let mut scanner = Scanner { limits, nodes: 0, tensors: 0, external_bytes: 0 };
    scanner.model(bytes)
}

/// What a tensor's surroundings allow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum External {
    Allowed,
    Refused(&'static str),
}

/// What a subgraph takes from around it.
type Names<'a> = Vec<&'a str>;

struct Scanner<'l> {
    limits: &'l ModelLimits,
    nodes: u64,
    tensors: u64,
    external_bytes: u64,
}

impl Scanner<'_> {
    fn model<'a>(&mut self, bytes: &'a [u8]) -> Result<Scanned<'a>, ScanError> {
        let mut graph = None;
        let mut model_fields = Vec::new();
        let (mut versioned, mut opsets) = (false, 0_u64);
        for field in MODEL.read(bytes)? {
            match field.number {
                1 => versioned = MODEL.integer(&field)? > 0,
                7 => {
                    graph = Some(MODEL.bytes(&field)?);
                    continue;
                }
                8 => {
                    opset(MODEL.bytes(&field)?)?;
                    opsets += 1;
                }
                20 => {
                    let remedy = "export it for inference";
                    return Err(ScanError::Carries { what: "training information", remedy });
                }
                25 => {
                    let remedy = "inline them with onnx.inliner.inline_local_functions";
                    return Err(ScanError::Carries { what: "model-local functions", remedy });
                }
                _ => {}
            }
            model_fields.push(field.raw);
        }
        let graph = graph.filter(|_| versioned && opsets > 0);
        let graph = graph.ok_or_else(|| MODEL.invalid("not an ONNX model: version, operator set or graph is missing"))?;
        self.main_graph(graph, model_fields, bytes)
    }

    fn main_graph<'a>(
        &mut self,
        graph: &'a [u8],
        model_fields: Vec<&'a [u8]>,
        bytes: &'a [u8],
    ) -> Result<Scanned<'a>, ScanError> {
        let mut scanned = Scanned {
            model_fields,
            graph_fields: Vec::new(),
            nodes: Vec::new(),
            initializers: Vec::new(),
            sparse: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            bytes,
        };
        for field in GRAPH.read(graph)? {
            match field.number {
                1 => scanned.nodes.push(self.node(GRAPH.bytes(&field)?, field.raw, 0)?),
                5 => scanned.initializers.push(self.tensor(GRAPH.bytes(&field)?, External::Allowed)?),
                11 => scanned.inputs.push(Declared { port: port(GRAPH.bytes(&field)?)?, raw: field.raw }),
                12 => scanned.outputs.push(Declared { port: port(GRAPH.bytes(&field)?)?, raw: field.raw }),
                15 => scanned.sparse.push((self.sparse(GRAPH.bytes(&field)?, "a sparse initializer")?, field.raw)),
                2 | 10 | 16 => scanned.graph_fields.push(field.raw),
                // Intermediate shapes and quantization notes: hints that ONNX Runtime works out by itself.
                _ => {}
            }
        }
        if scanned.outputs.is_empty() {
            return Err(GRAPH.invalid("the graph has no output"));
        }
        let mut names: Vec<&str> = scanned.initializers.iter().map(|i| i.name).collect();
        names.extend(scanned.sparse.iter().map(|(name, _)| *name));
        names.sort_unstable();
        if names.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(GRAPH.invalid("two initializers have one name"));
        }
        Ok(scanned)
    }

    /// A graph inside an attribute. Gives the names it reads; those it defines itself do no harm among them.
    fn subgraph<'a>(&mut self, bytes: &'a [u8], depth: u32) -> Result<Names<'a>, ScanError> {
        let max = self.limits.max_graph_depth;
        limit("nested graphs", u64::from(depth), u64::from(max))?;
        let mut reads = Vec::new();
        for field in GRAPH.read(bytes)? {
            match field.number {
                1 => reads.extend(self.node(GRAPH.bytes(&field)?, field.raw, depth)?.reads),
                5 => {
                    self.tensor(GRAPH.bytes(&field)?, External::Refused("a subgraph's initializer"))?;
                }
                12 => reads.push(value_name(GRAPH.bytes(&field)?)?),
                15 => {
                    self.sparse(GRAPH.bytes(&field)?, "a subgraph's sparse initializer")?;
                }
                _ => {}
            }
        }
        Ok(reads)
    }

    fn node<'a>(&mut self, bytes: &'a [u8], raw: &'a [u8], depth: u32) -> Result<Node<'a>, ScanError> {
        self.nodes += 1;
        limit("nodes", self.nodes, self.limits.max_nodes)?;
        let mut node = Node { raw, reads: Vec::new(), writes: Vec::new(), operator: "" };
        let mut domain = "";
        for field in NODE.read(bytes)? {
            match field.number {
                1 => node.reads.push(NODE.text(&field)?),
                2 => node.writes.push(NODE.text(&field)?),
                4 => node.operator = NODE.text(&field)?,
                5 => node.reads.extend(self.attribute(NODE.bytes(&field)?, depth)?),
                7 => domain = NODE.text(&field)?,
                _ => {}
            }
        }
        operator(domain, node.operator)?;
        Ok(node)
    }

    fn attribute<'a>(&mut self, bytes: &'a [u8], depth: u32) -> Result<Names<'a>, ScanError> {
        let mut reads = Vec::new();
        for field in ATTRIBUTE.read(bytes)? {
            match field.number {
                5 | 10 => {
                    self.tensor(ATTRIBUTE.bytes(&field)?, External::Refused("an attribute"))?;
                }
                6 | 11 => reads.extend(self.subgraph(ATTRIBUTE.bytes(&field)?, depth + 1)?),
                22 | 23 => {
                    self.sparse(ATTRIBUTE.bytes(&field)?, "a sparse attribute")?;
                }
                _ => {}
            }
        }
        Ok(reads)
    }

    fn sparse<'a>(&mut self, bytes: &'a [u8], place: &'static str) -> Result<&'a str, ScanError> {
        let mut name = "";
        for field in SPARSE.read(bytes)? {
            match field.number {
                1 => name = self.tensor(SPARSE.bytes(&field)?, External::Refused(place))?.name,
                2 => {
                    self.tensor(SPARSE.bytes(&field)?, External::Refused(place))?;
                }
                _ => {}
            }
        }
        Ok(name)
    }

    fn tensor<'a>(&mut self, bytes: &'a [u8], external: External) -> Result<Initializer<'a>, ScanError> {
        self.tensors += 1;
        limit("tensors", self.tensors, self.limits.max_tensors)?;
        let mut tensor = Initializer { name: "", data_type: 0, dims: Vec::new(), body: bytes, external: None };
        let (mut location, mut entries, mut inline) = (0, Vec::new(), false);
        for field in TENSOR.read(bytes)? {
            match field.number {
                1 => integers(&field, &mut tensor.dims)?,
                2 => tensor.data_type = TENSOR.small_integer(&field)?,
                8 => tensor.name = TENSOR.text(&field)?,
                13 => entries.push(entry(TENSOR.bytes(&field)?)?),
                14 => location = TENSOR.small_integer(&field)?,
                4..=7 | 9..=11 => inline = true,
                _ => {}
            }
        }
        let count = element_count(&tensor)?;
        // Either sign alone is enough: which of the two a reader obeys has differed between versions.
        if location == 0 && entries.is_empty() {
            return Ok(tensor);
        }
        let name = || tensor.name.to_owned();
        if let External::Refused(place) = external {
            return Err(ScanError::ExternalPlace { tensor: name(), place });
        }
        if location != 1 || entries.is_empty() || inline {
            let reason = "it is declared both inside and outside the file".to_owned();
            return Err(ScanError::External { tensor: name(), reason });
        }
        let range = external_range(&tensor, count, &entries)?;
        self.external_bytes = self.external_bytes.saturating_add(range.len);
        limit("bytes of external data", self.external_bytes, self.limits.max_external_bytes)?;
        tensor.external = Some(range);
        Ok(tensor)
    }
}

fn limit(what: &'static str, found: u64, max: u64) -> Result<(), ScanError> {
    if found > max { Err(ScanError::Limit { what, found, max }) } else { Ok(()) }
}
