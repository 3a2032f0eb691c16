//! Manifests with pictures: a manifest's hits, the pool's pairs, and the task's own pictures, joined for a page.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anchorite::{
    anchors::{ManifestHit, hits, manifest},
    index::{Key, PairStore, Parts, Record, Value},
    ingest::{ColumnChoice, ColumnOptions, Limits, Rows, VectorMode},
    train::report::{AnchorsView, Gallery, ReportLimits, Shown, Task, anchors_page},
};
use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{open, output::bytes, progress::say};

/// Queries shown with their anchors where nobody says otherwise.
pub(crate) const SHOWN: usize = 12;
/// Anchors shown of each query.
const ANCHORS: usize = 7;
/// Hits of a manifest that a page counts; ten times what ImageNet's training set asks for with k 4 would be more than a page can say.
const MAX_HITS: usize = 5_000_000;
/// Records read together.
const BATCH: usize = 1_024;

/// Manifests to show.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Anchors")]
pub(crate) struct GalleryArgs {
    /// A manifest of `anchorite anchors`; can be given several times.
    #[arg(long = "anchors", value_name = "MANIFEST")]
    manifests: Vec<PathBuf>,
    /// The pool that the manifests chose from, for pictures and styles.
    #[arg(long, env = "ANCHORITE_POOL", value_name = "DIR")]
    pool: Option<PathBuf>,
    /// The query files that the manifests were made with, for the task's pictures.
    #[arg(long = "queries", value_name = "FILE")]
    queries: Vec<PathBuf>,
    /// Captions of the task's pictures, as `anchorite caption` wrote them for the query files.
    #[arg(long = "captions", value_name = "FILE", conflicts_with = "caption_column")]
    captions: Option<PathBuf>,
    /// The query files' own column of captions.
    #[arg(long, value_name = "NAME")]
    caption_column: Option<String>,
    /// Queries shown with their anchors, evenly spaced over the manifest.
    #[arg(long, default_value_t = SHOWN, value_name = "N")]
    shown: usize,
    /// The pool's column that styles are counted by.
    #[arg(long, default_value = "style", value_name = "NAME")]
    style_column: String,
}

impl GalleryArgs {
    /// Each manifest, joined with its pool.
    pub(crate) fn views(&self) -> Result<Vec<AnchorsView>> {
        if self.manifests.is_empty() {
            return Ok(Vec::new());
        }
        let Some(dir) = &self.pool else { bail!("--anchors needs the pool they are from: give --pool DIR") };
        let pool = open::pool(dir)?;
        let view = |manifest: &PathBuf| {
            let captions = self.task_captions();
            let (store, tasks, style_column) = (&pool, &self.queries[..], &self.style_column);
            View { manifest, store, tasks, captions, shown: self.shown, style_column }.read()
        };
        self.manifests.iter().map(view).collect()
    }

    fn task_captions(&self) -> TaskCaptions<'_> {
        match (&self.captions, &self.caption_column) {
            (Some(file), _) => TaskCaptions::File(file),
            (None, Some(column)) => TaskCaptions::Column(column),
            (None, None) => TaskCaptions::None,
        }
    }
}

/// Where captions of the task's pictures are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TaskCaptions<'a> {
    /// Nowhere; the class stands below the picture.
    None,
    /// In a column of the query files.
    Column(&'a str),
    /// In a file of `anchorite caption`.
    File(&'a Path),
}

/// What is needed of a line of captions.
#[derive(Deserialize)]
struct Captioned {
    key: String,
    caption: String,
}

impl TaskCaptions<'_> {
    /// Each wanted picture's first caption in the file; none where there is no file.
    fn read(self, names: &[&str]) -> Result<BTreeMap<String, String>> {
        let Self::File(path) = self else { return Ok(BTreeMap::new()) };
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let mut captions = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let line: Captioned = serde_json::from_str(line)
                .with_context(|| format!("{}, line {}: no caption of `anchorite caption`", path.display(), number + 1))?;
            if names.contains(&line.key.as_str()) {
                captions.entry(line.key).or_insert(line.caption);
            }
        }
        if captions.is_empty() {
            bail!(
                "{}: no caption of the shown pictures, whose keys are such as {:?}; caption the query files without --key-column",
                path.display(),
                names.first()
            );
        }
        Ok(captions)
    }
}

/// What a manifest is joined with.
pub(crate) struct View<'a> {
    pub(crate) manifest: &'a Path,
    pub(crate) store: &'a dyn PairStore,
    pub(crate) tasks: &'a [PathBuf],
    pub(crate) captions: TaskCaptions<'a>,
    pub(crate) shown: usize,
    pub(crate) style_column: &'a str,
}

