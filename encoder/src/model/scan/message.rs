//! The messages of ONNX that are known, field by field: those that may appear once, and those that may repeat.

use super::{Field, ScanError, Value, wire};

/// One message's fields by number: those that may appear once, and those that may repeat. Everything else is unknown.
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) once: &'static [u32],
    pub(super) many: &'static [u32],
}

pub(super) const MODEL: Shape = Shape { name: "ModelProto", once: &[1, 2, 3, 4, 5, 6, 7], many: &[8, 14, 20, 25, 26] };
pub(super) const GRAPH: Shape = Shape { name: "GraphProto", once: &[2, 10], many: &[1, 5, 11, 12, 13, 14, 15, 16] };
pub(super) const NODE: Shape = Shape { name: "NodeProto", once: &[3, 4, 6, 7, 8], many: &[1, 2, 5, 9, 10] };
pub(super) const ATTRIBUTE: Shape =
    Shape { name: "AttributeProto", once: &[1, 2, 3, 4, 5, 6, 13, 14, 20, 21, 22], many: &[7, 8, 9, 10, 11, 15, 23] };
pub(super) const TENSOR: Shape =
    Shape { name: "TensorProto", once: &[2, 3, 8, 9, 12, 14], many: &[1, 4, 5, 6, 7, 10, 11, 13, 16] };
pub(super) const SPARSE: Shape = Shape { name: "SparseTensorProto", once: &[1, 2], many: &[3] };
pub(super) const OPSET: Shape = Shape { name: "OperatorSetIdProto", once: &[1, 2], many: &[] };
pub(super) const ENTRY: Shape = Shape { name: "StringStringEntryProto", once: &[1, 2], many: &[] };
pub(super) const VALUE_INFO: Shape = Shape { name: "ValueInfoProto", once: &[1, 2, 3], many: &[4] };
pub(super) const TYPE: Shape = Shape { name: "TypeProto", once: &[1, 4, 5, 6, 7, 8, 9], many: &[] };
pub(super) const TENSOR_TYPE: Shape = Shape { name: "TypeProto.Tensor", once: &[1, 2], many: &[] };
pub(super) const TENSOR_SHAPE: Shape = Shape { name: "TensorShapeProto", once: &[], many: &[1] };
pub(super) const DIMENSION: Shape = Shape { name: "TensorShapeProto.Dimension", once: &[1, 2, 3], many: &[] };

impl Shape {
    /// The message's fields, each known and none repeated that may not be: protobuf would merge the two, and a check that saw
    /// only one of them would have checked another message than ONNX Runtime reads.
    pub(super) fn read<'a>(&self, bytes: &'a [u8]) -> Result<Vec<Field<'a>>, ScanError> {
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

    pub(super) fn invalid(&self, reason: impl Into<String>) -> ScanError {
        ScanError::Invalid { message: self.name, reason: reason.into() }
    }

    pub(super) fn bytes<'a>(&self, field: &Field<'a>) -> Result<&'a [u8], ScanError> {
        match field.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(self.invalid(format!("field {} is a number where bytes belong", field.number))),
        }
    }

    pub(super) fn text<'a>(&self, field: &Field<'a>) -> Result<&'a str, ScanError> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| self.invalid(format!("field {} is not UTF-8", field.number)))
    }

    pub(super) fn integer(&self, field: &Field<'_>) -> Result<i64, ScanError> {
        match field.value {
            // Negative numbers are written in two's complement.
            Value::Varint(value) => Ok(value as i64),
            _ => Err(self.invalid(format!("field {} is not an integer", field.number))),
        }
    }

    /// For fields of 32 bits: protobuf silently cuts a longer varint, so that 2^32 + 1 would be read as 1.
    pub(super) fn small_integer(&self, field: &Field<'_>) -> Result<i32, ScanError> {
        i32::try_from(self.integer(field)?).map_err(|_| self.invalid(format!("field {} does not fit 32 bits", field.number)))
    }
}
