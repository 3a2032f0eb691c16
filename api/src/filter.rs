//! The filter language as `/openapi.json` shows it. What reads filters is `anchorite_index::Filter`; `tests/search.rs` holds the two
//! together.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which pairs may be found: an object with exactly one of these members.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(no_recursion)]
pub(crate) enum FilterForm {
    /// Pairs that match every one; with none, all pairs.
    And(Vec<FilterForm>),
    /// Pairs that match one of these; with none, no pair.
    Or(Vec<FilterForm>),
    /// Pairs that do not match this.
    Not(Box<FilterForm>),
    /// Pairs whose value equals this one.
    Eq(FilterEquals),
    /// Pairs whose value is one of these.
    In(FilterOneOf),
    /// Pairs whose value lies between: at least one end, at most one lower and one upper.
    Range(FilterBetween),
    /// Pairs whose text begins with this.
    Prefix(FilterBegins),
    /// Pairs without such a value.
    IsNull(FilterNamed),
}

/// A value of the field's kind.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum FilterValue {
    /// True or false.
    Bool(bool),
    /// A number; whole numbers and fractions compare by value.
    Number(f64),
    /// A text.
    Text(String),
}

/// An end of a range.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum RangeEnd {
    /// For number fields.
    Number(f64),
    /// For text fields: by bytes.
    Text(String),
}

/// A field and a value.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FilterEquals {
    /// A metadata column, `key`, `caption`, `source` or `source.row`.
    #[schema(min_length = 1)]
    field: String,
    value: FilterValue,
}

/// A field and values of one kind.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FilterOneOf {
    /// As of `eq`.
    #[schema(min_length = 1)]
    field: String,
    #[schema(min_items = 1, max_items = 65536)]
    values: Vec<FilterValue>,
}

/// A field and the ends it lies between, both numbers or both texts.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FilterBetween {
    /// As of `eq`.
    #[schema(min_length = 1)]
    field: String,
    /// Above this.
    gt: Option<RangeEnd>,
    /// This or above.
    gte: Option<RangeEnd>,
    /// Below this.
    lt: Option<RangeEnd>,
    /// This or below.
    lte: Option<RangeEnd>,
}

/// A field and a text.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FilterBegins {
    /// As of `eq`, of texts.
    #[schema(min_length = 1)]
    field: String,
    value: String,
}

/// A field.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FilterNamed {
    /// As of `eq`.
    #[schema(min_length = 1)]
    field: String,
}
