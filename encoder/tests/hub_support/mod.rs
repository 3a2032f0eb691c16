//! A stand-in of the Hugging Face hub on the loopback interface: listings with sizes and digests, files with ranges. Used by every test of what
//! comes from a hub (included by `#[path]`).
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::allow_attributes, reason = "each test uses its part")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anchorite_encoder::hub::HubOptions;
use sha2::Digest;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

pub fn hex(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a hub says and does.
#[derive(Clone)]
pub struct Hub {
    /// `models/org/clip`, `datasets/org/pairs`.
    pub repository: String,
    pub files: BTreeMap<String, Vec<u8>>,
    /// Said instead of the true digests and sizes.
    pub lies: BTreeMap<String, String>,
    pub sha: String,
    /// A file that is announced in full but of which only half comes before the connection closes.
    pub cut: Option<String>,
    /// A file of which nothing comes, with the connection open.
    pub hang: Option<String>,
    pub token: Option<String>,
}

pub struct Server {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    pub fn new(hub: Hub) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (requests, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (log, stopped, hub) = (Arc::clone(&requests), Arc::clone(&stop), Arc::new(hub));
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (hub, log, stopped) = (Arc::clone(&hub), Arc::clone(&log), Arc::clone(&stopped));
                std::thread::spawn(move || answer(stream.unwrap(), &hub, &log, &stopped));
            }
        });
        Self { address, requests, stop, accepting: Some(accepting) }
    }

    pub fn options(&self, cache: &Path) -> HubOptions {
        HubOptions { cache: Some(cache.to_owned()), endpoint: Some(format!("http://{}", self.address)), ..HubOptions::default() }
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
        let _ = self.accepting.take().unwrap().join();
    }
}

fn answer(stream: TcpStream, hub: &Hub, log: &Mutex<Vec<String>>, stopped: &AtomicBool) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers: Vec<String> = lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        headers
            .iter()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_owned())
    };
    log.lock().unwrap().push(path.clone());
    let mut stream = stream;
    if hub.token.is_some() && header("authorization") != hub.token.as_ref().map(|token| format!("Bearer {token}")) {
        let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    }
    if path == format!("/api/{}/revision/main?blobs=true", hub.repository) {
        let body = listing(hub);
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        return;
    }
    let name = path.strip_prefix(&format!("/{}/resolve/{}/", hub.repository.trim_start_matches("models/"), hub.sha));
    let Some((name, content)) = name.and_then(|name| Some((name, hub.files.get(name)?))) else {
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    };
    let range = header("range").unwrap_or_default();
    let (from, to) = range.strip_prefix("bytes=").unwrap_or("0-").split_once('-').unwrap();
    let from: usize = from.parse().unwrap();
    let to = to.parse().map_or(content.len(), |to: usize| (to + 1).min(content.len()));
    if from >= content.len() {
        let _ = stream.write_all(b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    }
    let mut part = &content[from..to];
    let _ = write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nETag: \"{}\"\r\nX-Repo-Commit: {}\r\nContent-Range: bytes {from}-{}/{}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        hex(content),
        hub.sha,
        to.saturating_sub(1),
        content.len(),
        part.len()
    );
    let whole = range != "bytes=0-0";
    if whole && hub.hang.as_deref() == Some(name) {
        while !stopped.load(Ordering::SeqCst) {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        return;
    }
    if whole && from == 0 && hub.cut.as_deref() == Some(name) {
        part = &part[..part.len() / 2];
    }
    let _ = stream.write_all(part);
}

fn listing(hub: &Hub) -> String {
    let siblings: Vec<serde_json::Value> = hub
        .files
        .iter()
        .map(|(name, content)| {
            let digest = hub.lies.get(name).cloned().unwrap_or_else(|| hex(content));
            serde_json::json!({"rfilename": name, "size": content.len(), "lfs": {"sha256": digest, "size": content.len()}})
        })
        .collect();
    serde_json::json!({"sha": hub.sha, "siblings": siblings, "pipeline_tag": "zero-shot-image-classification"}).to_string()
}

impl Hub {
    /// One that tells the truth of these files.
    pub fn of(repository: &str, files: BTreeMap<String, Vec<u8>>) -> Self {
        let (lies, sha) = (BTreeMap::new(), COMMIT.to_owned());
        Self { repository: repository.to_owned(), files, lies, sha, cut: None, hang: None, token: None }
    }
}
