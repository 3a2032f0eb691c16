//! `anchorite keys`: the file of keys that a server reads. It holds hashes; a secret is printed once, when it is made.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anchorite::api::{Keys, KeysError, Scope, key_line};
use anyhow::{Context, Result, bail};
use clap::Subcommand;

use crate::{exit::Exit, output::line, progress::say};

/// Random bytes of a secret: 256 bits, out of reach for guessing.
const SECRET_BYTES: usize = 32;

/// What to do with keys.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a key, add its hash to the file (created if need be), and print the key.
    Add(Add),
}

/// Which key.
#[derive(clap::Args, Debug)]
pub(crate) struct Add {
    /// The key file, as `anchorite serve --keys` reads it.
    file: PathBuf,
    /// What logs call the key.
    name: String,
    /// What it allows: read (ask and look), write (change pools), admin (operate the server).
    #[arg(long, default_value = "read", value_name = "SCOPE", value_parser = str::parse::<Scope>)]
    scope: Scope,
}

pub(crate) fn run(command: &Command) -> Result<Exit> {
    match command {
        Command::Add(args) => add(args),
    }
}

fn add(args: &Add) -> Result<Exit> {
    if args.name.is_empty() || args.name.starts_with('#') || args.name.contains(char::is_whitespace) {
        bail!("{:?} is no name for a key; give one word", args.name);
    }
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).context("ask the system for random bytes")?;
    let secret: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let entry = key_line(&args.name, args.scope, &secret);
    let present = present(&args.file)?;
    let whole = format!("{present}{entry}\n");
    Keys::parse(&whole).with_context(|| format!("add {} to {}", args.name, args.file.display()))?;
    append(&args.file, &entry).with_context(|| format!("write {}", args.file.display()))?;
    say(&format!("added {} ({}) to {}; the key is shown this once:", args.name, args.scope, args.file.display()));
    line(&secret);
    Ok(Exit::Done)
}

/// What the file holds, ending with a line's end; nothing where there is no file.
fn present(path: &Path) -> Result<String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(e) => return Err(e).with_context(|| format!("read {}", path.display())),
    };
    match Keys::parse(&text) {
        Ok(_) | Err(KeysError::Empty) if text.is_empty() || text.ends_with('\n') => Ok(text),
        Ok(_) | Err(KeysError::Empty) => bail!("the last line of {} has no end; add one", path.display()),
        Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
    }
}

/// One write of one line, so that a file is never without its earlier keys.
fn append(path: &Path, entry: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.write_all(format!("{entry}\n").as_bytes())?;
    file.sync_all()
}
