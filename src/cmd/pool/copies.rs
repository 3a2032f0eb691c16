//! `pool snapshot|restore`: a snapshot is a pool in a folder of its own, so both are one copy, in either direction.

use std::path::{Path, PathBuf};

use anchorite::index::pool::copy;
use anyhow::{Context, Result};
use clap::Args;

use super::{Form, interruptible};
use crate::{
    exit::Exit,
    output::{bytes, count, json, line},
    progress::Shown,
};

/// Which pool, and where its copy goes.
#[derive(Args, Debug)]
pub(crate) struct Snapshot {
    /// The pool's folder.
    dir: PathBuf,
    /// A missing or empty folder for the copy; it is a pool that can be searched as it is.
    to: PathBuf,
    #[command(flatten)]
    form: Form,
}

/// Which snapshot, and where the pool goes.
#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// The snapshot's folder.
    from: PathBuf,
    /// A missing or empty folder for the pool.
    dir: PathBuf,
    #[command(flatten)]
    form: Form,
}

pub(super) fn snapshot(args: &Snapshot) -> Result<Exit> {
    copy_checked("snapshot", &args.dir, &args.to, &args.form)
}

pub(super) fn restore(args: &Restore) -> Result<Exit> {
    copy_checked("restore", &args.from, &args.dir, &args.form)
}

fn copy_checked(name: &'static str, from: &Path, to: &Path, form: &Form) -> Result<Exit> {
    interruptible(|cancel| {
        let shown = Shown::new(name);
        let copied = copy(from, to, cancel, &mut |at| shown.at(at.bytes, 0, "bytes copied"))
            .with_context(|| format!("{name} {} to {}", from.display(), to.display()))?;
        shown.finish();
        if form.json {
            return json(&copied);
        }
        let what = format!("{}, {}", count(copied.files, "file"), bytes(copied.bytes));
        line(&format!("generation {} copied and compared with its checksums: {what}", copied.generation));
        Ok(())
    })
}
