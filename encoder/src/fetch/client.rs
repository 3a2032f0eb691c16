//! Gets an archive through the machine's own package client, which knows the user's mirrors, proxies and certificates.
//! Nothing that the client says is believed: what it leaves behind is verified by the caller.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::child::{self, Finished};
use super::error::{ClientFailure, instead};
use super::{FetchError, FetchOptions, Package, Registry, WheelTags};

/// How often a running download is reported.
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// A program that is there, and the arguments before its verb.
struct Client {
    program: PathBuf,
    before: &'static [&'static str],
    label: String,
}

/// Programs to try, in order: name, arguments before the verb.
const PIPS: &[(&str, &[&str])] = &[("pip", &[]), ("pip3", &[]), ("python3", &["-m", "pip"]), ("python", &["-m", "pip"])];
const NPMS: &[(&str, &[&str])] = &[("npm", &[])];

/// Downloads into `work`, an empty folder of ours, and returns the one archive that arrived.
pub(crate) fn download(
    package: &Package,
    work: &Path,
    options: &FetchOptions,
    deadline: Instant,
    progress: &dyn Fn(&str),
) -> Result<PathBuf, FetchError> {
    let candidates = match package.registry {
        Registry::PyPi(_) => PIPS,
        Registry::Npm => NPMS,
    };
    let clients = present(candidates, options);
    if clients.is_empty() {
        return Err(FetchError::NoClient {
            package: package.label(),
            client: package.registry.client(),
            tried: candidates.iter().map(|(name, before)| label(name, before)).collect(),
            instead: instead(package),
        });
    }
    let mut failures = Vec::new();
    for (number, client) in clients.iter().enumerate() {
        let folder = work.join(format!("arrived-{number}"));
        fs::create_dir(&folder).map_err(FetchError::io("create", &folder))?;
        match attempt(package, client, work, &folder, options, deadline, progress)? {
            None => return one_archive(package, client, &folder),
            Some(failure) => failures.push(failure),
        }
    }
    Err(FetchError::ClientFailed { package: package.label(), failures, instead: instead(package) })
}

fn present(candidates: &[(&'static str, &'static [&'static str])], options: &FetchOptions) -> Vec<Client> {
    candidates
        .iter()
        .filter_map(|(name, before)| {
            let program = child::find_program(name, &options.search_path)?;
            Some(Client { program, before, label: label(name, before) })
        })
        .collect()
}

fn label(name: &str, before: &[&str]) -> String {
    std::iter::once(name).chain(before.iter().copied()).collect::<Vec<_>>().join(" ")
}

/// `None`: the client is content. A client that fails gives way to the next one; one that hangs does not, its time is up.
#[expect(clippy::too_many_arguments, reason = "one call site; a struct of the same seven would say no more")]
fn attempt(
    package: &Package,
    client: &Client,
    work: &Path,
    folder: &Path,
    options: &FetchOptions,
    deadline: Instant,
    progress: &dyn Fn(&str),
) -> Result<Option<ClientFailure>, FetchError> {
    let what = package.label();
    progress(&format!("fetching {what}, {:.1} MB, with {}", package.archive_bytes as f64 / 1e6, client.label));
    let mut reported = Duration::ZERO;
    let mut tick = |passed: Duration| {
        if passed.saturating_sub(reported) >= REPORT_EVERY {
            reported = passed;
            progress(&format!("fetching {what}: {} s", passed.as_secs()));
        }
    };
    let mut command = command_line(package, client, work, folder);
    let failed = |reason: String, stderr: String| Some(ClientFailure { client: client.label.clone(), reason, stderr });
    match child::run(&mut command, deadline, options.limits.kept_output_bytes, &mut tick) {
        Err(error) => Ok(failed(format!("could not be started: {error}"), String::new())),
        Ok(Finished { status: Some(status), .. }) if status.success() => Ok(None),
        Ok(Finished { status: Some(status), stderr, .. }) => Ok(failed(format!("failed ({status})"), stderr)),
        Ok(Finished { status: None, stderr, .. }) => Err(FetchError::TimedOut {
            package: what,
            client: client.label.clone(),
            seconds: options.limits.deadline.as_secs(),
            stderr,
            instead: instead(package),
        }),
    }
}

fn command_line(package: &Package, client: &Client, work: &Path, folder: &Path) -> Command {
    let mut command = Command::new(&client.program);
    command.args(client.before).current_dir(work);
    // The client's own temporary files die with the work folder, also when it is ended at the deadline.
    command.env("TMPDIR", work).env("TEMP", work).env("TMP", work);
    match &package.registry {
        Registry::PyPi(tags) => pip(&mut command, package, tags, folder),
        Registry::Npm => npm(&mut command, package, work, folder),
    }
    command
}

fn pip(command: &mut Command, package: &Package, tags: &WheelTags, folder: &Path) {
    command.args(["download", "--quiet", "--no-deps", "--no-cache-dir", "--only-binary=:all:", "--dest"]).arg(folder);
    let pairs = [
        ("--platform", &tags.platform),
        ("--python-version", &tags.python),
        ("--implementation", &tags.implementation),
        ("--abi", &tags.abi),
    ];
    for (option, value) in pairs {
        command.arg(option).arg(value.as_ref());
    }
    command.arg(format!("{}=={}", package.name, package.version));
    command.env("PIP_NO_INPUT", "1").env("PIP_DISABLE_PIP_VERSION_CHECK", "1").env("PIP_REQUIRE_VIRTUALENV", "0");
}

fn npm(command: &mut Command, package: &Package, work: &Path, folder: &Path) {
    command.args(["pack", "--silent", "--ignore-scripts", "--pack-destination"]).arg(folder);
    command.arg(format!("{}@{}", package.name, package.version));
    command.env("npm_config_cache", work.join("npm-cache")).env("npm_config_update_notifier", "false");
}

fn one_archive(package: &Package, client: &Client, folder: &Path) -> Result<PathBuf, FetchError> {
    let suffix = match package.registry {
        Registry::PyPi(_) => "whl",
        Registry::Npm => "tgz",
    };
    let entries = fs::read_dir(folder).map_err(FetchError::io("list", folder))?;
    let mut archives: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == suffix))
        .collect();
    match (archives.pop(), archives.len()) {
        (Some(archive), 0) => Ok(archive),
        (last, others) => Err(FetchError::NotOneArchive {
            package: package.label(),
            client: client.label.clone(),
            found: others.saturating_add(usize::from(last.is_some())),
        }),
    }
}
