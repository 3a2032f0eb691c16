//! Query files to queries: rows of parquet, lines of text, or vectors that are there already.
//!
//! ```text
//!   parquet ──ingest's rows──┐
//!                            ├──► row (picture, caption, class) ──encode in batches──► Question ──per class?──► mean of its rows
//!   text, a line each ───────┘
//! ```

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anchorite_encoder::{Embedding, Encode, Pixels, Tokens};
use anchorite_index::{Cancel, Side, StoreError, Value};
use anchorite_ingest::{ColumnChoice, ColumnOptions, Limits as SourceLimits, Row, Rows, VectorMode};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::{
    CurateError, Limits,
    policy::{Per, Policy, Prompts, TextSource, VectorSource},
};

/// One query: what it is called, and the vectors it asks with.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// File and row, class name, or class name and number of the prompt.
    pub id: String,
    /// Its class.
    pub class: Option<String>,
    /// Image vector of unit length.
    pub image: Option<Vec<f32>>,
    /// Text vector of unit length.
    pub text: Option<Vec<f32>>,
}

impl Question {
    /// The vector of a side.
    #[must_use]
    pub fn vector(&self, side: Side) -> Option<&[f32]> {
        match side {
            Side::Image => self.image.as_deref(),
            Side::Text => self.text.as_deref(),
        }
    }
}

/// All queries, and the rows that are none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Questions {
    /// In file order; by class name where they are per class.
    pub list: Vec<Question>,
    /// Rows refused.
    pub rejected: u64,
    /// Why the first was refused.
    pub first_reject: Option<String>,
}

impl Questions {
    /// SHA-256 over names, classes and vectors, in hexadecimal: two runs with equal hashes asked the same.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        for question in &self.list {
            for text in [Some(question.id.as_str()), question.class.as_deref()] {
                hash.update([u8::from(text.is_some())]);
                hash.update((text.unwrap_or_default().len() as u64).to_le_bytes());
                hash.update(text.unwrap_or_default());
            }
            for vector in [&question.image, &question.text] {
                hash.update([u8::from(vector.is_some())]);
                vector.iter().flatten().for_each(|value| hash.update(value.to_le_bytes()));
            }
        }
        hex(&hash.finalize())
    }
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// Reads and encodes every query of `sources`: parquet files and folders as ingest reads them, or `.txt` files with a caption (or class name, as
/// the policy says) on each line.
///
/// # Errors
/// Sources that cannot be read, an encoder that fails, no query at all, or [`StoreError::Cancelled`].
pub fn read_questions(
    sources: &[PathBuf],
    policy: &Policy,
    encoder: &dyn Encode,
    limits: &Limits,
    cancel: &Cancel,
) -> Result<Questions, CurateError> {
    let mut reader = Reader::new(policy, encoder, *limits);
    for source in sources {
        match source.extension().is_some_and(|e| e.eq_ignore_ascii_case("txt")) {
            true => reader.read_lines(source, cancel)?,
            false => reader.read_rows(source, cancel)?,
        }
    }
    reader.finish()
}

/// A query that is at hand, not in a file: what it is called, and what it asks with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// What results call it.
    pub id: String,
    /// Its class.
    pub class: Option<String>,
    /// Words, for the text tower.
    pub caption: Option<String>,
    /// An encoded JPEG, PNG or WebP picture, for the image tower.
    pub picture: Option<Vec<u8>>,
    /// Image vector of unit length, where it is known.
    pub image: Option<Vec<f32>>,
    /// Text vector of unit length, where it is known.
    pub text: Option<Vec<f32>>,
}

