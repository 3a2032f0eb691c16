//! Element types and tensors that are held by value: little-endian bytes, as ONNX's `raw_data` has them.

use std::fmt;
use std::sync::Arc;

/// Element types of a fixed width, which are all that a graph may hold here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Element {
    /// 32-bit float.
    F32,
    /// Unsigned byte.
    U8,
    /// Signed byte.
    I8,
    /// Unsigned, 16 bits.
    U16,
    /// Signed, 16 bits.
    I16,
    /// Signed, 32 bits.
    I32,
    /// Signed, 64 bits.
    I64,
    /// One byte, 0 or 1.
    Bool,
    /// 16-bit float.
    F16,
    /// 64-bit float.
    F64,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 64 bits.
    U64,
    /// 16-bit float with the exponent of 32 bits.
    Bf16,
}

impl Element {
    const ALL: [(Self, i64, usize, &'static str); 13] = [
        (Self::F32, 1, 4, "float32"),
        (Self::U8, 2, 1, "uint8"),
        (Self::I8, 3, 1, "int8"),
        (Self::U16, 4, 2, "uint16"),
        (Self::I16, 5, 2, "int16"),
        (Self::I32, 6, 4, "int32"),
        (Self::I64, 7, 8, "int64"),
        (Self::Bool, 9, 1, "bool"),
        (Self::F16, 10, 2, "float16"),
        (Self::F64, 11, 8, "float64"),
        (Self::U32, 12, 4, "uint32"),
        (Self::U64, 13, 8, "uint64"),
        (Self::Bf16, 16, 2, "bfloat16"),
    ];

    fn row(self) -> &'static (Self, i64, usize, &'static str) {
        Self::ALL.iter().find(|row| row.0 == self).expect("every element type is in the table")
    }

    /// From the number in ONNX's `TensorProto.DataType`.
    #[must_use]
    pub fn from_onnx(number: i64) -> Option<Self> {
        Self::ALL.iter().find(|row| row.1 == number).map(|row| row.0)
    }

    /// The number in ONNX's `TensorProto.DataType`.
    #[must_use]
    pub fn onnx(self) -> i64 {
        self.row().1
    }

    /// Bytes of one element.
    #[must_use]
    pub fn width_bytes(self) -> usize {
        self.row().2
    }

    /// Whether gradients can flow through values of this type: 32 and 64-bit floats.
    #[must_use]
    pub fn is_differentiable(self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }

    /// Whether this is any float.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::F16 | Self::Bf16)
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().3)
    }
}

/// Element type and shape of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorType {
    /// Element type.
    pub element: Element,
    /// Sizes of the axes; empty for a scalar.
    pub shape: Vec<usize>,
}

impl TensorType {
    /// From its parts.
    #[must_use]
    pub fn new(element: Element, shape: impl Into<Vec<usize>>) -> Self {
        Self { element, shape: shape.into() }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.element, self.shape)
    }
}

/// How many elements a shape has; `None` when they cannot be counted or their bytes not addressed.
#[must_use]
pub fn element_count(shape: &[usize]) -> Option<usize> {
    let count = shape.iter().try_fold(1_usize, |count, &size| count.checked_mul(size))?;
    count.checked_mul(8).map(|_| count)
}

/// A tensor by value. Its bytes always fit its type. A clone shares them: weights are in several programs at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    kind: TensorType,
    bytes: Arc<Vec<u8>>,
}

impl Tensor {
    /// From little-endian bytes; `None` when their number is not the shape's.
    #[must_use]
    pub fn from_bytes(kind: TensorType, bytes: Vec<u8>) -> Option<Self> {
        let expected = element_count(&kind.shape)?.checked_mul(kind.element.width_bytes())?;
        (bytes.len() == expected).then(|| Self { kind, bytes: Arc::new(bytes) })
    }

    /// Integers (or booleans) of the given element type, each cut to its width; `None` when the number of values is not the
    /// shape's or the element type is a float.
    #[must_use]
    pub fn from_integers(kind: TensorType, values: &[i64]) -> Option<Self> {
        let width = kind.element.width_bytes();
        if kind.element.is_float() {
            return None;
        }
        let bytes = values.iter().flat_map(|v| v.to_le_bytes().into_iter().take(width)).collect();
        Self::from_bytes(kind, bytes)
    }

    /// Floats, rounded to the given element type, which must be float32 or float64; `None` as in [`Tensor::from_integers`].
    #[must_use]
    pub fn from_floats(kind: TensorType, values: &[f64]) -> Option<Self> {
        let bytes = match kind.element {
            Element::F32 => values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect(),
            Element::F64 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            _ => return None,
        };
        Self::from_bytes(kind, bytes)
    }

