//! What whoever fills a pool may ask for: one list, which the command line has as flags (`--min-caption-words`) and HTTP as fields
//! (`min_caption_words`), and the options of the pipeline that it becomes.
//!
//! ```text
//!   flags ──clap──┐
//!                 ├─► IngestRequest ──options──► IngestOptions
//!   JSON ──serde──┘
//! ```
//!
//! What is the operator's to decide is not in it: where the pool lies, threads, commits, where sources may lie.

#[cfg(feature = "clap")]
use clap::builder::FalseyValueParser;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{ColumnChoice, ColumnOptions, Earlier, Filters, IngestOptions, Missing, OnChange, Script, UnknownScript};

/// What is asked of a run. Every field may be left out but, save for an upload or a list of tasks, the sources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct IngestRequest {
    /// Parquet files, WebDataset tars, tables (CSV, TSV, JSON lines), folders of these or of pictures with captions beside them,
    /// clip-retrieval folders, and patterns such as 'cc3m/{00000..00331}.tar' or 'data/**/*.parquet'. On the command line also datasets
    /// of the Hugging Face hub (hf://datasets/org/name[@revision][/path or pattern]); over HTTP paths below the server's folder of sources.
    #[cfg_attr(feature = "clap", arg(required_unless_present = "tasks"))]
    #[cfg_attr(feature = "utoipa", schema(value_type = Vec<String>, example = json!(["cc3m/{00000..00331}.tar"])))]
    pub sources: Vec<PathBuf>,
    /// The column of pictures; in a tar the endings of picture members (png;jpg). Default: detected by name and type.
    #[cfg_attr(feature = "clap", arg(long, env = "ANCHORITE_IMAGE_COLUMN", value_name = "NAME"))]
    pub image_column: Option<String>,
    /// The column of captions; in a tar a member's ending or a field of its json. Default: detected by name and type.
    #[cfg_attr(feature = "clap", arg(long, env = "ANCHORITE_CAPTION_COLUMN", value_name = "NAME"))]
    pub caption_column: Option<String>,
    /// A column whose values name the pairs; in a tar a field of its json, or __key__. Default: a hash of source name and row.
    #[cfg_attr(feature = "clap", arg(long, env = "ANCHORITE_KEY_COLUMN", value_name = "NAME"))]
    pub key_column: Option<String>,
    /// A column of ready image vectors. Default: detected by name and type when the source has no pictures.
    #[cfg_attr(feature = "clap", arg(long, env = "ANCHORITE_IMAGE_VECTOR_COLUMN", value_name = "NAME"))]
    pub image_vector_column: Option<String>,
    /// A column of ready text vectors.
    #[cfg_attr(feature = "clap", arg(long, env = "ANCHORITE_TEXT_VECTOR_COLUMN", value_name = "NAME"))]
    pub text_vector_column: Option<String>,
    /// Vectors are ready made, by the pool's model. On the command line say by which: --model, or any name with --vectors-from.
    #[cfg_attr(feature = "clap", arg(long, env = "ANCHORITE_READY_VECTORS", value_parser = FalseyValueParser::new()))]
    pub ready_vectors: bool,
    /// Keep rows that lack their picture or caption; by default they are rejected.
    #[cfg_attr(feature = "clap", arg(long, env = "ANCHORITE_KEEP_HALF", value_parser = FalseyValueParser::new()))]
    pub keep_half: bool,
    /// Do not store the pictures themselves.
    #[cfg_attr(feature = "clap", arg(long, env = "ANCHORITE_NO_PICTURES", value_parser = FalseyValueParser::new()))]
    pub no_pictures: bool,
    /// Leave out rows whose caption has fewer words.
    #[cfg_attr(feature = "clap", arg(long, env = "ANCHORITE_MIN_CAPTION_WORDS", value_name = "WORDS"))]
    pub min_caption_words: Option<usize>,
    /// Leave out rows whose caption has more words.
    #[cfg_attr(feature = "clap", arg(long, env = "ANCHORITE_MAX_CAPTION_WORDS", value_name = "WORDS"))]
    pub max_caption_words: Option<usize>,
    /// Leave out rows of whose caption's letters fewer than half are of these scripts (Latin, Cyrillic, Han, ...).
    #[cfg_attr(feature = "clap", arg(
        long = "caption-script", env = "ANCHORITE_CAPTION_SCRIPT", value_name = "SCRIPT", value_delimiter = ',', value_parser = script_name
    ))]
    #[cfg_attr(feature = "utoipa", schema(example = json!(["Latin"])))]
    pub caption_scripts: Vec<String>,
    /// Leave out rows of whose caption's words more than this share stood in it before (it is 0.67 for "sale sale sale").
    #[cfg_attr(feature = "clap", arg(long, env = "ANCHORITE_MAX_REPETITION", value_name = "SHARE"))]
    pub max_repetition: Option<f32>,
    /// Leave out pictures whose shorter edge has fewer pixels.
    #[cfg_attr(feature = "clap", arg(long, env = "ANCHORITE_MIN_IMAGE_EDGE", value_name = "PIXELS"))]
    pub min_image_edge: Option<u32>,
    /// Leave out pairs whose picture and caption have a smaller cosine.
    #[cfg_attr(feature = "clap", arg(long, env = "ANCHORITE_MIN_CLIP_SCORE", value_name = "COSINE", allow_hyphen_values = true))]
    pub min_clip_score: Option<f32>,
    /// Leave out rows whose picture has at least this cosine with that of an earlier row or of a pair of the pool; 0.95 finds other sizes
    /// and qualities of one picture.
    #[cfg_attr(feature = "clap", arg(long, env = "ANCHORITE_NEAR_DUPLICATES", value_name = "COSINE"))]
    pub near_duplicates: Option<f32>,
    /// Leave out rows whose picture and caption an earlier row of this run has, byte by byte.
    #[cfg_attr(feature = "clap", arg(long, env = "ANCHORITE_DROP_DUPLICATES", value_parser = FalseyValueParser::new()))]
    pub drop_duplicates: bool,
    /// What happens to a row whose key the pool has for another picture or caption: it takes the other's place (upsert), is rejected
    /// (reject), or the first if it is surely the same row (same source): by key column, or from the same path as before.
    #[cfg_attr(feature = "clap", arg(long, env = "ANCHORITE_ON_CHANGE", value_enum, default_value_t))]
    pub on_change: OnChange,
    /// Read sources again that an earlier run has finished; brings back pairs that were deleted.
    #[cfg_attr(feature = "clap", arg(long, env = "ANCHORITE_READ_AGAIN", value_parser = FalseyValueParser::new()))]
    pub read_again: bool,
    /// Rejected rows above which the run counts as failed: the command line exits with 3, a job says too_many_rejects. What was accepted
    /// stays. Default: any number.
    #[cfg_attr(feature = "clap", arg(long, env = "ANCHORITE_MAX_REJECTS", value_name = "N"))]
    pub max_rejects: Option<u64>,
}