/// Encodes queries that are at hand, as far as the policy's directions need it. What cannot be a query is counted and the first named, as in
/// [`read_questions`]; [`Queries::vectors`](crate::policy::Queries::vectors) is of files and plays no part.
///
/// # Errors
/// As [`read_questions`].
pub fn encode_questions(
    given: Vec<Given>,
    policy: &Policy,
    encoder: &dyn Encode,
    limits: &Limits,
    cancel: &Cancel,
) -> Result<Questions, CurateError> {
    let mut policy = policy.clone();
    policy.queries.vectors = VectorSource::Encode;
    let mut reader = Reader::new(&policy, encoder, *limits);
    for Given { id, class, caption, picture, image, text } in given {
        let picture = picture.filter(|_| reader.needs[0]);
        reader.add(Draft { id, class, caption, picture, image, text, problem: None }, cancel)?;
    }
    reader.finish()
}

/// A query before it is encoded.
struct Draft {
    id: String,
    class: Option<String>,
    caption: Option<String>,
    picture: Option<Vec<u8>>,
    image: Option<Vec<f32>>,
    text: Option<Vec<f32>>,
    /// Why the encoder would not take it.
    problem: Option<String>,
}

struct Reader<'a> {
    policy: &'a Policy,
    encoder: &'a dyn Encode,
    limits: Limits,
    needs: [bool; 2],
    pending: Vec<Draft>,
    prompts: BTreeMap<String, Vec<Vec<f32>>>,
    found: Questions,
}

impl<'a> Reader<'a> {
    fn new(policy: &'a Policy, encoder: &'a dyn Encode, limits: Limits) -> Self {
        let from = |side| policy.directions.iter().any(|d| d.from == side);
        let needs = [from(Side::Image) || policy.protect.nearer_than_queries, from(Side::Text)];
        Self { policy, encoder, limits, needs, pending: Vec::new(), prompts: BTreeMap::new(), found: Questions::default() }
    }

    fn prompted(&self) -> bool {
        self.policy.queries.text == TextSource::ClassName
    }

    fn read_lines(&mut self, path: &Path, cancel: &Cancel) -> Result<(), CurateError> {
        let text = fs::read_to_string(path).map_err(|source| CurateError::ReadQueries { path: path.to_owned(), source })?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for (row, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let line = line.trim().to_owned();
            let (class, caption) = if self.prompted() { (Some(line), None) } else { (None, Some(line)) };
            let id = format!("{name}#{row}");
            self.add(Draft { id, class, caption, picture: None, image: None, text: None, problem: None }, cancel)?;
        }
        Ok(())
    }

    fn read_rows(&mut self, path: &Path, cancel: &Cancel) -> Result<(), CurateError> {
        let mode = match self.policy.queries.vectors {
            VectorSource::Encode => VectorMode::Encode,
            VectorSource::Ready => VectorMode::Ready { dim: Some(self.encoder.dim()) },
        };
        let mut rows = Rows::open(&[path.to_owned()], self.columns(), mode, SourceLimits::default())?;
        while let Some(row) = rows.next_row()? {
            match row {
                Ok(row) => {
                    let draft = self.draft(row)?;
                    self.add(draft, cancel)?;
                }
                Err(reject) => self.refuse(&format!("{}#{}", reject.source.file, reject.source.row), &reject.message),
            }
        }
        Ok(())
    }

    /// Only what the directions start from must be there.
    fn columns(&self) -> ColumnOptions {
        let if_needed = |needed| if needed { ColumnChoice::Auto } else { ColumnChoice::Absent };
        let ready = self.policy.queries.vectors == VectorSource::Ready;
        ColumnOptions {
            image: if_needed(self.needs[0] && !ready),
            caption: if_needed(self.needs[1] && !ready && !self.prompted()),
            key: None,
            image_vector: if_needed(self.needs[0]),
            text_vector: if_needed(self.needs[1]),
        }
    }

    fn draft(&self, row: Row) -> Result<Draft, CurateError> {
        let id = format!("{}#{}", row.source.file, row.source.row);
        let column = self.policy.queries.class_column.as_deref().unwrap_or("label");
        let class = row.fields.get(column).map(|value| self.class_name(&id, value)).transpose()?;
        let picture = row.picture.filter(|_| self.needs[0]);
        Ok(Draft { id, class, caption: row.caption, picture, image: row.image_vector, text: row.text_vector, problem: None })
    }

