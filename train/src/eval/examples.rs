//! A set's rows to embeddings and labels. Pictures that cannot be read are listed; rows of other labels are counted.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use anchorite_encoder::Encode;
use anchorite_index::Cancel;
use anchorite_ingest::{ColumnChoice, ColumnOptions, Limits as SourceLimits, Row, Rows, VectorMode};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    Cache, EvalError, EvalLimits,
    cache::{self, Content},
    config::{EvalConfig, OutsideRule, SetConfig, Task},
    matrix::Matrix,
    targets::Targets,
};
use crate::data::only::meant;

/// A row that could not be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// File and row.
    pub row: String,
    /// A stable short reason.
    pub code: String,
    /// The reason for people.
    pub message: String,
}

/// The evaluated images of a set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Examples {
    /// File and row of each image.
    pub(crate) rows: Vec<String>,
    /// Each image's label, as a number of the set's targets; empty for retrieval.
    pub(crate) labels: Vec<usize>,
    /// Embeddings of unit length.
    pub(crate) images: Matrix,
    /// Captions of a set for retrieval, and which image each belongs to.
    pub(crate) captions: Vec<(usize, String)>,
    /// The first of those that could not be read.
    pub(crate) unreadable: Vec<Unreadable>,
    /// How many could not be read.
    pub(crate) unreadable_count: u64,
    /// Rows whose label is not evaluated.
    pub(crate) outside: u64,
    /// SHA-256 over contents and labels, in order.
    pub(crate) content: String,
}

/// What is read, and with what.
pub(crate) struct Reader<'a> {
    pub(crate) config: &'a EvalConfig,
    pub(crate) set: &'a SetConfig,
    pub(crate) targets: Option<&'a Targets>,
    pub(crate) limits: &'a EvalLimits,
    pub(crate) cancel: &'a Cancel,
}

/// A row with a picture, and a label or a caption.
struct Item {
    row: String,
    label: usize,
    caption: Option<String>,
    picture: Vec<u8>,
    content: Content,
}

pub(crate) fn sources(config: &EvalConfig, set: &SetConfig) -> Vec<PathBuf> {
    set.sources.iter().map(|source| config.path(source)).collect()
}

/// Only what the set is for must be there.
pub(crate) fn columns(set: &SetConfig) -> ColumnOptions {
    let named = |name: &Option<String>| name.clone().map_or(ColumnChoice::Auto, ColumnChoice::Named);
    let captions = set.task() == Task::Retrieve;
    ColumnOptions {
        image: named(&set.image_column),
        caption: if captions { named(&set.caption_column) } else { ColumnChoice::Absent },
        ..ColumnOptions::default()
    }
}

