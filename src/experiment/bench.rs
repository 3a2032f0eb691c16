//! The cut benchmark to sets: a parquet file each, with fine labels and categories.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use anchorite::{
    index::Value,
    ingest::{ColumnOptions, Limits, Rows, VectorMode},
};
use anyhow::{Context, Result, ensure};
use arrow_array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Setting;
use crate::progress::say;

/// The lists that `experiment/scripts/make_split.py` wrote.
const CLASSES: &str = include_str!("../../experiment/classes.json");
/// Of 100 pictures of the finetune set, so many are for validation.
const VALIDATION: u8 = 18;

/// Which drawings the finetune sees; all others are shifts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Style {
    /// Colour emoji of three families.
    #[default]
    Emoji,
    /// Black line drawings of one family.
    Line,
}

/// Class names of the benchmark.
#[derive(Debug, Deserialize)]
pub(crate) struct Classes {
    /// Concepts that it does not see.
    pub(crate) held_out: Vec<String>,
    /// Category by concept.
    pub(crate) category: BTreeMap<String, String>,
    /// Pictures too like one of a test set.
    pub(crate) not_in_pool: BTreeSet<String>,
}

/// One picture.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) id: String,
    pub(crate) picture: Vec<u8>,
    pub(crate) caption: String,
    pub(crate) keywords: String,
    pub(crate) label: String,
    pub(crate) category: String,
    pub(crate) split: String,
    pub(crate) style: String,
}

/// What a set is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// Finetuned on.
    Train,
    /// Chooses rates.
    Validation,
    /// The finetune's own test.
    Id,
    /// The finetune's categories and style, concepts it has not seen.
    Resample,
    /// The finetune's categories in other styles.
    Shift,
    /// Concepts that the finetune has not seen, by their own names.
    ZeroShot,
    /// Pretraining and anchors.
    Pool,
    /// The pool with every test picture in it.
    RawPool,
}

/// A set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Set {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// Name of its class list; empty where it has none.
    pub(crate) classes: String,
    pub(crate) rows: usize,
}

/// All sets, and where they are.
pub(crate) struct Sets {
    pub(crate) folder: PathBuf,
    pub(crate) list: Vec<Set>,
    /// Class lists by name.
    pub(crate) classes: BTreeMap<String, Vec<String>>,
}

/// The list of categories.
pub(crate) const CATEGORIES: &str = "category";

impl Sets {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.parquet"))
    }

    pub(crate) fn of(&self, role: Role) -> impl Iterator<Item = &Set> {
        self.list.iter().filter(move |set| set.role == role)
    }
}

/// Reads the benchmark and writes its sets, unless they are there.
pub(crate) fn prepare(setting: &Setting) -> Result<Sets> {
    let folder = setting.out.join("sets");
    let lists: Classes = serde_json::from_str(CLASSES).context("experiment/classes.json")?;
    let done = folder.join("sets.json");
    let made = |(list, classes)| Sets { folder: folder.clone(), list, classes };
    super::stage(&done, || {
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let bench = read(&setting.data.join("bench.parquet"), &lists)?;
        let mut pool = read(&setting.data.join("pool.parquet"), &lists)?;
        pool.retain(|item| !lists.not_in_pool.contains(&item.id));
        say(&format!("{} benchmark pictures, {} pool pairs", bench.len(), pool.len()));
        write_all(setting, &folder, &lists, (&bench, &pool))
    })
    .map(made)
}

type Made = (Vec<Set>, BTreeMap<String, Vec<String>>);