    /// Float32 values as they are; `None` when their number is not the shape's.
    #[must_use]
    pub fn from_f32(shape: impl Into<Vec<usize>>, values: &[f32]) -> Option<Self> {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::from_bytes(TensorType::new(Element::F32, shape), bytes)
    }

    /// The values of a float32 tensor; `None` for other element types.
    #[must_use]
    pub fn f32s(&self) -> Option<Vec<f32>> {
        let words = || self.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        (self.kind.element == Element::F32).then(words)
    }

    /// A list of 64-bit integers.
    #[must_use]
    pub fn list(values: &[i64]) -> Self {
        Self::from_integers(TensorType::new(Element::I64, [values.len()]), values).expect("a list has its own length")
    }

    /// Element type and shape.
    #[must_use]
    pub fn kind(&self) -> &TensorType {
        &self.kind
    }

    /// Sizes of the axes.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.kind.shape
    }

    /// Element type.
    #[must_use]
    pub fn element(&self) -> Element {
        self.kind.element
    }

    /// Little-endian bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() / self.kind.element.width_bytes()
    }

    /// Whether it has no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The values of a tensor of signed integers, booleans or bytes; `None` for other element types.
    #[must_use]
    pub fn integers(&self) -> Option<Vec<i64>> {
        let read: fn(&[u8]) -> i64 = match self.kind.element {
            Element::I64 => |b| i64::from_le_bytes(array(b)),
            Element::I32 => |b| i64::from(i32::from_le_bytes(array(b))),
            Element::I16 => |b| i64::from(i16::from_le_bytes(array(b))),
            Element::I8 => |b| i64::from(i8::from_le_bytes(array(b))),
            Element::U8 | Element::Bool => |b| i64::from(u8::from_le_bytes(array(b))),
            _ => return None,
        };
        Some(self.bytes.chunks_exact(self.kind.element.width_bytes()).map(read).collect())
    }

    /// The values of a float32 or float64 tensor; `None` for other element types.
    #[must_use]
    pub fn floats(&self) -> Option<Vec<f64>> {
        let read: fn(&[u8]) -> f64 = match self.kind.element {
            Element::F32 => |b| f64::from(f32::from_le_bytes(array(b))),
            Element::F64 => |b| f64::from_le_bytes(array(b)),
            _ => return None,
        };
        Some(self.bytes.chunks_exact(self.kind.element.width_bytes()).map(read).collect())
    }

    /// The same elements in another shape; `None` when it has another number of elements.
    #[must_use]
    pub fn reshaped(&self, shape: &[usize]) -> Option<Self> {
        let kind = TensorType::new(self.kind.element, shape);
        (element_count(shape)? == self.len()).then(|| Self { kind, bytes: Arc::clone(&self.bytes) })
    }

    /// A tensor of `shape` whose elements are those at `positions` (in row-major order) of this one; `None` when a position
    /// does not exist or the number is not the shape's.
    pub(crate) fn picked(&self, shape: &[usize], positions: impl IntoIterator<Item = usize>) -> Option<Self> {
        let width = self.kind.element.width_bytes();
        let mut bytes = Vec::with_capacity(element_count(shape)?.checked_mul(width)?);
        for position in positions {
            let start = position.checked_mul(width)?;
            bytes.extend_from_slice(self.bytes.get(start..start.checked_add(width)?)?);
        }
        Self::from_bytes(TensorType::new(self.kind.element, shape), bytes)
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("chunks have the element's width")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_were_given() {
        for element in [Element::I64, Element::I32, Element::I16, Element::I8] {
            let tensor = Tensor::from_integers(TensorType::new(element, [3]), &[-1, 0, 7]).unwrap();
            assert_eq!(tensor.integers(), Some(vec![-1, 0, 7]));
        }
        let tensor = Tensor::from_floats(TensorType::new(Element::F32, [2]), &[0.5, -3.0]).unwrap();
        assert_eq!(tensor.floats(), Some(vec![0.5, -3.0]));
    }

    #[test]
    fn bytes_that_do_not_fit_the_shape_are_no_tensor() {
        assert_eq!(Tensor::from_bytes(TensorType::new(Element::F32, [2]), vec![0; 7]), None);
        assert_eq!(Tensor::from_bytes(TensorType::new(Element::F32, [usize::MAX, 2]), Vec::new()), None);
    }
}
