//! Requests over loopback, made here and not in Python: one blocking connection a thread, each waiting for its answer before it asks again.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value as Json;

/// What a load brought about.
pub(crate) struct Load {
    /// Answers a second.
    pub(crate) rate: f64,
    took: Vec<Duration>,
}

impl Load {
    /// The time that this share of the requests stayed below, in milliseconds.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let place = (self.took.len() as f64 * share) as usize;
        self.took[place.min(self.took.len() - 1)].as_secs_f64() * 1e3
    }
}

/// A request as it goes over the wire.
pub(crate) fn post(path: &str, body: &Json) -> Vec<u8> {
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// Sends `requests` round and round over so many connections, for so long.
///
/// # Errors
/// A connection that fails, or an answer other than 200.
pub(crate) fn drive(server: SocketAddr, requests: &[Vec<u8>], connections: usize, length: Duration) -> Result<Load> {
    let start = Instant::now();
    let end = start + length;
    let one = |first: usize| -> Result<Vec<Duration>> {
        let mut connection = Connection::open(server)?;
        let mut took = Vec::new();
        for request in requests.iter().cycle().skip(first) {
            let asked = Instant::now();
            if asked >= end {
                break;
            }
            connection.ask(request)?;
            took.push(asked.elapsed());
        }
        Ok(took)
    };
    let parts = std::thread::scope(|scope| {
        // Each begins elsewhere, so that they do not ask the same at the same time.
        let begin = |i: usize| scope.spawn(move || one(i * requests.len() / connections));
        let threads: Vec<_> = (0..connections).map(begin).collect();
        threads.into_iter().map(|t| t.join().expect("a connection's thread does not panic")).collect::<Result<Vec<_>>>()
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let mut took: Vec<Duration> = parts.into_iter().flatten().collect();
    ensure!(!took.is_empty(), "no request was answered in {length:?}");
    took.sort_unstable();
    Ok(Load { rate: took.len() as f64 / seconds, took })
}

/// One request, its answer as JSON.
pub(crate) fn ask(server: SocketAddr, request: &[u8]) -> Result<Json> {
    Ok(serde_json::from_slice(&Connection::open(server)?.ask(request)?)?)
}

/// A connection that is kept, and opened again where the server closes it.
pub(crate) struct Connection {
    server: SocketAddr,
    stream: BufReader<TcpStream>,
    kept: bool,
}

/// What the head of an answer says of its body.
struct Head {
    length: Option<usize>,
    chunked: bool,
}

impl Connection {
    pub(crate) fn open(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(server).with_context(|| format!("connect to {server}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { server, stream: BufReader::with_capacity(64 << 10, stream), kept: true })
    }

    /// The body of the answer.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        self.ask_timed(request).map(|(body, _)| body)
    }

    /// The body of the answer, and the time until its first part was there.
    pub(crate) fn ask_timed(&mut self, request: &[u8]) -> Result<(Vec<u8>, Duration)> {
        if !self.kept {
            *self = Self::open(self.server)?;
        }
        let start = Instant::now();
        self.stream.get_mut().write_all(request)?;
        let head = self.head()?;
        let mut body = Vec::new();
        self.stream.fill_buf()?;
        let first = start.elapsed();
        match head {
            Head { chunked: true, .. } => self.chunks(&mut body)?,
            Head { length: Some(length), .. } => {
                body.resize(length, 0);
                self.stream.read_exact(&mut body)?;
            }
            Head { length: None, .. } => drop(self.stream.read_to_end(&mut body)?),
        }
        Ok((body, first))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line)? > 0, "the server closed the connection");
        Ok(line.trim_end().to_ascii_lowercase())
    }

    fn head(&mut self) -> Result<Head> {
        let status = self.line()?;
        self.kept = status.starts_with("http/1.1");
        let mut head = Head { length: None, chunked: false };
        loop {
            let line = self.line()?;
            match line.split_once(':').map(|(name, value)| (name, value.trim())) {
                Some(("content-length", value)) => head.length = Some(value.parse()?),
                Some(("transfer-encoding", value)) => head.chunked = value == "chunked",
                Some(("connection", "close")) => self.kept = false,
                Some(_) => {}
                None if line.is_empty() => break,
                None => bail!("{line:?} is no header"),
            }
        }
        if !status.contains(" 200") {
            let mut body = vec![0; head.length.unwrap_or(0)];
            self.stream.read_exact(&mut body)?;
            bail!("{status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(head)
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> Result<()> {
        loop {
            let length = usize::from_str_radix(&self.line()?, 16)?;
            let start = body.len();
            body.resize(start + length, 0);
            self.stream.read_exact(&mut body[start..])?;
            self.line()?;
            if length == 0 {
                return Ok(());
            }
        }
    }
}
