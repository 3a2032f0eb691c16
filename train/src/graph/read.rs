//! Protobuf to [`Model`]. The encoder's scan has walked the bytes before: unknown fields, repeated fields, foreign operators and
//! limits are its business; what is left here is meaning.

use std::collections::{HashMap, HashSet};

use anchorite_encoder::model::scan::{Dim, ExternalRange};
use anchorite_encoder::model::wire::{self, Field, Value};
use anchorite_encoder::model::{ModelLimits, ScanError, WireError, scan};

use super::order::{self, CycleError};
use super::{Attribute, Element, Graph, Model, Node, Port, Tensor, TensorType};

/// The bytes of files that hold initializers' data beside the model, by file name.
pub type ExternalFiles = HashMap<String, Vec<u8>>;

/// Why bytes are no model that can be worked on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Damaged, or refused by the encoder's rules.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// Not protobuf inside a field that the scan passes over.
    #[error("damaged: {0}")]
    Wire(#[from] WireError),
    /// A field that does not mean anything.
    #[error("damaged at {place}: {reason}")]
    Invalid {
        /// Which part.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// Something ONNX has and this crate does not.
    #[error("{place}: {what} cannot be trained; {remedy}")]
    Unsupported {
        /// Which part.
        place: String,
        /// What it is.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// An initializer's data is in a file that was not given, or that ends too early.
    #[error("initializer {initializer:?}: {file:?} does not have its {len} bytes at offset {offset}")]
    External {
        /// Its name.
        initializer: String,
        /// The file's name.
        file: String,
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u64,
    },
    /// Nodes that need their own results.
    #[error(transparent)]
    Cycle(#[from] CycleError),
}

fn invalid(place: &str, reason: impl Into<String>) -> ReadError {
    ReadError::Invalid { place: place.to_owned(), reason: reason.into() }
}

impl Model {
    /// Reads a model.
    ///
    /// # Errors
    /// [`ReadError`]: damaged, refused by the encoder's scan, or with parts that cannot be trained.
    pub fn read(bytes: &[u8], external: &ExternalFiles, limits: &ModelLimits) -> Result<Self, ReadError> {
        let scanned = scan(bytes, limits)?;
        let reader = Reader { ranges: scanned.external_ranges(), external };
        let (model, graph) = shell(bytes)?;
        Ok(Self { graph: reader.graph(graph)?, ..model })
    }
}

/// Everything around the graph, and the graph's bytes.
pub(super) fn shell(bytes: &[u8]) -> Result<(Model, &[u8]), ReadError> {
    let (mut model, mut graph) = (Model::default(), &bytes[..0]);
    for field in wire::fields(bytes) {
        let field = field?;
        match field.number {
            1 => model.ir_version = integer(&field, "model")?,
            2 => model.producer = text(&field, "model")?,
            3 => model.producer_version = text(&field, "model")?,
            7 => graph = message(&field, "model")?,
            8 => {
                let (domain, version) = opset(message(&field, "model")?)?;
                model.opsets.insert(domain, version);
            }
            14 => model.metadata.push(entry(message(&field, "model")?)?),
            _ => {}
        }
    }
    Ok((model, graph))
}

pub(super) struct Reader<'a> {
    pub(super) ranges: HashMap<&'a str, &'a ExternalRange>,
    pub(super) external: &'a ExternalFiles,
}

impl Reader<'_> {
    pub(super) fn graph(&self, bytes: &[u8]) -> Result<Graph, ReadError> {
        let (mut graph, nodes) = self.around(bytes)?;
        graph.nodes = nodes.into_iter().map(node).collect::<Result<_, _>>()?;
        written_once(&graph)?;
        graph.nodes = order::sort(std::mem::take(&mut graph.nodes))?;
        Ok(graph)
    }

    /// The graph without its nodes, and their bytes.
    pub(super) fn around<'b>(&self, bytes: &'b [u8]) -> Result<(Graph, Vec<&'b [u8]>), ReadError> {
        let (mut graph, mut nodes) = (Graph::default(), Vec::new());
        for field in wire::fields(bytes) {
            let field = field?;
            match field.number {
                1 => nodes.push(message(&field, "graph")?),
                2 => graph.name = text(&field, "graph")?,
                5 => graph.initializers.push(self.initializer(message(&field, "graph")?)?),
                11 => graph.inputs.push(port(message(&field, "graph")?)?),
                12 => graph.outputs.push(port(message(&field, "graph")?)?),
                15 => {
                    let remedy = "store its weights densely";
                    return Err(ReadError::Unsupported { place: "graph".into(), what: "a sparse initializer".into(), remedy });
                }
                _ => {}
            }
        }
        // Before IR version 4 every initializer had to be declared as an input too.
        let stored: HashSet<&str> = graph.initializers.iter().map(|(name, _)| name.as_str()).collect();
        graph.inputs.retain(|port| !stored.contains(port.name.as_str()));
        Ok((graph, nodes))
    }

    fn initializer(&self, bytes: &[u8]) -> Result<(String, Tensor), ReadError> {
        let raw = raw_tensor(bytes)?;
        let name = raw.name.clone();
        let Some(range) = self.ranges.get(name.as_str()) else { return Ok((name, raw.tensor()?)) };
        let slice = || {
            let start = usize::try_from(range.offset).ok()?;
            let end = start.checked_add(usize::try_from(range.len).ok()?)?;
            self.external.get(&range.file)?.get(start..end)
        };
        let missing =
            || ReadError::External { initializer: name.clone(), file: range.file.clone(), offset: range.offset, len: range.len };
        let data = slice().ok_or_else(missing)?;
        let tensor = Tensor::from_bytes(raw.kind()?, data.to_vec()).ok_or_else(missing)?;
        Ok((name, tensor))
    }
}