    fn class_name(&self, query: &str, value: &Value) -> Result<String, CurateError> {
        let names = &self.policy.queries.class_names;
        match value {
            Value::Int(label) if !names.is_empty() => {
                let named = usize::try_from(*label).ok().and_then(|i| names.get(i)).cloned();
                named.ok_or_else(|| CurateError::NoClassName { query: query.to_owned(), label: *label, names: names.len() })
            }
            value => Ok(value.to_string()),
        }
    }

    fn refuse(&mut self, id: &str, why: &str) {
        self.found.rejected += 1;
        self.found.first_reject.get_or_insert_with(|| format!("{id}: {why}"));
    }

    fn add(&mut self, draft: Draft, cancel: &Cancel) -> Result<(), CurateError> {
        self.pending.push(draft);
        if self.pending.len() >= self.limits.encode_batch.max(1) {
            self.encode(cancel)?;
        }
        Ok(())
    }

    /// Drafts to questions.
    fn encode(&mut self, cancel: &Cancel) -> Result<(), CurateError> {
        if cancel.is_cancelled() {
            return Err(StoreError::Cancelled.into());
        }
        let mut drafts = std::mem::take(&mut self.pending);
        if self.policy.queries.vectors == VectorSource::Encode {
            self.encode_pictures(&mut drafts)?;
            self.encode_captions(&mut drafts)?;
        }
        for draft in drafts {
            self.settle(draft)?;
        }
        Ok(())
    }

    fn encode_pictures(&mut self, drafts: &mut [Draft]) -> Result<(), CurateError> {
        let encoder = self.encoder;
        let prepared: Vec<Option<Result<Pixels, String>>> = drafts
            .par_iter()
            .map(|d| d.picture.as_deref().map(|bytes| encoder.prepare_image(bytes).map_err(|e| e.to_string())))
            .collect();
        let mut batch = Vec::new();
        let mut places = Vec::new();
        for (place, pixels) in prepared.into_iter().enumerate() {
            drafts[place].picture = None;
            match pixels {
                Some(Ok(pixels)) => {
                    batch.push(pixels);
                    places.push(place);
                }
                Some(Err(why)) => drafts[place].problem = Some(why),
                None => {}
            }
        }
        if !batch.is_empty() {
            for (place, embedding) in places.into_iter().zip(self.encoder.encode_images(&batch)?) {
                drafts[place].image = Some(embedding.into_vec());
            }
        }
        Ok(())
    }

    fn encode_captions(&mut self, drafts: &mut [Draft]) -> Result<(), CurateError> {
        if !self.needs[1] || self.prompted() {
            return Ok(());
        }
        let mut batch = Vec::new();
        let mut places = Vec::new();
        for (place, draft) in drafts.iter_mut().enumerate() {
            match draft.caption.as_deref().map(|caption| self.encoder.prepare_text(caption)) {
                Some(Ok(tokens)) => {
                    batch.push(tokens);
                    places.push(place);
                }
                Some(Err(error)) => draft.problem = Some(error.to_string()),
                None => {}
            }
        }
        if !batch.is_empty() {
            for (place, embedding) in places.into_iter().zip(self.encoder.encode_texts(&batch)?) {
                drafts[place].text = Some(embedding.into_vec());
            }
        }
        Ok(())
    }

    /// One draft to its question, or to several where each prompt is one.
    fn settle(&mut self, draft: Draft) -> Result<(), CurateError> {
        let prompted = self.needs[1] && self.prompted() && self.policy.queries.vectors == VectorSource::Encode;
        let missing = match (self.needs[0] && draft.image.is_none(), self.needs[1] && !prompted && draft.text.is_none()) {
            (true, _) => Some("it has no picture"),
            (_, true) => Some("it has no caption"),
            _ => None,
        };
        if let Some(why) = draft.problem.as_deref().or(missing) {
            self.refuse(&draft.id, why);
            return Ok(());
        }
        if !prompted {
            return self.push(Question { id: draft.id, class: draft.class, image: draft.image, text: draft.text });
        }
        let Some(class) = draft.class else { return Err(CurateError::NoClass { query: draft.id }) };
        let prompts = self.prompts_of(&class)?;
        let several = prompts.len() > 1;
        for (number, text) in prompts.into_iter().enumerate() {
            let id = if several { format!("{}/{number}", draft.id) } else { draft.id.clone() };
            self.push(Question { id, class: Some(class.clone()), image: draft.image.clone(), text: Some(text) })?;
        }
        Ok(())
    }

