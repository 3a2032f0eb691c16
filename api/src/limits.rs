//! Every bound of the service in one place.

use std::{num::NonZeroUsize, time::Duration};

use anchorite_anchors::Limits as CurateLimits;

/// What one server allows. Each field says why it has its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once. Default 1,024, below the usual limit of open files; more wait in the kernel's queue.
    pub max_connections: usize,
    /// From the first wait for a request to its complete head, so also how long an idle connection is kept. Default 5 s: slow
    /// heads are an attack, and reconnecting is cheap.
    pub header_timeout: Duration,
    /// Bytes of a request head. Default 64 KiB, ten times what browsers send.
    pub header_bytes: usize,
    /// Header lines. Default 100.
    pub headers: usize,
    /// From the head to the end of the body. Default 30 s: the largest body at about 10 Mbit/s.
    pub body_timeout: Duration,
    /// Body of a search, drop-in searches included. Default 32 MiB: one 20 MiB picture as base64, or a batch of small ones.
    pub search_body_bytes: usize,
    /// Body of an anchors request. Default 64 MiB: 512 pictures of 90 KiB as base64.
    pub anchors_body_bytes: usize,
    /// Any other body. Default 1 MiB: 100,000 ids.
    pub small_body_bytes: usize,
    /// All bodies together that are being read or worked on. Default 256 MiB; beyond it requests get 429.
    pub body_budget_bytes: usize,
    /// Queries in one search. Default 256.
    pub max_queries: usize,
    /// Hits of one query. Default 10,000, the most that clip-retrieval's page asks for. A pool may allow less.
    pub max_k: usize,
    /// Hits of all queries of one search together. Default 100,000: about 5 MB of JSON.
    pub max_hits: usize,
    /// Records of all queries of one search together. Default 20,000.
    pub max_records: usize,
    /// Pictures and vectors in one answer, before base64. Default 64 MiB.
    pub answer_bytes: usize,
    /// Queries in one anchors request. Default 512, a large training batch.
    pub max_anchor_queries: usize,
    /// Anchors of all queries of one anchors request together. Default 51,200: 512 queries with 100 each.
    pub max_anchors: usize,
    /// Hits that one anchors request may hold, each with its pair's vector where near duplicates are looked for (2 KiB at 512 values). Default
    /// 262,144, more than twice what the largest request fetches first; where a query wants more, its list ends with `search_limit`.
    pub max_anchor_hits: usize,
    /// Arrow streams open at once, each with up to three batches in memory. Default 16; beyond it requests get 429.
    pub max_streams: usize,
    /// Bytes of pictures or pixels in one record batch, about. Default 16 MiB; a batch is at least one query.
    pub batch_bytes: usize,
    /// How long a stream waits for a client that does not read. Default 60 s: a training step and a checkpoint.
    pub stall_timeout: Duration,
    /// Texts in one embeddings request. Default 2,048, OpenAI's own.
    pub max_texts: usize,
    /// Pictures in one embeddings request. Default 64: 38 MB of pixels at 224 px.
    pub max_pictures: usize,
    /// Texts that wait for a tower. Default 4,096; beyond it embeddings requests get 429 at once.
    pub text_queue: usize,
    /// Pictures that wait for a tower, 0.6 MB each at 224 px. Default 256.
    pub image_queue: usize,
    /// Ids in one drop-in metadata request. Default 10,000, as many as one search gives.
    pub max_ids: usize,
    /// Searches and reads admitted at once, running or waiting for a core. Default 64; beyond it requests get 429 at once.
    pub max_in_flight: usize,
    /// Searches and reads running at once. Default: one for each core, since they compute.
    pub compute_threads: usize,
    /// From admission to the answer. Default 30 s: exact search of a few million rows takes less.
    pub deadline: Duration,
    /// How often pools are looked at for a new generation. Default 2 s: one look at a folder; none: only when asked to.
    pub refresh: Option<Duration>,
    /// Jobs that wait for their turn; one runs. Default 16; beyond it requests get 429.
    pub max_jobs_waiting: usize,
    /// Jobs that are over and still shown. Default 1,000; the oldest are forgotten.
    pub max_jobs_kept: usize,
    /// Threads of a job that decode and encode. Default: half of the cores, so that questions are answered meanwhile.
    pub job_workers: NonZeroUsize,
    /// Bytes of an uploaded parquet file. Default 1 GiB, some 10,000 pictures of 100 kB; more belongs below the folder of sources.
    pub upload_bytes: u64,
    /// Uploads received at once, each written to disk as it comes. Default 2; beyond it requests get 429.
    pub max_uploads: usize,
    /// What a refused client is told to wait. Default 1 s.
    pub retry_after: Duration,
    /// How long open requests may take to end after shutdown was asked for. Default 10 s, what orchestrators allow.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            header_timeout: Duration::from_secs(5),
            header_bytes: 64 << 10,
            headers: 100,
            body_timeout: Duration::from_secs(30),
            search_body_bytes: 32 << 20,
            anchors_body_bytes: 64 << 20,
            small_body_bytes: 1 << 20,
            body_budget_bytes: 256 << 20,
            max_queries: 256,
            max_k: 10_000,
            max_hits: 100_000,
            max_records: 20_000,
            answer_bytes: 64 << 20,
            max_anchor_queries: 512,
            max_anchors: 51_200,
            max_anchor_hits: 1 << 18,
            max_streams: 16,
            batch_bytes: 16 << 20,
            stall_timeout: Duration::from_secs(60),
            max_texts: 2048,
            max_pictures: 64,
            text_queue: 4096,
            image_queue: 256,
            max_ids: 10_000,
            max_in_flight: 64,
            compute_threads: std::thread::available_parallelism().map_or(4, usize::from),
            deadline: Duration::from_secs(30),
            refresh: Some(Duration::from_secs(2)),
            max_jobs_waiting: 16,
            max_jobs_kept: 1_000,
            job_workers: half_the_cores(),
            upload_bytes: 1 << 30,
            max_uploads: 2,
            retry_after: Duration::from_secs(1),
            drain: Duration::from_secs(10),
        }
    }
}

fn half_the_cores() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cores / 2).unwrap_or(NonZeroUsize::MIN)
}

impl Limits {
    /// The bounds of one anchors request. Answers list no hit that was passed over; they count them.
    pub(crate) fn curation(&self) -> CurateLimits {
        CurateLimits { max_hits: self.max_anchor_hits, max_items: self.max_anchor_hits, max_listed: 0, ..CurateLimits::default() }
    }
}
