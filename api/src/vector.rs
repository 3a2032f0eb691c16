//! A vector in a request: numbers, or base64 of little-endian float32, which is half as long and read ten times as fast.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, SeqAccess, Visitor},
};
use utoipa::ToSchema;

use crate::body;

/// Values of a vector whose length is not known yet: what room is made for at most.
const ROOM: usize = 4096;

/// The values, whichever way they came.
#[derive(Clone, Debug)]
pub(crate) struct Vector(pub(crate) Vec<f32>);

/// A vector of this pool's model.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the schema of Vector, which reads both without keeping either")]
pub(crate) enum VectorForm {
    /// Its values.
    Numbers(Vec<f32>),
    /// Its values as little-endian float32, in base64.
    Base64(String),
}

impl<'de> Deserialize<'de> for Vector {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Values)
    }
}

struct Values;

impl<'de> Visitor<'de> for Values {
    type Value = Vector;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of numbers, or base64 of little-endian float32")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vector, A::Error> {
        let mut values = Vec::with_capacity(from.size_hint().unwrap_or(512).min(ROOM));
        while let Some(value) = from.next_element()? {
            values.push(value);
        }
        Ok(Vector(values))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vector, E> {
        let wrong =
            |what: &dyn fmt::Display| E::custom(format!("the vector's text is not base64 of little-endian float32: {what}"));
        let bytes = body::from_base64(text).map_err(|e| wrong(&e))?;
        let (values, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(wrong(&format_args!("{} bytes are not a whole number of values", bytes.len())));
        }
        Ok(Vector(values.iter().map(|value| f32::from_le_bytes(*value)).collect()))
    }
}
