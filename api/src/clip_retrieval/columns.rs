//! What a row says of its pair: upstream's columns, the picture, its address.
//!
//! Upstream's page hides every result whose picture cannot be drawn, and takes all results without a picture for one: after the first, none of them
//! is seen. So web pages (which browsers make name their origin) get [`NO_PICTURE`] for such a pair. Programs get what is stored, and nothing else.

use anchorite_index::{Cancel, Parts, Record, RowId, Value};
use axum::http::{HeaderMap, header};
use serde_json::{Map, Number, Value as Json};

use super::READ_STEP;
use crate::{app::App, body, error::ApiError, pools::image_path, refresh::Snapshot};

/// Stands in the place of a picture that is not stored: a frame with three lines of text, 64 pixels a side. Pillow drew it.
pub(super) const NO_PICTURE: &[u8] = include_bytes!("no_picture.png");

/// Who asks, as far as rows are written for them.
pub(super) struct Caller {
    /// This server as the caller calls it, for pictures' addresses; only ever sent back to the same caller.
    pub(super) here: String,
    /// Whether a web page asks: a browser names its origin with every POST.
    page: bool,
}

impl Caller {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self { here: own_url(headers), page: headers.contains_key(header::ORIGIN) }
    }
}

/// Reads rows of one pool for one answer.
pub(super) struct Columns<'a> {
    app: &'a App,
    pool: &'a Snapshot,
    caller: &'a Caller,
    /// Bytes of pictures that may still be sent; rows after that come without `image`, and their `url` stays.
    budget: usize,
}

impl<'a> Columns<'a> {
    pub(super) fn new(app: &'a App, pool: &'a Snapshot, caller: &'a Caller) -> Self {
        Self { app, pool, caller, budget: app.limits().answer_bytes }
    }

    /// The columns of each row; none where there is no such row.
    pub(super) fn read(mut self, rows: &[RowId], cancel: &Cancel) -> Result<Vec<Option<Map<String, Json>>>, ApiError> {
        let mut columns = Vec::with_capacity(rows.len());
        for step in rows.chunks(READ_STEP) {
            if cancel.is_cancelled() {
                return Err(ApiError::deadline());
            }
            let records = self.pool.retriever.store().get(step, Parts { picture: true, vectors: false })?;
            columns.extend(records.into_iter().map(|record| record.map(|record| self.of(record))));
        }
        Ok(columns)
    }

    fn of(&mut self, record: Record) -> Map<String, Json> {
        let mut columns = Map::new();
        for name in &self.app.options.clip_retrieval_columns {
            if let Some(value) = record.fields.get(name).and_then(plain) {
                columns.insert(name.clone(), value);
            }
        }
        if self.wants("caption") {
            columns.insert("caption".to_owned(), record.caption.unwrap_or_default().into());
        }
        let has_address = columns.contains_key("url");
        match record.picture {
            Some(picture) => {
                if self.wants("url") && !has_address {
                    let path = image_path(&self.pool.name, record.row);
                    columns.insert("url".to_owned(), format!("{}{path}", self.caller.here).into());
                }
                self.put_picture(&mut columns, &picture);
            }
            None if self.caller.page && !has_address => self.put_picture(&mut columns, NO_PICTURE),
            None => {}
        }
        columns
    }

    fn wants(&self, column: &str) -> bool {
        self.app.options.clip_retrieval_columns.iter().any(|name| name == column)
    }

    fn put_picture(&mut self, columns: &mut Map<String, Json>, picture: &[u8]) {
        if let Some(left) = self.budget.checked_sub(picture.len()) {
            self.budget = left;
            columns.insert("image".to_owned(), body::base64(picture).into());
        }
    }
}

/// As JSON; a number that JSON has no word for is left out.
fn plain(value: &Value) -> Option<Json> {
    match value {
        Value::Bool(b) => Some((*b).into()),
        Value::Int(n) => Some((*n).into()),
        Value::Float(x) => Number::from_f64(*x).map(Json::Number),
        Value::Text(text) => Some(text.clone().into()),
    }
}

/// `http://` and the host the client used, where that is a plain host name.
fn own_url(headers: &HeaderMap) -> String {
    let plain = |host: &&str| {
        !host.is_empty()
            && host.len() <= 255
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'))
    };
    let https = headers.get("x-forwarded-proto").is_some_and(|v| v == "https");
    let host = headers.get(header::HOST).and_then(|v| v.to_str().ok()).filter(plain).unwrap_or("localhost");
    format!("{}://{host}", if https { "https" } else { "http" })
}
