//! How much one evaluation may take.

/// Bounds of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvalLimits {
    /// Rows read before they are encoded together, by all threads. Default 512: 16 batches of 32 pictures.
    pub block: usize,
    /// Pictures or prompts handed to the encoder in one call. Default 32.
    pub encode_batch: usize,
    /// Rows of one set. Default 2,000,000: ImageNet's training set; their image vectors are held, 2 KiB each at 512 values.
    pub max_rows: usize,
    /// Classes of one list. Default 100,000.
    pub max_classes: usize,
    /// Unreadable pictures named in the report; all are counted. Default 1,000.
    pub max_listed: usize,
    /// Bytes of a file of class names or a map. Default 16 MiB: ImageNet-21k's names are under 1.
    pub max_list_bytes: u64,
    /// Rows of each set that a dry run looks at. Default 32.
    pub dry_rows: usize,
}

impl Default for EvalLimits {
    fn default() -> Self {
        Self {
            block: 512,
            encode_batch: 32,
            max_rows: 2_000_000,
            max_classes: 100_000,
            max_listed: 1_000,
            max_list_bytes: 16 << 20,
            dry_rows: 32,
        }
    }
}
