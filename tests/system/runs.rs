//! Training runs of the program on the tiny model: a folder with everything in it, and what a run leaves.

use std::{fs, path::Path};

use serde_json::Value as Json;

use crate::{
    program::{Ended, finish, program, text},
    tiny_clip::{tiny_clip, write_pairs},
};

/// A folder with the tiny model, a data set and a run file.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// `task` is the run file's part after the data.
    pub(crate) fn new(pairs: usize, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        tiny_clip(folder.path());
        write_pairs(&folder.path().join("pairs.parquet"), pairs);
        let bench = Self { folder };
        let text = format!("model = {:?}\noutput = {:?}\n{more}", bench.path("tiny-clip"), bench.path("run"),);
        fs::write(bench.folder.path().join("run.toml"), text).unwrap();
        bench
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, name: &str) -> String {
        text(self.folder.path().join(name))
    }

    pub(crate) fn finetune(&self, more: &[&str]) -> Ended {
        finish(&mut self.command(more))
    }

    pub(crate) fn command(&self, more: &[&str]) -> std::process::Command {
        let mut command = program();
        command.current_dir(self.folder.path()).args(["finetune", "run.toml"]).args(more);
        command
    }

    pub(crate) fn curve(&self, run: &str) -> Vec<Json> {
        curve(&self.folder.path().join(run))
    }
}

/// The lines of metrics without what is of the machine.
fn curve(run: &Path) -> Vec<Json> {
    let line = |line: &str| {
        let mut metrics: Json = serde_json::from_str(line).unwrap();
        for field in ["seconds", "examples_per_second", "waiting"] {
            metrics.as_object_mut().unwrap().remove(field);
        }
        metrics
    };
    fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines().map(line).collect()
}

/// Classes, one thread, so that two runs are equal to the bit.
pub(crate) const CLASSES: &str = "batch = 16\nsteps = 60\n[task]\nsources = [\"pairs.parquet\"]\ntemplates = [\"w1 {}\", \"w2 w3 {}\"]\n\
    [schedule]\nrate = 1e-3\n[step]\nthreads = 1\n[checkpoint]\nevery = 10\n";
