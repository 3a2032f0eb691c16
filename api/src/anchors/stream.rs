//! The Arrow answer: record batches of whole queries, made while the client reads.
//!
//! ```text
//!   Chosen ─► Batches ─next: read records, decode, write─► bytes ─channel of one─► body
//!               ▲    (on the blocking pool, a core at a time)          │
//!               └───────────── only when there is room ◄───────────────┘
//! ```
//!
//! The first piece (schema and first batch) is made before the status is sent, so that refusals are proper errors. After that a failure
//! can only cut the body short; a reader of the format then knows that the end is missing. A client that leaves closes the channel, which
//! raises the cancel flag of the batch in work; one that stops reading is given up after [`crate::Limits::stall_timeout`].

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use anchorite_anchors::hex;
use anchorite_encoder::Pixels;
use anchorite_index::{Cancel, Record};
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, FixedSizeListArray, Float32Array, RecordBatch, StringArray, UInt32Array, UInt64Array,
};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use axum::{
    body::{Body, HttpBody},
    http::header,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use hyper::body::Frame;
use rayon::prelude::*;
use serde::Serialize;
use tokio::sync::mpsc;

use super::{ARROW_STREAM, AnchorPart, Chosen, Group, Head, Shape, answer::QueryHead};
use crate::{app::App, body::ReadBody, error::ApiError, finish::RequestId};

/// The schema's metadata key of [`StreamHead`] as JSON.
const HEAD_KEY: &str = "anchorite.anchors";
/// What a stored picture is taken to weigh when batches are planned: twice the mean of 256 px JPEGs.
const PICTURE_BYTES: usize = 32 << 10;
/// Any other row.
const ROW_BYTES: usize = 1 << 10;

/// What a stream says of itself before its first batch.
#[derive(Serialize)]
struct StreamHead<'a> {
    #[serde(flatten)]
    head: &'a Head,
    queries: Vec<QueryHead>,
    batches: usize,
}

pub(super) async fn answer(app: &Arc<App>, body: ReadBody, id: RequestId) -> Result<Response, ApiError> {
    let permit = Arc::clone(&app.streams).try_acquire_owned().map_err(|_| ApiError::busy())?;
    let first = move |app: &App, cancel: &Cancel| {
        let chosen = Chosen::of(app, &body, Shape::Arrow, cancel)?;
        drop(body);
        Batches::begin(chosen, app)?.next(cancel)
    };
    let (bytes, rest) = app.compute(first).await?;
    let (to, from) = mpsc::channel(1);
    let app = Arc::clone(app);
    tokio::spawn(async move {
        let _permit = permit;
        feed(&app, (bytes, rest), to, &id).await;
    });
    Ok(([(header::CONTENT_TYPE, ARROW_STREAM)], Body::new(Pieces(from))).into_response())
}

/// Sends piece after piece, and prepares one ahead.
async fn feed(app: &Arc<App>, first: (Bytes, Option<Batches>), to: mpsc::Sender<Piece>, RequestId(id): &RequestId) {
    let (mut bytes, mut rest) = first;
    loop {
        match tokio::time::timeout(app.limits().stall_timeout, to.send(Ok(bytes))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => return tracing::debug!(request_id = id, "a client stopped reading its anchors"),
        }
        let Some(batches) = rest.take() else { return };
        let made = tokio::select! {
            () = to.closed() => return,
            made = app.compute_on(move |_, cancel| batches.next(cancel)) => made,
        };
        match made {
            Ok(next) => (bytes, rest) = next,
            Err(error) => {
                tracing::error!(request_id = id, code = error.code, cause = error.cause, "a stream of anchors was cut short");
                app.metrics.error(error.code);
                // A client that has left need not be told.
                let _ = to.send(Err(CutShort)).await;
                return;
            }
        }
    }
}

/// Ends a body without its end.
#[derive(Debug, thiserror::Error)]
#[error("the anchors could not be read to the end")]
struct CutShort;

type Piece = Result<Bytes, CutShort>;

