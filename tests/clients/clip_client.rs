//! clip-retrieval's own client from its wheel, unmodified, for the tests of several packages (included by `#[path]`).
//!
//! Needs `python3` with `venv` and pip, and a package index on the first run; what it installs is kept under the target folder.
//! Without them a test fails and says how to leave it out.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value as Json;

const WHEEL: &str = "clip-retrieval==2.45.0";
const SKIP: &str = "ANCHORITE_SKIP_CLIENTS";

/// A Python with `requests`, and the client's module beside it.
pub(crate) struct ClipClient {
    python: PathBuf,
    module: PathBuf,
}

/// The client, installed on the first call; none when the caller's environment asks to leave such tests out.
#[expect(clippy::print_stderr, reason = "a test that was left out must say so")]
pub(crate) fn installed() -> Option<ClipClient> {
    if std::env::var_os(SKIP).is_some_and(|v| v == "1") {
        eprintln!("left out, as {SKIP}=1 asks");
        return None;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clip-client-2.45.0");
    fs::create_dir_all(&folder).expect("a folder under target");
    // Test programs of two packages may be here at once.
    let lock = File::create(folder.join("lock")).expect("writes under target");
    lock.lock().expect("a lock under target");
    let client = ClipClient { python: folder.join("venv/bin/python"), module: folder.join("clip_retrieval/clip_client.py") };
    let done = folder.join("done");
    if !done.exists() {
        client.install(&folder);
        fs::write(&done, WHEEL).expect("writes under target");
    }
    Some(client)
}

impl ClipClient {
    fn install(&self, folder: &Path) {
        run("the client's environment", Command::new("python3").args(["-m", "venv"]).arg(folder.join("venv")));
        let pip = || {
            let mut pip = Command::new(&self.python);
            pip.args(["-m", "pip", "--disable-pip-version-check", "--quiet"]);
            pip
        };
        run("the client's HTTP library", pip().args(["install", "requests"]));
        run("the client", pip().args(["download", "--no-deps", WHEEL, "--dest"]).arg(folder));
        let unpack = "import glob, sys, zipfile; [wheel] = glob.glob(sys.argv[1] + '/clip_retrieval-*.whl'); \
            zipfile.ZipFile(wheel).extract('clip_retrieval/clip_client.py', sys.argv[1])";
        run("the client's module", Command::new(&self.python).args(["-c", unpack]).arg(folder));
    }

    /// The driver for the server at `url`; a picture's file and an embedding's are still to be added.
    pub(crate) fn drive(&self, url: &str, index: &str, words: &str) -> Command {
        let driver = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|a| a.join("tests/clients/clip_client_drive.py"));
        let driver = driver.into_iter().find(|d| d.is_file()).expect("the driver is in the source tree");
        let mut drive = Command::new(&self.python);
        drive.arg(driver).arg(&self.module).args([url, index, words]);
        drive
    }
}

/// What the driver prints: one answer a question.
#[track_caller]
pub(crate) fn answers(drive: &mut Command) -> Json {
    serde_json::from_slice(&run("the client", drive)).expect("JSON")
}

#[track_caller]
fn run(what: &str, command: &mut Command) -> Vec<u8> {
    let how = format!("{what} needs python3 with venv and pip, and a package index; {SKIP}=1 leaves this test out");
    let output = command.output().unwrap_or_else(|e| panic!("{how}: {command:?}: {e}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{how}: {command:?}: {}\n{stdout}\n{stderr}", output.status);
    output.stdout
}
