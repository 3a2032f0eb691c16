//! Which pairs a query may find: a small closed language over metadata, evaluated to one bit per row.
//!
//! ```text
//!   JSON ──parse──► Filter ──Schema::check──► Plan (leaves, set algebra) ──one pass over the records──► RowSet per segment
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `parse` | JSON to [`Filter`] and back; every refusal names the place |
//! | `value` | values by reference, and the one order they are compared in |
//! | `schema` | which fields there are, of which kinds; refuses a filter that names others |
//! | `plan` | leaves that records are held against, and what is done with their bits |
//! | `matcher` | a filter asked of records that were read |
//! | `cache` | the few results kept |
//!
//! In JSON a filter is an object with one member:
//!
//! | | matches a pair when |
//! | --- | --- |
//! | `{"and": [f, ...]}` | every `f` does; with none, always |
//! | `{"or": [f, ...]}` | one `f` does; with none, never |
//! | `{"not": f}` | `f` does not |
//! | `{"eq": {"field": c, "value": v}}` | the value of `c` equals `v` |
//! | `{"in": {"field": c, "values": [v, ...]}}` | it equals one of them |
//! | `{"range": {"field": c, "gte": v, "lt": v}}` | it lies between; any of `gt`, `gte`, `lt`, `lte`; numbers, or texts by their bytes |
//! | `{"prefix": {"field": c, "value": t}}` | it is a text that begins with `t` |
//! | `{"is_null": {"field": c}}` | the pair has no such value |
//!
//! `c` is a metadata field, or one of the names every pair has: `key`, `caption`, `source` (the file it came from) and `source.row`.
//! A metadata field of such a name is meant by `fields.caption` and so on; `fields.` may stand before any field. Whole numbers and
//! fractions compare by value (2 equals 2.0), exactly. There is no third truth value: a pair without the field does not match
//! `eq`, so it matches `not` of it.

mod cache;
mod matcher;
mod parse;
mod plan;
mod schema;
mod value;

use std::fmt;

pub(crate) use cache::FilterCache;
pub use matcher::Matcher;
pub(crate) use plan::Plan;
pub(crate) use schema::Schema;
pub(crate) use value::{ColumnRef, ValueRef};

use crate::Value;

/// What a query may find. See the module's table for its JSON form, which is also its serde form.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "serde_json::Value", into = "serde_json::Value")]
pub enum Filter {
    /// All of these; with none, everything.
    And(Vec<Self>),
    /// One of these; with none, nothing.
    Or(Vec<Self>),
    /// Not this.
    Not(Box<Self>),
    /// The field's value equals one of these, all of one kind.
    In {
        /// Which value of the pair.
        field: Column,
        /// At least one; `eq` is the list of one.
        values: Vec<Value>,
    },
    /// The field's value lies between; numbers or texts.
    Range {
        /// Which value of the pair.
        field: Column,
        /// From here.
        low: Option<Bound>,
        /// To here.
        high: Option<Bound>,
    },
    /// The field's text begins with this.
    Prefix {
        /// Which value of the pair.
        field: Column,
        /// How it begins.
        start: String,
    },
    /// The pair has no value of this field.
    IsNull {
        /// Which value of the pair.
        field: Column,
    },
}

impl Filter {
    /// About the memory it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        serde_json::to_string(self).map_or(0, |json| json.len()) * 2
    }
}

/// One end of a range.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// The end.
    pub value: Value,
    /// Whether the end itself belongs to the range.
    pub inclusive: bool,
}

/// A value that a pair may have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Column {
    /// The pair's name.
    Key,
    /// Its caption.
    Caption,
    /// The file it came from.
    SourceFile,
    /// The row within that file.
    SourceRow,
    /// A metadata field.
    Field(String),
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&parse::column_name(self))
    }
}

/// A kind of value. Values of two kinds are never equal and have no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// True or false.
    Bool,
    /// A whole number or a fraction.
    Number,
    /// Text.
    Text,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::Text => "text",
        })
    }
}

/// A metadata field that pairs of a store have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// As the pair has it.
    pub name: String,
    /// As a filter asks for it: the name, or `fields.` before one that means something else there.
    pub asked: String,
    /// The kinds of its values: usually one.
    pub kinds: Vec<Kind>,
}

/// Why a filter is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// Not of the language.
    #[error("{place}: {reason}")]
    Malformed {
        /// Where, such as `filter.and[1].range`.
        place: String,
        /// What is wrong, and what may stand there.
        reason: String,
    },
    /// Nested deeper, or made of more parts, than [`crate::Limits`] allow.
    #[error("the filter has {what} {found}; at most {max} is allowed")]
    TooLarge {
        /// "a depth of", "this many terms:", ...
        what: &'static str,
        /// The filter's.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// No pair has such a field.
    #[error("no pair of this pool has a field {field:?}; there are {}", listed(fields, *more))]
    UnknownField {
        /// As asked for.
        field: String,
        /// Fields there are, ascending; the first few.
        fields: Vec<String>,
        /// How many more there are.
        more: usize,
    },
    /// The field's values are of another kind.
    #[error("field {field:?} holds {found} in this pool, and the filter compares it with {asked}; there are {}", listed(fields, *more))]
    Mistyped {
        /// As asked for.
        field: String,
        /// What the filter compares it with.
        asked: Kind,
        /// What the pool holds.
        found: String,
        /// Fields there are, ascending; the first few.
        fields: Vec<String>,
        /// How many more there are.
        more: usize,
    },
}

impl FilterError {
    /// A stable short name for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "filter_malformed",
            Self::TooLarge { .. } => "filter_too_large",
            Self::UnknownField { .. } => "filter_field_unknown",
            Self::Mistyped { .. } => "filter_field_type",
        }
    }
}

fn listed(fields: &[String], more: usize) -> String {
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    if fields.is_empty() { "none".to_owned() } else { format!("{}{more}", fields.join(", ")) }
}
