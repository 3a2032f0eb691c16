//! Python environments for clients that are driven unmodified, made once and kept under the target folder (included by `#[path]`).
//!
//! Needs `python3` with `venv` and pip, and a package index on the first run. Without them a test fails and says how to leave it out.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

const SKIP: &str = "ANCHORITE_SKIP_CLIENTS";

/// An environment with what was installed into it.
pub(crate) struct Python {
    folder: PathBuf,
}

/// The environment `name`, filled by `install` on the first call; none when the caller's environment asks to leave such tests out.
#[expect(clippy::print_stderr, reason = "a test that was left out must say so")]
pub(crate) fn environment(name: &str, install: impl FnOnce(&Python)) -> Option<Python> {
    if std::env::var_os(SKIP).is_some_and(|v| v == "1") {
        eprintln!("left out, as {SKIP}=1 asks");
        return None;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("a folder under target");
    // Test programs of two packages may be here at once.
    let lock = File::create(folder.join("lock")).expect("writes under target");
    lock.lock().expect("a lock under target");
    let python = Python { folder };
    let done = python.folder.join("done");
    if !done.exists() {
        run("the environment", Command::new("python3").args(["-m", "venv"]).arg(python.folder.join("venv")));
        install(&python);
        fs::write(&done, name).expect("writes under target");
    }
    Some(python)
}

impl Python {
    /// Where the environment is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its interpreter, with the caller's proxies left out: tests talk to loopback.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(self.folder.join("venv/bin/python"));
        for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(name);
        }
        command
    }

    /// Its pip, which may use them.
    pub(crate) fn pip(&self, what: &str, args: &[&str]) {
        let mut pip = Command::new(self.folder.join("venv/bin/python"));
        run(what, pip.args(["-m", "pip", "--disable-pip-version-check", "--quiet"]).args(args));
    }
}

/// A file of this repository, from any of its packages.
pub(crate) fn in_tree(path: &str) -> PathBuf {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|a| a.join(path)).find(|p| p.exists());
    found.unwrap_or_else(|| panic!("{path} is not in the source tree"))
}

/// Runs a command that must end well; what it printed.
#[track_caller]
pub(crate) fn run(what: &str, command: &mut Command) -> Vec<u8> {
    let how = format!("{what} needs python3 with venv and pip, and a package index; {SKIP}=1 leaves this test out");
    let output = command.output().unwrap_or_else(|e| panic!("{how}: {command:?}: {e}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{how}: {command:?}: {}\n{stdout}\n{stderr}", output.status);
    output.stdout
}
