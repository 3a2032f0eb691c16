//! clip-retrieval's own client and web page from its wheel, unmodified, for the tests of several packages (included by `#[path]`).

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::python::{Python, environment, in_tree, run};
use serde_json::Value as Json;

const WHEEL: &str = "clip-retrieval==2.45.0";

/// A Python with `requests`, and beside it what is taken from the wheel.
pub(crate) struct ClipClient {
    python: Python,
    /// The client's module.
    module: PathBuf,
    /// The folder of the web page's build.
    front: PathBuf,
}

/// The client, installed on the first call; none when the caller's environment asks to leave such tests out.
pub(crate) fn installed() -> Option<ClipClient> {
    let python = environment("clip-retrieval-2.45.0", install)?;
    let [module, front] = ["clip_retrieval/clip_client.py", "front/build"].map(|path| python.folder().join(path));
    Some(ClipClient { python, module, front })
}

fn install(python: &Python) {
    let folder = python.folder().to_str().expect("a plain path");
    python.pip("the client's HTTP library", &["install", "requests"]);
    python.pip("the client", &["download", "--no-deps", WHEEL, "--dest", folder]);
    let unpack = "import glob, sys, zipfile; [name] = glob.glob(sys.argv[1] + '/clip_retrieval-*.whl'); wheel = zipfile.ZipFile(name); \
        [wheel.extract(f, sys.argv[1]) for f in wheel.namelist() if f == 'clip_retrieval/clip_client.py' or f.startswith('front/build/')]";
    run("the client's module and page", python.command().args(["-c", unpack, folder]));
}

impl ClipClient {
    /// The folder of clip-retrieval's web page, as its wheel has it.
    pub(crate) fn front(&self) -> &Path {
        &self.front
    }

    /// The driver for the server at `url`; a picture's file and an embedding's are still to be added.
    pub(crate) fn drive(&self, url: &str, index: &str, words: &str) -> Command {
        let mut drive = self.python.command();
        drive.arg(in_tree("tests/clients/clip_client_drive.py")).arg(&self.module).args([url, index, words]);
        drive
    }
}

/// What the driver prints: one answer a question.
#[track_caller]
pub(crate) fn answers(drive: &mut Command) -> Json {
    serde_json::from_slice(&run("the client", drive)).expect("JSON")
}
