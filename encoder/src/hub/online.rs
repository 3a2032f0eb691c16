//! The part of the hub that needs its client. Downloads run in a thread of their own: the client has no timeouts and keeps
//! its promises by panicking, and neither may reach the caller.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;

use super::{Choose, HubError, HubId, HubOptions, Kind, Snapshot, Variant, blobs_of, is_plain, layout, tree};
use crate::fetch::{Sha256, measure};

/// Between two reports of a running download.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// The hub's answer about a revision, with sizes and digests.
#[derive(Debug, Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Listed>,
}

/// One file. Its digest is known if the hub keeps it outside git, as it does with everything large.
#[derive(Clone, Debug, Deserialize)]
struct Listed {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

impl Listing {
    fn names(&self) -> Vec<String> {
        self.siblings.iter().map(|file| file.rfilename.clone()).collect()
    }
}

#[derive(Clone, Debug, Deserialize)]
struct Lfs {
    sha256: Option<String>,
    oid: Option<String>,
}

pub(super) fn from_hub(
    id: &HubId,
    variant: &Variant,
    options: &HubOptions,
    progress: &dyn Fn(&str),
) -> Result<PathBuf, HubError> {
    let cache = Cache::new(options.cache.clone().ok_or(HubError::NoCacheFolder)?);
    if options.offline {
        return cached(id, variant, &cache);
    }
    let api = client(id, options, &cache)?;
    let listing = list(id, &api, options, progress)?;
    let names = listing.names();
    let wanted = layout::choose(&names, &variant.suffix).map_err(|missing| HubError::NotAModel {
        model: id.text.clone(),
        missing,
        suffixes: layout::suffixes(&names),
    })?;
    fetch(id, &api, &cache, &listing, &wanted, options, progress)
}

/// The chosen files of a dataset's revision, and which commit that is.
pub(super) fn dataset_from_hub(
    id: &HubId,
    choose: &Choose<'_>,
    options: &HubOptions,
    progress: &dyn Fn(&str),
) -> Result<Snapshot, HubError> {
    let cache = Cache::new(options.cache.clone().ok_or(HubError::NoCacheFolder)?);
    let nothing = |reason| HubError::NothingChosen { model: id.text.clone(), reason };
    if options.offline {
        return cached_dataset(id, choose, &cache);
    }
    let api = client(id, options, &cache)?;
    let listing = list(id, &api, options, progress)?;
    let names = listing.names();
    let wanted = choose(&names).map_err(nothing)?;
    if let Some(odd) = wanted.iter().find(|name| !is_safe(name)) {
        let reason = format!("a file is called `{}`", odd.escape_default());
        return Err(HubError::BadAnswer { model: id.text.clone(), reason });
    }
    let folder = fetch(id, &api, &cache, &listing, &wanted, options, progress)?;
    tree::make(&folder, &listing.sha, &names, &wanted)
}

/// What of a dataset is in the cache: whatever is chosen of its listing must be there.
fn cached_dataset(id: &HubId, choose: &Choose<'_>, cache: &Cache) -> Result<Snapshot, HubError> {
    let folder = cached_snapshot(id, cache)?;
    let commit = listed_commit(&folder);
    let names = tree::listing(&folder, &commit).ok_or_else(|| not_cached(id, cache))?;
    let wanted = choose(&names).map_err(|reason| HubError::NothingChosen { model: id.text.clone(), reason })?;
    let missing: Vec<String> = wanted.iter().filter(|name| !is_safe(name) || !folder.join(name).is_file()).cloned().collect();
    if missing.is_empty() {
        return tree::make(&folder, &commit, &names, &wanted);
    }
    Err(HubError::Incomplete { model: id.text.clone(), folder, missing })
}

/// A path of plain names that survives an address and a file system.
fn is_safe(name: &str) -> bool {
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    let odd = |c: char| c.is_control() || !c.is_ascii() || matches!(c, '\\' | '?' | '#' | '%' | ' ');
    name.len() <= 1_024 && name.split('/').all(plain) && !name.contains(odd)
}

#[expect(clippy::too_many_arguments, reason = "what a download needs; a struct of the same seven would say no more")]
fn fetch(
    id: &HubId,
    api: &Api,
    cache: &Cache,
    listing: &Listing,
    wanted: &[String],
    options: &HubOptions,
    progress: &dyn Fn(&str),
) -> Result<PathBuf, HubError> {
    let commit = Repo::with_revision(id.repository.clone(), id.kind.repo_type(), listing.sha.clone());
    let folder = cache.repo(commit.clone()).pointer_path(&listing.sha);
    for name in wanted {
        let listed = listing.siblings.iter().find(|file| file.rfilename == *name);
        let listed = listed.expect("files are chosen among what is listed");
        if !is_there(&folder.join(name), listed) {
            download(id, api, &commit, listed, &folder, options, progress)?;
        }
    }
    let named = Repo::with_revision(id.repository.clone(), id.kind.repo_type(), id.revision.clone());
    cache.repo(named).create_ref(&listing.sha).map_err(|source| HubError::Io { path: cache.path().clone(), source })?;
    Ok(folder)
}

fn client(id: &HubId, options: &HubOptions, cache: &Cache) -> Result<Api, HubError> {
    let mut builder = ApiBuilder::from_cache(cache.clone()).with_progress(false).with_token(options.token.clone());
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    builder.build().map_err(|error| failed(id, "setting up the client", &error))
}

impl Kind {
    fn repo_type(self) -> RepoType {
        match self {
            Self::Model => RepoType::Model,
            Self::Dataset => RepoType::Dataset,
        }
    }
}

/// What the hub has at the revision, and which commit that is.
fn list(id: &HubId, api: &Api, options: &HubOptions, progress: &dyn Fn(&str)) -> Result<Listing, HubError> {
    let repository = api.repo(Repo::with_revision(id.repository.clone(), id.kind.repo_type(), id.revision.clone()));
    progress(&format!("asking the hub for {}", id.text));
    let answer = guarded(id, "the listing", options, &mut |_| {}, move |_| {
        let mut response = repository.info_request().query("blobs", "true").call().map_err(Box::new)?;
        Ok(response.body_mut().read_json::<Listing>().map_err(Box::new)?)
    })?;
    let listing = answer.map_err(|error| match status(&error) {
        Some(401 | 403 | 404) => HubError::NotFound { model: id.text.clone(), has_token: options.token.is_some() },
        _ => failed(id, "the listing", &error),
    })?;
    check_listing(id, options, &listing)?;
    Ok(listing)
}

/// The commit becomes the name of a folder, so it must be one.
fn check_listing(id: &HubId, options: &HubOptions, listing: &Listing) -> Result<(), HubError> {
    let bad = |reason: String| Err(HubError::BadAnswer { model: id.text.clone(), reason });
    if !is_plain(&listing.sha) {
        return bad(format!("the commit is `{}`", listing.sha.escape_default()));
    }
    if listing.siblings.len() > options.limits.listed_files {
        return bad(format!("{} files; at most {} are looked at", listing.siblings.len(), options.limits.listed_files));
    }
    Ok(())
}

fn is_there(path: &Path, listed: &Listed) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && listed.size.is_none_or(|size| size == meta.len()))
}

