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
//! Bytes go in, a borrowed [`Scanned`] comes out; no files here.

use std::collections::HashMap;

use super::ModelLimits;
use super::wire::{self, Field, Value, WireError};

/// Operator domains that may appear; `""` and `ai.onnx` are the standard's two names for itself.
pub const DOMAINS: [&str; 3] = ["", "ai.onnx", "com.microsoft"];

/// Operators of `com.microsoft` that may appear: what Hugging Face's and ONNX Runtime's exporters, optimizers and quantizers
/// put into transformer and convolution encoders. All compute; none opens a file or calls foreign code.
pub const CONTRIB_OPERATORS: [&str; 61] = [
    "Attention",
    "BiasAdd",
    "BiasGelu",
    "BiasSoftmax",
    "BiasSplitGelu",
    "ConvTransposeWithDynamicPads",
    "DequantizeLinear",
    "DynamicQuantizeMatMul",
    "EmbedLayerNormalization",
    "ExpandDims",
    "FastGelu",
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "FusedMatMulActivation",
    "GatedRelativePositionBias",
    "GatherBlockQuantized",
    "GatherND",
    "Gelu",
    "GemmFastGelu",
    "GroupNorm",
    "GroupQueryAttention",
    "Inverse",
    "IsAllFinite",
    "MatMulBnb4",
    "MatMulFpQ4",
    "MatMulInteger16",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "MulInteger",
    "MultiHeadAttention",
    "NhwcConv",
    "NhwcFusedConv",
    "NhwcMaxPool",
    "Pad",
    "PackedAttention",
    "PackedMultiHeadAttention",
    "QAttention",
    "QEmbedLayerNormalization",
    "QGemm",
    "QLinearAdd",
    "QLinearAveragePool",
    "QLinearConcat",
    "QLinearConv",
    "QLinearGlobalAveragePool",
    "QLinearLeakyRelu",
    "QLinearMul",
    "QLinearReduceMean",
    "QLinearSigmoid",
    "QLinearSoftmax",
    "QLinearWhere",
    "QuantizeLinear",
    "QuickGelu",
    "ReduceSumInteger",
    "RelativePositionBias",
    "RemovePadding",
    "RestorePadding",
    "RotaryEmbedding",
    "SkipGroupNorm",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
];

/// Why a model file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// Not protobuf, or cut short.
    #[error("damaged at {message}: {source}")]
    Damaged {
        /// The ONNX message in which it was met.
        message: &'static str,
        /// What is wrong.
        source: WireError,
    },
    /// A field with the wrong kind of value, out of range, missing or given twice.
    #[error("damaged at {message}: {reason}")]
    Invalid {
        /// The ONNX message in which it was met.
        message: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// ONNX Runtime's own file format, which cannot be scanned.
    #[error("this is ONNX Runtime's own .ort format; use the .onnx file it was made from")]
    OrtFormat,
    /// A field this scanner does not know, so it cannot say whether it is harmless.
    #[error("{message} has field {number}, which is unknown here; export the model for an older ONNX version")]
    UnknownField {
        /// The ONNX message.
        message: &'static str,
        /// Its number.
        number: u32,
    },
    /// An operator that is not allowed.
    #[error("operator {operator} of domain {domain:?} is not allowed; export the model with standard ONNX operators")]
    Operator {
        /// `op_type`.
        operator: String,
        /// Its domain.
        domain: String,
    },
    /// Functions or training information.
    #[error("the model carries {what}, which is refused; {remedy}")]
    Carries {
        /// What it is.
        what: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// More of something than allowed.
    #[error("{what}: {found}, at most {max} are allowed")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// Found.
        found: u64,
        /// Limit.
        max: u64,
    },
    /// External data in a place where it is never accepted.
    #[error("tensor {tensor:?} in {place} keeps its data in another file; only the main graph's plain initializers may")]
    ExternalPlace {
        /// Its name; may be empty.
        tensor: String,
        /// Where it was met.
        place: &'static str,
    },
    /// External data of an initializer, described in a way that is not accepted.
    #[error("the external data of tensor {tensor:?} is refused: {reason}")]
    External {
        /// Its name.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
}

/// An element type by its number in ONNX's `TensorProto.DataType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ElementType {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// 64-bit integer.
    I64,
    /// 32-bit integer.
    I32,
    /// Unsigned byte.
    U8,
    /// Any other, by its number; 0 where the graph does not say.
    Other(i32),
}

