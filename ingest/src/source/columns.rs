//! Which column of a table is the picture, the caption, a vector, or metadata: by name and type, never by guessing.
//!
//! A column that the caller names is taken, or refused when its type cannot serve. Otherwise names that datasets use are looked
//! for ([`IMAGE_NAMES`] and so on, in any case), and only columns of a fitting type count. One candidate is taken; none or
//! several are an error that lists what is there.

use arrow_schema::{DataType, Field, Schema};
use serde::{Deserialize, Serialize};

use crate::{SourceError, VectorMode};

/// Names under which datasets keep pictures (Hugging Face, img2dataset, webdataset).
pub const IMAGE_NAMES: [&str; 6] = ["image", "jpg", "png", "webp", "img", "image_bytes"];
/// Names under which tables keep the paths of pictures (open_clip, Hugging Face ImageFolder).
pub const PATH_NAMES: [&str; 8] = ["filepath", "file_name", "filename", "image_path", "image", "img", "path", "file"];
/// Names under which datasets keep captions.
pub const CAPTION_NAMES: [&str; 5] = ["caption", "text", "txt", "sentence", "title"];
/// Names under which datasets keep image vectors.
pub const IMAGE_VECTOR_NAMES: [&str; 3] = ["image_embedding", "image_emb", "embedding"];
/// Names under which datasets keep text vectors.
pub const TEXT_VECTOR_NAMES: [&str; 2] = ["text_embedding", "text_emb"];

/// How a column is found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ColumnChoice {
    /// By the names datasets use.
    #[default]
    Auto,
    /// This one.
    Named(String),
    /// Not used, even if there is one.
    Absent,
}

/// The caller's word on columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnOptions {
    /// The picture: `struct<bytes, path>`, binary, or a string with a path beneath the parquet file's folder.
    pub image: ColumnChoice,
    /// The caption: a string, or a list of strings of which the first that is not blank counts.
    pub caption: ColumnChoice,
    /// A column of unique names (strings or integers); without it a row is known by its file's name and its number.
    pub key: Option<String>,
    /// Ready-made image vectors; looked at only for [`VectorMode::Ready`].
    pub image_vector: ColumnChoice,
    /// Ready-made text vectors; looked at only for [`VectorMode::Ready`].
    pub text_vector: ColumnChoice,
}

/// What a picture column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImageKind {
    Struct,
    Binary,
    Path,
    Null,
}

/// The columns of one table by what they are for, as positions among its top-level columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) image: Option<(usize, ImageKind)>,
    pub(crate) caption: Option<usize>,
    pub(crate) key: Option<usize>,
    pub(crate) image_vector: Option<usize>,
    pub(crate) text_vector: Option<usize>,
    pub(crate) fields: Vec<usize>,
    pub(crate) skipped: Vec<usize>,
}

/// The columns of one table by what they are for, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnsUsed {
    /// Pictures.
    pub image: Option<String>,
    /// Captions.
    pub caption: Option<String>,
    /// Keys.
    pub key: Option<String>,
    /// Ready-made image vectors.
    pub image_vector: Option<String>,
    /// Ready-made text vectors.
    pub text_vector: Option<String>,
    /// Kept as metadata.
    pub fields: Vec<String>,
    /// Left out, being nested or binary.
    pub skipped: Vec<String>,
}

impl Columns {
    pub(crate) fn names(&self, schema: &Schema) -> ColumnsUsed {
        let name = |at: usize| schema.field(at).name().clone();
        ColumnsUsed {
            image: self.image.map(|(at, _)| name(at)),
            caption: self.caption.map(name),
            key: self.key.map(name),
            image_vector: self.image_vector.map(name),
            text_vector: self.text_vector.map(name),
            fields: self.fields.iter().copied().map(name).collect(),
            skipped: self.skipped.iter().copied().map(name).collect(),
        }
    }

