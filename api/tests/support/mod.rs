//! A server on a free loopback port over a small pool in memory, and a client for it.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of this")]

pub mod filling;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use anchorite_anchors::Retriever;
use anchorite_api::{App, Drained, Keys, Limits, Options, Scope, Server, Tls, key_line};
use anchorite_encoder::{Embedding, Encode, EncodeError, ImageError, Pixels, TextError, Tokens, fake::FakeEncoder};
use anchorite_index::{
    Answer, Cancel, ContentHash, Key, Pair, PairSink as _, PairStore, Parts, Query, Record, RowId, SourceRef, Spec, StoreError,
    StoreStatus, Value, memory::MemoryStore,
};
use serde_json::Value as Json;

pub const DIM: usize = 16;

pub const RED: &[u8] = include_bytes!("../fixtures/red.jpg");
pub const GREEN: &[u8] = include_bytes!("../fixtures/green.jpg");
pub const BLUE: &[u8] = include_bytes!("../fixtures/blue.jpg");
pub const PNG: &[u8] = include_bytes!("../fixtures/yellow.png");
pub const WEBP: &[u8] = include_bytes!("../fixtures/yellow.webp");

/// Rows of the pool `fruit`. Row 3 repeats row 0's picture under another caption; row 6 has no picture, row 7 no caption.
pub const CAPTIONS: [&str; 6] =
    ["a red apple", "a green apple", "a blue boat on the sea", "one red apple on a table", "a yellow star", "a yellow sun"];

pub fn picture_vector(bytes: &[u8]) -> Vec<f32> {
    let encoder = FakeEncoder::new(DIM);
    let pixels = encoder.prepare_image(bytes).expect("a picture");
    encoder.encode_images(&[pixels]).expect("encodes").remove(0).into_vec()
}

pub fn text_vector(text: &str) -> Vec<f32> {
    let encoder = FakeEncoder::new(DIM);
    let tokens = encoder.prepare_text(text).expect("a caption");
    encoder.encode_texts(&[tokens]).expect("encodes").remove(0).into_vec()
}

pub fn pair(row: u64, caption: Option<&str>, picture: Option<&[u8]>) -> Pair {
    let mut fields =
        BTreeMap::from([("rank".to_owned(), Value::Int(row as i64)), ("license".to_owned(), Value::Text("CC0".to_owned()))]);
    if row == 1 {
        fields.insert("url".to_owned(), Value::Text("https://example.invalid/green.jpg".to_owned()));
        fields.insert("NSFW".to_owned(), Value::Float(f64::NAN));
    }
    Pair {
        key: Key::new(format!("pair-{row}")).expect("a key"),
        source: SourceRef { file: "fruit.parquet".to_owned(), row },
        content: ContentHash([row as u8; 32]),
        image: picture.map(picture_vector),
        text: caption.map(text_vector),
        caption: caption.map(str::to_owned),
        fields,
        picture: picture.map(<[u8]>::to_vec),
    }
}

pub fn fruit() -> Vec<Pair> {
    let pictures: [&[u8]; 6] = [RED, GREEN, BLUE, RED, PNG, WEBP];
    let mut pairs: Vec<Pair> = (0_u64..)
        .zip(CAPTIONS.into_iter().zip(pictures))
        .map(|(row, (caption, bytes))| pair(row, Some(caption), Some(bytes)))
        .collect();
    pairs.push(pair(6, Some("words without a picture"), None));
    let mut wordless = pair(7, None, Some(GREEN));
    wordless.key = Key::new("12345").expect("a key");
    pairs.push(wordless);
    pairs
}

pub fn store(pairs: &[Pair]) -> Arc<MemoryStore> {
    let mut store = MemoryStore::new(Spec { encoder: FakeEncoder::new(DIM).fingerprint().to_owned(), dim: DIM });
    store.append(pairs).expect("appends");
    store.commit(&Cancel::default()).expect("commits");
    Arc::new(store)
}

/// The fake encoder with three words of power: `wait` reports that it was entered and waits for the gate, `panic` panics, and
/// while `broken` is set every text batch fails.
pub struct Tricky {
    inner: FakeEncoder,
    pub broken: AtomicBool,
    entered: Mutex<mpsc::Sender<()>>,
    gate: Mutex<mpsc::Receiver<()>>,
}

/// The test's end of a [`Tricky`] encoder; dropping it opens the gate for good.
pub struct Hand {
    pub entered: mpsc::Receiver<()>,
    pub open: mpsc::Sender<()>,
}

impl Tricky {
    pub fn new() -> (Arc<Self>, Hand) {
        let (tell, entered) = mpsc::channel();
        let (open, gate) = mpsc::channel();
        let inner = FakeEncoder::new(DIM);
        let tricky = Self { inner, broken: AtomicBool::new(false), entered: Mutex::new(tell), gate: Mutex::new(gate) };
        (Arc::new(tricky), Hand { entered, open })
    }
}

