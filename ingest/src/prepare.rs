//! What a worker does: a chunk of rows to pairs and rejects.
//!
//! Captions are tokenized first, being cheap, so that no picture is decoded for a row that its caption rules out. Pictures
//! are decoded, preprocessed and encoded a batch at a time; captions are encoded in batches of like length, because a batch is
//! padded to its longest. A batch that the encoder fails on is encoded again one by one, so that one bad row costs itself only.

use std::time::{Duration, Instant};

use anchorite_encoder::{Embedding, Encode, EncodeError, Pixels, Tokens};
use anchorite_index::{Cancel, ContentHash, Key, Pair};
use sha2::{Digest, Sha256};

use crate::{ColumnsUsed, Filters, Missing, Reject, Row, Vectors, reject::code};

/// A row on its way: to be worked on, or decided already.
pub(crate) enum Slot {
    Todo { key: Key, row: Box<Row>, replaces: bool },
    Decided(Decision),
}

/// What became of a row.
pub(crate) enum Decision {
    Accepted(Box<Accepted>),
    Rejected(Reject),
    /// The pool has its key.
    Present,
    /// The run was cancelled before it was done.
    Unfinished,
}

/// A pair, and what the report counts of it.
pub(crate) struct Accepted {
    pub(crate) pair: Pair,
    pub(crate) caption_truncated: bool,
    /// The pool has its key for other content.
    pub(crate) replaces: bool,
    pub(crate) fields_cut: u64,
}

/// Rows that travel together, from one shard.
pub(crate) struct Chunk {
    pub(crate) sequence: u64,
    /// Number of its shard.
    pub(crate) shard: usize,
    pub(crate) slots: Vec<Slot>,
    pub(crate) expected: Expected,
}

/// Which halves of a pair the shard has columns for: one that is null nevertheless is missing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Expected {
    pub(crate) image: bool,
    pub(crate) text: bool,
}

impl Expected {
    pub(crate) fn of(columns: &ColumnsUsed, vectors: Vectors<'_>) -> Self {
        let (image, text) = match vectors {
            Vectors::Encode(_) => (&columns.image, &columns.caption),
            Vectors::Ready { .. } => (&columns.image_vector, &columns.text_vector),
        };
        Self { image: image.is_some(), text: text.is_some() }
    }
}

/// A chunk whose rows are all decided.
pub(crate) struct DecidedChunk {
    pub(crate) sequence: u64,
    pub(crate) shard: usize,
    pub(crate) decisions: Vec<Decision>,
    pub(crate) preparing: Duration,
    pub(crate) encoding: Duration,
    /// How long its worker had waited for it.
    pub(crate) idle: Duration,
}

impl Chunk {
    /// The chunk as decided, if no row is left to work on.
    pub(crate) fn decided(self) -> Result<DecidedChunk, Self> {
        if self.slots.iter().any(|slot| matches!(slot, Slot::Todo { .. })) {
            return Err(self);
        }
        let decision = |slot| if let Slot::Decided(decision) = slot { decision } else { Decision::Unfinished };
        let decisions = self.slots.into_iter().map(decision).collect();
        let (sequence, shard) = (self.sequence, self.shard);
        Ok(DecidedChunk { sequence, shard, decisions, preparing: Duration::ZERO, encoding: Duration::ZERO, idle: Duration::ZERO })
    }
}

/// How rows are worked on; shared by the workers.
pub(crate) struct Workshop<'a> {
    pub(crate) vectors: Vectors<'a>,
    pub(crate) missing: Missing,
    pub(crate) filters: &'a Filters,
    pub(crate) store_pictures: bool,
    pub(crate) batch: usize,
    pub(crate) cancel: &'a Cancel,
    /// Raised by the pipeline itself when the run has failed.
    pub(crate) stop: &'a Cancel,
}

/// A row being worked on.
struct Item {
    position: usize,
    key: Key,
    row: Row,
    replaces: bool,
    tokens: Option<Tokens>,
    image: Option<Vec<f32>>,
    text: Option<Vec<f32>>,
    reject: Option<Reject>,
}

impl Item {
    fn refuse(&mut self, code: &'static str, message: String) {
        self.reject.get_or_insert_with(|| Reject::new(self.row.source.clone(), code, message));
    }
}

