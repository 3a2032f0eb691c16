//! The program itself, optimised, as its users run it.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The program as Cargo built it.
#[derive(Debug)]
pub(crate) struct Program {
    executable: PathBuf,
}

impl Program {
    /// Builds it, unless that was done.
    ///
    /// # Errors
    /// It does not build; Cargo's messages are on standard error.
    pub(crate) fn built() -> Result<Self> {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--release", "--package", "anchorite", "--bin", "anchorite"]);
        let output = cargo.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "anchorite does not build");
        let told = String::from_utf8(output.stdout).context("Cargo's messages are not UTF-8")?;
        let made = told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let executable = made.filter_map(|made| made["executable"].as_str().map(PathBuf::from)).next_back();
        Ok(Self { executable: executable.context("Cargo names no program that it built")? })
    }

    /// The program, for arguments.
    pub(crate) fn command(&self) -> Command {
        Command::new(&self.executable)
    }

    /// Runs it and returns what it printed.
    ///
    /// # Errors
    /// It failed; its error output is in the message.
    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Result<String> {
        let output = self.command().args(arguments).output()?;
        let first = arguments.first().map(|a| a.as_ref().to_string_lossy()).unwrap_or_default();
        ensure!(output.status.success(), "anchorite {first} failed: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).context("the program's output is not UTF-8")
    }
}