/// A value that two nodes write would be one thing to a reader that keeps the first and another to one that keeps the last.
fn written_once(graph: &Graph) -> Result<(), ReadError> {
    let mut seen: HashSet<&str> = graph.initializers.iter().map(|(name, _)| name.as_str()).collect();
    let inputs = graph.inputs.iter().map(|port| port.name.as_str());
    let outputs = graph.nodes.iter().flat_map(|node| &node.outputs).map(String::as_str);
    match inputs.chain(outputs).filter(|name| !name.is_empty()).find(|&name| !seen.insert(name)) {
        Some(name) => Err(invalid("graph", format!("value {name:?} is defined twice"))),
        None => Ok(()),
    }
}

pub(super) fn message<'a>(field: &Field<'a>, place: &str) -> Result<&'a [u8], ReadError> {
    match field.value {
        Value::Bytes(bytes) => Ok(bytes),
        _ => Err(invalid(place, format!("field {} is a number where bytes belong", field.number))),
    }
}

pub(super) fn text(field: &Field<'_>, place: &str) -> Result<String, ReadError> {
    let bytes = message(field, place)?;
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| invalid(place, format!("field {} is not UTF-8", field.number)))
}

fn integer(field: &Field<'_>, place: &str) -> Result<i64, ReadError> {
    match field.value {
        // Negative numbers are written in two's complement.
        Value::Varint(value) => Ok(value as i64),
        _ => Err(invalid(place, format!("field {} is not an integer", field.number))),
    }
}

/// A repeated integer field: one value, or many packed into bytes.
fn integers(field: &Field<'_>, out: &mut Vec<i64>) -> Result<(), ReadError> {
    let Value::Bytes(mut packed) = field.value else {
        out.push(integer(field, "a list")?);
        return Ok(());
    };
    while !packed.is_empty() {
        let (value, rest) = wire::take_varint(packed)?;
        out.push(value as i64);
        packed = rest;
    }
    Ok(())
}

/// A repeated field of fixed width, as its bytes.
fn fixed(field: &Field<'_>, width: usize, out: &mut Vec<u8>) -> Result<(), ReadError> {
    match field.value {
        Value::Fixed32(bytes) if width == 4 => out.extend_from_slice(&bytes),
        Value::Fixed64(bytes) if width == 8 => out.extend_from_slice(&bytes),
        Value::Bytes(packed) if packed.len().is_multiple_of(width) => out.extend_from_slice(packed),
        _ => return Err(invalid("a list", format!("field {} is not a list of floats", field.number))),
    }
    Ok(())
}

