//! clip-retrieval's own client from its wheel, unmodified, for the tests of several packages (included by `#[path]`).

#[path = "python.rs"]
mod python;

use std::{path::PathBuf, process::Command};

use python::{Python, environment, in_tree, run};
use serde_json::Value as Json;

const WHEEL: &str = "clip-retrieval==2.45.0";

/// A Python with `requests`, and the client's module beside it.
pub(crate) struct ClipClient {
    python: Python,
    module: PathBuf,
}

/// The client, installed on the first call; none when the caller's environment asks to leave such tests out.
pub(crate) fn installed() -> Option<ClipClient> {
    let python = environment("clip-client-2.45.0", install)?;
    Some(ClipClient { module: python.folder().join("clip_retrieval/clip_client.py"), python })
}

fn install(python: &Python) {
    let folder = python.folder().to_str().expect("a plain path");
    python.pip("the client's HTTP library", &["install", "requests"]);
    python.pip("the client", &["download", "--no-deps", WHEEL, "--dest", folder]);
    let unpack = "import glob, sys, zipfile; [wheel] = glob.glob(sys.argv[1] + '/clip_retrieval-*.whl'); \
        zipfile.ZipFile(wheel).extract('clip_retrieval/clip_client.py', sys.argv[1])";
    run("the client's module", python.command().args(["-c", unpack, folder]));
}

impl ClipClient {
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
