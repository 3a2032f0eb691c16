//! A server over the pool `fruit` on disk, which takes jobs.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use anchorite_anchors::Retriever;
use anchorite_api::{App, Filling, JobOptions, JobsError, Limits, OpenExact, Options};
use anchorite_encoder::{Encode, fake::FakeEncoder};
use anchorite_index::{
    Cancel, PairSink as _, PairStore, Spec, Value,
    pool::{OpenOptions, Pool, PoolWriter, WriterOptions},
};
use serde_json::Value as Json;

use super::{BLUE, DIM, GREEN, RED, TestServer, fruit, start_app};

/// A parquet file as Hugging Face's `datasets` writes it: five rows.
pub const PARQUET: &[u8] = include_bytes!("../../../ingest/tests/data/hf/train-00000-of-00001.parquet");

/// Where writers of pools wait until they are let through.
#[derive(Debug, Default)]
pub struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub fn set(&self, closed: bool) {
        *self.closed.lock().expect("no panic") = closed;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let closed = self.closed.lock().expect("no panic");
        drop(self.changed.wait_while(closed, |closed| *closed).expect("no panic"));
    }
}

/// Folders of a server that takes jobs; several servers may follow each other on them.
pub struct Ground {
    pub folder: tempfile::TempDir,
    pub gate: Arc<Gate>,
    pub encoder: Arc<dyn Encode>,
    /// The model itself, where `encoder` is a faster form of it.
    pub exact: Option<Arc<dyn Encode>>,
}

impl Default for Ground {
    fn default() -> Self {
        let ground = Self {
            folder: tempfile::tempdir().expect("a folder"),
            gate: Arc::default(),
            encoder: Arc::new(FakeEncoder::new(DIM)),
            exact: None,
        };
        let mut writer = PoolWriter::open(ground.pool(), &spec(), &WriterOptions::default()).expect("a pool");
        let mut pairs = fruit();
        for pair in &mut pairs {
            // A field that only a store in memory takes.
            pair.fields.retain(|_, value| !matches!(value, Value::Float(f) if !f.is_finite()));
        }
        writer.append(&pairs).expect("appends");
        writer.commit(&Cancel::default()).expect("commits");
        fs::create_dir_all(ground.sources().join("boats")).expect("a folder");
        for (name, picture, caption) in
            [("one", RED, "a boat number one"), ("two", GREEN, "a boat number two"), ("three", BLUE, "a boat number three")]
        {
            ground.put(&format!("boats/{name}.jpg"), picture);
            ground.put(&format!("boats/{name}.txt"), caption.as_bytes());
        }
        ground
    }
}

fn spec() -> Spec {
    Spec { encoder: FakeEncoder::new(DIM).fingerprint().to_owned(), dim: DIM }
}

impl Ground {
    pub fn pool(&self) -> PathBuf {
        self.folder.path().join("fruit.pool")
    }

    pub fn sources(&self) -> PathBuf {
        self.folder.path().join("sources [1]")
    }

    pub fn jobs(&self) -> PathBuf {
        self.folder.path().join("jobs")
    }

    /// Puts a file below the folder of sources.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.sources().join(name), bytes).expect("writes");
    }

    pub fn writer(&self) -> PoolWriter {
        PoolWriter::open(self.pool(), &spec(), &WriterOptions::default()).expect("a pool")
    }

    pub fn options(&self) -> JobOptions {
        JobOptions { folder: self.jobs(), sources: Some(self.sources()) }
    }

    pub fn app(&self, options: Options) -> Result<App, JobsError> {
        let open = |dir: &Path| Pool::open(dir, &OpenOptions::default());
        let pool = Arc::new(open(&self.pool()).expect("a pool"));
        let retriever = Retriever::new(Arc::clone(&self.encoder), pool).expect("they match");
        let app = App::new(vec![("fruit".to_owned(), retriever)], options).expect("a server");
        let dir = self.pool();
        let newer = move |present| {
            let pool = open(&dir)?;
            Ok((pool.status().generation > present).then(|| Arc::new(pool) as Arc<dyn PairStore>))
        };
        let app = app.refreshing("fruit", Box::new(newer)).expect("there is such a pool");
        let (dir, gate) = (self.pool(), Arc::clone(&self.gate));
        let filling = Filling {
            pool: "fruit".to_owned(),
            exact: self.exact.clone().map(|exact| Box::new(move || Ok(Arc::clone(&exact))) as OpenExact),
            rejects: self.folder.path().join("fruit.rejects.parquet"),
            summary: self.folder.path().join("fruit.ingest.json"),
            open: Box::new(move |on_build| {
                gate.pass();
                let options = WriterOptions { on_build: Some(on_build), ..WriterOptions::default() };
                Ok(Box::new(PoolWriter::open(&dir, &spec(), &options)?))
            }),
        };
        app.filling(&self.options(), vec![filling])
    }

    /// A server; waits until an earlier one has let go of the folder.
    pub fn serve(&self, mut limits: Limits) -> TestServer {
        // New generations come from jobs alone, so that a test sees that they do.
        limits.refresh = None;
        let options = Options { limits, ..Options::default() };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.app(options.clone()) {
                Ok(app) => return start_app(app),
                Err(JobsError::InUse { .. }) if Instant::now() < deadline => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

impl TestServer {
    /// Posts a job to `fruit` that must be taken; its id.
    #[track_caller]
    pub fn ingest(&self, request: &Json) -> String {
        let reply = self.post("/v1/pools/fruit/ingest", request.to_string());
        assert_eq!(reply.status, 202, "{}", reply.text());
        let id = reply.json()["id"].as_str().expect("an id").to_owned();
        assert_eq!(reply.header("location"), format!("/v1/jobs/{id}"));
        id
    }

    #[track_caller]
    pub fn upload(&self, bytes: &[u8], query: &str) -> super::Reply {
        let request = ureq::http::Request::post(self.url(&format!("/v1/pools/fruit/ingest{query}")))
            .header("content-type", "application/vnd.apache.parquet");
        self.send(request.body(bytes.to_vec()).expect("a request"))
    }

    pub fn delete(&self, path: &str) -> super::Reply {
        self.send(ureq::http::Request::delete(self.url(path)).body(Vec::new()).expect("a request"))
    }

    /// The job once it is as `is` wants it.
    #[track_caller]
    pub fn job_when(&self, id: &str, is: impl Fn(&Json) -> bool) -> Json {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let job = self.get(&format!("/v1/jobs/{id}")).ok();
            if is(&job) {
                return job;
            }
            assert!(Instant::now() < deadline, "{job}");
            std::thread::yield_now();
        }
    }

    /// The job when it is over.
    #[track_caller]
    pub fn job_over(&self, id: &str) -> Json {
        self.job_when(id, |job| !["queued", "running"].map(Json::from).contains(&job["state"]))
    }
}
