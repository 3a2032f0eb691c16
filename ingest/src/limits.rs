//! Every bound of this crate in one place.

/// What ingest accepts and how much it holds at once. [`Limits::default`] fits one machine with a few GiB of memory.
///
/// Memory: at most `workers x 3 + 3` chunks of [`Limits::chunk_bytes`] (or of one row, if that is larger), one record batch in
/// the reader, and `batch` preprocessed pictures a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows that travel together through the pipeline. 32: two encoder batches, so that captions of like length meet.
    pub chunk_rows: usize,
    /// How many times as many rows a chunk has that holds captions alone. 4: 128 captions, cut into batches of 16 by length, are padded by 4 %
    /// (8 to 16 tokens each) or 19 % (lengths with a long tail), where 32 are by 17 or 55 %; pictures and ready vectors gain nothing by longer chunks.
    pub caption_chunk: usize,
    /// Bytes of pictures and captions after which a chunk is full. 32 MiB: 32 pictures of a camera.
    pub chunk_bytes: usize,
    /// Rows read from a file at once when pictures are read. 64: a batch of large pictures stays small.
    pub record_batch_rows: usize,
    /// Bytes read from a file at once, by the file's own account of its average row. 64 MiB.
    pub record_batch_bytes: usize,
    /// Encoded bytes of one picture. 64 MiB: above any picture of a caption dataset.
    pub max_picture_bytes: usize,
    /// Bytes of one caption. 64 KiB: a thousand times what a text tower reads.
    pub max_caption_bytes: usize,
    /// Bytes of one metadata text; what is longer is cut there and counted. 64 KiB.
    pub max_field_bytes: usize,
    /// Bytes of a parquet footer, which is parsed in memory. 64 MiB: thousands of row groups of a wide table.
    pub max_footer_bytes: u64,
    /// Bytes of one page header, its statistics among them. 1 MiB; writers cut statistics at 4 KiB or sooner.
    pub max_page_header_bytes: usize,
    /// Bytes of one page, in the file or unpacked. 1 GiB: a row group of a thousand large pictures in one page, as pyarrow writes them.
    pub max_page_bytes: u64,
    /// Unpacked bytes that a page may have whatever it has in the file; above, twice its bytes in the file. 64 MiB: a page of text has one.
    pub free_page_bytes: u64,
    /// Top-level columns of a table. 4,096: a footer that declares more is no dataset of pictures.
    pub max_columns: usize,
    /// Bytes of the text header of an npy file. 64 KiB, numpy's own bound for version 1.
    pub max_npy_header_bytes: usize,
    /// Bytes of one `.json` member, sidecar or line of a table, and of a tar's extended header. 1 MiB: a thousand times a
    /// downloader's record.
    pub max_metadata_bytes: usize,
    /// Bytes that a tar member may declare, wanted or not. 4 GiB: above any video beside a picture; more is damage.
    pub max_member_bytes: u64,
    /// Values of one ready-made vector. 65,536: sixteen times the widest CLIP.
    pub max_dim: usize,
    /// Files found under one folder. 100,000.
    pub max_shards: usize,
    /// Folder levels searched for shards. 4: `data/train/part/0000.parquet`.
    pub max_folder_depth: usize,
    /// Kept rows after which there is a commit where near duplicates are left out. 10,000: those since the last commit are compared one by
    /// one (20 MB of vectors, a millisecond a row), those before it by the pool's graph.
    pub near_rows: usize,
    /// Rows the encoder may fail on in a row before the run is given up as hopeless. 64.
    pub max_encoder_failures: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self {
            chunk_rows: 32,
            caption_chunk: 4,
            chunk_bytes: 32 * MIB,
            record_batch_rows: 64,
            record_batch_bytes: 64 * MIB,
            max_picture_bytes: 64 * MIB,
            max_caption_bytes: 64 << 10,
            max_field_bytes: 64 << 10,
            max_footer_bytes: 64 << 20,
            max_page_header_bytes: MIB,
            max_page_bytes: 1 << 30,
            free_page_bytes: 64 << 20,
            max_columns: 4_096,
            max_npy_header_bytes: 64 << 10,
            max_metadata_bytes: MIB,
            max_member_bytes: 4 << 30,
            max_dim: 65_536,
            max_shards: 100_000,
            max_folder_depth: 4,
            near_rows: 10_000,
            max_encoder_failures: 64,
        }
    }
}