#[expect(clippy::too_many_arguments, reason = "one call site; a struct of the same seven would say no more")]
fn download(
    id: &HubId,
    api: &Api,
    commit: &Repo,
    listed: &Listed,
    folder: &Path,
    options: &HubOptions,
    progress: &dyn Fn(&str),
) -> Result<(), HubError> {
    let name = listed.rfilename.clone();
    let expected = folder.join(&name);
    // A file of the wrong size behind the name: the client would keep it.
    remove(&expected);
    let total = listed.size.unwrap_or_default() as f64 / 1e6;
    progress(&format!("downloading {name}, {total:.1} MB"));
    let mut report = |bytes: u64| progress(&format!("downloading {name}: {:.1} of {total:.1} MB", bytes as f64 / 1e6));
    let mut attempt = || {
        let (repository, file) = (api.repo(commit.clone()), name.clone());
        guarded(id, &name, options, &mut report, move |sender| {
            repository.download_with_progress(&file, Bytes { sender, told: None, total: 0 })
        })
    };
    let mut answer = attempt()?;
    if answer.as_ref().is_err_and(cannot_be_resumed) && clear_parts(folder, listed.size) {
        answer = attempt()?;
    }
    let path = answer.map_err(|error| failed(id, &name, &error))?;
    if path != expected {
        return Err(HubError::BadAnswer {
            model: id.text.clone(),
            reason: format!("{name} is said to be of another commit than {}", listed_commit(folder)),
        });
    }
    verify(id, &path, listed)
}

/// What an earlier download left is already as long as the file or longer: the client would ask for what comes after its
/// end for ever.
fn cannot_be_resumed(error: &ApiError) -> bool {
    matches!(error, ApiError::InvalidResume) || status(error) == Some(416)
}

/// Removes unfinished downloads that are not shorter than the file; whether there were any.
fn clear_parts(folder: &Path, size: Option<u64>) -> bool {
    let Some(blobs) = blobs_of(folder) else { return false };
    let parts = fs::read_dir(blobs).into_iter().flatten().filter_map(Result::ok).filter(|entry| {
        let done = entry.metadata().is_ok_and(|meta| size.is_none_or(|size| meta.len() >= size));
        done && entry.path().extension().is_some_and(|extension| extension == "part")
    });
    parts.filter(|entry| fs::remove_file(entry.path()).is_ok()).count() > 0
}

