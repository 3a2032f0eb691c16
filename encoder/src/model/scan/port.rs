//! What a graph declares of its inputs and outputs: names, element types, shapes.

use super::{
    ScanError,
    message::{DIMENSION, TENSOR_SHAPE, TENSOR_TYPE, TYPE, VALUE_INFO},
};

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
    pub(super) fn from_onnx(number: i32) -> Self {
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

pub(super) fn value_name(bytes: &[u8]) -> Result<&str, ScanError> {
    let fields = VALUE_INFO.read(bytes)?;
    fields.iter().find(|f| f.number == 1).map_or(Ok(""), |f| VALUE_INFO.text(f))
}

pub(super) fn port(bytes: &[u8]) -> Result<Port, ScanError> {
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

pub(super) fn port_type(bytes: &[u8], port: &mut Port) -> Result<(), ScanError> {
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

pub(super) fn shape(bytes: &[u8]) -> Result<Vec<Dim>, ScanError> {
    TENSOR_SHAPE.read(bytes)?.iter().map(|field| dimension(TENSOR_SHAPE.bytes(field)?)).collect()
}

pub(super) fn dimension(bytes: &[u8]) -> Result<Dim, ScanError> {
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
