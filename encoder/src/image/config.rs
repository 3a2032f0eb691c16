//! The two files that say how a model wants its pictures: Hugging Face's `preprocessor_config.json` and open_clip's
//! `preprocess_cfg.json` (which immich's exports keep under `visual/`).
//!
//! Anything that would change pixels and that we do not do is an error that names the file and the field: a picture
//! prepared otherwise than the model was trained on gives a wrong vector, silently.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::preprocess::{Levels, Scale};
use super::{Filter, Geometry, Preprocess};

/// Why a model folder does not say how its pictures are prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PreprocessError {
    /// None of the known files is there.
    #[error("{} has no preprocessing file; one of these must be there: {}", dir.display(), FILES.map(|(name, _)| name).join(", "))]
    NotFound {
        /// The model folder.
        dir: PathBuf,
    },
    /// A file is there but cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is larger than any such file is.
    #[error("{} has more than {max} bytes; it is no preprocessing file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Limit.
        max: u64,
    },
    /// Not a JSON object.
    #[error("{file} is not a JSON object: {reason}")]
    Json {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A field says something that cannot be done.
    #[error("{file}: {field}: {problem}")]
    Field {
        /// The file.
        file: String,
        /// The field.
        field: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

#[derive(Clone, Copy, Debug)]
enum Dialect {
    HuggingFace,
    /// The same fields under `image_processor`, as transformers 5 writes them.
    HuggingFaceNested,
    OpenClip,
}

/// Where the files lie in both layouts; the first one found counts.
const FILES: [(&str, Dialect); 5] = [
    ("preprocessor_config.json", Dialect::HuggingFace),
    ("visual/preprocess_cfg.json", Dialect::OpenClip),
    ("preprocess_cfg.json", Dialect::OpenClip),
    ("visual/preprocessor_config.json", Dialect::HuggingFace),
    ("processor_config.json", Dialect::HuggingFaceNested),
];

/// Such files have a kilobyte.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Pixels along an edge of what a tower reads; the largest CLIP towers read 1024.
const MAX_OUTPUT_EDGE: u64 = 4096;

/// OpenAI's, which open_clip uses where a file gives none.
const OPENAI_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const OPENAI_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

impl Preprocess {
    /// Reads the model folder's own file, in either layout; see [`Preprocess::locate`].
    ///
    /// # Errors
    /// [`PreprocessError`], naming the file and the field.
    pub fn find(dir: &Path) -> Result<Self, PreprocessError> {
        let (path, dialect) = locate(dir).ok_or_else(|| PreprocessError::NotFound { dir: dir.to_owned() })?;
        let text = read(&path)?;
        let fields = Fields::parse(&path.display().to_string(), &text)?;
        match dialect {
            Dialect::HuggingFace => hugging_face(&fields),
            Dialect::HuggingFaceNested => hugging_face(&fields.inner("image_processor")?),
            Dialect::OpenClip => open_clip(&fields),
        }
    }

    /// The file [`Preprocess::find`] would read: part of what a model's fingerprint is made of.
    #[must_use]
    pub fn locate(dir: &Path) -> Option<PathBuf> {
        locate(dir).map(|(path, _)| path)
    }

    /// Reads the text of a Hugging Face `preprocessor_config.json`. Flags that old files lack count as set; a missing `resample` is
    /// bicubic, as in CLIP's own processor.
    ///
    /// # Errors
    /// [`PreprocessError`], naming the field.
    pub fn from_hf_json(text: &str) -> Result<Self, PreprocessError> {
        hugging_face(&Fields::parse("preprocessor_config.json", text)?)
    }

    /// Reads the text of an open_clip `preprocess_cfg.json`. Missing fields have open_clip's defaults.
    ///
    /// # Errors
    /// [`PreprocessError`], naming the field.
    pub fn from_open_clip_json(text: &str) -> Result<Self, PreprocessError> {
        open_clip(&Fields::parse("preprocess_cfg.json", text)?)
    }
}

fn locate(dir: &Path) -> Option<(PathBuf, Dialect)> {
    FILES.iter().map(|(name, dialect)| (dir.join(name), *dialect)).find(|(path, _)| path.is_file())
}

fn read(path: &Path) -> Result<String, PreprocessError> {
    let failed = |source| PreprocessError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let read = File::open(path).map_err(failed)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if read as u64 > MAX_FILE_BYTES {
        return Err(PreprocessError::TooLarge { path: path.to_owned(), max: MAX_FILE_BYTES });
    }
    Ok(text)
}

/// Hugging Face flags that change pixels in ways we do not follow; an error if set. Other unknown fields do not change pixels.
const HF_REFUSED: [&str; 10] = [
    "crop_pct",
    "do_pad",
    "do_thumbnail",
    "do_align_long_axis",
    "do_flip_channel_order",
    "do_grayscale",
    "do_image_splitting",
    "do_reduce_labels",
    "offset",
    "rescale_offset",
];

fn hugging_face(fields: &Fields) -> Result<Preprocess, PreprocessError> {
    for name in HF_REFUSED {
        if fields.get(name).is_some_and(|value| *value != Value::Bool(false)) {
            return Err(fields.problem(name, "is not supported; it would change the pixels"));
        }
    }
    let filter = match fields.get("resample") {
        None => Filter::Bicubic,
        Some(value) => value.as_u64().and_then(Filter::from_pillow).ok_or_else(|| {
            fields.problem(
                "resample",
                format!("is {value}; known are 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming"),
            )
        })?,
    };
    let geometry = hugging_face_geometry(fields)?;
    Ok(Preprocess::new(geometry, filter, hugging_face_levels(fields)?))
}

/// `size` as Hugging Face writes it.
enum HfSize {
    Number(usize),
    ShortestEdge(usize),
    Exact(usize, usize),
}

fn hf_size(fields: &Fields, name: &str) -> Result<Option<HfSize>, PreprocessError> {
    let Some(value) = fields.get(name) else { return Ok(None) };
    let edge = |value: &Value| fields.edge(name, value);
    let size = match value {
        Value::Object(map) => match (map.get("shortest_edge"), map.get("height"), map.get("width")) {
            (Some(shortest), None, None) if map.len() == 1 => HfSize::ShortestEdge(edge(shortest)?),
            (None, Some(height), Some(width)) if map.len() == 2 => HfSize::Exact(edge(height)?, edge(width)?),
            _ => return Err(fields.problem(name, format!("is {value}; expected shortest_edge, or height and width"))),
        },
        number => HfSize::Number(edge(number)?),
    };
    Ok(Some(size))
}

fn hugging_face_geometry(fields: &Fields) -> Result<Geometry, PreprocessError> {
    let size = hf_size(fields, "size")?;
    let crop_size = hf_size(fields, "crop_size")?;
    let crops = fields.flag("do_center_crop", crop_size.is_some())?;
    // Older processors that cut fall back on `size`; a number or a shortest edge means a square.
    let crop = match (crops, crop_size.as_ref().or(size.as_ref())) {
        (false, _) => None,
        (true, Some(HfSize::Number(edge) | HfSize::ShortestEdge(edge))) => Some((*edge, *edge)),
        (true, Some(HfSize::Exact(height, width))) => Some((*height, *width)),
        (true, None) => return Err(fields.problem("crop_size", "is missing although do_center_crop is set")),
    };
    let resizes = fields.flag("do_resize", true)?;
    match (resizes, size, crop) {
        (true, None, _) => Err(fields.problem("size", "is missing although do_resize is set")),
        (true, Some(HfSize::Number(edge) | HfSize::ShortestEdge(edge)), Some((height, width))) => {
            Ok(Geometry::ShortestEdge { edge, height, width })
        }
        // A plain number without a cut means a square in the processors that write it (ViT's and its kin).
        (true, Some(HfSize::Number(edge)), None) => Ok(Geometry::Squash { resized: (edge, edge), height: edge, width: edge }),
        (true, Some(HfSize::ShortestEdge(_)), None) => {
            Err(fields.problem("size", "is a shortest_edge without do_center_crop: every picture would have another size"))
        }
        (true, Some(HfSize::Exact(rows, columns)), crop) => {
            let (height, width) = crop.unwrap_or((rows, columns));
            Ok(Geometry::Squash { resized: (rows, columns), height, width })
        }
        (false, _, Some((height, width))) => Ok(Geometry::CropOnly { height, width }),
        (false, _, None) => {
            Err(fields.problem("do_resize", "is off, and so is do_center_crop: every picture would have another size"))
        }
    }
}

fn hugging_face_levels(fields: &Fields) -> Result<Levels, PreprocessError> {
    let scale = match (fields.flag("do_rescale", true)?, fields.get("rescale_factor")) {
        (false, _) => Scale::None,
        (true, None) => Scale::Factor(1.0 / 255.0),
        (true, Some(value)) => match value.as_f64() {
            Some(factor) if factor > 0.0 => Scale::Factor(factor),
            _ => return Err(fields.problem("rescale_factor", format!("is {value}; expected a number above zero"))),
        },
    };
    if !fields.flag("do_normalize", true)? {
        return Ok(Levels::new(scale, [0.0; 3], [1.0; 3]));
    }
    let missing = |name: &str| fields.problem(name, "is missing although do_normalize is set");
    let mean = fields.channels("image_mean")?.ok_or_else(|| missing("image_mean"))?;
    let std = fields.deviations("image_std")?.ok_or_else(|| missing("image_std"))?;
    Ok(Levels::new(scale, mean, std))
}

fn open_clip(fields: &Fields) -> Result<Preprocess, PreprocessError> {
    match fields.text("mode")? {
        None | Some("RGB") => {}
        Some(mode) => return Err(fields.problem("mode", format!("is {mode}; only RGB is known"))),
    }
    let filter = match fields.text("interpolation")? {
        // `random` is drawn while training only; open_clip takes bicubic otherwise.
        None | Some("bicubic" | "random") => Filter::Bicubic,
        Some("bilinear") => Filter::Bilinear,
        Some(other) => return Err(fields.problem("interpolation", format!("is {other}; known are bicubic, bilinear, random"))),
    };
    let (height, width) = open_clip_size(fields)?;
    let (geometry, filter) = match fields.text("resize_mode")? {
        None | Some("shortest") if height == width => (Geometry::ShortestEdge { edge: height, height, width }, filter),
        // open_clip passes no interpolation on here, so its default holds.
        None | Some("shortest") => (Geometry::Cover { height, width }, Filter::Bicubic),
        Some("squash") => (Geometry::Squash { resized: (height, width), height, width }, filter),
        Some("longest") => (Geometry::Fit { height, width, fill: open_clip_fill(fields)? }, filter),
        Some(other) => return Err(fields.problem("resize_mode", format!("is {other}; known are shortest, squash, longest"))),
    };
    let mean = fields.channels("mean")?.unwrap_or(OPENAI_MEAN);
    let std = fields.deviations("std")?.unwrap_or(OPENAI_STD);
    Ok(Preprocess::new(geometry, filter, Levels::new(Scale::ToTensor, mean, std)))
}

fn open_clip_size(fields: &Fields) -> Result<(usize, usize), PreprocessError> {
    const DEFAULT: usize = 224;
    match fields.get("size") {
        None => Ok((DEFAULT, DEFAULT)),
        Some(Value::Array(sides)) => match sides.as_slice() {
            [height, width] => Ok((fields.edge("size", height)?, fields.edge("size", width)?)),
            _ => Err(fields.problem("size", "is a list; expected [height, width]")),
        },
        Some(edge) => fields.edge("size", edge).map(|edge| (edge, edge)),
    }
}

fn open_clip_fill(fields: &Fields) -> Result<u8, PreprocessError> {
    let Some(value) = fields.get("fill_color") else { return Ok(0) };
    let level = value.as_u64().and_then(|level| u8::try_from(level).ok());
    level.ok_or_else(|| fields.problem("fill_color", format!("is {value}; expected a whole number from 0 to 255")))
}

/// The fields of one file, with its name for errors. `null` counts as absent, as both writers mean it.
struct Fields {
    file: String,
    map: Map<String, Value>,
}

impl Fields {
    fn parse(file: &str, text: &str) -> Result<Self, PreprocessError> {
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Ok(Self { file: file.to_owned(), map }),
            Ok(_) => Err(PreprocessError::Json { file: file.to_owned(), reason: "it holds another kind of value".to_owned() }),
            Err(error) => Err(PreprocessError::Json { file: file.to_owned(), reason: error.to_string() }),
        }
    }

    fn inner(&self, name: &str) -> Result<Self, PreprocessError> {
        match self.get(name) {
            Some(Value::Object(map)) => Ok(Self { file: format!("{}: {name}", self.file), map: map.clone() }),
            _ => Err(self.problem(name, "is missing or no object")),
        }
    }

    fn problem(&self, field: &str, problem: impl Into<String>) -> PreprocessError {
        PreprocessError::Field { file: self.file.clone(), field: field.to_owned(), problem: problem.into() }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, PreprocessError> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Bool(set)) => Ok(*set),
            Some(other) => Err(self.problem(name, format!("is {other}; expected true or false"))),
        }
    }

    fn text(&self, name: &str) -> Result<Option<&str>, PreprocessError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.problem(name, format!("is {other}; expected text"))),
        }
    }

    fn edge(&self, name: &str, value: &Value) -> Result<usize, PreprocessError> {
        let edge = value.as_u64().filter(|edge| (1..=MAX_OUTPUT_EDGE).contains(edge));
        let edge = edge.and_then(|edge| usize::try_from(edge).ok());
        edge.ok_or_else(|| self.problem(name, format!("holds {value}; expected a whole number from 1 to {MAX_OUTPUT_EDGE}")))
    }

    /// One finite number per channel; a single number counts for all three.
    fn channels(&self, name: &str) -> Result<Option<[f64; 3]>, PreprocessError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = |value: &Value| value.as_f64().filter(|number| (*number as f32).is_finite());
        let numbers = match value {
            Value::Array(list) => match list.as_slice() {
                [red, green, blue] => number(red).zip(number(green)).zip(number(blue)).map(|((r, g), b)| [r, g, b]),
                _ => None,
            },
            single => number(single).map(|single| [single; 3]),
        };
        numbers.map(Some).ok_or_else(|| self.problem(name, format!("is {value}; expected three numbers")))
    }

    fn deviations(&self, name: &str) -> Result<Option<[f64; 3]>, PreprocessError> {
        let numbers = self.channels(name)?;
        // Compared as f32, which is what divides: a tiny f64 would be zero there.
        if numbers.is_some_and(|numbers| numbers.iter().any(|number| *number as f32 <= 0.0)) {
            return Err(self.problem(name, "holds a number that is not above zero"));
        }
        Ok(numbers)
    }
}