fn opset(bytes: &[u8]) -> Result<(String, i64), ReadError> {
    let (mut domain, mut version) = (String::new(), 0);
    for field in wire::fields(bytes) {
        let field = field?;
        match field.number {
            1 => domain = text(&field, "operator set")?,
            2 => version = integer(&field, "operator set")?,
            _ => {}
        }
    }
    Ok((standard(domain), version))
}

/// The standard's two names for itself are one here.
fn standard(domain: String) -> String {
    if domain == "ai.onnx" { String::new() } else { domain }
}

fn entry(bytes: &[u8]) -> Result<(String, String), ReadError> {
    let (mut key, mut value) = (String::new(), String::new());
    for field in wire::fields(bytes) {
        let field = field?;
        match field.number {
            1 => key = text(&field, "metadata")?,
            2 => value = text(&field, "metadata")?,
            _ => {}
        }
    }
    Ok((key, value))
}

fn node(bytes: &[u8]) -> Result<Node, ReadError> {
    let mut node = Node::default();
    let mut attributes = Vec::new();
    for field in wire::fields(bytes) {
        let field = field?;
        match field.number {
            1 => node.inputs.push(text(&field, "node")?),
            2 => node.outputs.push(text(&field, "node")?),
            3 => node.name = text(&field, "node")?,
            4 => node.operator = text(&field, "node")?,
            5 => attributes.push(message(&field, "node")?),
            7 => node.domain = standard(text(&field, "node")?),
            _ => {}
        }
    }
    let place = format!("node {:?} ({})", node.name, node.operator);
    for bytes in attributes {
        let (name, value) = attribute(bytes, &place)?;
        if node.attributes.insert(name.clone(), value).is_some() {
            return Err(invalid(&place, format!("attribute {name:?} appears twice")));
        }
    }
    Ok(node)
}