    fn push(&mut self, question: Question) -> Result<(), CurateError> {
        if self.found.list.len() >= self.limits.max_queries {
            return Err(CurateError::TooMany { what: "queries", max: self.limits.max_queries });
        }
        self.found.list.push(question);
        Ok(())
    }

    /// The class's prompts as vectors, encoded once.
    fn prompts_of(&mut self, class: &str) -> Result<Vec<Vec<f32>>, CurateError> {
        if let Some(known) = self.prompts.get(class) {
            return Ok(known.clone());
        }
        let mut vectors = Vec::new();
        for batch in self.policy.queries.templates.prompts(class).chunks(self.limits.encode_batch.max(1)) {
            let tokens: Result<Vec<Tokens>, _> = batch.iter().map(|prompt| self.encoder.prepare_text(prompt)).collect();
            let Ok(tokens) = tokens else { continue };
            vectors.extend(self.encoder.encode_texts(&tokens)?.into_iter().map(Embedding::into_vec));
        }
        if self.policy.queries.prompts == Prompts::Mean {
            vectors = mean(vectors.iter().map(Vec::as_slice)).into_iter().collect();
        }
        self.prompts.insert(class.to_owned(), vectors.clone());
        Ok(vectors)
    }

    fn finish(mut self) -> Result<Questions, CurateError> {
        self.encode(&Cancel::default())?;
        if self.found.list.is_empty() {
            let first = self.found.first_reject.unwrap_or_else(|| "there are none".to_owned());
            return Err(CurateError::NoQueries { rejected: self.found.rejected, first });
        }
        if self.policy.queries.per == Per::Class {
            self.found.list = by_class(self.found.list, self.policy.queries.prompts)?;
        }
        Ok(self.found)
    }
}

/// The direction of the mean; none of nothing, or where the vectors cancel out.
pub(crate) fn mean<'v>(vectors: impl Iterator<Item = &'v [f32]>) -> Option<Vec<f32>> {
    let mut sum: Vec<f64> = Vec::new();
    for vector in vectors {
        sum.resize(vector.len(), 0.0);
        sum.iter_mut().zip(vector).for_each(|(total, v)| *total += f64::from(*v));
    }
    let length = sum.iter().map(|v| v * v).sum::<f64>().sqrt();
    (length > 0.0).then(|| sum.iter().map(|v| (v / length) as f32).collect())
}

/// One question a class, in the order of their names; one a class and prompt where each prompt is a query.
fn by_class(list: Vec<Question>, prompts: Prompts) -> Result<Vec<Question>, CurateError> {
    let mut classes: BTreeMap<(String, String), Vec<Question>> = BTreeMap::new();
    for question in list {
        let Some(class) = question.class.clone() else { return Err(CurateError::NoClass { query: question.id }) };
        let prompt = match prompts {
            Prompts::Each => question.id.rsplit_once('/').map_or("", |(_, number)| number).to_owned(),
            Prompts::Mean => String::new(),
        };
        classes.entry((class, prompt)).or_default().push(question);
    }
    let merged = |((class, prompt), members): ((String, String), Vec<Question>)| Question {
        id: if prompt.is_empty() { class.clone() } else { format!("{class}/{prompt}") },
        class: Some(class),
        image: mean(members.iter().filter_map(|q| q.vector(Side::Image))),
        text: mean(members.iter().filter_map(|q| q.vector(Side::Text))),
    };
    Ok(classes.into_iter().map(merged).collect())
}