impl View<'_> {
    /// Joins.
    pub(crate) fn read(&self) -> Result<AnchorsView> {
        let hits = hits(self.manifest, MAX_HITS)?;
        if hits.len() == MAX_HITS {
            say(&format!("{}: only its first {MAX_HITS} hits are counted", self.manifest.display()));
        }
        let header = serde_json::to_string_pretty(&manifest::read(self.manifest)?.header)?;
        let styles = self.styles(&hits)?;
        let gallery = self.gallery(&hits)?;
        let name = self.manifest.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        Ok(AnchorsView { name, hits, styles, gallery, header })
    }

    fn records(&self, keys: &[&str], parts: Parts) -> Result<Vec<Option<Record>>> {
        let keys = keys.iter().map(|key| Ok(Key::new(*key)?)).collect::<Result<Vec<_>>>()?;
        let mut records = Vec::with_capacity(keys.len());
        for keys in keys.chunks(BATCH) {
            let rows = self.store.find(keys)?;
            let there: Vec<_> = rows.iter().flatten().copied().collect();
            let mut found = self.store.get(&there, parts)?.into_iter();
            records.extend(rows.iter().map(|row| row.and_then(|_| found.next().flatten())));
        }
        Ok(records)
    }

    fn styles(&self, hits: &[ManifestHit]) -> Result<BTreeMap<String, u64>> {
        let keys: Vec<&str> = hits.iter().filter(|h| h.reason.is_none()).map(|h| h.key.as_str()).collect();
        let mut styles: BTreeMap<String, u64> = BTreeMap::new();
        for record in self.records(&keys, Parts::default())?.into_iter().flatten() {
            if let Some(Value::Text(style)) = record.fields.get(self.style_column) {
                *styles.entry(style.clone()).or_default() += 1;
            }
        }
        Ok(styles)
    }

    fn gallery(&self, hits: &[ManifestHit]) -> Result<Gallery> {
        let mut queries: Vec<(&str, Vec<&ManifestHit>)> = Vec::new();
        for hit in hits.iter().filter(|h| h.reason.is_none()) {
            let name = hit.query.as_deref().unwrap_or("drawn at random");
            match queries.last_mut() {
                Some((last, found)) if *last == name => found.push(hit),
                _ => queries.push((name, vec![hit])),
            }
        }
        let every = queries.len().div_ceil(self.shown.max(1)).max(1);
        let chosen: Vec<_> = queries.into_iter().step_by(every).collect();
        let mut pictures = self.task_pictures(&chosen.iter().map(|(name, _)| *name).collect::<Vec<_>>())?;
        let task = |(name, hits): (&str, Vec<&ManifestHit>)| {
            let (picture, caption) = pictures.remove(name).unwrap_or_default();
            let class = hits.first().and_then(|h| h.class.clone()).unwrap_or_default();
            let (caption, remark) = match caption {
                Some(caption) if class.is_empty() => (caption, name.to_owned()),
                Some(caption) => (caption, format!("{class} · {name}")),
                None => (class, name.to_owned()),
            };
            let query = Shown { picture, caption, remark };
            Ok(Task { query, anchors: self.anchors(&hits[..hits.len().min(ANCHORS)])? })
        };
        Ok(Gallery { tasks: chosen.into_iter().map(task).collect::<Result<_>>()? })
    }

    fn anchors(&self, hits: &[&ManifestHit]) -> Result<Vec<Shown>> {
        let keys: Vec<&str> = hits.iter().map(|h| h.key.as_str()).collect();
        let records = self.records(&keys, Parts { picture: true, ..Parts::default() })?;
        let show = |(hit, record): (&&ManifestHit, Option<Record>)| {
            let score = hit.score.map_or_else(String::new, |score| format!("{score:.3}"));
            let style = match record.as_ref().and_then(|r| r.fields.get(self.style_column)) {
                Some(Value::Text(style)) => format!(" · {style}"),
                _ => String::new(),
            };
            let caption = hit.caption.clone().unwrap_or_default();
            Shown { picture: record.and_then(|r| r.picture), caption, remark: score + &style }
        };
        Ok(hits.iter().zip(records).map(show).collect())
    }

    /// Pictures of the named query rows, and their captions.
    fn task_pictures(&self, names: &[&str]) -> Result<BTreeMap<String, TaskPicture>> {
        let parquet: Vec<PathBuf> = self.tasks.iter().filter(|t| t.extension().is_none_or(|e| e != "txt")).cloned().collect();
        let mut pictures = BTreeMap::new();
        if parquet.is_empty() {
            return Ok(pictures);
        }
        let mut captions = self.captions.read(names)?;
        let caption = match self.captions {
            TaskCaptions::Column(column) => ColumnChoice::Named(column.to_owned()),
            _ => ColumnChoice::Absent,
        };
        let columns = ColumnOptions { caption, ..ColumnOptions::default() };
        let mut rows = Rows::open(&parquet, columns, VectorMode::Encode, Limits::default())?;
        while let Some(row) = rows.next_row()? {
            let Ok(row) = row else { continue };
            let name = format!("{}#{}", row.source.file, row.source.row);
            if names.contains(&name.as_str()) {
                let caption = captions.remove(&name).or(row.caption);
                pictures.insert(name, (row.picture, caption));
                if pictures.len() == names.len() {
                    break;
                }
            }
        }
        Ok(pictures)
    }
}

/// A task's picture and its caption, as far as they are there.
type TaskPicture = (Option<Vec<u8>>, Option<String>);

/// Writes a manifest's page.
pub(crate) fn write_page(path: &Path, view: &AnchorsView) -> Result<()> {
    let page = anchors_page(view, &ReportLimits::default());
    fs::write(path, &page).with_context(|| format!("write {}", path.display()))?;
    say(&format!("page written to {} ({})", path.display(), bytes(page.len() as u64)));
    Ok(())
}