/// A body that comes from a channel.
struct Pieces(mpsc::Receiver<Piece>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// Batches to come.
struct Batches {
    chosen: Chosen,
    groups: Vec<Group>,
    /// Places in `groups`, batch by batch, the last first.
    plan: Vec<std::ops::Range<usize>>,
    shape: Option<PixelShape>,
    schema: SchemaRef,
    writer: StreamWriter<Vec<u8>>,
}

/// Of pixels, as the model takes them.
#[derive(Clone, Copy)]
struct PixelShape {
    height: usize,
    width: usize,
}

impl PixelShape {
    fn values(self) -> usize {
        3 * self.height * self.width
    }
}

impl Batches {
    fn begin(chosen: Chosen, app: &App) -> Result<Self, ApiError> {
        let groups = split(chosen.groups(), app.limits().batch_bytes / ROW_BYTES);
        let shape = if chosen.has(AnchorPart::Pixels) { Some(pixel_shape(&chosen)?) } else { None };
        let row = match shape {
            Some(shape) => shape.values() * size_of::<f32>(),
            None if chosen.has(AnchorPart::Image) => PICTURE_BYTES,
            None => ROW_BYTES,
        };
        let plan = plan(&groups, chosen.queries_per_batch, app.limits().batch_bytes / row);
        let head = StreamHead { head: &chosen.head, queries: chosen.query_heads(&groups), batches: plan.len() };
        let head = serde_json::to_string(&head).map_err(|e| ApiError::internal("answer_failed", e))?;
        let schema = schema(&chosen, shape, head);
        let writer = StreamWriter::try_new(Vec::new(), &schema).map_err(failed)?;
        Ok(Self { chosen, groups, plan, shape, schema, writer })
    }

    /// The next piece of the stream, and what follows it.
    fn next(mut self, cancel: &Cancel) -> Result<(Bytes, Option<Self>), ApiError> {
        if let Some(range) = self.plan.pop() {
            let batch = self.batch(range, cancel)?;
            self.writer.write(&batch).map_err(failed)?;
        }
        if self.plan.is_empty() {
            self.writer.finish().map_err(failed)?;
        }
        let bytes = Bytes::from(std::mem::take(self.writer.get_mut()));
        Ok((bytes, (!self.plan.is_empty()).then_some(self)))
    }

    fn batch(&self, range: std::ops::Range<usize>, cancel: &Cancel) -> Result<RecordBatch, ApiError> {
        let groups = &self.groups[range];
        let places: Vec<usize> = groups.iter().flat_map(|g| g.entries.iter().copied()).collect();
        let records = self.chosen.records(&places)?;
        let mut columns = self.chosen.columns(groups, &places);
        if self.chosen.has(AnchorPart::Fields) {
            columns.push(Arc::new(records.iter().map(fields).collect::<Result<StringArray, ApiError>>()?));
        }
        if self.chosen.has(AnchorPart::Image) {
            let pictures = records.iter().map(|r| r.as_ref().and_then(|r| r.picture.as_deref()));
            columns.push(Arc::new(pictures.collect::<BinaryArray>()));
        }
        if self.chosen.has(AnchorPart::Vectors) {
            let dim = self.chosen.retriever.store().spec().dim;
            columns.push(lists(dim, records.iter().map(|r| r.as_ref().and_then(|r| r.image.as_deref())))?);
            columns.push(lists(dim, records.iter().map(|r| r.as_ref().and_then(|r| r.text.as_deref())))?);
        }
        if let Some(shape) = self.shape {
            let pixels: Vec<Option<Pixels>> = records.par_iter().map(|r| self.pixels(r.as_ref(), cancel)).collect();
            let values = pixels.iter().map(|p| p.as_ref().map(|p| p.values.as_slice()).filter(|v| v.len() == shape.values()));
            columns.push(lists(shape.values(), values)?);
        }
        if cancel.is_cancelled() {
            return Err(ApiError::deadline());
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(failed)
    }

    /// Null where the pool kept no picture, or one that no longer decodes.
    fn pixels(&self, record: Option<&Record>, cancel: &Cancel) -> Option<Pixels> {
        let bytes = record?.picture.as_deref().filter(|_| !cancel.is_cancelled())?;
        self.chosen.retriever.encoder().prepare_image(bytes).ok()
    }
}

fn failed(error: ArrowError) -> ApiError {
    ApiError::internal("answer_failed", error)
}

/// Controls come in one group; it is cut where a batch would grow too large.
fn split(groups: Vec<Group>, rows: usize) -> Vec<Group> {
    let cut = |group: Group| match group.query {
        Some(_) => vec![group],
        None => group.entries.chunks(rows.max(1)).map(|part| Group { query: None, entries: part.to_vec() }).collect(),
    };
    groups.into_iter().flat_map(cut).collect()
}

/// Which groups go together: at most `queries` of them, and about `rows` rows.
fn plan(groups: &[Group], queries: usize, rows: usize) -> Vec<std::ops::Range<usize>> {
    let mut plan = Vec::new();
    let (mut start, mut held) = (0, 0);
    for (place, group) in groups.iter().enumerate() {
        let full = place - start >= queries || held + group.entries.len() > rows;
        if full && place > start {
            plan.push(start..place);
            (start, held) = (place, 0);
        }
        held += group.entries.len();
    }
    if start < groups.len() {
        plan.push(start..groups.len());
    }
    plan.reverse();
    plan
}

/// Preprocessing one picture tells its shape.
fn pixel_shape(chosen: &Chosen) -> Result<PixelShape, ApiError> {
    let kept: Vec<usize> = chosen.groups().into_iter().flat_map(|g| g.entries).collect();
    for part in kept.chunks(16) {
        let records = chosen.records(part)?;
        let pictures = records.iter().flatten().filter_map(|r| r.picture.as_deref());
        if let Some(pixels) = pictures.filter_map(|bytes| chosen.retriever.encoder().prepare_image(bytes).ok()).next() {
            return Ok(PixelShape { height: pixels.height, width: pixels.width });
        }
    }
    let message =
        "pixels were asked for, but the pool keeps no picture of these anchors; ask without pixels, or ingest with pictures";
    Err(ApiError::unprocessable("no_pictures", message))
}

fn fields(record: &Option<Record>) -> Result<Option<String>, ApiError> {
    let written = record.as_ref().map(|r| serde_json::to_string(&r.fields)).transpose();
    written.map_err(|e| ApiError::internal("answer_failed", e))
}

/// Rows of `len` values each, or null.
fn lists<'v>(len: usize, rows: impl Iterator<Item = Option<&'v [f32]>>) -> Result<ArrayRef, ApiError> {
    let (mut values, mut valid) = (Vec::new(), Vec::new());
    for row in rows {
        valid.push(row.is_some());
        match row {
            Some(row) => values.extend_from_slice(row),
            None => values.resize(values.len() + len, 0.0),
        }
    }
    let size = i32::try_from(len).map_err(|e| ApiError::internal("answer_failed", e))?;
    let list = FixedSizeListArray::try_new(item(), size, Arc::new(Float32Array::from(values)), Some(valid.into()));
    list.map(|list| Arc::new(list) as ArrayRef).map_err(failed)
}

fn item() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Float32, false))
}