impl Workshop<'_> {
    /// Decides every row of the chunk.
    ///
    /// # Errors
    /// Only what no row is to blame for: the model lacks a tower.
    pub(crate) fn work(&self, chunk: Chunk) -> Result<DecidedChunk, EncodeError> {
        let start = Instant::now();
        let expected = chunk.expected;
        let mut decisions = Vec::with_capacity(chunk.slots.len());
        let mut items = Vec::new();
        for (position, slot) in chunk.slots.into_iter().enumerate() {
            match slot {
                Slot::Decided(decision) => decisions.push(decision),
                Slot::Todo { key, row, replaces } => {
                    decisions.push(Decision::Unfinished);
                    let missing = missing_part(&row, self.vectors, self.missing, expected);
                    let reject = missing.or_else(|| self.filters.row(&row));
                    items.push(Item { position, key, row: *row, replaces, tokens: None, image: None, text: None, reject });
                }
            }
        }
        let encoding = match self.vectors {
            Vectors::Encode(encoder) => self.encode(encoder, &mut items)?,
            Vectors::Ready { .. } => {
                take_ready_vectors(&mut items);
                Some(Duration::ZERO)
            }
        };
        // None: cancelled half-way. Rejects stand; the rest stays unfinished and is done by the next run.
        for item in items {
            let position = item.position;
            if item.reject.is_some() || encoding.is_some() {
                decisions[position] = self.decide(item);
            }
        }
        let encoding = encoding.unwrap_or_default();
        let preparing = start.elapsed().saturating_sub(encoding);
        Ok(DecidedChunk { sequence: chunk.sequence, shard: chunk.shard, decisions, preparing, encoding, idle: Duration::ZERO })
    }

    /// Time spent in the encoder; none when cancelled half-way.
    fn encode(&self, encoder: &dyn Encode, items: &mut [Item]) -> Result<Option<Duration>, EncodeError> {
        tokenize(encoder, items);
        let mut time = Duration::ZERO;
        let finished = self.encode_images(encoder, items, &mut time)? && self.encode_texts(encoder, items, &mut time)?;
        Ok(finished.then_some(time))
    }

    fn encode_images(&self, encoder: &dyn Encode, items: &mut [Item], time: &mut Duration) -> Result<bool, EncodeError> {
        let mut wanted = (0..items.len()).filter(|&i| items[i].row.picture.is_some()).collect::<Vec<_>>().into_iter();
        loop {
            if self.cancelled() {
                return Ok(false);
            }
            let mut positions = Vec::with_capacity(self.batch);
            let mut batch = Vec::with_capacity(self.batch);
            for i in wanted.by_ref() {
                if let Some(pixels) = preprocess(encoder, &mut items[i]) {
                    positions.push(i);
                    batch.push(pixels);
                }
                if batch.len() == self.batch {
                    break;
                }
            }
            if batch.is_empty() {
                return Ok(true);
            }
            let start = Instant::now();
            let embeddings = encode_batch(&batch, &|b| encoder.encode_images(b))?;
            *time += start.elapsed();
            for (i, embedding) in positions.into_iter().zip(embeddings) {
                match embedding {
                    Ok(embedding) => items[i].image = Some(embedding.into_vec()),
                    Err(message) => items[i].refuse(code::ENCODE_FAILED, message),
                }
            }
        }
    }

    fn encode_texts(&self, encoder: &dyn Encode, items: &mut [Item], time: &mut Duration) -> Result<bool, EncodeError> {
        let mut wanted: Vec<(usize, Tokens)> = Vec::new();
        for (i, item) in items.iter_mut().enumerate().filter(|(_, item)| item.reject.is_none()) {
            wanted.extend(item.tokens.clone().map(|tokens| (i, tokens)));
        }
        wanted.sort_by_key(|(i, tokens)| (tokens.ids.len(), *i));
        while !wanted.is_empty() {
            if self.cancelled() {
                return Ok(false);
            }
            let rest = wanted.split_off(self.batch.min(wanted.len()));
            let (positions, batch): (Vec<usize>, Vec<Tokens>) = std::mem::replace(&mut wanted, rest).into_iter().unzip();
            let start = Instant::now();
            let embeddings = encode_batch(&batch, &|b| encoder.encode_texts(b))?;
            *time += start.elapsed();
            for (i, embedding) in positions.into_iter().zip(embeddings) {
                match embedding {
                    Ok(embedding) => items[i].text = Some(embedding.into_vec()),
                    Err(message) => items[i].refuse(code::ENCODE_FAILED, message),
                }
            }
        }
        Ok(true)
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_cancelled() || self.stop.is_cancelled()
    }

    fn decide(&self, item: Item) -> Decision {
        if let Some(reject) = item.reject {
            return Decision::Rejected(reject);
        }
        if let Some(reject) = self.filters.score(&item.row, item.image.as_deref(), item.text.as_deref()) {
            return Decision::Rejected(reject);
        }
        let ready = matches!(self.vectors, Vectors::Ready { .. });
        let content = match ready {
            true => content_hash(None, [item.image.as_deref(), item.text.as_deref()], item.row.caption.as_deref()),
            false => row_content(&item.row, self.vectors),
        };
        let row = item.row;
        let pair = Pair {
            key: item.key,
            source: row.source,
            content,
            image: item.image,
            text: item.text,
            caption: row.caption,
            fields: row.fields,
            picture: row.picture.filter(|_| self.store_pictures),
        };
        let caption_truncated = item.tokens.is_some_and(|tokens| tokens.truncated);
        Decision::Accepted(Box::new(Accepted { pair, caption_truncated, replaces: item.replaces, fields_cut: row.fields_cut }))
    }
}

