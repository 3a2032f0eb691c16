//! A number that has a default and can be switched off: `false`, because TOML has no null.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Switch<T> {
    Off(bool),
    On(T),
}

pub(super) fn serialize<T: Serialize + Copy, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
    value.map_or(Switch::Off(false), Switch::On).serialize(to)
}

pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    match Option::<Switch<T>>::deserialize(from)? {
        None | Some(Switch::Off(false)) => Ok(None),
        Some(Switch::On(value)) => Ok(Some(value)),
        Some(Switch::Off(true)) => Err(D::Error::custom("give a number, or false to leave it out")),
    }
}
