//! The Python environment that peers and references run in: made once, in this program's cache folder.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};

/// A virtual environment with pinned packages.
#[derive(Debug)]
pub(crate) struct Python {
    executable: PathBuf,
}

impl Python {
    /// Makes (or finds) the environment `name` in `cache` with `packages`, each a pip requirement.
    ///
    /// # Errors
    /// No Python with pip, or a package that cannot be installed; says which.
    pub(crate) fn with(cache: &Path, name: &str, packages: &[&str]) -> Result<Self> {
        let folder = std::path::absolute(cache)?.join(format!("python-{name}"));
        let executable = folder.join("bin/python");
        let stamp = folder.join("installed.txt");
        let wanted = packages.join("\n");
        if std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
            return Ok(Self { executable });
        }
        let python = std::env::var("ANCHORITE_BENCH_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        succeed(Command::new(python).args(["-m", "venv"]).arg(&folder))
            .context("make a virtual environment (Python 3.9+ with venv is needed)")?;
        succeed(
            Command::new(&executable).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages),
        )
        .with_context(|| format!("install {packages:?}"))?;
        std::fs::write(stamp, wanted)?;
        Ok(Self { executable })
    }

    /// Adds a package without what it asks for, where that is more than what is used of it.
    ///
    /// # Errors
    /// It cannot be installed.
    pub(crate) fn also(&self, package: &str) -> Result<()> {
        let mut pip = Command::new(&self.executable);
        succeed(pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", package])).map(drop)
    }

    /// Runs a script and returns what it printed.
    ///
    /// # Errors
    /// The script failed; its error output is in the message.
    pub(crate) fn run(&self, script: &Path, arguments: &[&str]) -> Result<String> {
        let output = succeed(Command::new(&self.executable).arg(script).args(arguments))?;
        String::from_utf8(output.stdout).context("the script's output is not UTF-8")
    }

    /// Starts a script that is asked line by line on its stdin and answers on its stdout.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(&self, script: &Path, arguments: &[&str]) -> Result<Child> {
        let mut command = Command::new(&self.executable);
        command.arg(script).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().with_context(|| format!("start {}", script.display()))
    }
}

fn succeed(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("start {:?}", command.get_program()))?;
    ensure!(output.status.success(), "{:?} failed: {}", command.get_program(), String::from_utf8_lossy(&output.stderr));
    Ok(output)
}