/// Why a row is refused for what it lacks, if it is.
pub(crate) fn missing_part(row: &Row, vectors: Vectors<'_>, missing: Missing, expected: Expected) -> Option<Reject> {
    let (image, text, image_code, text_code) = match vectors {
        Vectors::Encode(_) => (row.picture.is_some(), row.caption.is_some(), code::IMAGE_NULL, code::CAPTION_NULL),
        Vectors::Ready { .. } => (row.image_vector.is_some(), row.text_vector.is_some(), code::VECTOR_NULL, code::VECTOR_NULL),
    };
    let strict = missing == Missing::Reject || !(image || text);
    let (code, what) = match (expected.image && !image, expected.text && !text) {
        (true, _) if strict => (image_code, "image"),
        (_, true) if strict => (text_code, "text"),
        _ => return None,
    };
    if let (code::IMAGE_NULL, Some(message)) = (code, failed_download(row)) {
        return Some(Reject::new(row.source.clone(), code::DOWNLOAD_FAILED, message));
    }
    let message = match code {
        code::IMAGE_NULL => "the picture is null".to_owned(),
        code::CAPTION_NULL => "the caption is null or blank".to_owned(),
        _ => format!("the {what} vector is null, or one of its values is"),
    };
    Some(Reject::new(row.source.clone(), code, message))
}

fn tokenize(encoder: &dyn Encode, items: &mut [Item]) {
    for item in items.iter_mut().filter(|item| item.reject.is_none()) {
        match item.row.caption.as_deref().map(|caption| encoder.prepare_text(caption)) {
            Some(Ok(tokens)) => item.tokens = Some(tokens),
            Some(Err(error)) => item.refuse(error.code(), error.to_string()),
            None => {}
        }
    }
}

fn preprocess(encoder: &dyn Encode, item: &mut Item) -> Option<Pixels> {
    let bytes = item.row.picture.as_deref().filter(|_| item.reject.is_none())?;
    match encoder.prepare_image(bytes) {
        Ok(pixels) => Some(pixels),
        Err(error) => {
            item.refuse(error.code(), error.to_string());
            None
        }
    }
}

fn take_ready_vectors(items: &mut [Item]) {
    for item in items {
        item.image = item.row.image_vector.take();
        item.text = item.row.text_vector.take();
    }
}

type Encoded = Result<Embedding, String>;

/// One tower: a batch in, its embeddings out.
type Tower<'a, T> = dyn Fn(&[T]) -> Result<Vec<Embedding>, EncodeError> + 'a;

/// Embeds a batch; when that fails, one by one.
fn encode_batch<T>(batch: &[T], encode: &Tower<'_, T>) -> Result<Vec<Encoded>, EncodeError> {
    match encode(batch) {
        Ok(all) if all.len() == batch.len() => Ok(all.into_iter().map(Ok).collect()),
        Err(error @ EncodeError::NoTower { .. }) => Err(error),
        Err(error) if batch.len() == 1 => Ok(vec![Err(error.to_string())]),
        Ok(all) if batch.len() == 1 => Ok(vec![Err(format!("{} embeddings came back for one input", all.len()))]),
        _ => {
            let mut each = Vec::with_capacity(batch.len());
            for item in batch {
                each.extend(encode_batch(std::slice::from_ref(item), encode)?);
            }
            Ok(each)
        }
    }
}

/// The content hash of a row as its source gives it.
pub(crate) fn row_content(row: &Row, vectors: Vectors<'_>) -> ContentHash {
    match vectors {
        Vectors::Encode(_) => content_hash(row.picture.as_deref(), [None, None], row.caption.as_deref()),
        Vectors::Ready { .. } => {
            let vectors = [row.image_vector.as_deref(), row.text_vector.as_deref()];
            content_hash(None, vectors, row.caption.as_deref())
        }
    }
}

/// SHA-256 over what the pair is made from: the picture's bytes, a zero byte, the caption; with ready-made vectors, their
/// values (little-endian f32, image before text) in the picture's place.
fn content_hash(picture: Option<&[u8]>, vectors: [Option<&[f32]>; 2], caption: Option<&str>) -> ContentHash {
    let mut hash = Sha256::new();
    hash.update(picture.unwrap_or_default());
    for value in vectors.into_iter().flatten().flatten() {
        hash.update(value.to_le_bytes());
    }
    hash.update([0]);
    hash.update(caption.unwrap_or_default());
    ContentHash(hash.finalize().into())
}

/// What img2dataset says of a row whose picture it could not fetch or resize.
fn failed_download(row: &Row) -> Option<String> {
    let text = |name: &str| match row.fields.get(name) {
        Some(anchorite_index::Value::Text(text)) => Some(text.chars().take(200).collect::<String>()),
        _ => None,
    };
    let status = text("status").filter(|status| status.starts_with("failed"))?;
    Some(text("error_message").map_or_else(|| status.clone(), |reason| format!("{status}: {reason}")))
}
