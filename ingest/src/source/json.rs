//! A JSON object to caption and metadata: the same rule for a tar's `.json` members, sidecars and JSON lines.

use std::collections::{BTreeMap, BTreeSet};

use anchorite_index::Value;
use serde_json::{Map, Value as Json};

use super::columns::{CAPTION_NAMES, ColumnChoice};
use crate::{
    Limits, Row,
    reject::{RowProblem, code},
};

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

/// Puts an object that belongs to a picture into its row: a caption and a key where the row has none, the other scalars as fields.
pub(crate) fn object_into(row: &mut Row, object: Object, (choice, chosen_key): (&ColumnChoice, Option<&str>), limits: &Limits) {
    let named = caption_name(&object, choice);
    if row.caption.is_none() {
        let value = named.as_ref().and_then(|name| object.get(name));
        row.caption = value.and_then(caption).map(str::to_owned);
    }
    if row.key.is_none() {
        row.key = chosen_key.and_then(|name| object.get(name)).and_then(key);
    }
    let taken: Vec<&str> = named.as_deref().into_iter().chain(chosen_key).collect();
    fields_into(row, object, &taken, limits);
}

/// A row that is complete: its fields are among those seen so far, as far as there is room.
///
/// # Errors
/// A caption that is too long.
pub(crate) fn noted(row: Row, seen: &mut BTreeSet<String>, limits: &Limits) -> Result<Row, RowProblem> {
    if row.caption.as_ref().is_some_and(|text| text.len() > limits.max_caption_bytes) {
        let message = format!("the caption has more than the {} bytes that are allowed", limits.max_caption_bytes);
        return Err(RowProblem::new(code::TEXT_TOO_LONG, message));
    }
    let room = limits.max_columns.saturating_sub(seen.len());
    let new: Vec<String> = row.fields.keys().filter(|name| !seen.contains(*name)).take(room).cloned().collect();
    seen.extend(new);
    Ok(row)
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
