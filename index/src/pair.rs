//! What a pool holds: pairs going in, records coming out.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// A pair's stable name: 1 to 64 bytes of `[A-Za-z0-9._:-]`. Derived from the source, never made by the store, so that
/// ingesting the same source again names the same pairs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(String);

/// Why a string is not a [`Key`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{found:?} is no key: 1 to {max} characters of A-Z a-z 0-9 . _ : - are allowed", max = Key::MAX_BYTES)]
pub struct KeyError {
    /// The refused string, cut at 80 characters.
    pub found: String,
}

impl Key {
    /// Longest key, in bytes.
    pub const MAX_BYTES: usize = 64;

    /// Checks `text` and makes it a key.
    ///
    /// # Errors
    /// [`KeyError`] when it is empty, too long or has another character.
    pub fn new(text: impl Into<String>) -> Result<Self, KeyError> {
        let text = text.into();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
        if text.is_empty() || text.len() > Self::MAX_BYTES || !text.bytes().all(allowed) {
            return Err(KeyError { found: text.chars().take(80).collect() });
        }
        Ok(Self(text))
    }

    /// The key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Key {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        Self::new(text)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A pair's position in the pool: segments in manifest order, rows in append order, counted from 0. Integer ids over HTTP are
/// this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RowId(pub u64);

/// Which vector of a pair: the picture's or the caption's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The image tower's embedding.
    Image,
    /// The text tower's embedding.
    Text,
}

impl Side {
    /// Both sides, in storage order.
    pub const ALL: [Self; 2] = [Self::Image, Self::Text];

    /// The one that is not this.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Image => Self::Text,
            Self::Text => Self::Image,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image => "image",
            Self::Text => "text",
        })
    }
}

/// SHA-256 over what the pair was made from (picture bytes, caption).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash(pub [u8; 32]);

/// Where a pair came from; re-ingest of the same place is the same pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SourceRef {
    /// The source's name: a file name or hub path, never an absolute path of one machine.
    pub file: String,
    /// Row within it, counted from 0.
    pub row: u64,
}

/// A metadata value. A missing value is an absent field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A finite number.
    Float(f64),
    /// UTF-8 text.
    Text(String),
}

/// As a person writes it: text without quotes.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(v) => v.fmt(f),
            Self::Int(v) => v.fmt(f),
            Self::Float(v) => v.fmt(f),
            Self::Text(v) => v.fmt(f),
        }
    }
}

/// One image-text pair on its way into a pool. At least one vector is there; every vector is of unit length.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Stable name.
    pub key: Key,
    /// Origin.
    pub source: SourceRef,
    /// Hash of what it was made from.
    pub content: ContentHash,
    /// The image tower's embedding, `dim` values of unit length.
    pub image: Option<Vec<f32>>,
    /// The text tower's embedding, `dim` values of unit length.
    pub text: Option<Vec<f32>>,
    /// The caption.
    pub caption: Option<String>,
    /// Metadata columns.
    pub fields: BTreeMap<String, Value>,
    /// The picture as it was ingested (encoded bytes).
    pub picture: Option<Vec<u8>>,
}

/// One pair as the pool gives it back.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Position.
    pub row: RowId,
    /// Stable name.
    pub key: Key,
    /// Origin.
    pub source: SourceRef,
    /// Hash of what it was made from.
    pub content: ContentHash,
    /// The caption.
    pub caption: Option<String>,
    /// Metadata columns.
    pub fields: BTreeMap<String, Value>,
    /// Whether a picture is stored, asked for or not.
    pub has_picture: bool,
    /// The stored picture, when asked for with [`crate::Parts::picture`] and there is one.
    pub picture: Option<Vec<u8>>,
    /// The image vector as stored (f16 precision), when asked for with [`crate::Parts::vectors`].
    pub image: Option<Vec<f32>>,
    /// The text vector as stored (f16 precision), when asked for with [`crate::Parts::vectors`].
    pub text: Option<Vec<f32>>,
}