fn write_all(setting: &Setting, folder: &Path, lists: &Classes, (bench, pool): (&[Item], &[Item])) -> Result<Made> {
    let mut parts = cut(setting.style, bench);
    let mut classes = BTreeMap::from([("held-out".to_owned(), lists.held_out.clone())]);
    let mut categories: Vec<String> = lists.category.values().cloned().collect();
    categories.sort();
    categories.dedup();
    classes.insert(CATEGORIES.to_owned(), categories);
    for part in parts.iter_mut().filter(|part| part.set.classes == part.set.name) {
        let mut own: Vec<String> = part.items.iter().map(|item| item.label.clone()).collect();
        own.sort();
        own.dedup();
        classes.insert(part.set.name.clone(), own);
    }
    let limit = setting.size.set_rows;
    for part in &mut parts {
        thin(&mut part.items, limit);
    }
    let mut pairs: Vec<&Item> = pool.iter().collect();
    thin(&mut pairs, setting.size.pool_rows);
    let tests =
        parts.iter().filter(|p| p.set.role != Role::Train && p.set.role != Role::Validation).flat_map(|p| p.items.clone());
    let mut raw = pairs.clone();
    raw.extend(tests);
    raw.sort_by(|a, b| a.id.cmp(&b.id));
    raw.dedup_by(|a, b| a.id == b.id);
    let set = |name: &str, role| Set { name: name.to_owned(), role, classes: String::new(), rows: 0 };
    parts.push(Part { set: set("pool", Role::Pool), items: pairs });
    parts.push(Part { set: set("pool-raw", Role::RawPool), items: raw });
    for part in &mut parts {
        ensure!(
            !part.items.is_empty(),
            "the set {} has no picture; is {} the right folder?",
            part.set.name,
            setting.data.display()
        );
        part.set.rows = part.items.len();
        write(&folder.join(format!("{}.parquet", part.set.name)), &part.items)?;
    }
    Ok((parts.into_iter().map(|part| part.set).collect(), classes))
}

struct Part<'i> {
    set: Set,
    items: Vec<&'i Item>,
}

/// Every set's pictures.
fn cut(style: Style, bench: &[Item]) -> Vec<Part<'_>> {
    let of = |name: &str, role, classes: &str, keep: &dyn Fn(&Item) -> bool| Part {
        set: Set { name: name.to_owned(), role, classes: classes.to_owned(), rows: 0 },
        items: bench.iter().filter(|item| keep(item)).collect(),
    };
    let coarse = |item: &Item, splits: &[&str]| !item.category.is_empty() && splits.contains(&item.split.as_str());
    let (train, id, resample, emoji): (&str, &[&str], &[&str], &[&str]) = match style {
        Style::Emoji => ("id_train", &["id_test"], &["zs_emoji"], &[]),
        Style::Line => ("ds_line", &["zs_line"], &[], &["id_train", "id_test", "zs_emoji"]),
    };
    let lines: &[&str] = if style == Style::Emoji { &["ds_line", "zs_line"] } else { &[] };
    let mut parts = vec![
        of("train", Role::Train, CATEGORIES, &|i| coarse(i, &[train]) && !is_validation(&i.id)),
        of("validation", Role::Validation, CATEGORIES, &|i| coarse(i, &[train]) && is_validation(&i.id)),
        of("id", Role::Id, CATEGORIES, &|i| coarse(i, id)),
        of("resample", Role::Resample, CATEGORIES, &|i| coarse(i, resample)),
        of("emoji", Role::Shift, CATEGORIES, &|i| coarse(i, emoji)),
        of("line", Role::Shift, CATEGORIES, &|i| coarse(i, lines)),
        of("3d", Role::Shift, CATEGORIES, &|i| coarse(i, &["ds_3d", "zs_3d"])),
        of("cartoon", Role::Shift, CATEGORIES, &|i| coarse(i, &["ds_cartoon", "zs_cartoon"])),
        of("photo", Role::Shift, CATEGORIES, &|i| coarse(i, &["ds_photo", "zs_photo"])),
        of("clip-art", Role::Shift, CATEGORIES, &|i| coarse(i, &["ds_clipart", "zs_clipart"])),
    ];
    for (name, split) in [
        ("new-emoji", "zs_emoji"),
        ("new-line", "zs_line"),
        ("new-3d", "zs_3d"),
        ("new-cartoon", "zs_cartoon"),
        ("new-photo", "zs_photo"),
        ("new-clip-art", "zs_clipart"),
    ] {
        parts.push(of(name, Role::ZeroShot, "held-out", &|i| i.split == split));
    }
    for (name, split) in [("cartoon-words", "zs_cartoon_words"), ("photo-words", "zs_photo_words")] {
        parts.push(of(name, Role::ZeroShot, name, &|i| i.split == split));
    }
    parts.retain(|part| !part.items.is_empty() || part.set.role == Role::Train);
    parts
}

