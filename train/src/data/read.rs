//! The finetune set's rows into a spool: each with its picture decoded once, its class or caption found, or counted as unusable.

use std::{collections::HashMap, path::Path};

use anchorite_encoder::image::{ImageLimits, decode};
use anchorite_index::{Cancel, Value};
use anchorite_ingest::{ColumnChoice, ColumnOptions, Limits, Row, Rows, VectorMode};
use rayon::prelude::*;

use super::{DataError, PairData, Spool, SpoolWriter, captions::CaptionFile, only::meant};
use crate::runner::{RunConfig, TaskText};

/// Rows decoded together while reading. 256: enough for all cores, 16 MB of common pictures.
const TOGETHER: usize = 256;

/// A set of pairs that is ready, and what was left out of it.
#[derive(Debug)]
pub struct PairSet {
    /// The rows.
    pub spool: Spool,
    /// Names of the groups, where they are classes.
    pub classes: Vec<String>,
    /// Unusable rows.
    pub rejected: u64,
    /// The first of them, with its reason.
    pub first_reject: Option<String>,
}

/// Where reading takes place.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    /// The folder for the rows; the run's output.
    pub folder: &'a Path,
    /// Ends the reading.
    pub cancel: &'a Cancel,
    /// Hears of rows read so far, of which set.
    pub told: &'a (dyn Fn(&'static str, u64) + Sync),
}

impl std::fmt::Debug for Reading<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Reads the finetune set of a run.
///
/// # Errors
/// [`DataError`]: sources, columns, more unusable rows than allowed, one class only, fewer rows than a batch.
pub fn read_task(config: &RunConfig, reading: Reading<'_>) -> Result<PairSet, DataError> {
    let names = class_names(config)?;
    let file = config.captions.as_ref().and_then(|c| c.file.as_ref().map(|file| CaptionFile::read(file, c))).transpose()?;
    let mut reader = TaskReader {
        config,
        known: names.iter().enumerate().map(|(i, name)| (name.clone(), i as u32)).collect(),
        closed: !names.is_empty(),
        names,
        file,
        groups: HashMap::new(),
        first_columns: None,
        has_label: false,
        has_key: false,
        example_key: None,
        matched: 0,
    };
    let mut rows = Rows::open(&config.task.sources, columns(config), VectorMode::Encode, Limits::default())?;
    let mut filling = Filling::new("task", reading, config.data.max_rejects)?;
    while let Some(row) = rows.next_row()? {
        match row {
            Ok(row) if !meant(&config.task.only, &row) => {}
            Ok(row) => {
                let name = format!("{}#{}", row.source.file, row.source.row);
                filling.add(name, reader.pair(row))?;
            }
            Err(reject) => {
                filling.add(format!("{}#{}", reject.source.file, reject.source.row), Err(reject.message.into_owned()))?;
            }
        }
    }
    reader.check_columns(&filling)?;
    let set = filling.finish(std::mem::take(&mut reader.names))?;
    check_size(&set, config)?;
    Ok(set)
}

fn check_size(set: &PairSet, config: &RunConfig) -> Result<(), DataError> {
    let rows = set.spool.len();
    let (one, class) = (set.spool.groups() == 1, config.task.text == TaskText::Class);
    if rows > 0 && one && class {
        let class = set.classes.get(set.spool.group(0) as usize).cloned().unwrap_or_default();
        return Err(DataError::OneClass { rows, class, column: config.task.label.clone() });
    }
    match rows < config.batch {
        true => {
            let remedy = "set batch to less, or give more rows";
            Err(DataError::FewerThanBatch { set: "task", rows, batch: config.batch, remedy })
        }
        false => Ok(()),
    }
}

fn columns(config: &RunConfig) -> ColumnOptions {
    let choice = |named: &Option<String>| named.clone().map_or(ColumnChoice::Auto, ColumnChoice::Named);
    let caption = match (config.task.text, config.captions.as_ref().and_then(|c| c.column.as_ref())) {
        (TaskText::Caption, _) => choice(&config.task.caption),
        // The second captions come as a field, since both streams are of one row.
        (TaskText::Class, _) => ColumnChoice::Absent,
    };
    let absent = ColumnChoice::Absent;
    // The key column is read as a field: its values need not be keys of a pool.
    ColumnOptions { image: choice(&config.task.image), caption, key: None, image_vector: absent.clone(), text_vector: absent }
}

fn class_names(config: &RunConfig) -> Result<Vec<String>, DataError> {
    let Some(path) = &config.task.class_names_file else { return Ok(config.task.class_names.clone()) };
    let text = std::fs::read_to_string(path).map_err(|source| DataError::ReadFile { path: path.clone(), source })?;
    Ok(text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect())
}

/// Rows of the finetune set to pairs.
struct TaskReader<'a> {
    config: &'a RunConfig,
    names: Vec<String>,
    known: HashMap<String, u32>,
    /// Whether the classes were given, so that another is an error.
    closed: bool,
    file: Option<CaptionFile>,
    /// Captions seen, for grouping equal ones.
    groups: HashMap<String, u32>,
    first_columns: Option<String>,
    has_label: bool,
    has_key: bool,
    example_key: Option<String>,
    matched: u64,
}

