//! What a job may be asked for: the command line's `ingest`, without what is the operator's to decide (where the pool lies, threads,
//! commits).

use std::{num::NonZeroUsize, path::PathBuf};

use anchorite_ingest::{ColumnChoice, ColumnOptions, Earlier, Filters, IngestOptions, Missing, OnChange, Reach, Script};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;

/// Sources of one job. 1,000: patterns name more files than that with one.
const MAX_SOURCES: usize = 1_000;

/// What becomes of a row whose key the pool has for another picture or caption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    /// It takes the other's place if it is surely the same row: by key column, or from the same file as before.
    #[default]
    SameSource,
    /// It takes the other's place.
    Upsert,
    /// It is rejected.
    Reject,
}

/// A job to fill a pool. Every field may be left out; without an upload, `sources` is needed.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = IngestRequest)]
pub(crate) struct Request {
    /// Paths below the server's folder of sources: parquet files, tars, tables, folders of these or of pictures, patterns.
    #[schema(example = json!(["cc3m/{00000..00331}.tar"]))]
    sources: Vec<String>,
    /// The column of pictures; found by name and type when left out.
    image_column: Option<String>,
    caption_column: Option<String>,
    /// A column whose values name the pairs; left out, a hash of source name and row does.
    key_column: Option<String>,
    image_vector_column: Option<String>,
    text_vector_column: Option<String>,
    /// The sources have vectors, made by the pool's model, instead of pictures.
    ready_vectors: bool,
    /// Keep rows that lack their picture or caption.
    keep_half: bool,
    /// Do not store the pictures themselves.
    no_pictures: bool,
    min_caption_words: Option<usize>,
    max_caption_words: Option<usize>,
    /// Scripts of which at least half of a caption's letters must be.
    #[schema(example = json!(["Latin"]))]
    caption_scripts: Vec<String>,
    /// Most of a caption's words that may have stood in it before, as a share.
    max_repetition: Option<f32>,
    /// Fewest pixels of a picture's shorter edge.
    min_image_edge: Option<u32>,
    /// Least cosine of picture and caption.
    min_clip_score: Option<f32>,
    /// Leave out rows that an earlier row of the job repeats byte by byte.
    drop_duplicates: bool,
    on_change: Change,
    /// Read files again that were settled before; brings back deleted pairs.
    read_again: bool,
    /// Rejected rows above which the job counts as failed.
    max_rejects: Option<u64>,
}

impl Request {
    pub(crate) fn ready_vectors(&self) -> bool {
        self.ready_vectors || self.image_vector_column.is_some() || self.text_vector_column.is_some()
    }

    pub(crate) fn sources(&self) -> Vec<PathBuf> {
        self.sources.iter().map(PathBuf::from).collect()
    }

    /// Whether sources and upload fit together.
    pub(crate) fn check_sources(&self, uploaded: bool, has_root: bool) -> Result<(), ApiError> {
        let refuse = |message: &str| Err(ApiError::unprocessable("ingest_sources", message));
        match (uploaded, self.sources.len()) {
            (true, 0) => Ok(()),
            (true, _) => refuse("an upload is the source; leave `sources` out"),
            (false, 0) => refuse("name `sources`, or send a parquet file as application/vnd.apache.parquet"),
            (false, _) if !has_root => {
                let message = "this server has no folder of sources (serve --ingest-root); send a parquet file as application/vnd.apache.parquet";
                Err(ApiError::new(StatusCode::CONFLICT, "ingest_uploads_only", message))
            }
            (false, count) if count > MAX_SOURCES => refuse("at most 1000 sources; use a pattern, or several jobs"),
            _ => Ok(()),
        }
    }

    /// As options of the pipeline.
    pub(crate) fn options(&self, reach: Reach, rejects: PathBuf, workers: NonZeroUsize) -> Result<IngestOptions, ApiError> {
        let choice = |named: &Option<String>| named.clone().map_or(ColumnChoice::Auto, ColumnChoice::Named);
        Ok(IngestOptions {
            columns: ColumnOptions {
                image: choice(&self.image_column),
                caption: choice(&self.caption_column),
                key: self.key_column.clone(),
                image_vector: choice(&self.image_vector_column),
                text_vector: choice(&self.text_vector_column),
            },
            missing: if self.keep_half { Missing::KeepHalf } else { Missing::Reject },
            filters: self.filters()?,
            store_pictures: !self.no_pictures,
            workers: Some(workers),
            max_rejects: self.max_rejects,
            on_change: match self.on_change {
                Change::SameSource => OnChange::SameSource,
                Change::Upsert => OnChange::Upsert,
                Change::Reject => OnChange::Reject,
            },
            earlier: if self.read_again { Earlier::ReadAgain } else { Earlier::GoOn },
            rejects: Some(rejects),
            reach,
            ..IngestOptions::default()
        })
    }

    fn filters(&self) -> Result<Filters, ApiError> {
        let script = |name: &String| {
            name.parse::<Script>().map_err(|e| ApiError::unprocessable("caption_scripts", format!("caption_scripts: {e}")))
        };
        Ok(Filters {
            min_caption_words: self.min_caption_words,
            max_caption_words: self.max_caption_words,
            scripts: self.caption_scripts.iter().map(script).collect::<Result<_, _>>()?,
            max_repetition: self.max_repetition,
            min_image_edge: self.min_image_edge,
            min_clip_score: self.min_clip_score,
            drop_duplicates: self.drop_duplicates,
        })
    }
}