    /// The positions that must be read, ascending.
    pub(crate) fn read(&self) -> Vec<usize> {
        let parts = [self.image.map(|(at, _)| at), self.caption, self.key, self.image_vector, self.text_vector];
        let mut all: Vec<usize> = parts.into_iter().flatten().chain(self.fields.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// A part of a row, and how its column is found.
struct Part<'a> {
    name: &'static str,
    flag: &'static str,
    expected: &'static str,
    choice: &'a ColumnChoice,
    names: &'static [&'static str],
    /// How well a type serves: lower is better, none not at all.
    rank: fn(&DataType) -> Option<u8>,
    /// Whether a type of rank 0 counts under any name.
    any_name: bool,
}

impl<'a> Part<'a> {
    fn image(choice: &'a ColumnChoice, names: &'static [&'static str]) -> Self {
        Self {
            name: "image",
            flag: "--image-column",
            expected: "struct<bytes, path>, binary, or a string with paths",
            choice,
            names,
            rank: |t| {
                image_kind(t).map(|kind| match kind {
                    ImageKind::Struct => 0,
                    ImageKind::Binary => 1,
                    ImageKind::Path => 2,
                    ImageKind::Null => 3,
                })
            },
            any_name: true,
        }
    }

    fn caption(choice: &'a ColumnChoice) -> Self {
        Self {
            name: "caption",
            flag: "--caption-column",
            expected: "a string or a list of strings",
            choice,
            names: &CAPTION_NAMES,
            rank: |t| match t {
                DataType::Null => Some(1),
                t => is_caption(t).then_some(0),
            },
            any_name: false,
        }
    }

    fn image_vector(choice: &'a ColumnChoice) -> Self {
        Self {
            name: "image vector",
            flag: "--image-vector-column",
            expected: VECTOR_EXPECTED,
            choice,
            names: &IMAGE_VECTOR_NAMES,
            rank: vector_rank,
            any_name: false,
        }
    }

    fn text_vector(choice: &'a ColumnChoice) -> Self {
        Self { name: "text vector", flag: "--text-vector-column", names: &TEXT_VECTOR_NAMES, ..Self::image_vector(choice) }
    }
}

const VECTOR_EXPECTED: &str = "a (fixed-size) list of float16, float32 or float64";

fn vector_rank(t: &DataType) -> Option<u8> {
    is_vector(t).then_some(0)
}

/// Finds the columns of one table.
pub(crate) struct Detector<'a> {
    pub(crate) file: &'a str,
    pub(crate) schema: &'a Schema,
    pub(crate) options: &'a ColumnOptions,
    pub(crate) mode: VectorMode,
    pub(crate) image_names: &'static [&'static str],
}

impl Detector<'_> {
    pub(crate) fn detect(&self) -> Result<Columns, SourceError> {
        let mut columns = match self.mode {
            VectorMode::Encode => self.for_encoder()?,
            VectorMode::Ready { .. } => self.with_vectors()?,
        };
        columns.key = self.key()?;
        self.sort_the_rest(&mut columns);
        Ok(columns)
    }

    /// The caption and metadata columns of a table that only accompanies vectors.
    pub(crate) fn detect_beside_vectors(&self) -> Result<Columns, SourceError> {
        let mut columns = Columns { caption: self.find(&Part::caption(&self.options.caption))?, ..Columns::default() };
        columns.key = self.key()?;
        self.sort_the_rest(&mut columns);
        Ok(columns)
    }

    fn for_encoder(&self) -> Result<Columns, SourceError> {
        let image = self.require(&Part::image(&self.options.image, self.image_names))?;
        let caption = self.require(&Part::caption(&self.options.caption))?;
        Ok(Columns { image: self.image(image), caption, ..Columns::default() })
    }

    fn with_vectors(&self) -> Result<Columns, SourceError> {
        let image_part = Part::image_vector(&self.options.image_vector);
        let image_vector = self.find(&image_part)?;
        let text_vector = self.find(&Part::text_vector(&self.options.text_vector))?;
        if image_vector.is_none() && text_vector.is_none() {
            return Err(self.no_column(&image_part));
        }
        let image = self.find(&Part::image(&self.options.image, self.image_names))?;
        let caption = self.find(&Part::caption(&self.options.caption))?;
        Ok(Columns { image: self.image(image), caption, image_vector, text_vector, ..Columns::default() })
    }

    fn image(&self, at: Option<usize>) -> Option<(usize, ImageKind)> {
        at.and_then(|at| image_kind(self.schema.field(at).data_type()).map(|kind| (at, kind)))
    }

    fn require(&self, part: &Part<'_>) -> Result<Option<usize>, SourceError> {
        match (self.find(part)?, part.choice) {
            (None, ColumnChoice::Auto) => Err(self.no_column(part)),
            (found, _) => Ok(found),
        }
    }

    fn find(&self, part: &Part<'_>) -> Result<Option<usize>, SourceError> {
        match part.choice {
            ColumnChoice::Absent => Ok(None),
            ColumnChoice::Named(name) => self.named(name, part).map(Some),
            ColumnChoice::Auto => self.by_usual_names(part),
        }
    }

    fn named(&self, name: &str, part: &Part<'_>) -> Result<usize, SourceError> {
        let at = self.only(name, part.name, part.flag)?;
        let found = self.schema.field(at).data_type();
        if (part.rank)(found).is_some() { Ok(at) } else { Err(self.wrong_type(at, part.expected, part.flag)) }
    }

    /// The one column of exactly this name.
    fn only(&self, name: &str, part: &'static str, flag: &'static str) -> Result<usize, SourceError> {
        let all: Vec<usize> = self.positions(|field| field.name() == name);
        match all[..] {
            [at] => Ok(at),
            [] => Err(SourceError::UnknownColumn {
                file: self.file.to_owned(),
                name: name.to_owned(),
                flag,
                columns: describe(self.schema),
            }),
            _ => Err(self.ambiguous(&all, part, flag)),
        }
    }

    fn by_usual_names(&self, part: &Part<'_>) -> Result<Option<usize>, SourceError> {
        let usual = |field: &Field| part.names.iter().any(|name| field.name().eq_ignore_ascii_case(name));
        let rank = |at: &usize| (part.rank)(self.schema.field(*at).data_type());
        let mut candidates =
            self.positions(|f| (part.rank)(f.data_type()).is_some_and(|r| usual(f) || (part.any_name && r == 0)));
        let best = candidates.iter().filter_map(rank).min();
        candidates.retain(|at| rank(at) == best);
        if candidates.len() > 1 && candidates.iter().any(|&at| usual(self.schema.field(at))) {
            candidates.retain(|&at| usual(self.schema.field(at)));
        }
        match candidates[..] {
            [] => Ok(None),
            [at] => Ok(Some(at)),
            _ => Err(self.ambiguous(&candidates, part.name, part.flag)),
        }
    }

    fn key(&self) -> Result<Option<usize>, SourceError> {
        let Some(name) = &self.options.key else { return Ok(None) };
        let at = self.only(name, "key", "--key-column")?;
        let data_type = self.schema.field(at).data_type();
        if is_text(data_type) || data_type.is_integer() {
            return Ok(Some(at));
        }
        Err(self.wrong_type(at, "a string or an integer", "--key-column"))
    }

    fn sort_the_rest(&self, columns: &mut Columns) {
        let taken = columns.read();
        for at in (0..self.schema.fields().len()).filter(|at| !taken.contains(at)) {
            if is_field(self.schema.field(at).data_type()) { columns.fields.push(at) } else { columns.skipped.push(at) }
        }
    }

    fn positions(&self, wanted: impl Fn(&Field) -> bool) -> Vec<usize> {
        self.schema.fields().iter().enumerate().filter(|(_, f)| wanted(f)).map(|(at, _)| at).collect()
    }

    /// The error of a table that cannot have vectors.
    pub(crate) fn no_vectors(&self) -> SourceError {
        self.no_column(&Part::image_vector(&self.options.image_vector))
    }

    fn no_column(&self, part: &Part<'_>) -> SourceError {
        SourceError::NoColumn { file: self.file.to_owned(), part: part.name, flag: part.flag, columns: describe(self.schema) }
    }

    fn ambiguous(&self, candidates: &[usize], part: &'static str, flag: &'static str) -> SourceError {
        let names: Vec<&str> = candidates.iter().map(|&at| self.schema.field(at).name().as_str()).collect();
        SourceError::AmbiguousColumn {
            file: self.file.to_owned(),
            part,
            flag,
            candidates: names.join(", "),
            columns: describe(self.schema),
        }
    }

    fn wrong_type(&self, at: usize, expected: &'static str, flag: &'static str) -> SourceError {
        SourceError::ColumnType {
            file: self.file.to_owned(),
            name: self.schema.field(at).name().clone(),
            found: self.schema.field(at).data_type().to_string().into(),
            expected,
            flag,
            columns: describe(self.schema).into(),
        }
    }
}