fn schema(chosen: &Chosen, shape: Option<PixelShape>, head: String) -> SchemaRef {
    let list = |len: usize| DataType::FixedSizeList(item(), i32::try_from(len).unwrap_or(i32::MAX));
    let mut fields = vec![
        Field::new("query", DataType::UInt32, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("rank", DataType::UInt32, false),
        Field::new("score", DataType::Float32, true),
        Field::new("id", DataType::UInt64, false),
        Field::new("key", DataType::Utf8, false),
        Field::new("content", DataType::Utf8, false),
        Field::new("caption", DataType::Utf8, true),
        Field::new("group", DataType::UInt32, true),
        Field::new("validation", DataType::Boolean, false),
    ];
    if chosen.has(AnchorPart::Fields) {
        fields.push(Field::new("fields", DataType::Utf8, true));
    }
    if chosen.has(AnchorPart::Image) {
        fields.push(Field::new("image", DataType::Binary, true));
    }
    if chosen.has(AnchorPart::Vectors) {
        let dim = chosen.retriever.store().spec().dim;
        fields.extend([Field::new("image_vector", list(dim), true), Field::new("text_vector", list(dim), true)]);
    }
    if let Some(shape) = shape {
        fields.push(Field::new("pixels", list(shape.values()), true).with_metadata(tensor(shape)));
    }
    Arc::new(Schema::new_with_metadata(fields, HashMap::from([(HEAD_KEY.to_owned(), head)])))
}

/// Arrow's own extension type for lists that are tensors: pyarrow gives them back in their shape.
fn tensor(PixelShape { height, width }: PixelShape) -> HashMap<String, String> {
    HashMap::from([
        ("ARROW:extension:name".to_owned(), "arrow.fixed_shape_tensor".to_owned()),
        ("ARROW:extension:metadata".to_owned(), format!(r#"{{"shape":[3,{height},{width}]}}"#)),
    ])
}

impl Chosen {
    fn query_heads(&self, groups: &[Group]) -> Vec<QueryHead> {
        groups.iter().filter(|g| g.query.is_some()).map(|g| self.query_head(g.query, g.entries.len())).collect()
    }

    /// What curation knows of the anchors at these places, in the order of the schema.
    fn columns(&self, groups: &[Group], places: &[usize]) -> Vec<ArrayRef> {
        let entries = || places.iter().map(|&place| self.entry(place));
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let queries = || groups.iter().flat_map(|g| g.entries.iter().map(|_| g.query));
        let names = queries().map(|query| query.map(|place| self.questions.list[place].id.as_str()));
        vec![
            Arc::new(queries().map(|query| query.map(small)).collect::<UInt32Array>()),
            Arc::new(names.collect::<StringArray>()),
            Arc::new(UInt32Array::from_iter_values(entries().map(|e| small(e.rank)))),
            Arc::new(entries().map(|e| e.score).collect::<Float32Array>()),
            Arc::new(UInt64Array::from_iter_values(entries().map(|e| e.row.0))),
            Arc::new(StringArray::from_iter_values(entries().map(|e| e.key.as_str()))),
            Arc::new(StringArray::from_iter_values(entries().map(|e| hex(&e.content.0)))),
            Arc::new(entries().map(|e| e.caption.as_deref()).collect::<StringArray>()),
            Arc::new(entries().map(|e| e.group).collect::<UInt32Array>()),
            Arc::new(BooleanArray::from_iter(entries().map(|e| Some(e.validation)))),
        ]
    }
}
