//! JSON to [`Filter`] and back. Every refusal names the place and what may stand there.

use serde_json::{Map, Value as Json, json};

use super::{Bound, Column, Filter, FilterError, ValueRef};
use crate::{Value, limits::Limits};

const FORMS: &str = "one of and, or, not, eq, in, range, prefix, is_null";
/// Stands before the name of a metadata field that would mean something else, or before any.
const FIELDS: &str = "fields.";
const RESERVED: [(&str, Column); 4] =
    [("key", Column::Key), ("caption", Column::Caption), ("source", Column::SourceFile), ("source.row", Column::SourceRow)];

impl Filter {
    /// Reads a filter from JSON text.
    ///
    /// # Errors
    /// No JSON, or as `TryFrom<serde_json::Value>`.
    pub fn from_json(text: &str) -> Result<Self, FilterError> {
        let json: Json = serde_json::from_str(text).map_err(|e| malformed("filter", format!("it is not JSON: {e}")))?;
        Self::try_from(json)
    }

    /// The field's value equals this.
    #[must_use]
    pub fn eq(field: &str, value: Value) -> Self {
        Self::In { field: column(field), values: vec![value] }
    }
}

impl TryFrom<Json> for Filter {
    type Error = FilterError;

    fn try_from(json: Json) -> Result<Self, FilterError> {
        Parser { terms: 0, values: 0 }.filter(&json, "filter", 1)
    }
}

impl From<Filter> for Json {
    fn from(filter: Filter) -> Self {
        let all = |parts: Vec<Filter>| parts.into_iter().map(Self::from).collect::<Vec<_>>();
        match filter {
            Filter::And(parts) => json!({ "and": all(parts) }),
            Filter::Or(parts) => json!({ "or": all(parts) }),
            Filter::Not(part) => json!({ "not": Self::from(*part) }),
            Filter::In { field, mut values } if values.len() == 1 => {
                json!({ "eq": { "field": column_name(&field), "value": values.remove(0) } })
            }
            Filter::In { field, values } => json!({ "in": { "field": column_name(&field), "values": values } }),
            Filter::Range { field, low, high } => {
                let mut range = Map::from_iter([("field".to_owned(), json!(column_name(&field)))]);
                for (bound, names) in [(low, ["gt", "gte"]), (high, ["lt", "lte"])] {
                    range.extend(bound.map(|b| (names[usize::from(b.inclusive)].to_owned(), json!(b.value))));
                }
                json!({ "range": range })
            }
            Filter::Prefix { field, start } => json!({ "prefix": { "field": column_name(&field), "value": start } }),
            Filter::IsNull { field } => json!({ "is_null": { "field": column_name(&field) } }),
        }
    }
}

/// The column a name means.
fn column(name: &str) -> Column {
    let reserved = RESERVED.into_iter().find(|(reserved, _)| *reserved == name);
    reserved.map_or_else(|| Column::Field(name.strip_prefix(FIELDS).unwrap_or(name).to_owned()), |(_, column)| column)
}

/// The name that means this column.
pub(super) fn column_name(column: &Column) -> String {
    match column {
        Column::Field(name) if name.starts_with(FIELDS) || RESERVED.iter().any(|(reserved, _)| reserved == name) => {
            format!("{FIELDS}{name}")
        }
        Column::Field(name) => name.clone(),
        _ => RESERVED.iter().find(|(_, c)| c == column).map_or_else(String::new, |(name, _)| (*name).to_owned()),
    }
}

/// Reads while counting, so that no filter costs more than [`Limits`] allow.
struct Parser {
    terms: usize,
    values: usize,
}

impl Parser {
    fn filter(&mut self, json: &Json, place: &str, depth: usize) -> Result<Filter, FilterError> {
        within("a depth of", depth, Limits::STANDARD.filter_depth)?;
        self.terms += 1;
        within("this many terms:", self.terms, Limits::STANDARD.filter_terms)?;
        let (form, body) = only_member(json, place)?;
        let place = format!("{place}.{form}");
        match form {
            "and" => Ok(Filter::And(self.list(body, &place, depth)?)),
            "or" => Ok(Filter::Or(self.list(body, &place, depth)?)),
            "not" => Ok(Filter::Not(Box::new(self.filter(body, &place, depth + 1)?))),
            "eq" => {
                let [field, value] = members(body, &place, ["field", "value"])?;
                Ok(Filter::In { field: field_of(field, &place)?, values: vec![value_of(value, &format!("{place}.value"))?] })
            }
            "in" => {
                let [field, values] = members(body, &place, ["field", "values"])?;
                Ok(Filter::In { field: field_of(field, &place)?, values: self.values(values, &format!("{place}.values"))? })
            }
            "range" => range(body, &place),
            "prefix" => {
                let [field, value] = members(body, &place, ["field", "value"])?;
                let start = value.as_str().ok_or_else(|| malformed(&format!("{place}.value"), "give a text"))?;
                Ok(Filter::Prefix { field: field_of(field, &place)?, start: start.to_owned() })
            }
            "is_null" => {
                let [field] = members(body, &place, ["field"])?;
                Ok(Filter::IsNull { field: field_of(field, &place)? })
            }
            _ => Err(malformed(&place, format!("there is no such form; give {FORMS}"))),
        }
    }

