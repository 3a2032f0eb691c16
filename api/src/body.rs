//! Request bodies: how many bytes, for how long, within which memory; and what is read out of them.

use std::{future::poll_fn, pin::Pin, sync::Arc};

use axum::{
    body::{Body, HttpBody as _},
    extract::rejection::QueryRejection,
    http::{StatusCode, header},
};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    app::{App, kib},
    error::ApiError,
};

/// Standard base64, with or without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A whole body, and its share of the memory budget for as long as it lives.
pub(crate) struct ReadBody {
    pub(crate) bytes: Vec<u8>,
    _budget: OwnedSemaphorePermit,
}

/// Reads a body of at most `max` bytes.
pub(crate) async fn read(app: &Arc<App>, body: Body, max: usize) -> Result<ReadBody, ApiError> {
    let hint = body.size_hint();
    let announced = hint.exact().map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    if announced.is_some_and(|n| n > max) {
        return Err(too_large(max));
    }
    let permits = u32::try_from(kib(announced.unwrap_or(max))).map_err(|_| too_large(max))?;
    let budget = Arc::clone(&app.body_budget).try_acquire_many_owned(permits).map_err(|_| ApiError::busy())?;
    let collected = tokio::time::timeout(app.limits().body_timeout, collect(body, max)).await;
    let bytes = collected.unwrap_or_else(|_| Err(too_slow()))?;
    Ok(ReadBody { bytes, _budget: budget })
}

async fn collect(mut body: Body, max: usize) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|_| cut_short())?;
        if let Ok(data) = frame.into_data() {
            if data.len() > max.saturating_sub(bytes.len()) {
                return Err(too_large(max));
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

fn too_large(max: usize) -> ApiError {
    let message =
        format!("the body is larger than the {max} bytes allowed here; send smaller pictures, or fewer queries at once");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}

fn too_slow() -> ApiError {
    ApiError::new(
        StatusCode::REQUEST_TIMEOUT,
        "body_too_slow",
        "the body did not arrive in time; send it again, faster or smaller",
    )
}

fn cut_short() -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "body_cut_short", "the body ended early or was not well-formed; send it again")
}

/// JSON, whatever the Content-Type. Not JSON at all is a 400; JSON that is not what the route takes is a 422 that names the
/// field.
pub(crate) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // Keeping track of the field costs as much as reading it, so that it is done only for those that are to be told.
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|e| bad_json(&e.path().to_string(), e.inner()))?;
    json.end().map_err(|e| bad_json("", &e))?;
    Ok(value)
}

fn bad_json(path: &str, error: &serde_json::Error) -> ApiError {
    if error.is_data() {
        let place = if matches!(path, "" | "." | "?") { String::new() } else { format!("{path}: ") };
        let said = in_json_words(&error.to_string());
        return ApiError::unprocessable("json_fields", format!("{place}{said}; /openapi.json says what this route takes"));
    }
    let message = format!("the body is not JSON: {error}; numbers must be finite and plain, and the whole body one JSON object");
    ApiError::new(StatusCode::BAD_REQUEST, "json_syntax", message)
}

/// What a value is called in Rust, and in JSON. Of each two that begin alike the longer comes first.
const KINDS: [(&str, &str); 11] = [
    ("usize", "a whole number, not below 0"),
    ("u64", "a whole number, not below 0"),
    ("u32", "a whole number, not below 0"),
    ("i64", "a whole number"),
    ("f32", "a number"),
    ("f64", "a number"),
    ("a sequence", "a list"),
    ("a map", "an object"),
    ("map", "an object"),
    ("struct ", "an object"),
    ("internally tagged enum", "an object"),
];

/// A reader's complaint without Rust's names of types, which mean nothing to who sent the JSON. Only what it expected is changed, never what it quotes.
fn in_json_words(said: &str) -> String {
    let Some((found, expected)) = said.rsplit_once(", expected ") else { return said.to_owned() };
    let found = found.replacen("invalid type: sequence", "invalid type: a list", 1).replacen(
        "invalid type: map",
        "invalid type: an object",
        1,
    );
    let (wanted, place) = expected.rsplit_once(" at line ").unwrap_or((expected, ""));
    // A list in the place of an object: how many were in it helps nobody.
    let found = if wanted.starts_with("struct ") && found.starts_with("invalid length") { "a list".to_owned() } else { found };
    let wanted = KINDS.iter().find(|(rust, _)| wanted.starts_with(rust)).map_or(wanted, |(_, json)| json);
    if place.is_empty() { format!("{found}, expected {wanted}") } else { format!("{found}, expected {wanted} at line {place}") }
}

/// What is wrong with the parameters behind the `?`, with those that are known.
pub(crate) fn bad_parameters(refused: &QueryRejection, known: &str) -> ApiError {
    let said = refused.body_text();
    let said = said.strip_prefix("Failed to deserialize query string: ").unwrap_or(&said);
    ApiError::unprocessable("query_parameter", format!("{said}; known here: {known}"))
}

/// Picture bytes from base64, with or without a `data:` prefix.
pub(crate) fn picture(text: &str) -> Result<Vec<u8>, ApiError> {
    let payload = if text.starts_with("data:") { text.split_once(',').map_or("", |(_, payload)| payload) } else { text };
    from_base64(payload.trim_ascii()).map_err(|e| {
        ApiError::unprocessable("image_base64", format!("the image is not base64 ({e}); send the picture file's bytes in base64"))
    })
}

/// Bytes from standard base64, with or without its padding.
pub(crate) fn from_base64(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    BASE64.decode(text)
}

/// As base64 text.
pub(crate) fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// An answer, already written out on the blocking pool.
pub(crate) struct JsonBytes(pub(crate) Vec<u8>);

impl JsonBytes {
    pub(crate) fn of(value: &impl Serialize) -> Result<Self, ApiError> {
        serde_json::to_vec(value).map(Self).map_err(|e| ApiError::internal("answer_failed", e))
    }
}

impl axum::response::IntoResponse for JsonBytes {
    fn into_response(self) -> axum::response::Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}
