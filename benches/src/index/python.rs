//! hnswlib, faiss, usearch and ScaNN: each in a Python process of its own (`reference/peers_index.py`).

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    BUILD_THREADS,
    data::{Data, Queries},
    engine::{Asked, BuildCost, Engine, Spent},
};
use crate::peers::Python;

/// A peer in a Python process of its own.
pub(super) struct PythonPeer {
    pub(super) child: Child,
    pub(super) requests: ChildStdin,
    pub(super) answers: BufReader<ChildStdout>,
}

impl PythonPeer {
    pub(super) fn start(cache: &Path, data: &Data, peer: &str, package: &str) -> Result<Self> {
        let library = package.split("==").next().context("a requirement names a package")?;
        let python = Python::with(cache, &format!("index-{library}"), &["numpy", package])?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/peers_index.py");
        let folder = data.folder.to_str().context("the cache folder's name is not UTF-8")?;
        let mut child = python.start(&script, &[peer, folder, &data.dim.to_string(), &BUILD_THREADS.to_string()])?;
        let requests = child.stdin.take().context("stdin is piped")?;
        let answers = BufReader::new(child.stdout.take().context("stdout is piped")?);
        Ok(Self { child, requests, answers })
    }

    pub(super) fn ask(&mut self, request: &Value) -> Result<Value> {
        writeln!(self.requests, "{request}")?;
        self.requests.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the peer's process ended; its message is above");
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for PythonPeer {
    fn drop(&mut self) {
        // It is of no use any more; an error here means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn number(said: &Value, name: &str) -> Result<f64> {
    said[name].as_f64().with_context(|| format!("the peer's answer has no {name}"))
}

impl Engine for PythonPeer {
    fn build(&mut self, _data: &Data) -> Result<BuildCost> {
        let said = self.ask(&json!({ "do": "build" }))?;
        let of = |name| number(&said, name);
        let version = said["version"].as_str().unwrap_or_default().to_owned();
        Ok(BuildCost { wall: of("wall")?, cpu: of("cpu")?, disk: of("disk")?, open: of("open")?, version })
    }

    fn search(&mut self, queries: &Queries, asked: Asked) -> Result<(Vec<Vec<u64>>, Spent)> {
        let Asked { ef, reorder, k, threads } = asked;
        let request = json!({
            "do": "search", "queries": queries.name, "ef": ef, "reorder": reorder, "k": k, "threads": threads
        });
        let said = self.ask(&request)?;
        let spent = |name| Ok::<_, anyhow::Error>(Duration::from_secs_f64(number(&said, name)?));
        let spent = Spent { cpu: spent("cpu")?, wall: spent("wall")? };
        let rows = said["found"].as_array().context("found")?.iter();
        // A peer that finds fewer than k pads with -1.
        let ids = |row: &Value| row.as_array().map(|ids| ids.iter().filter_map(Value::as_u64).collect()).unwrap_or_default();
        Ok((rows.map(ids).collect(), spent))
    }
}
