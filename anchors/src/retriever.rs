//! An encoder joined to the pool that belongs to it.
//!
//! A call checks what can be checked for free (k, numbers, emptiness) before anything is encoded, then encodes all texts, then
//! all pictures, then looks up stored vectors, then searches once. Errors name the question by its position.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, OnceLock},
    time::Instant,
};

use anchorite_encoder::{Embedding, Encode, EncodeError};
use anchorite_index::{Cancel, Key, PairStore, Parts, Query, Record, RowId, Side, StoreError};

use crate::{
    Anchor, Answers, Ask, AskError, Found, Input, Limits, RetrieveError, Times,
    blend::{Piece, blended, modalities, pieces},
    likeness::Cones,
};

/// Answers [`Ask`]s. Shared among threads; clones share the encoder and the pool.
#[derive(Clone)]
pub struct Retriever {
    encoder: Arc<dyn Encode>,
    store: Arc<dyn PairStore>,
    limits: Limits,
    /// Read when the first bare vector asks.
    cones: Arc<OnceLock<Cones>>,
}

impl fmt::Debug for Retriever {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retriever")
            .field("encoder", &self.encoder.name())
            .field("spec", self.store.spec())
            .finish_non_exhaustive()
    }
}

impl Retriever {
    /// Joins an encoder and a store.
    ///
    /// # Errors
    /// [`StoreError::SpecMismatch`] when the pool was built by another encoder or has another dimension.
    pub fn new(encoder: Arc<dyn Encode>, store: Arc<dyn PairStore>) -> Result<Self, StoreError> {
        Self::with_limits(encoder, store, Limits::default())
    }

    /// As [`Retriever::new`], with other limits.
    ///
    /// # Errors
    /// As [`Retriever::new`].
    pub fn with_limits(encoder: Arc<dyn Encode>, store: Arc<dyn PairStore>, limits: Limits) -> Result<Self, StoreError> {
        let spec = store.spec();
        if spec.encoder != encoder.fingerprint() || spec.dim != encoder.dim() {
            return Err(StoreError::SpecMismatch {
                pool: spec.encoder.clone(),
                pool_model: store.model().unwrap_or_default().to_owned(),
                pool_dim: spec.dim,
                encoder: encoder.fingerprint().to_owned(),
                encoder_model: encoder.name().to_owned(),
                encoder_dim: encoder.dim(),
            });
        }
        Ok(Self { encoder, store, limits, cones: Arc::default() })
    }

    /// The encoder.
    #[must_use]
    pub fn encoder(&self) -> &dyn Encode {
        &*self.encoder
    }

    /// The encoder, for callers that outlive this retriever.
    #[must_use]
    pub fn shared_encoder(&self) -> Arc<dyn Encode> {
        Arc::clone(&self.encoder)
    }

    /// The same encoder over another generation of its pool.
    ///
    /// # Errors
    /// As [`Retriever::new`].
    pub fn over(&self, store: Arc<dyn PairStore>) -> Result<Self, StoreError> {
        Self::with_limits(Arc::clone(&self.encoder), store, self.limits)
    }

    /// The pool.
    #[must_use]
    pub fn store(&self) -> &dyn PairStore {
        &*self.store
    }

    /// Answers every question, in order. Texts are encoded together, and pictures are.
    ///
    /// # Errors
    /// [`RetrieveError`]; one bad question fails the call and is named.
    pub fn find(&self, asks: &[Ask], cancel: &Cancel) -> Result<Answers, RetrieveError> {
        self.check(asks)?;
        let mut times = Times::default();
        let pieces = pieces(asks);
        let mut vectors: Vec<Option<Vec<f32>>> = vec![None; pieces.len()];
        let asked = Asked { pieces: &pieces, asks: asks.len() };
        self.encode_texts(asked, &mut vectors, &mut times, cancel)?;
        self.encode_pictures(asked, &mut vectors, &mut times, cancel)?;
        let mut towers: Vec<Option<Side>> = pieces.iter().map(Piece::tower).collect();
        self.look_up(asked, (&mut vectors, &mut towers), &mut times)?;
        let started = Instant::now();
        let filled = |vector: Option<Vec<f32>>| vector.expect("each kind of input was filled above, or the call had failed");
        let vectors = blended(&pieces, vectors.into_iter().map(filled).collect(), asks.len());
        let vectors = vectors.map_err(|(ask, source)| RetrieveError::Ask { ask, asks: asks.len(), source })?;
        let query = |((ask, vector), asked): ((&Ask, Vec<f32>), Option<Side>)| Query {
            side: ask.side,
            vector,
            k: ask.k,
            effort: ask.effort,
            asked,
            filter: ask.filter.clone(),
        };
        let queries: Vec<Query> = asks.iter().zip(vectors).zip(modalities(&pieces, &towers)).map(query).collect();
        let found = self.search(asks, queries, cancel)?;
        times.search = started.elapsed();
        Ok(Answers { found, times })
    }