impl Reader<'_> {
    /// Opens the rows.
    pub(crate) fn rows(&self) -> Result<Rows, EvalError> {
        Rows::open(&sources(self.config, self.set), columns(self.set), VectorMode::Encode, SourceLimits::default())
            .map_err(|source| EvalError::Source { set: self.set.name.clone(), source: Box::new(source) })
    }

    /// Every row, encoded. `told` hears how many rows were read.
    pub(crate) fn read(
        &self,
        model: &str,
        encoder: &dyn Encode,
        cache: &mut Cache,
        told: &dyn Fn(u64),
    ) -> Result<Examples, EvalError> {
        let mut rows = self.rows()?;
        let mut reading = Reading {
            found: Examples { images: Matrix::new(encoder.dim()), ..Examples::default() },
            seen: HashMap::new(),
            hash: Sha256::new(),
            grouped: self.targets.is_none(),
            max_listed: self.limits.max_listed,
        };
        let (mut block, mut read) = (Vec::new(), 0);
        let source = |source| EvalError::Source { set: self.set.name.clone(), source: Box::new(source) };
        while let Some(row) = rows.next_row().map_err(source)? {
            read += 1;
            if read > self.limits.max_rows as u64 {
                return Err(EvalError::TooMany { what: format!("rows of set {:?}", self.set.name), max: self.limits.max_rows });
            }
            match row {
                Ok(row) if !meant(&self.set.only, &row) => {}
                Ok(row) => block.extend(self.item(row, &mut reading)?),
                Err(reject) => {
                    reading.refuse(place(&reject.source.file, reject.source.row), reject.code, reject.message.to_string());
                }
            }
            if block.len() >= self.limits.block {
                self.settle(&mut block, model, encoder, cache, &mut reading)?;
                told(read);
            }
        }
        self.settle(&mut block, model, encoder, cache, &mut reading)?;
        told(read);
        let mut found = reading.found;
        found.content = reading.hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        match found.rows.is_empty() {
            true => {
                let (unreadable, outside) = (found.unreadable_count, found.outside);
                Err(EvalError::Empty { set: self.set.name.clone(), unreadable, outside })
            }
            false => Ok(found),
        }
    }

    /// A row that is to be evaluated; none for one that is not, which is then counted.
    fn item(&self, row: Row, reading: &mut Reading) -> Result<Option<Item>, EvalError> {
        let place = place(&row.source.file, row.source.row);
        let label = match self.label(&row, &place)? {
            Some(label) => label,
            None => {
                reading.found.outside += 1;
                return Ok(None);
            }
        };
        let refused = match (&row.picture, self.set.task(), &row.caption) {
            (None, ..) => Some(("no_image", "the row has no picture")),
            (_, Task::Retrieve, None) => Some(("no_caption", "the row has no caption")),
            _ => None,
        };
        if let Some((code, message)) = refused {
            reading.refuse(place, code, message.to_owned());
            return Ok(None);
        }
        let picture = row.picture.unwrap_or_default();
        let content = cache::picture(&picture);
        Ok(Some(Item { row: place, label, caption: row.caption, picture, content }))
    }

    /// The row's label; none for one that is not evaluated.
    pub(crate) fn label(&self, row: &Row, place: &str) -> Result<Option<usize>, EvalError> {
        let Some(targets) = self.targets else { return Ok(Some(0)) };
        let column = self.set.label_column.as_deref().unwrap_or("label");
        let wrong = |reason: String| EvalError::Label { set: self.set.name.clone(), row: place.to_owned(), reason };
        let value = row.fields.get(column).ok_or_else(|| {
            let there: Vec<&str> = row.fields.keys().map(String::as_str).collect();
            wrong(format!("no value in the column {column:?}; name it with label_column. There are: {}", there.join(", ")))
        })?;
        match (targets.label(value).map_err(&wrong)?, self.set.outside) {
            (None, OutsideRule::Refuse) => {
                let shown = format!("{value:?}");
                Err(wrong(format!(
                    "its label {shown} is none of the {} evaluated; outside = \"drop\" leaves such rows out",
                    targets.names.len()
                )))
            }
            (label, _) => Ok(label),
        }
    }

    /// A block of items to embeddings, in order.
    fn settle(
        &self,
        block: &mut Vec<Item>,
        model: &str,
        encoder: &dyn Encode,
        cache: &mut Cache,
        reading: &mut Reading,
    ) -> Result<(), EvalError> {
        if self.cancel.is_cancelled() {
            return Err(EvalError::Cancelled);
        }
        let mut asked = HashSet::new();
        let new: Vec<&Item> = block.iter().filter(|i| cache.get(&i.content).is_none() && asked.insert(i.content)).collect();
        let made: Vec<Vec<Made>> = new
            .par_chunks(self.limits.encode_batch.max(1))
            .map(|items| encode(items, encoder))
            .collect::<Result<_, _>>()
            .map_err(|source| EvalError::Encode { model: model.to_owned(), source })?;
        let mut problems: HashMap<Content, (&'static str, String)> = HashMap::new();
        for (content, made) in made.into_iter().flatten() {
            match made {
                Ok(values) => cache.put(content, values)?,
                Err(problem) => {
                    problems.insert(content, problem);
                }
            }
        }
        for item in block.drain(..) {
            match (cache.get(&item.content), problems.get(&item.content)) {
                (Some(values), _) => reading.take(item, values),
                (None, Some((code, message))) => reading.refuse(item.row, code, message.clone()),
                (None, None) => reading.refuse(item.row, "not_encoded", "the encoder gave nothing for it".to_owned()),
            }
        }
        Ok(())
    }
}

type Made = (Content, Result<Vec<f32>, (&'static str, String)>);

/// Pictures to embeddings; those that cannot be read, to the reason.
fn encode(items: &[&Item], encoder: &dyn Encode) -> Result<Vec<Made>, anchorite_encoder::EncodeError> {
    let mut made: Vec<Made> = Vec::with_capacity(items.len());
    let (mut contents, mut batch) = (Vec::new(), Vec::new());
    for item in items {
        match encoder.prepare_image(&item.picture) {
            Ok(pixels) => {
                contents.push(item.content);
                batch.push(pixels);
            }
            Err(error) => made.push((item.content, Err((error.code(), error.to_string())))),
        }
    }
    if !batch.is_empty() {
        let embeddings = encoder.encode_images(&batch)?;
        made.extend(contents.into_iter().zip(embeddings.into_iter().map(|e| Ok(e.into_vec()))));
    }
    Ok(made)
}

fn place(file: &str, row: u64) -> String {
    format!("{file}#{row}")
}

/// What was read so far.
struct Reading {
    found: Examples,
    /// Images by content, where equal pictures with several captions are one image.
    seen: HashMap<Content, usize>,
    hash: Sha256,
    grouped: bool,
    max_listed: usize,
}

impl Reading {
    fn take(&mut self, item: Item, values: &[f32]) {
        self.hash.update(item.content);
        self.hash.update((item.label as u64).to_le_bytes());
        let next = self.found.rows.len();
        let place = if self.grouped { *self.seen.entry(item.content).or_insert(next) } else { next };
        if place == next {
            self.found.rows.push(item.row);
            self.found.images.push(values);
            if !self.grouped {
                self.found.labels.push(item.label);
            }
        }
        if let Some(caption) = item.caption.filter(|_| self.grouped) {
            self.hash.update(caption.as_bytes());
            self.found.captions.push((place, caption));
        }
    }

    fn refuse(&mut self, row: String, code: &str, message: String) {
        self.found.unreadable_count += 1;
        if self.found.unreadable.len() < self.max_listed {
            self.found.unreadable.push(Unreadable { row, code: code.to_owned(), message });
        }
    }
}