/// By the picture's name, so that no seed and no order of rows decides it.
fn is_validation(id: &str) -> bool {
    Sha256::digest(format!("validation {id}"))[0] % 100 < VALIDATION
}

/// Every n-th, so that all sources stay.
fn thin(items: &mut Vec<&Item>, most: usize) {
    if most > 0 && items.len() > most {
        let all = items.len();
        *items = (0..most).map(|i| items[i * all / most]).collect();
    }
}

/// Reads every row of a parquet file of the benchmark.
fn read(path: &Path, lists: &Classes) -> Result<Vec<Item>> {
    let mut rows = Rows::open(&[path.to_owned()], ColumnOptions::default(), VectorMode::Encode, Limits::default())
        .with_context(|| format!("read {}", path.display()))?;
    let mut items = Vec::new();
    let mut seen = HashMap::new();
    while let Some(row) = rows.next_row().with_context(|| format!("read {}", path.display()))? {
        let row = row.map_err(|reject| anyhow::anyhow!("{}: {}", path.display(), reject.message))?;
        let place = format!("{}#{}", row.source.file, row.source.row);
        let text = |name: &str| match row.fields.get(name) {
            Some(Value::Text(text)) => text.clone(),
            _ => String::new(),
        };
        let (id, label) = (text("id"), text("label"));
        ensure!(!id.is_empty(), "{place}: no id; this is no file of the benchmark");
        if let Some(before) = seen.insert(id.clone(), place.clone()) {
            anyhow::bail!("{place}: the id {id} is that of {before} too");
        }
        items.push(Item {
            category: lists.category.get(&label).cloned().unwrap_or_default(),
            caption: row.caption.with_context(|| format!("{place}: no caption"))?,
            keywords: text("keywords"),
            split: text("split"),
            style: text("style"),
            picture: row.picture.with_context(|| format!("{place}: no picture"))?,
            id,
            label,
        });
    }
    Ok(items)
}

/// The file's columns: what the benchmark has, the category, `rich` (name and keywords, where there are any), and `either`: for half of the rows
/// the caption, for half the rich one.
fn write(path: &Path, items: &[&Item]) -> Result<()> {
    let text = |of: &dyn Fn(&Item) -> String| Arc::new(StringArray::from_iter_values(items.iter().map(|i| of(i)))) as ArrayRef;
    let pictures = BinaryArray::from_iter_values(items.iter().map(|item| &item.picture[..]));
    let batch = RecordBatch::try_from_iter([
        ("id", text(&|i| i.id.clone())),
        ("image", Arc::new(pictures) as ArrayRef),
        ("caption", text(&|i| i.caption.clone())),
        ("label", text(&|i| i.label.clone())),
        ("category", text(&|i| i.category.clone())),
        ("style", text(&|i| i.style.clone())),
        ("rich", text(&rich)),
        ("either", text(&|i| if Sha256::digest(&i.id)[0] < 128 { i.caption.clone() } else { rich(i) })),
    ])?;
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None)?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}

fn rich(item: &Item) -> String {
    let words: Vec<&str> = item.keywords.split(", ").filter(|word| !word.trim().is_empty() && *word != item.caption).collect();
    if words.is_empty() { item.caption.clone() } else { format!("{}, {}", item.caption, words.join(", ")) }
}