impl Encode for Tricky {
    fn dim(&self) -> usize {
        self.inner.dim()
    }
    fn fingerprint(&self) -> &str {
        self.inner.fingerprint()
    }
    fn name(&self) -> &str {
        "tricky"
    }
    fn prepare_image(&self, bytes: &[u8]) -> Result<Pixels, ImageError> {
        self.inner.prepare_image(bytes)
    }
    fn prepare_text(&self, text: &str) -> Result<Tokens, TextError> {
        match text {
            "panic" => panic!("told to, from /secret/path"),
            "wait" => {
                self.entered.lock().expect("lock").send(()).ok();
                self.gate.lock().expect("lock").recv().ok();
            }
            _ => {}
        }
        self.inner.prepare_text(text)
    }
    fn encode_images(&self, batch: &[Pixels]) -> Result<Vec<Embedding>, EncodeError> {
        self.inner.encode_images(batch)
    }
    fn encode_texts(&self, batch: &[Tokens]) -> Result<Vec<Embedding>, EncodeError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(EncodeError::Runtime { tower: "text", reason: "broken at /secret/path".to_owned() });
        }
        self.inner.encode_texts(batch)
    }
}

/// What is wrong with a [`Faulty`] store.
enum Fault {
    /// Records are damaged on disk.
    Damaged,
    /// Counts and records do not come before the other end is dropped.
    Stuck(Mutex<mpsc::Receiver<()>>),
}

struct Faulty {
    store: Arc<MemoryStore>,
    fault: Fault,
}

impl Faulty {
    fn wait(&self) {
        if let Fault::Stuck(gate) = &self.fault {
            gate.lock().expect("lock").recv().ok();
        }
    }
}

impl PairStore for Faulty {
    fn spec(&self) -> &Spec {
        self.store.spec()
    }
    fn precision(&self) -> anchorite_index::Precision {
        self.store.precision()
    }
    fn max_k(&self) -> usize {
        self.store.max_k()
    }
    fn status(&self) -> StoreStatus {
        self.wait();
        self.store.status()
    }
    fn fields(&self) -> Result<Vec<String>, StoreError> {
        self.store.fields()
    }
    fn search(&self, queries: &[Query], cancel: &Cancel) -> Result<Vec<Answer>, StoreError> {
        self.store.search(queries, cancel)
    }
    fn get(&self, rows: &[RowId], parts: Parts) -> Result<Vec<Option<Record>>, StoreError> {
        self.wait();
        match self.fault {
            Fault::Stuck(_) => self.store.get(rows, parts),
            Fault::Damaged => {
                Err(StoreError::Corrupt { file: "secret/rows".to_owned(), offset: 7, reason: "a test says so".to_owned() })
            }
        }
    }
    fn find(&self, keys: &[Key]) -> Result<Vec<Option<RowId>>, StoreError> {
        self.store.find(keys)
    }
}

fn start_faulty(fault: Fault, limits: Limits) -> TestServer {
    let store = Arc::new(Faulty { store: store(&fruit()), fault });
    let retriever = Retriever::new(Arc::new(FakeEncoder::new(DIM)), store).expect("they match");
    start_pools(vec![("fruit".to_owned(), retriever)], limits)
}

/// The pool `fruit` with damaged records.
pub fn start_damaged() -> TestServer {
    start_faulty(Fault::Damaged, Limits::default())
}

/// The pool `fruit` with records that do not come until the second value is dropped.
pub fn start_stuck(limits: Limits) -> (TestServer, mpsc::Sender<()>) {
    let (unstick, gate) = mpsc::channel();
    (start_faulty(Fault::Stuck(Mutex::new(gate)), limits), unstick)
}

/// A running server; stopped when dropped.
pub struct TestServer {
    pub address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<Drained>>,
}

/// Two pools: `fruit` as above, `words` with captions only.
pub fn start(limits: Limits) -> TestServer {
    start_with(&Arc::new(FakeEncoder::new(DIM)), limits)
}

pub fn start_with<E: Encode + 'static>(encoder: &Arc<E>, limits: Limits) -> TestServer {
    let encoder: Arc<dyn Encode> = Arc::<E>::clone(encoder);
    let words: Vec<Pair> = (0_u64..).zip(CAPTIONS).map(|(row, caption)| pair(row, Some(caption), None)).collect();
    let pool = |pairs: &[Pair]| Retriever::new(Arc::clone(&encoder), store(pairs)).expect("they match");
    start_pools(vec![("fruit".to_owned(), pool(&fruit())), ("words".to_owned(), pool(&words))], limits)
}