    fn list(&mut self, json: &Json, place: &str, depth: usize) -> Result<Vec<Filter>, FilterError> {
        let parts = json.as_array().ok_or_else(|| malformed(place, "give a list of filters"))?;
        parts.iter().enumerate().map(|(i, part)| self.filter(part, &format!("{place}[{i}]"), depth + 1)).collect()
    }

    fn values(&mut self, json: &Json, place: &str) -> Result<Vec<Value>, FilterError> {
        let given = json.as_array().filter(|list| !list.is_empty());
        let given = given.ok_or_else(|| malformed(place, "give a list of at least one value"))?;
        self.values += given.len();
        within("this many listed values:", self.values, Limits::STANDARD.filter_values)?;
        let one = |(i, value)| value_of(value, &format!("{place}[{i}]"));
        let values: Vec<Value> = given.iter().enumerate().map(one).collect::<Result<_, _>>()?;
        let kind = |value: &Value| ValueRef::from(value).kind();
        match values.iter().position(|value| kind(value) != kind(&values[0])) {
            None => Ok(values),
            Some(i) => Err(malformed(&format!("{place}[{i}]"), format!("give {} like the first of the list", kind(&values[0])))),
        }
    }
}

fn range(body: &Json, place: &str) -> Result<Filter, FilterError> {
    let object = object(body, place, "field and gt, gte, lt or lte")?;
    known(object, place, &["field", "gt", "gte", "lt", "lte"])?;
    let field = object.get("field").ok_or_else(|| malformed(place, "field is missing"))?;
    let end = |names: [&str; 2]| match names.map(|name| object.get(name)) {
        [Some(_), Some(_)] => Err(malformed(place, format!("give {} or {}, not both", names[0], names[1]))),
        [None, None] => Ok(None),
        [exclusive, inclusive] => {
            let place = format!("{place}.{}", names[usize::from(inclusive.is_some())]);
            let value = value_of(exclusive.or(inclusive).unwrap_or(&Json::Null), &place)?;
            if matches!(value, Value::Bool(_)) {
                return Err(malformed(&place, "give a number or a text"));
            }
            Ok(Some(Bound { value, inclusive: inclusive.is_some() }))
        }
    };
    let (low, high) = (end(["gt", "gte"])?, end(["lt", "lte"])?);
    match (&low, &high) {
        (None, None) => Err(malformed(place, "give at least one of gt, gte, lt, lte")),
        (Some(a), Some(b)) if ValueRef::from(&a.value).kind() != ValueRef::from(&b.value).kind() => {
            Err(malformed(place, "both ends must be numbers, or both texts"))
        }
        _ => Ok(Filter::Range { field: field_of(field, place)?, low, high }),
    }
}

fn field_of(json: &Json, place: &str) -> Result<Column, FilterError> {
    let name = json.as_str().filter(|name| !name.is_empty());
    name.map(column).ok_or_else(|| malformed(&format!("{place}.field"), "give the name of a field"))
}

fn value_of(json: &Json, place: &str) -> Result<Value, FilterError> {
    match json {
        Json::Bool(v) => Ok(Value::Bool(*v)),
        Json::String(v) => Ok(Value::Text(v.clone())),
        Json::Number(v) => match (v.as_i64(), v.as_f64()) {
            (Some(whole), _) => Ok(Value::Int(whole)),
            (None, Some(fraction)) => Ok(Value::Float(fraction)),
            (None, None) => Err(malformed(place, "the number cannot be represented")),
        },
        Json::Null => Err(malformed(place, "null is not compared; is_null finds pairs without the field")),
        Json::Array(_) | Json::Object(_) => Err(malformed(place, "give true, false, a number or a text")),
    }
}

fn only_member<'a>(json: &'a Json, place: &str) -> Result<(&'a str, &'a Json), FilterError> {
    let object = object(json, place, FORMS)?;
    let mut members = object.iter();
    match (members.next(), members.next()) {
        (Some((form, body)), None) => Ok((form, body)),
        _ => Err(malformed(place, format!("there are {} members; give exactly one: {FORMS}", object.len()))),
    }
}

/// Exactly these members.
fn members<'a, const N: usize>(json: &'a Json, place: &str, names: [&str; N]) -> Result<[&'a Json; N], FilterError> {
    let object = object(json, place, &names.join(" and "))?;
    known(object, place, &names)?;
    let mut found = [&Json::Null; N];
    for (slot, name) in found.iter_mut().zip(names) {
        *slot = object.get(name).ok_or_else(|| malformed(place, format!("{name} is missing")))?;
    }
    Ok(found)
}

fn known(object: &Map<String, Json>, place: &str, names: &[&str]) -> Result<(), FilterError> {
    match object.keys().find(|name| !names.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(malformed(&format!("{place}.{name}"), format!("unknown; {} may stand here", names.join(", ")))),
    }
}

fn object<'a>(json: &'a Json, place: &str, members: &str) -> Result<&'a Map<String, Json>, FilterError> {
    json.as_object().ok_or_else(|| malformed(place, format!("give an object with {members}")))
}

fn malformed(place: &str, reason: impl Into<String>) -> FilterError {
    // Names inside a place come from the caller.
    FilterError::Malformed { place: place.chars().take(200).collect(), reason: reason.into() }
}

fn within(what: &'static str, found: usize, max: usize) -> Result<(), FilterError> {
    if found <= max { Ok(()) } else { Err(FilterError::TooLarge { what, found, max }) }
}