impl ElementType {
    fn from_onnx(number: i32) -> Self {
        match number {
            1 => Self::F32,
            2 => Self::U8,
            6 => Self::I32,
            7 => Self::I64,
            10 => Self::F16,
            other => Self::Other(other),
        }
    }
}

impl std::fmt::Display for ElementType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::F32 => f.write_str("float32"),
            Self::F16 => f.write_str("float16"),
            Self::I64 => f.write_str("int64"),
            Self::I32 => f.write_str("int32"),
            Self::U8 => f.write_str("uint8"),
            Self::Other(number) => write!(f, "ONNX element type {number}"),
        }
    }
}

/// One dimension of a declared shape.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum Dim {
    /// Fixed in the graph.
    Fixed(u64),
    /// Known when it runs; the graph's name for it, possibly empty.
    Dynamic(String),
}

impl Dim {
    /// The size, when the graph fixes it.
    #[must_use]
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Self::Fixed(size) => usize::try_from(*size).ok(),
            Self::Dynamic(_) => None,
        }
    }
}

/// A declared input or output of the graph.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Element type.
    pub element: ElementType,
    /// Shape; `None` where the graph does not say.
    pub shape: Option<Vec<Dim>>,
}

impl Port {
    /// How many dimensions it has, when the graph says.
    #[must_use]
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    /// The fixed size of dimension `axis`.
    #[must_use]
    pub fn fixed(&self, axis: usize) -> Option<usize> {
        self.shape.as_ref()?.get(axis)?.fixed()
    }
}

/// Where an initializer's data lies: a range of a file beside the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalRange {
    /// A single plain file name.
    pub file: String,
    /// In bytes.
    pub offset: u64,
    /// In bytes; the tensor's exact size.
    pub len: u64,
}

/// A tensor of the main graph, by reference to the file's bytes.
#[derive(Debug, Clone)]
pub(crate) struct Initializer<'a> {
    pub(crate) name: &'a str,
    pub(crate) data_type: i32,
    pub(crate) dims: Vec<i64>,
    pub(crate) body: &'a [u8],
    pub(crate) external: Option<ExternalRange>,
}

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

/// One message's fields by number: those that may appear once, and those that may repeat. Everything else is unknown.
struct Shape {
    name: &'static str,
    once: &'static [u32],
    many: &'static [u32],
}

const MODEL: Shape = Shape { name: "ModelProto", once: &[1, 2, 3, 4, 5, 6, 7], many: &[8, 14, 20, 25, 26] };
const GRAPH: Shape = Shape { name: "GraphProto", once: &[2, 10], many: &[1, 5, 11, 12, 13, 14, 15, 16] };
const NODE: Shape = Shape { name: "NodeProto", once: &[3, 4, 6, 7, 8], many: &[1, 2, 5, 9, 10] };
const ATTRIBUTE: Shape =
    Shape { name: "AttributeProto", once: &[1, 2, 3, 4, 5, 6, 13, 14, 20, 21, 22], many: &[7, 8, 9, 10, 11, 15, 23] };
const TENSOR: Shape = Shape { name: "TensorProto", once: &[2, 3, 8, 9, 12, 14], many: &[1, 4, 5, 6, 7, 10, 11, 13, 16] };
const SPARSE: Shape = Shape { name: "SparseTensorProto", once: &[1, 2], many: &[3] };
const OPSET: Shape = Shape { name: "OperatorSetIdProto", once: &[1, 2], many: &[] };
const ENTRY: Shape = Shape { name: "StringStringEntryProto", once: &[1, 2], many: &[] };
const VALUE_INFO: Shape = Shape { name: "ValueInfoProto", once: &[1, 2, 3], many: &[4] };
const TYPE: Shape = Shape { name: "TypeProto", once: &[1, 4, 5, 6, 7, 8, 9], many: &[] };
const TENSOR_TYPE: Shape = Shape { name: "TypeProto.Tensor", once: &[1, 2], many: &[] };
const TENSOR_SHAPE: Shape = Shape { name: "TensorShapeProto", once: &[], many: &[1] };
const DIMENSION: Shape = Shape { name: "TensorShapeProto.Dimension", once: &[1, 2, 3], many: &[] };

