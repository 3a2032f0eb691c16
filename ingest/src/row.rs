//! One row as a source gives it, before anything is decoded.

use std::collections::BTreeMap;

use anchorite_index::{SourceRef, Value};

use crate::Reject;

/// A row of a dataset. Which parts are needed is the pipeline's decision, not the source's.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Where it stands.
    pub source: SourceRef,
    /// The text of the key column, where one was named.
    pub key: Option<String>,
    /// Encoded picture bytes.
    pub picture: Option<Vec<u8>>,
    /// The caption, never blank.
    pub caption: Option<String>,
    /// A ready-made image vector of unit length.
    pub image_vector: Option<Vec<f32>>,
    /// A ready-made text vector of unit length.
    pub text_vector: Option<Vec<f32>>,
    /// The other scalar columns.
    pub fields: BTreeMap<String, Value>,
    /// How many of `fields` were cut at [`crate::Limits::max_field_bytes`].
    pub fields_cut: u64,
}

impl Row {
    /// A row with nothing in it yet.
    pub(crate) fn at(source: SourceRef) -> Self {
        Self {
            source,
            key: None,
            picture: None,
            caption: None,
            image_vector: None,
            text_vector: None,
            fields: BTreeMap::new(),
            fields_cut: 0,
        }
    }

    /// Bytes that the row holds, vectors and metadata text included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let text = |value: &Value| if let Value::Text(t) = value { t.len() } else { 8 };
        let vector = |v: &Option<Vec<f32>>| v.as_ref().map_or(0, |v| v.len() * 4);
        self.picture.as_ref().map_or(0, Vec::len)
            + self.caption.as_ref().map_or(0, String::len)
            + vector(&self.image_vector)
            + vector(&self.text_vector)
            + self.fields.iter().map(|(name, value)| name.len() + text(value)).sum::<usize>()
    }
}

/// A row, or why there is none.
pub type RowResult = Result<Row, Reject>;