impl TaskReader<'_> {
    fn pair(&mut self, row: Row) -> Result<PairData, String> {
        self.first_columns.get_or_insert_with(|| row.fields.keys().cloned().collect::<Vec<_>>().join(", "));
        let captions = self.captions(&row)?;
        let (text, group) = match self.config.task.text {
            TaskText::Class => self.class(&row)?,
            TaskText::Caption => {
                let caption = row.caption.ok_or("it has no caption")?.replace('\0', " ");
                let next = self.groups.len() as u32;
                let group = *self.groups.entry(caption.clone()).or_insert(next);
                (caption, group)
            }
        };
        let picture = row.picture.ok_or("it has no picture")?;
        Ok(PairData { picture, texts: vec![text], captions, group })
    }

    fn class(&mut self, row: &Row) -> Result<(String, u32), String> {
        let label = row.fields.get(&self.config.task.label).ok_or_else(|| format!("it has no {}", self.config.task.label))?;
        self.has_label = true;
        if let (Value::Int(number), true) = (label, self.closed) {
            let named = usize::try_from(*number).ok().and_then(|i| self.names.get(i).map(|name| (name.clone(), i as u32)));
            return named.ok_or_else(|| format!("class {number} is none of the {} in task.class_names", self.names.len()));
        }
        let name = label.to_string().replace('\0', " ");
        if let Some(&group) = self.known.get(&name) {
            return Ok((name, group));
        }
        if self.closed {
            return Err(format!("class {name:?} is none of the {} in task.class_names", self.names.len()));
        }
        let group = self.names.len() as u32;
        self.known.insert(name.clone(), group);
        self.names.push(name.clone());
        Ok((name, group))
    }

    fn captions(&mut self, row: &Row) -> Result<Vec<String>, String> {
        let Some(captions) = &self.config.captions else { return Ok(Vec::new()) };
        if let Some(column) = &captions.column {
            let own = row.caption.as_ref().filter(|_| self.config.task.caption.as_ref() == Some(column));
            let text = own.cloned().or_else(|| row.fields.get(column).map(ToString::to_string));
            return text.map(|t| vec![t.replace('\0', " ")]).ok_or_else(|| format!("it has no {column}"));
        }
        let column = self.config.task.key.as_deref().unwrap_or_default();
        let key = row.fields.get(column).ok_or_else(|| format!("it has no {column}"))?;
        self.has_key = true;
        self.example_key.get_or_insert_with(|| key.to_string());
        let found = self.file.as_ref().and_then(|file| file.of(key)).map(<[String]>::to_vec);
        self.matched += u64::from(found.is_some());
        found.ok_or_else(|| format!("captions.file has no caption for {:?}", key.to_string()))
    }

    /// A column that no row has is named as such, before the rows without it are counted.
    fn check_columns(&self, filling: &Filling<'_>) -> Result<(), DataError> {
        if !filling.is_hopeless() {
            return Ok(());
        }
        let columns = self.first_columns.clone().unwrap_or_default();
        let missing = |column: &str, field| DataError::NoColumn { set: "task", column: column.to_owned(), field, columns };
        let keyed = self.config.captions.as_ref().is_some_and(|c| c.file.is_some());
        match (&self.file, &self.example_key) {
            (Some(_), None) if keyed && !self.has_key => {
                Err(missing(self.config.task.key.as_deref().unwrap_or_default(), "task.key"))
            }
            (Some(file), Some(example)) if self.matched == 0 => Err(file.no_matches(example.clone())),
            _ if self.config.task.text == TaskText::Class && !self.has_label => {
                Err(missing(&self.config.task.label, "task.label"))
            }
            _ => Ok(()),
        }
    }
}

/// A spool being filled: pictures are decoded in parallel, rows go in in order.
pub(crate) struct Filling<'a> {
    set: &'static str,
    reading: Reading<'a>,
    allowed: u64,
    writer: SpoolWriter,
    pending: Vec<(String, PairData)>,
    seen: u64,
    rejected: u64,
    first_reject: Option<String>,
}

impl<'a> Filling<'a> {
    pub(crate) fn new(set: &'static str, reading: Reading<'a>, allowed: u64) -> Result<Self, DataError> {
        let writer = SpoolWriter::create(reading.folder, set)?;
        Ok(Self { set, reading, allowed, writer, pending: Vec::new(), seen: 0, rejected: 0, first_reject: None })
    }

    pub(crate) fn add(&mut self, name: String, pair: Result<PairData, String>) -> Result<(), DataError> {
        self.seen += 1;
        match pair {
            Ok(pair) => self.pending.push((name, pair)),
            Err(why) => self.refuse(&name, &why),
        }
        if self.pending.len() >= TOGETHER { self.flush() } else { Ok(()) }
    }

    /// Whether not a single row is usable so far.
    fn is_hopeless(&self) -> bool {
        self.pending.is_empty() && self.writer.is_empty()
    }

    fn refuse(&mut self, name: &str, why: &str) {
        self.rejected += 1;
        self.first_reject.get_or_insert_with(|| format!("{name}: {why}"));
    }

    fn flush(&mut self) -> Result<(), DataError> {
        if self.reading.cancel.is_cancelled() {
            return Err(DataError::Cancelled);
        }
        let limits = ImageLimits::default();
        let pending = std::mem::take(&mut self.pending);
        let checked: Vec<Option<String>> =
            pending.par_iter().map(|(_, pair)| decode(&pair.picture, &limits).err().map(|e| e.to_string())).collect();
        for ((name, pair), problem) in pending.into_iter().zip(checked) {
            match problem {
                None => self.writer.push(&pair)?,
                Some(why) => self.refuse(&name, &why),
            }
        }
        (self.reading.told)(self.set, self.seen);
        Ok(())
    }

    pub(crate) fn finish(mut self, classes: Vec<String>) -> Result<PairSet, DataError> {
        self.flush()?;
        if self.rejected > self.allowed {
            let (set, rejected, allowed) = (self.set, self.rejected, self.allowed);
            return Err(DataError::Rejects { set, rejected, allowed, first: self.first_reject.unwrap_or_default() });
        }
        let spool = self.writer.finish()?;
        Ok(PairSet { spool, classes, rejected: self.rejected, first_reject: self.first_reject })
    }
}
