//! Tensors: how many elements and bytes they have, and where those lie that are kept beside the model.

use super::{
    Field, ScanError, Value,
    message::{ENTRY, TENSOR},
    wire,
};

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

pub(super) fn integers(field: &Field<'_>, out: &mut Vec<i64>) -> Result<(), ScanError> {
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

pub(super) fn element_count(tensor: &Initializer<'_>) -> Result<u64, ScanError> {
    let count = tensor.dims.iter().try_fold(1_u64, |count, &dim| count.checked_mul(u64::try_from(dim).ok()?));
    // Sixteen bytes is the widest element there is (complex of two doubles).
    count
        .filter(|count| count.checked_mul(16).is_some_and(|bytes| i64::try_from(bytes).is_ok()))
        .ok_or_else(|| TENSOR.invalid(format!("tensor {:?} has the impossible shape {:?}", tensor.name, tensor.dims)))
}

pub(super) fn entry(bytes: &[u8]) -> Result<(&str, &str), ScanError> {
    let (mut key, mut value) = ("", "");
    for field in ENTRY.read(bytes)? {
        match field.number {
            1 => key = ENTRY.text(&field)?,
            _ => value = ENTRY.text(&field)?,
        }
    }
    Ok((key, value))
}

pub(super) fn external_range(tensor: &Initializer<'_>, count: u64, entries: &[(&str, &str)]) -> Result<ExternalRange, ScanError> {
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

pub(super) fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Whether `name` is one component that stays where it is put, on any system.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let harmless = |c: char| !c.is_control() && !matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    !name.is_empty() && name.len() <= 255 && name != "." && name != ".." && name.chars().all(harmless)
}

/// Bytes that `count` elements take; `None` for types without a fixed size.
pub(super) fn byte_size(data_type: i32, count: u64) -> Option<u64> {
    match data_type {
        2 | 3 | 9 | 17..=20 => Some(count),
        4 | 5 | 10 | 16 => count.checked_mul(2),
        1 | 6 | 12 => count.checked_mul(4),
        7 | 11 | 13 => count.checked_mul(8),
        21 | 22 => Some(count.div_ceil(2)),
        _ => None,
    }
}