/// `name: type` of every column, as error messages list them.
pub(crate) fn describe(schema: &Schema) -> String {
    const SHOWN: usize = 60;
    let mut all: Vec<String> = schema.fields().iter().take(SHOWN).map(|f| format!("{}: {}", f.name(), f.data_type())).collect();
    if schema.fields().len() > SHOWN {
        all.push(format!("and {} more", schema.fields().len() - SHOWN));
    }
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

fn is_binary(t: &DataType) -> bool {
    matches!(t, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

pub(crate) fn is_text(t: &DataType) -> bool {
    match t {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => matches!(**values, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
        _ => false,
    }
}

fn is_caption(t: &DataType) -> bool {
    match t {
        DataType::List(item) | DataType::LargeList(item) => is_text(item.data_type()) || item.data_type().is_null(),
        t => is_text(t),
    }
}

fn is_vector(t: &DataType) -> bool {
    let float = |item: &Field| matches!(item.data_type(), DataType::Float16 | DataType::Float32 | DataType::Float64);
    match t {
        DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item) => float(item),
        _ => false,
    }
}

fn image_kind(t: &DataType) -> Option<ImageKind> {
    match t {
        DataType::Null => Some(ImageKind::Null),
        DataType::Struct(children) => {
            let child = |name: &str, fits: fn(&DataType) -> bool| {
                children.iter().find(|c| c.name() == name).map(|c| fits(c.data_type()) || c.data_type().is_null())
            };
            // HF's Image: both children. One of the right name and another type makes it something else.
            let fits = child("bytes", is_binary) == Some(true) && child("path", is_text) != Some(false);
            fits.then_some(ImageKind::Struct)
        }
        t if is_binary(t) => Some(ImageKind::Binary),
        t if is_text(t) => Some(ImageKind::Path),
        _ => None,
    }
}

/// Whether a column can be metadata.
pub(crate) fn is_field(t: &DataType) -> bool {
    let scalar = t.is_integer()
        || t.is_floating()
        || matches!(
            t,
            DataType::Boolean
                | DataType::Null
                | DataType::Timestamp(..)
                | DataType::Date32
                | DataType::Date64
                | DataType::Decimal128(..)
                | DataType::Decimal256(..)
        );
    scalar || is_text(t)
}
