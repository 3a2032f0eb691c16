//! The peer's side: a Python process that is asked line by line.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout},
};

use anyhow::{Context, Result, ensure};

use super::text;
use crate::peers::Python;

/// The Python side, which answers one number a question.
pub(super) struct Peer {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    pub(super) fn start(python: &Python, script: &Path, pictures: &Path) -> Result<Self> {
        let mut child = python.start(script, &["serve", text(pictures)?])?;
        let questions = child.stdin.take().context("the peer's input")?;
        let answers = BufReader::new(child.stdout.take().context("the peer's output")?);
        let mut peer = Self { child, questions, answers };
        ensure!(peer.line()? == "ready", "the peer does not start");
        Ok(peer)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    pub(super) fn ask(&mut self, question: &str) -> Result<f64> {
        writeln!(self.questions, "{question}")?;
        let answer = self.line()?;
        answer.parse().with_context(|| format!("the peer answers {question} with {answer:?}"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends by itself when its input closes; this is for one that hangs.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