impl Shape {
    /// The message's fields, each known and none repeated that may not be: protobuf would merge the two, and a check that saw
    /// only one of them would have checked another message than ONNX Runtime reads.
    fn read<'a>(&self, bytes: &'a [u8]) -> Result<Vec<Field<'a>>, ScanError> {
        let mut seen = 0_u64;
        let mut fields = Vec::new();
        for field in wire::fields(bytes) {
            let field = field.map_err(|source| ScanError::Damaged { message: self.name, source })?;
            if self.once.contains(&field.number) {
                // All numbers in the tables above are below 64.
                let bit = 1_u64 << (field.number & 63);
                if seen & bit != 0 {
                    return Err(self.invalid(format!("field {} appears twice", field.number)));
                }
                seen |= bit;
            } else if !self.many.contains(&field.number) {
                return Err(ScanError::UnknownField { message: self.name, number: field.number });
            }
            fields.push(field);
        }
        Ok(fields)
    }

    fn invalid(&self, reason: impl Into<String>) -> ScanError {
        ScanError::Invalid { message: self.name, reason: reason.into() }
    }

    fn bytes<'a>(&self, field: &Field<'a>) -> Result<&'a [u8], ScanError> {
        match field.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(self.invalid(format!("field {} is a number where bytes belong", field.number))),
        }
    }

    fn text<'a>(&self, field: &Field<'a>) -> Result<&'a str, ScanError> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| self.invalid(format!("field {} is not UTF-8", field.number)))
    }

    fn integer(&self, field: &Field<'_>) -> Result<i64, ScanError> {
        match field.value {
            // Negative numbers are written in two's complement.
            Value::Varint(value) => Ok(value as i64),
            _ => Err(self.invalid(format!("field {} is not an integer", field.number))),
        }
    }

    /// For fields of 32 bits: protobuf silently cuts a longer varint, so that 2^32 + 1 would be read as 1.
    fn small_integer(&self, field: &Field<'_>) -> Result<i32, ScanError> {
        i32::try_from(self.integer(field)?).map_err(|_| self.invalid(format!("field {} does not fit 32 bits", field.number)))
    }
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

fn operator(domain: &str, operator: &str) -> Result<(), ScanError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let named = !operator.is_empty() && operator.len() <= 64 && operator.bytes().all(plain);
    let known = DOMAINS.contains(&domain) && (domain != "com.microsoft" || CONTRIB_OPERATORS.contains(&operator));
    if named && known {
        return Ok(());
    }
    // Names from the file go into a message: no longer than a line, nothing that moves the cursor.
    let shown = |text: &str| text.chars().take(64).flat_map(char::escape_default).collect();
    Err(ScanError::Operator { operator: shown(operator), domain: shown(domain) })
}

/// An import without a node that uses it is harmless (optimizers leave many), so only the form is checked.
fn opset(bytes: &[u8]) -> Result<(), ScanError> {
    for field in OPSET.read(bytes)? {
        match field.number {
            1 => drop(OPSET.text(&field)?),
            _ => drop(OPSET.integer(&field)?),
        }
    }
    Ok(())
}

fn integers(field: &Field<'_>, out: &mut Vec<i64>) -> Result<(), ScanError> {
    let Value::Bytes(mut packed) = field.value else {
        out.push(TENSOR.integer(field)?);
        return Ok(());
    };
    while !packed.is_empty() {
        let (value, rest) = wire::take_varint(packed).map_err(|source| ScanError::Damaged { message: TENSOR.name, source })?;
        out.push(value as i64);
        packed = rest;
    }
    Ok(())
}

fn element_count(tensor: &Initializer<'_>) -> Result<u64, ScanError> {
    let count = tensor.dims.iter().try_fold(1_u64, |count, &dim| count.checked_mul(u64::try_from(dim).ok()?));
    // Sixteen bytes is the widest element there is (complex of two doubles).
    count
        .filter(|count| count.checked_mul(16).is_some_and(|bytes| i64::try_from(bytes).is_ok()))
        .ok_or_else(|| TENSOR.invalid(format!("tensor {:?} has the impossible shape {:?}", tensor.name, tensor.dims)))
}

fn entry(bytes: &[u8]) -> Result<(&str, &str), ScanError> {
    let (mut key, mut value) = ("", "");
    for field in ENTRY.read(bytes)? {
        match field.number {
            1 => key = ENTRY.text(&field)?,
            _ => value = ENTRY.text(&field)?,
        }
    }
    Ok((key, value))
}

