//! Rows that were not ingested, and why. `reject_list.rs` has the file that lists them.

use std::borrow::Cow;

use anchorite_index::SourceRef;

/// One row that was not ingested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Which row.
    pub source: SourceRef,
    /// Stable short name of the reason: one of [`code`], or an encoder's own (`image_damaged`, `text_too_long`, ...).
    pub code: &'static str,
    /// The reason in words.
    pub message: Cow<'static, str>,
}

impl Reject {
    pub(crate) fn new(source: SourceRef, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { source, code, message: message.into() }
    }

    /// Whether the row was filtered out at the caller's wish, and nothing is wrong with it.
    #[must_use]
    pub fn is_filtered(&self) -> bool {
        is_filter(self.code)
    }
}

/// Whether the code is a filter's.
pub(crate) fn is_filter(code: &str) -> bool {
    code.starts_with("filtered_")
}

/// A reject whose row is not known yet at the place where it is found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowProblem {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl RowProblem {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// The reasons that ingest itself gives. Pictures and captions that the encoder refuses carry its codes
/// (`ImageError::code`, `TextError::code`).
pub mod code {
    /// The picture column is null (and the path, in a struct column).
    pub const IMAGE_NULL: &str = "image_null";
    /// The caption column is null, an empty list, or blank.
    pub const CAPTION_NULL: &str = "caption_null";
    /// More bytes than [`crate::Limits::max_picture_bytes`].
    pub const IMAGE_TOO_MANY_BYTES: &str = "image_too_many_bytes";
    /// More bytes than [`crate::Limits::max_caption_bytes`].
    pub const TEXT_TOO_LONG: &str = "text_too_long";
    /// A path that is absolute, has `..`, a control character or the like.
    pub const PATH_INVALID: &str = "path_invalid";
    /// A path with a URL in it.
    pub const PATH_IS_URL: &str = "path_is_url";
    /// A path with a symbolic link in it, out of the folder, or to something that is no plain file.
    pub const PATH_REFUSED: &str = "path_refused";
    /// A path to nothing.
    pub const PATH_MISSING: &str = "path_missing";
    /// A file that could not be read.
    pub const PATH_UNREADABLE: &str = "path_unreadable";
    /// The key column is null.
    pub const KEY_NULL: &str = "key_null";
    /// The key has other characters than keys have, or is too long.
    pub const KEY_INVALID: &str = "key_invalid";
    /// The pool has a pair of this key that was made from something else.
    pub const KEY_CHANGED: &str = "key_changed";
    /// An earlier row of the same source has this key.
    pub const KEY_DUPLICATE: &str = "key_duplicate";
    /// A ready-made vector is null.
    pub const VECTOR_NULL: &str = "vector_null";
    /// A ready-made vector has another number of values than the pool's.
    pub const VECTOR_DIMENSION: &str = "vector_dimension";
    /// NaN or infinity in a ready-made vector.
    pub const VECTOR_NOT_FINITE: &str = "vector_not_finite";
    /// A ready-made vector of length zero.
    pub const VECTOR_ZERO: &str = "vector_zero";
    /// The downloader that made the dataset could not fetch or resize the picture.
    pub const DOWNLOAD_FAILED: &str = "download_failed";
    /// A caption that is no UTF-8.
    pub const TEXT_INVALID: &str = "text_invalid";
    /// Metadata that is no JSON object, or too long.
    pub const METADATA_INVALID: &str = "metadata_invalid";
    /// A line of a table with another number of values than its header, or no UTF-8.
    pub const ROW_INVALID: &str = "row_invalid";
    /// Two members of one kind in a tar's sample.
    pub const MEMBER_DUPLICATE: &str = "member_duplicate";
    /// Fewer words than [`crate::Filters::min_caption_words`].
    pub const FILTERED_CAPTION_SHORT: &str = "filtered_caption_short";
    /// More words than [`crate::Filters::max_caption_words`].
    pub const FILTERED_CAPTION_LONG: &str = "filtered_caption_long";
    /// Fewer than half of the letters are of [`crate::Filters::scripts`].
    pub const FILTERED_CAPTION_SCRIPT: &str = "filtered_caption_script";
    /// More of the caption repeats itself than [`crate::Filters::max_repetition`] allows.
    pub const FILTERED_CAPTION_REPETITION: &str = "filtered_caption_repetition";
    /// A picture smaller than [`crate::Filters::min_image_edge`].
    pub const FILTERED_IMAGE_SMALL: &str = "filtered_image_small";
    /// An earlier row of the run has the same picture and caption.
    pub const FILTERED_DUPLICATE: &str = "filtered_duplicate";
    /// A picture as alike to an earlier one as [`crate::Filters::near_duplicate`].
    pub const FILTERED_NEAR_DUPLICATE: &str = "filtered_near_duplicate";
    /// Picture and caption less alike than [`crate::Filters::min_clip_score`].
    pub const FILTERED_CLIP_SCORE: &str = "filtered_clip_score";
    /// The encoder failed on this row alone.
    pub const ENCODE_FAILED: &str = "encode_failed";
}