fn listed_commit(folder: &Path) -> String {
    folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Size and, where the hub gives it, digest of what came; what is wrong is removed so that the next try starts anew.
fn verify(id: &HubId, path: &Path, listed: &Listed) -> Result<(), HubError> {
    let (bytes, digest) = measure(path)
        .map_err(|error| HubError::Io { path: path.to_owned(), source: std::io::Error::other(error.to_string()) })?;
    let digest_listed = listed.lfs.as_ref().and_then(|lfs| lfs.sha256.as_deref().or(lfs.oid.as_deref()));
    let expected = digest_listed.and_then(Sha256::from_hex);
    let reason = match (listed.size, expected) {
        (Some(size), _) if size != bytes => format!("{bytes} bytes instead of {size}"),
        (_, Some(expected)) if expected != digest => format!("SHA-256 {digest} instead of {expected}"),
        _ => return Ok(()),
    };
    remove(path);
    Err(HubError::Damaged { model: id.text.clone(), file: listed.rfilename.clone(), reason })
}

/// Removes a file of a snapshot and what it points at.
fn remove(path: &Path) {
    if let Ok(blob) = path.canonicalize() {
        let _ = fs::remove_file(blob);
    }
    let _ = fs::remove_file(path);
}

fn not_cached(id: &HubId, cache: &Cache) -> HubError {
    HubError::NotCached { model: id.text.clone(), cache: cache.path().clone() }
}

/// The commit that is in the cache, if it is a whole model.
fn cached(id: &HubId, variant: &Variant, cache: &Cache) -> Result<PathBuf, HubError> {
    let folder = cached_snapshot(id, cache)?;
    let missing = layout::lacks(&files_in(&folder), &variant.suffix);
    if missing.is_empty() {
        return Ok(folder);
    }
    Err(HubError::Incomplete { model: id.text.clone(), folder, missing })
}

/// The folder of the commit that the cache has for the revision.
fn cached_snapshot(id: &HubId, cache: &Cache) -> Result<PathBuf, HubError> {
    let repo = cache.repo(Repo::with_revision(id.repository.clone(), id.kind.repo_type(), id.revision.clone()));
    let reference = cache.path().join(id.kind.folder(&id.repository)).join("refs").join(&id.revision);
    // A revision without a reference may be a commit itself.
    let commit = fs::read_to_string(reference).map_or_else(|_| id.revision.clone(), |text| text.trim().to_owned());
    let folder = repo.pointer_path(&commit);
    if !commit.split('/').all(is_plain) || !folder.is_dir() {
        return Err(not_cached(id, cache));
    }
    Ok(folder)
}

/// Files of a snapshot as a listing names them; a model has no deeper folders. A link to nothing is no file.
fn files_in(folder: &Path) -> Vec<String> {
    let names = |path: &Path| -> Vec<String> {
        let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let inner = |name: &String| names(&folder.join(name)).into_iter().map(|file| format!("{name}/{file}")).collect::<Vec<_>>();
    let top = names(folder);
    let nested: Vec<String> = ["onnx", "visual", "textual"].iter().flat_map(|name| inner(&(*name).to_owned())).collect();
    top.into_iter().chain(nested).filter(|name| folder.join(name).is_file()).collect()
}

/// Sends how many bytes have come, at most some times a second.
struct Bytes {
    sender: Sender<u64>,
    told: Option<Instant>,
    total: u64,
}

impl Progress for Bytes {
    fn init(&mut self, _: usize, _: &str) {}

    fn update(&mut self, size: usize) {
        self.total = self.total.saturating_add(size as u64);
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            // Nobody listens any more after a stall; the client has no way to be told.
            let _ = self.sender.send(self.total);
        }
    }

    fn finish(&mut self) {}
}

/// Runs `work` in a thread of its own, waits for it as long as something comes, and turns a panic in it into an error.
fn guarded<T: Send + 'static>(
    id: &HubId,
    what: &str,
    options: &HubOptions,
    report: &mut dyn FnMut(u64),
    work: impl FnOnce(Sender<u64>) -> Result<T, ApiError> + Send + 'static,
) -> Result<Result<T, ApiError>, HubError> {
    let (sender, bytes) = mpsc::channel();
    let worker = thread::spawn(move || work(sender));
    loop {
        match bytes.recv_timeout(options.limits.stall) {
            Ok(count) => report(count),
            // The work is done with its sender: its result follows at once.
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                return Err(HubError::Stalled {
                    model: id.text.clone(),
                    what: what.to_owned(),
                    seconds: options.limits.stall.as_secs(),
                });
            }
        }
    }
    worker.join().map_err(|_| HubError::BadAnswer { model: id.text.clone(), reason: format!("the hub client gave up on {what}") })
}

fn failed(id: &HubId, what: &str, error: &ApiError) -> HubError {
    HubError::Download { model: id.text.clone(), what: what.to_owned(), reason: error.to_string() }
}

/// The HTTP status in an error, read from its text: the client's own HTTP library is not among our dependencies.
fn status(error: &ApiError) -> Option<u16> {
    let text = error.to_string();
    let (_, rest) = text.split_once("status: ").or_else(|| text.split_once("status code "))?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