    /// The first `limit` hits with their records. A row that is no longer there is left out; ranks keep their numbers.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn anchors(&self, found: &Found, parts: Parts, limit: usize) -> Result<Vec<Anchor>, StoreError> {
        self.anchors_in(found, parts, 0..limit)
    }

    /// As [`Retriever::anchors`], for the hits of these ranks: for callers that read in pieces to bound their memory.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn anchors_in(&self, found: &Found, parts: Parts, ranks: Range<usize>) -> Result<Vec<Anchor>, StoreError> {
        let end = ranks.end.min(found.hits.len());
        let start = ranks.start.min(end);
        let mut anchors = Vec::with_capacity(end - start);
        let step = self.limits.read_batch.max(1);
        for first in (start..end).step_by(step) {
            let hits = &found.hits[first..end.min(first + step)];
            let rows: Vec<RowId> = hits.iter().map(|h| h.row).collect();
            for (i, (hit, record)) in hits.iter().zip(self.store.get(&rows, parts)?).enumerate() {
                anchors.extend(record.map(|record| Anchor { rank: first + i, score: hit.score, record }));
            }
        }
        Ok(anchors)
    }

    fn check(&self, asks: &[Ask]) -> Result<(), RetrieveError> {
        let named = |(ask, source)| RetrieveError::Ask { ask, asks: asks.len(), source };
        asks.iter().enumerate().try_for_each(|(i, ask)| self.check_one(ask).map_err(|e| named((i, e))))
    }

    fn check_one(&self, ask: &Ask) -> Result<(), AskError> {
        let max = self.store.max_k();
        if ask.k == 0 || ask.k > max {
            return Err(AskError::K { k: ask.k, max });
        }
        if ask.threshold.is_some_and(|t| !t.is_finite()) {
            return Err(AskError::Threshold);
        }
        if let Some(value) = ask.near_duplicate.filter(|value| !(-1.0..=1.0).contains(value)) {
            return Err(AskError::NearDuplicate { value });
        }
        if !ask.weight.is_finite() || ask.and.iter().any(|part| !part.weight.is_finite()) {
            return Err(AskError::Weight);
        }
        self.check_input(&ask.input)?;
        ask.and.iter().try_for_each(|part| self.check_input(&part.input))
    }

    fn check_input(&self, input: &Input) -> Result<(), AskError> {
        match input {
            Input::Text(text) if text.trim().is_empty() => Err(AskError::EmptyText),
            Input::Embedding(values) => self.check_embedding(values),
            _ => Ok(()),
        }
    }

    fn check_embedding(&self, values: &[f32]) -> Result<(), AskError> {
        let expected = self.store.spec().dim;
        if values.len() != expected {
            return Err(AskError::Dimension { expected, found: values.len() });
        }
        Embedding::normalized(values.to_vec()).map(drop).map_err(AskError::Embedding)
    }

    fn encode_texts(
        &self,
        asked: Asked<'_>,
        vectors: &mut [Option<Vec<f32>>],
        times: &mut Times,
        cancel: &Cancel,
    ) -> Result<(), RetrieveError> {
        let texts = asked.each(|input| if let Input::Text(text) = input { Some(text) } else { None });
        for batch in texts.chunks(self.limits.encode_batch.max(1)) {
            alive(cancel)?;
            let started = Instant::now();
            let mut prepared = Vec::with_capacity(batch.len());
            for (piece, text) in batch {
                let tokens = self.encoder.prepare_text(text);
                prepared.push(tokens.map_err(|e| asked.wrong(*piece, AskError::Text(e)))?);
            }
            let encoding = Instant::now();
            times.prepare_texts += encoding - started;
            place(vectors, batch, self.encoder.encode_texts(&prepared)?, "text")?;
            times.encode_texts += encoding.elapsed();
        }
        Ok(())
    }

    fn encode_pictures(
        &self,
        asked: Asked<'_>,
        vectors: &mut [Option<Vec<f32>>],
        times: &mut Times,
        cancel: &Cancel,
    ) -> Result<(), RetrieveError> {
        let pictures = asked.each(|input| if let Input::Picture(bytes) = input { Some(bytes) } else { None });
        for batch in pictures.chunks(self.limits.encode_batch.max(1)) {
            let started = Instant::now();
            let mut prepared = Vec::with_capacity(batch.len());
            for (piece, bytes) in batch {
                alive(cancel)?;
                let pixels = self.encoder.prepare_image(bytes);
                prepared.push(pixels.map_err(|e| asked.wrong(*piece, AskError::Picture(e)))?);
            }
            let encoding = Instant::now();
            times.prepare_pictures += encoding - started;
            place(vectors, batch, self.encoder.encode_images(&prepared)?, "image")?;
            times.encode_pictures += encoding.elapsed();
        }
        Ok(())
    }

    /// Fills the inputs that bring or name a vector, and says which tower theirs came from where that can be told.
    fn look_up(
        &self,
        asked: Asked<'_>,
        (vectors, towers): (&mut [Option<Vec<f32>>], &mut [Option<Side>]),
        times: &mut Times,
    ) -> Result<(), RetrieveError> {
        let started = Instant::now();
        for (i, values) in asked.each(|input| if let Input::Embedding(values) = input { Some(values) } else { None }) {
            vectors[i] = Some(values.clone());
            if towers[i].is_none() {
                towers[i] = self.cones()?.side_of(values);
            }
        }
        let rows = self.named_rows(asked)?;
        let numbers: Vec<RowId> = rows.iter().map(|(_, row)| *row).collect();
        if numbers.is_empty() {
            return Ok(());
        }
        let records = self.store.get(&numbers, Parts { vectors: true, picture: false })?;
        for ((i, row), record) in rows.into_iter().zip(records) {
            let (side, vector) = self.stored_vector(row, record, asked.pieces[i].from).map_err(|e| asked.wrong(i, e))?;
            (vectors[i], towers[i]) = (Some(vector), Some(side));
        }
        times.look_up += started.elapsed();
        Ok(())
    }

    fn cones(&self) -> Result<&Cones, StoreError> {
        if let Some(cones) = self.cones.get() {
            return Ok(cones);
        }
        let cones = Cones::of(self.store())?;
        Ok(self.cones.get_or_init(|| cones))
    }

    /// Position and row of every input that is a row or a key.
    fn named_rows(&self, asked: Asked<'_>) -> Result<Vec<(usize, RowId)>, RetrieveError> {
        let mut rows = asked
            .each(|input| if let Input::Row(row) = input { Some(row) } else { None })
            .into_iter()
            .map(|(i, row)| (i, *row))
            .collect::<Vec<_>>();
        let keyed = asked.each(|input| if let Input::Key(key) = input { Some(key) } else { None });
        let keys: Vec<Key> = keyed.iter().map(|(_, key)| (*key).clone()).collect();
        let found = if keys.is_empty() { Vec::new() } else { self.store.find(&keys)? };
        for ((piece, key), row) in keyed.into_iter().zip(found) {
            rows.push((piece, row.ok_or_else(|| asked.wrong(piece, AskError::NoKey { key: key.clone() }))?));
        }
        Ok(rows)
    }

    fn stored_vector(&self, row: RowId, record: Option<Record>, from: Option<Side>) -> Result<(Side, Vec<f32>), AskError> {
        let record = record.ok_or_else(|| AskError::NoRow { row, rows: self.store.status().positions })?;
        let side = from.unwrap_or(if record.image.is_some() { Side::Image } else { Side::Text });
        let vector = if side == Side::Image { record.image } else { record.text };
        // Where neither is there, the picture's is what would have been taken.
        let missing = from.unwrap_or(Side::Image);
        vector.map(|vector| (side, vector)).ok_or(AskError::NoVector { row, side: missing })
    }
}

