//! Which rows of a table are meant: those whose columns have one of the values named for them.

use std::collections::BTreeMap;

use anchorite_ingest::Row;

/// Columns, and for each the values that its rows may have; `{ split = ["train"] }`.
pub type Only = BTreeMap<String, Vec<String>>;

/// Whether the row has, in every column named, one of its values.
pub(crate) fn meant(only: &Only, row: &Row) -> bool {
    only.iter().all(|(column, values)| row.fields.get(column).is_some_and(|value| values.contains(&value.to_string())))
}