fn attribute(bytes: &[u8], place: &str) -> Result<(String, Attribute), ReadError> {
    let mut name = String::new();
    let (mut kind, mut float, mut int, mut single, mut tensor) = (0, 0.0_f32, 0, Vec::new(), None);
    let (mut floats, mut ints, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for field in wire::fields(bytes) {
        let field = field?;
        match field.number {
            1 => name = text(&field, place)?,
            2 => match field.value {
                Value::Fixed32(bytes) => float = f32::from_le_bytes(bytes),
                _ => return Err(invalid(place, "a float attribute is no float")),
            },
            3 => int = integer(&field, place)?,
            4 => single = message(&field, place)?.to_vec(),
            5 => tensor = Some(raw_tensor(message(&field, place)?)?.tensor()?),
            7 => fixed(&field, 4, &mut floats)?,
            8 => integers(&field, &mut ints)?,
            9 => texts.push(message(&field, place)?.to_vec()),
            20 => kind = integer(&field, place)?,
            _ => {}
        }
    }
    let value = match kind {
        1 => Attribute::Float(float),
        2 => Attribute::Int(int),
        3 => Attribute::Text(single),
        4 => Attribute::Tensor(tensor.ok_or_else(|| invalid(place, format!("attribute {name:?} has no tensor")))?),
        6 => Attribute::Floats(floats.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        7 => Attribute::Ints(ints),
        8 => Attribute::Texts(texts),
        other => {
            let what = format!("attribute {name:?} of kind {other} (a subgraph, a type or a sparse tensor)");
            let remedy = "export the model without control flow";
            return Err(ReadError::Unsupported { place: place.to_owned(), what, remedy });
        }
    };
    Ok((name, value))
}

fn port(bytes: &[u8]) -> Result<Port, ReadError> {
    let (mut name, mut kind) = (String::new(), None);
    for field in wire::fields(bytes) {
        let field = field?;
        match field.number {
            1 => name = text(&field, "input or output")?,
            2 => kind = port_type(message(&field, "input or output")?)?,
            _ => {}
        }
    }
    match kind {
        Some((element, shape)) => Ok(Port { name, element, shape }),
        None => Err(ReadError::Unsupported {
            place: format!("input or output {name:?}"),
            what: "something that is no tensor of numbers".to_owned(),
            remedy: "export the model with tensors only",
        }),
    }
}

type PortType = (Element, Option<Vec<Dim>>);

fn port_type(bytes: &[u8]) -> Result<Option<PortType>, ReadError> {
    let (mut element, mut shape) = (None, None);
    for field in wire::fields(bytes) {
        let field = field?;
        if field.number != 1 {
            continue;
        }
        for field in wire::fields(message(&field, "type")?) {
            let field = field?;
            match field.number {
                1 => element = Element::from_onnx(integer(&field, "type")?),
                2 => shape = Some(dims(message(&field, "shape")?)?),
                _ => {}
            }
        }
    }
    Ok(element.map(|element| (element, shape)))
}

fn dims(bytes: &[u8]) -> Result<Vec<Dim>, ReadError> {
    let mut dims = Vec::new();
    for field in wire::fields(bytes) {
        let mut dim = Dim::Dynamic(String::new());
        for field in wire::fields(message(&field?, "shape")?) {
            let field = field?;
            match field.number {
                // Exporters write 0 and -1 for "unknown".
                1 => match u64::try_from(integer(&field, "shape")?) {
                    Ok(size) if size > 0 => dim = Dim::Fixed(size),
                    _ => {}
                },
                2 => dim = Dim::Dynamic(text(&field, "shape")?),
                _ => {}
            }
        }
        dims.push(dim);
    }
    Ok(dims)
}

/// A tensor's fields before its element type says which of them counts.
#[derive(Default)]
struct RawTensor<'a> {
    name: String,
    data_type: i64,
    dims: Vec<i64>,
    raw: Option<&'a [u8]>,
    floats: Vec<u8>,
    doubles: Vec<u8>,
    ints: Vec<i64>,
}

fn raw_tensor(bytes: &[u8]) -> Result<RawTensor<'_>, ReadError> {
    let mut tensor = RawTensor::default();
    for field in wire::fields(bytes) {
        let field = field?;
        match field.number {
            1 => integers(&field, &mut tensor.dims)?,
            2 => tensor.data_type = integer(&field, "tensor")?,
            4 => fixed(&field, 4, &mut tensor.floats)?,
            5 | 7 | 11 => integers(&field, &mut tensor.ints)?,
            8 => tensor.name = text(&field, "tensor")?,
            9 => tensor.raw = Some(message(&field, "tensor")?),
            10 => fixed(&field, 8, &mut tensor.doubles)?,
            _ => {}
        }
    }
    Ok(tensor)
}

impl RawTensor<'_> {
    fn kind(&self) -> Result<TensorType, ReadError> {
        let place = || format!("tensor {:?}", self.name);
        let element = Element::from_onnx(self.data_type).ok_or_else(|| ReadError::Unsupported {
            place: place(),
            what: format!("ONNX element type {}", self.data_type),
            remedy: "export the model with plain numbers",
        })?;
        let shape = self.dims.iter().map(|&d| usize::try_from(d).map_err(|_| invalid(&place(), format!("axis of size {d}"))));
        Ok(TensorType { element, shape: shape.collect::<Result<_, _>>()? })
    }

    fn tensor(self) -> Result<Tensor, ReadError> {
        let kind = self.kind()?;
        let width = kind.element.width_bytes();
        let bytes = match (self.raw, kind.element) {
            (Some(raw), _) => raw.to_vec(),
            (None, Element::F32) => self.floats,
            (None, Element::F64) => self.doubles,
            // Narrow types, 16-bit floats among them, are kept one to an integer.
            (None, _) => self.ints.iter().flat_map(|v| v.to_le_bytes().into_iter().take(width)).collect(),
        };
        let found = bytes.len();
        Tensor::from_bytes(kind, bytes).ok_or_else(|| {
            invalid(&format!("tensor {:?}", self.name), format!("{found} bytes do not fit its shape {:?}", self.dims))
        })
    }
}