/// The inputs of one call's questions.
#[derive(Clone, Copy)]
struct Asked<'a> {
    pieces: &'a [Piece<'a>],
    asks: usize,
}

impl<'a> Asked<'a> {
    /// The inputs of one kind, each with its position.
    fn each<T: ?Sized>(self, pick: impl Fn(&'a Input) -> Option<&'a T>) -> Vec<(usize, &'a T)> {
        self.pieces.iter().enumerate().filter_map(|(i, piece)| pick(piece.input).map(|part| (i, part))).collect()
    }

    /// Names the question that the input at this position belongs to.
    fn wrong(self, piece: usize, source: AskError) -> RetrieveError {
        RetrieveError::Ask { ask: self.pieces[piece].ask, asks: self.asks, source }
    }
}

fn place<T: ?Sized>(
    vectors: &mut [Option<Vec<f32>>],
    batch: &[(usize, &T)],
    embeddings: Vec<Embedding>,
    tower: &'static str,
) -> Result<(), EncodeError> {
    if embeddings.len() != batch.len() {
        let reason = format!("{} embeddings came back for {} items", embeddings.len(), batch.len());
        return Err(EncodeError::Runtime { tower, reason });
    }
    for ((i, _), embedding) in batch.iter().zip(embeddings) {
        vectors[*i] = Some(embedding.into_vec());
    }
    Ok(())
}

pub(crate) fn alive(cancel: &Cancel) -> Result<(), StoreError> {
    if cancel.is_cancelled() { Err(StoreError::Cancelled) } else { Ok(()) }
}