pub fn start_pools(pools: Vec<(String, Retriever)>, limits: Limits) -> TestServer {
    start_app(App::new(pools, Options { limits, ..Options::default() }).expect("a server"))
}

pub fn start_app(app: App) -> TestServer {
    start_on(app, |server| server)
}

pub fn start_tls(app: App, tls: Tls) -> TestServer {
    start_on(app, |server| server.with_tls(tls))
}

pub const SECRETS: [(Scope, &str); 3] =
    [(Scope::Read, "reading secret"), (Scope::Write, "writing secret"), (Scope::Admin, "ruling secret")];

fn fruit_app(options: Options) -> App {
    let retriever = Retriever::new(Arc::new(FakeEncoder::new(DIM)), store(&fruit())).expect("they match");
    App::new(vec![("fruit".to_owned(), retriever)], options).expect("a server")
}

/// The pool `fruit` behind [`SECRETS`].
pub fn start_keyed() -> TestServer {
    let lines: Vec<String> = SECRETS.map(|(scope, secret)| key_line(&format!("{scope}-key"), scope, secret)).into();
    let keys = Keys::parse(&format!("# keys\n\n{}\n", lines.join("\n"))).expect("keys");
    start_app(fruit_app(Options { keys: Some(keys), ..Options::default() }))
}

/// The pool `fruit`, whose next generation is damaged.
pub fn start_unreloadable() -> TestServer {
    let damaged = || StoreError::Corrupt { file: "secret/manifest".to_owned(), offset: 7, reason: "a test says so".to_owned() };
    let limits = Limits { refresh: Some(std::time::Duration::from_millis(20)), ..Limits::default() };
    let app = fruit_app(Options { limits, ..Options::default() });
    start_app(app.refreshing("fruit", Box::new(move |_| Err(damaged()))).expect("there is such a pool"))
}

/// Three rows of `fruit` in generation 1, all of it in generation 2.
pub fn generations() -> [Arc<dyn PairStore>; 2] {
    let pairs = fruit();
    let mut grown = MemoryStore::new(Spec { encoder: FakeEncoder::new(DIM).fingerprint().to_owned(), dim: DIM });
    for part in [&pairs[..3], &pairs[3..]] {
        grown.append(part).expect("appends");
        grown.commit(&Cancel::default()).expect("commits");
    }
    [store(&pairs[..3]), Arc::new(grown)]
}

fn start_on(app: App, with: impl FnOnce(Server) -> Server + Send + 'static) -> TestServer {
    let app = Arc::new(app);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let server = with(Server::bind("127.0.0.1:0".parse().expect("an address")).await.expect("binds"));
            tell.send(server.local_addr()).expect("the test waits");
            let drained = server.serve(app, async { stopped.await.unwrap_or_default() });
            drained.await
        })
    });
    TestServer { address: told.recv().expect("it listens"), stop: Some(stop), thread: Some(thread) }
}

impl TestServer {
    /// Asks for the end, and waits for it.
    pub fn stop(mut self) -> Drained {
        self.ask_to_stop();
        self.thread.take().expect("not joined").join().expect("no panic")
    }

    pub fn ask_to_stop(&mut self) {
        drop(self.stop.take());
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send(ureq::http::Request::get(self.url(path)).body(Vec::new()).expect("a request"))
    }

    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Reply {
        self.send(ureq::http::Request::post(self.url(path)).body(body.as_ref().to_vec()).expect("a request"))
    }

    pub fn search(&self, body: &Json) -> Reply {
        self.post("/v1/search", body.to_string())
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn send(&self, request: ureq::http::Request<Vec<u8>>) -> Reply {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().into();
        let mut response = agent.run(request).expect("an answer");
        let headers = response.headers().clone();
        let status = response.status().as_u16();
        Reply { status, headers, body: response.body_mut().read_to_vec().expect("a body") }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.ask_to_stop();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// An answer, read whole.
pub struct Reply {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("status {}, not JSON: {e}: {}", self.status, self.text()))
    }

    #[track_caller]
    pub fn ok(self) -> Json {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().expect("plain"))
    }

    /// The error's code.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Base64 without a dependency: enough for a picture.
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0_u32, |w, (i, b)| w | u32::from(*b) << (16 - 8 * i));
        for place in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// Sends bytes as they are and reads until the server closes.
pub fn raw(server: &TestServer, bytes: &[u8]) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(server.address).expect("connects");
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("a timeout");
    stream.write_all(bytes).expect("sends");
    let mut answer = Vec::new();
    // A reset after the answer is the server's right: it has not read what it refused.
    stream.read_to_end(&mut answer).ok();
    String::from_utf8_lossy(&answer).into_owned()
}
