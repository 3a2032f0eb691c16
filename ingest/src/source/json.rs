//! A JSON object to caption and metadata: the same rule for a tar's `.json` members, sidecars and JSON lines.

use std::collections::BTreeMap;

use anchorite_index::Value;
use serde_json::{Map, Value as Json};

use super::columns::{CAPTION_NAMES, ColumnChoice};
use crate::{Limits, Row};

/// A JSON object.
pub(crate) type Object = Map<String, Json>;

/// The object that `bytes` are; in words why not.
pub(crate) fn object(bytes: &[u8]) -> Result<Object, String> {
    serde_json::from_slice(bytes).map_err(|e| e.to_string())
}

/// The name of the field with the caption: the one chosen, or the first usual one that is there.
pub(crate) fn caption_name(object: &Object, choice: &ColumnChoice) -> Option<String> {
    match choice {
        ColumnChoice::Absent => None,
        ColumnChoice::Named(name) => object.contains_key(name).then(|| name.clone()),
        ColumnChoice::Auto => {
            let usual = |name: &&str| object.keys().find(|key| key.eq_ignore_ascii_case(name)).cloned();
            CAPTION_NAMES.iter().find_map(usual)
        }
    }
}

/// A text, or the first of a list of texts that is not blank.
pub(crate) fn caption(value: &Json) -> Option<&str> {
    let text = |value: &'_ Json| value.as_str().is_some_and(|text| !text.trim().is_empty());
    match value {
        Json::Array(all) => all.iter().find(|v| text(v)).and_then(Json::as_str),
        one => one.as_str().filter(|_| text(one)),
    }
}

/// A text or a whole number as a key.
pub(crate) fn key(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

/// Puts the scalars among the object's fields into the row, but for those in `taken`.
pub(crate) fn fields_into(row: &mut Row, object: Object, taken: &[&str], limits: &Limits) {
    let mut fields = BTreeMap::new();
    for (name, value) in object {
        if taken.contains(&name.as_str()) || fields.len() >= limits.max_columns {
            continue;
        }
        let Some(mut value) = scalar(value) else { continue };
        row.fields_cut += u64::from(super::cut(&mut value, limits.max_field_bytes));
        fields.insert(name, value);
    }
    row.fields.append(&mut fields);
}

fn scalar(value: Json) -> Option<Value> {
    match value {
        Json::Null | Json::Array(_) | Json::Object(_) => None,
        Json::Bool(truth) => Some(Value::Bool(truth)),
        Json::String(text) => Some(Value::Text(text)),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Some(Value::Int(whole)),
            // Above i64 it stays exact as text.
            None if number.is_u64() => Some(Value::Text(number.to_string())),
            None => number.as_f64().filter(|v| v.is_finite()).map(Value::Float),
        },
    }
}
