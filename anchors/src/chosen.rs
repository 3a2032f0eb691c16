//! Pairs that somebody chose by hand, as a manifest like any other: `anchors verify` checks it and training reads it.
//!
//! Its header says `search: "chosen"`, its `direction` column `chosen`; the policy in it is the default one and decided nothing.

use std::collections::{HashMap, HashSet};

use anchorite_index::{Cancel, PairStore, Parts, Record, RowId};

use crate::{
    Curated, Entry, Limits, Policy, Protected, Question, Questions, Report,
    curate::numbered_captions,
    manifest::{self, CHOSEN, Header, ManifestError},
    retriever::alive,
};

/// A pair that was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The pair.
    pub row: RowId,
    /// What it was chosen for: words, a file's name. Pairs that share it are ranked in the order in which they come.
    pub query: Option<String>,
    /// The score that it was shown with.
    pub score: Option<f32>,
}

/// Why a choice cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChoiceError {
    /// Nothing chosen.
    #[error("no pair was chosen; name at least one")]
    Empty,
    /// A pair twice for one query.
    #[error("row {row} is there twice for the same query; name it once", row = row.0)]
    Twice {
        /// The pair.
        row: RowId,
    },
    /// No such pair.
    #[error("there is no row {row} in this pool's generation {generation}", row = row.0)]
    NoRow {
        /// As given.
        row: RowId,
        /// The pool's.
        generation: u64,
    },
    /// Reading the pool, or writing.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// How a manifest is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The file that the rest of the system reads.
    Parquet,
    /// The same rows and header for other readers.
    Json,
}

/// The manifest of these pairs, as a file's bytes. Equal choices from one generation give equal bytes.
///
/// # Errors
/// [`ChoiceError`].
pub fn choose(
    store: &dyn PairStore,
    choices: &[Choice],
    form: Form,
    limits: &Limits,
    cancel: &Cancel,
) -> Result<Vec<u8>, ChoiceError> {
    if choices.is_empty() {
        return Err(ChoiceError::Empty);
    }
    let mut seen = HashSet::new();
    if let Some(twice) = choices.iter().find(|choice| !seen.insert((choice.row, choice.query.as_deref()))) {
        return Err(ChoiceError::Twice { row: twice.row });
    }
    let mut book = Book::default();
    for part in choices.chunks(limits.read_batch.max(1)) {
        alive(cancel).map_err(ManifestError::from)?;
        let rows: Vec<RowId> = part.iter().map(|choice| choice.row).collect();
        let records = store.get(&rows, Parts::default()).map_err(ManifestError::from)?;
        for (choice, record) in part.iter().zip(records) {
            let missing = || ChoiceError::NoRow { row: choice.row, generation: store.status().generation };
            book.enter(choice, record.ok_or_else(missing)?);
        }
    }
    let (questions, curated) = book.finish();
    let header = Header::new(store, &Policy::default(), &questions, &Protected::default(), &curated);
    let header = Header { search: CHOSEN.to_owned(), ..header };
    let write = match form {
        Form::Parquet => manifest::to_bytes,
        Form::Json => manifest::to_json,
    };
    Ok(write(&header, &questions, &curated)?)
}

/// Entries as they come, and the queries they name.
#[derive(Default)]
struct Book {
    entries: Vec<Entry>,
    questions: Questions,
    places: HashMap<String, usize>,
    taken: HashMap<Option<usize>, usize>,
}

impl Book {
    fn enter(&mut self, choice: &Choice, record: Record) {
        let query = choice.query.as_ref().map(|name| self.place(name));
        let rank = self.taken.entry(query).or_insert(0);
        let entry = Entry {
            query,
            rank: *rank,
            score: choice.score,
            row: record.row,
            key: record.key,
            content: record.content,
            caption: record.caption,
            reason: None,
            detail: None,
            group: None,
            validation: false,
        };
        *rank += 1;
        self.entries.push(entry);
    }

    fn place(&mut self, name: &str) -> usize {
        if let Some(&place) = self.places.get(name) {
            return place;
        }
        let place = self.questions.list.len();
        self.questions.list.push(Question { id: name.to_owned(), class: None, image: None, text: None });
        self.places.insert(name.to_owned(), place);
        place
    }

    fn finish(mut self) -> (Questions, Curated) {
        // Rows of a manifest stand by query.
        self.entries.sort_by_key(|entry| (entry.query, entry.rank));
        let captions: Vec<Option<&str>> = self.entries.iter().map(|entry| entry.caption.as_deref()).collect();
        let groups = numbered_captions(&captions);
        self.entries.iter_mut().zip(&groups).for_each(|(entry, group)| entry.group = *group);
        let found = self.entries.len() as u64;
        let report = Report {
            queries: self.questions.list.len() as u64,
            requested: found,
            found,
            pairs: self.entries.iter().map(|entry| entry.row).collect::<HashSet<_>>().len() as u64,
            in_caption_groups: groups.iter().flatten().count() as u64,
            ..Report::default()
        };
        (self.questions, Curated { entries: self.entries, ends: Vec::new(), report })
    }
}
