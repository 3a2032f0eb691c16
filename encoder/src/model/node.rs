//! What graph surgery reads of a node beyond its names, and the fields it writes; of bytes that passed the scan.

use super::wire::{self, Value};

/// Fields of ONNX's `NodeProto`.
pub(super) const INPUT: u32 = 1;
pub(super) const OUTPUT: u32 = 2;
pub(super) const NAME: u32 = 3;
pub(super) const OPERATOR: u32 = 4;
const ATTRIBUTE: u32 = 5;

pub(super) fn node_field(body: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(body.len() + 6);
    wire::put_bytes(&mut raw, 1, body);
    raw
}

/// The message in a field that was copied whole.
pub(super) fn node_body(raw: &[u8]) -> &[u8] {
    match wire::fields(raw).next() {
        Some(Ok(field)) => bytes(field.value).unwrap_or_default(),
        _ => &[],
    }
}

fn bytes(value: Value<'_>) -> Option<&[u8]> {
    if let Value::Bytes(bytes) = value { Some(bytes) } else { None }
}

pub(super) fn text(value: Value<'_>) -> Option<&str> {
    std::str::from_utf8(bytes(value)?).ok()
}

/// Name of a declared input, from its field.
pub(super) fn declared_name(raw: &[u8]) -> Option<&str> {
    wire::fields(node_body(raw)).map_while(Result::ok).find(|field| field.number == 1).and_then(|field| text(field.value))
}

/// What is read of an attribute (ONNX's `AttributeProto`).
#[derive(Default)]
pub(super) struct Attribute<'a> {
    pub(super) integer: Option<i64>,
    pub(super) integers: Vec<i64>,
    tensor: Option<&'a [u8]>,
    /// A list of numbers, of one dimension; a single number has none.
    is_list: bool,
}

fn attributes(raw: &[u8]) -> impl Iterator<Item = (&str, Attribute<'_>)> {
    let all = wire::fields(node_body(raw)).map_while(Result::ok).filter(|field| field.number == ATTRIBUTE);
    all.filter_map(|field| read_attribute(bytes(field.value)?))
}

fn read_attribute(body: &[u8]) -> Option<(&str, Attribute<'_>)> {
    let (mut name, mut read) = (None, Attribute::default());
    for field in wire::fields(body).map_while(Result::ok) {
        match (field.number, field.value) {
            (1, value) => name = text(value),
            (3, Value::Varint(value)) => read.integer = Some(value as i64),
            (5, value) => read.tensor = bytes(value),
            (7, _) => read.is_list = true,
            (8, value) => {
                read.is_list = true;
                read.integers.extend(integers(value));
            }
            _ => {}
        }
    }
    name.map(|name| (name, read))
}

pub(super) fn attribute<'a>(raw: &'a [u8], name: &str) -> Option<Attribute<'a>> {
    attributes(raw).find(|(found, _)| *found == name).map(|(_, attribute)| attribute)
}

/// One number, or several packed.
fn integers(value: Value<'_>) -> Vec<i64> {
    let mut out = Vec::new();
    match value {
        Value::Varint(one) => out.push(one as i64),
        Value::Bytes(mut packed) => {
            while let Some((one, rest)) = (!packed.is_empty()).then(|| wire::take_varint(packed).ok()).flatten() {
                out.push(one as i64);
                packed = rest;
            }
        }
        _ => {}
    }
    out
}

/// Dimensions of what a `Constant` node holds.
pub(super) fn constant_dimensions(raw: &[u8]) -> Option<usize> {
    let (name, attribute) = attributes(raw).find(|(name, _)| name.starts_with("value"))?;
    match name {
        "value" => {
            let dims = wire::fields(attribute.tensor?).map_while(Result::ok).filter(|field| field.number == 1);
            Some(dims.flat_map(|field| integers(field.value)).count())
        }
        "value_int" | "value_float" | "value_string" => Some(0),
        _ => attribute.is_list.then_some(1),
    }
}
