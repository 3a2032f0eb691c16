//! `pool snapshot|restore`: a snapshot is a pool in a folder of its own, or one tar in a file or a pipe; both ways are one copy.

use std::{
    fs::{self, File},
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use anchorite::index::{
    Cancel,
    pool::{Copied, copy, export, import},
};
use anyhow::{Context, Result, bail};
use clap::Args;

use super::{Form, interruptible};
use crate::{
    exit::Exit,
    output::{bytes, count, json, line},
    progress::{Shown, say},
};

/// Which pool, and where its copy goes.
#[derive(Args, Debug)]
pub(crate) struct Snapshot {
    /// The pool's folder.
    dir: PathBuf,
    /// A missing or empty folder for the copy, which is a pool that can be searched as it is; or one tar: a file whose name ends in .tar
    /// and that is not there yet, or - for standard output.
    to: PathBuf,
    #[command(flatten)]
    form: Form,
}

/// Which snapshot, and where the pool goes.
#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// The snapshot: its folder, its tar, or - for a tar on standard input.
    from: PathBuf,
    /// A missing or empty folder for the pool.
    dir: PathBuf,
    #[command(flatten)]
    form: Form,
}

type Report<'a> = &'a mut dyn FnMut(Copied);

pub(super) fn snapshot(args: &Snapshot) -> Result<Exit> {
    let (from, to) = (args.dir.as_path(), args.to.as_path());
    let named = || format!("snapshot {} to {}", from.display(), to.display());
    interruptible(|cancel| {
        if is_pipe(to) {
            let mut out = io::stdout().lock();
            if out.is_terminal() {
                bail!("a tar is no text: send standard output to a file or another program");
            }
            let copied = shown("snapshot", |report| Ok(export(from, &mut out, cancel, report)?)).with_context(named)?;
            // Standard output is taken.
            say(&words(&copied));
            return Ok(());
        }
        let copied = shown("snapshot", |report| match to.extension().is_some_and(|end| end == "tar") {
            true => to_file(from, to, cancel, report),
            false => Ok(copy(from, to, cancel, report)?),
        });
        tell(&copied.with_context(named)?, &args.form)
    })
}

pub(super) fn restore(args: &Restore) -> Result<Exit> {
    let (from, dir) = (args.from.as_path(), args.dir.as_path());
    interruptible(|cancel| {
        let copied = shown("restore", |report| {
            if is_pipe(from) {
                return Ok(import(&mut io::stdin().lock(), dir, cancel, report)?);
            }
            match from.is_file() {
                true => Ok(import(&mut io::BufReader::new(File::open(from)?), dir, cancel, report)?),
                false => Ok(copy(from, dir, cancel, report)?),
            }
        });
        tell(&copied.with_context(|| format!("restore {} to {}", from.display(), dir.display()))?, &args.form)
    })
}

fn is_pipe(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn shown(name: &'static str, work: impl FnOnce(Report<'_>) -> Result<Copied>) -> Result<Copied> {
    let shown = Shown::new(name);
    let copied = work(&mut |at| shown.at(at.bytes, 0, "bytes copied"))?;
    shown.finish();
    Ok(copied)
}

/// Writes a tar beside its name and renames it when it is whole and on disk.
fn to_file(from: &Path, to: &Path, cancel: &Cancel, report: Report<'_>) -> Result<Copied> {
    if to.exists() {
        bail!("{} is there already; name a new file", to.display());
    }
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = write_tar(from, &part, cancel, report).and_then(|copied| {
        fs::rename(&part, to).with_context(|| format!("rename {}", part.display()))?;
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all().with_context(|| format!("sync {}", folder.display()))?;
        Ok(copied)
    });
    // What could not be finished only takes room; when it cannot be removed there is nothing more to say than the error itself.
    written.inspect_err(|_| drop(fs::remove_file(&part)))
}

fn write_tar(from: &Path, part: &Path, cancel: &Cancel, report: Report<'_>) -> Result<Copied> {
    let mut out = io::BufWriter::new(File::create(part).with_context(|| format!("create {}", part.display()))?);
    let copied = export(from, &mut out, cancel, report)?;
    out.flush()?;
    out.get_ref().sync_all().with_context(|| format!("sync {}", part.display()))?;
    Ok(copied)
}

fn words(copied: &Copied) -> String {
    let what = format!("{}, {}", count(copied.files, "file"), bytes(copied.bytes));
    format!("generation {} copied and compared with its checksums: {what}", copied.generation)
}

fn tell(copied: &Copied, form: &Form) -> Result<()> {
    if form.json {
        return json(copied);
    }
    line(&words(copied));
    Ok(())
}