fn external_range(tensor: &Initializer<'_>, count: u64, entries: &[(&str, &str)]) -> Result<ExternalRange, ScanError> {
    let refuse = |reason: String| ScanError::External { tensor: tensor.name.to_owned(), reason };
    let (mut file, mut offset, mut len) = (None, None, None);
    for &(key, value) in entries {
        let twice = match key {
            "location" => file.replace(value).is_some(),
            "offset" => offset.replace(decimal(value).ok_or_else(|| refuse(format!("offset {value:?}")))?).is_some(),
            "length" => len.replace(decimal(value).ok_or_else(|| refuse(format!("length {value:?}")))?).is_some(),
            // A SHA-1 by the writer; the fingerprint is ours.
            "checksum" => false,
            other => return Err(refuse(format!("unknown key {other:?}"))),
        };
        if twice {
            return Err(refuse(format!("{key} is given twice")));
        }
    }
    let file = file.filter(|f| is_plain_name(f)).ok_or_else(|| {
        refuse(format!("its location {:?} is not the plain name of a file beside the model", file.unwrap_or_default()))
    })?;
    let size = byte_size(tensor.data_type, count)
        .ok_or_else(|| refuse(format!("element type {} cannot be kept outside the file", tensor.data_type)))?;
    let len = len.unwrap_or(size);
    if len != size {
        return Err(refuse(format!("its shape needs {size} bytes, {len} are declared")));
    }
    Ok(ExternalRange { file: file.to_owned(), offset: offset.unwrap_or(0), len })
}

fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Whether `name` is one component that stays where it is put, on any system.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let harmless = |c: char| !c.is_control() && !matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    !name.is_empty() && name.len() <= 255 && name != "." && name != ".." && name.chars().all(harmless)
}

/// Bytes that `count` elements take; `None` for types without a fixed size.
fn byte_size(data_type: i32, count: u64) -> Option<u64> {
    match data_type {
        2 | 3 | 9 | 17..=20 => Some(count),
        4 | 5 | 10 | 16 => count.checked_mul(2),
        1 | 6 | 12 => count.checked_mul(4),
        7 | 11 | 13 => count.checked_mul(8),
        21 | 22 => Some(count.div_ceil(2)),
        _ => None,
    }
}

fn value_name(bytes: &[u8]) -> Result<&str, ScanError> {
    let fields = VALUE_INFO.read(bytes)?;
    fields.iter().find(|f| f.number == 1).map_or(Ok(""), |f| VALUE_INFO.text(f))
}

fn port(bytes: &[u8]) -> Result<Port, ScanError> {
    let mut port = Port { name: String::new(), element: ElementType::Other(0), shape: None };
    for field in VALUE_INFO.read(bytes)? {
        match field.number {
            1 => VALUE_INFO.text(&field)?.clone_into(&mut port.name),
            2 => port_type(VALUE_INFO.bytes(&field)?, &mut port)?,
            _ => {}
        }
    }
    Ok(port)
}

fn port_type(bytes: &[u8], port: &mut Port) -> Result<(), ScanError> {
    // Sequences, maps and optionals stay "other"; nothing here binds to them.
    for field in TYPE.read(bytes)?.iter().filter(|f| f.number == 1) {
        for field in TENSOR_TYPE.read(TYPE.bytes(field)?)? {
            match field.number {
                1 => port.element = ElementType::from_onnx(TENSOR_TYPE.small_integer(&field)?),
                _ => port.shape = Some(shape(TENSOR_TYPE.bytes(&field)?)?),
            }
        }
    }
    Ok(())
}

fn shape(bytes: &[u8]) -> Result<Vec<Dim>, ScanError> {
    TENSOR_SHAPE.read(bytes)?.iter().map(|field| dimension(TENSOR_SHAPE.bytes(field)?)).collect()
}

fn dimension(bytes: &[u8]) -> Result<Dim, ScanError> {
    let mut dim = Dim::Dynamic(String::new());
    for field in DIMENSION.read(bytes)? {
        match field.number {
            // Exporters write 0 and -1 for "unknown".
            1 => {
                let size = DIMENSION.integer(&field)?;
                if let Some(size) = u64::try_from(size).ok().filter(|&s| s > 0) {
                    dim = Dim::Fixed(size);
                }
            }
            2 => dim = Dim::Dynamic(DIMENSION.text(&field)?.to_owned()),
            _ => {}
        }
    }
    Ok(dim)
}
