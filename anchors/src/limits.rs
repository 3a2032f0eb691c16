//! How much one call may take.

/// The bounds of one [`crate::Retriever`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Items encoded together. Default 32: a batch of 224 px pictures is then 19 MB, and larger batches gain nothing on CPU.
    pub encode_batch: usize,
    /// Records read together by [`crate::Retriever::anchors`]. Default 1,024: bounds what a cancelled read still does.
    pub read_batch: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { encode_batch: 32, read_batch: 1024 }
    }
}