/// `text`, if it names a script, so that a wrong one is wrong usage.
#[cfg(feature = "clap")]
fn script_name(text: &str) -> Result<String, UnknownScript> {
    text.parse::<Script>().map(|_| text.to_owned())
}

impl IngestRequest {
    /// Whether it says that vectors are ready made.
    #[must_use]
    pub fn names_vectors(&self) -> bool {
        self.ready_vectors || self.image_vector_column.is_some() || self.text_vector_column.is_some()
    }

    /// As options of the pipeline; what is not asked for has its default.
    ///
    /// # Errors
    /// A script that is none.
    pub fn options(&self) -> Result<IngestOptions, UnknownScript> {
        Ok(IngestOptions {
            columns: self.columns(),
            missing: if self.keep_half { Missing::KeepHalf } else { Missing::Reject },
            filters: self.filters()?,
            store_pictures: !self.no_pictures,
            max_rejects: self.max_rejects,
            on_change: self.on_change,
            earlier: if self.read_again { Earlier::ReadAgain } else { Earlier::GoOn },
            ..IngestOptions::default()
        })
    }

    fn columns(&self) -> ColumnOptions {
        let choice = |named: &Option<String>| named.clone().map_or(ColumnChoice::Auto, ColumnChoice::Named);
        ColumnOptions {
            image: choice(&self.image_column),
            caption: choice(&self.caption_column),
            key: self.key_column.clone(),
            image_vector: choice(&self.image_vector_column),
            text_vector: choice(&self.text_vector_column),
        }
    }

    fn filters(&self) -> Result<Filters, UnknownScript> {
        Ok(Filters {
            min_caption_words: self.min_caption_words,
            max_caption_words: self.max_caption_words,
            scripts: self.caption_scripts.iter().map(|name| name.parse()).collect::<Result<Vec<Script>, _>>()?,
            max_repetition: self.max_repetition,
            min_image_edge: self.min_image_edge,
            min_clip_score: self.min_clip_score,
            near_duplicate: self.near_duplicates,
            drop_duplicates: self.drop_duplicates,
        })
    }
}
