//! The fetcher against clients that are shell scripts of ours: each way in which a client, an archive or a disk can fail
//! must end in an error that says what to do, and leave nothing half-done in the cache.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "fetch_support/mod.rs"]
mod common;

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anchorite_encoder::fetch::{FetchError, FetchLimits, FetchOptions, Fetcher, Package, Registry, Sha256, WheelTags};
use sha2::Digest;

const MEMBER: &str = "thing/capi/libthing.so.1";
const CONTENT: &[u8] = b"the library, such as it is\n";

/// A machine of its own: programs, an archive that they deliver, a cache.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bin")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        common::script(&self.path("bin").join(name), script);
    }

    /// A client that notes its arguments and delivers `archive` into the folder after `option`.
    fn delivering(&self, name: &str, option: &str, archive: &Path, as_name: &str) {
        let log = self.path(&format!("{name}.log"));
        self.program(
            name,
            &format!(
                "echo \"$@\" >> '{}'\nwhile [ \"$1\" != {option} ]; do shift; done\ncp '{}' \"$2/{as_name}\"",
                log.display(),
                archive.display()
            ),
        );
    }

    fn calls(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    fn fetcher(&self) -> Fetcher {
        Fetcher::new(self.options())
    }

    fn options(&self) -> FetchOptions {
        let limits = FetchLimits { deadline: Duration::from_secs(30), ..FetchLimits::default() };
        FetchOptions { cache: self.path("cache"), offline: false, search_path: OsString::from(self.path("bin")), limits }
    }

    /// Files in the cache, the lock aside.
    fn cached_files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.path("cache")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else if entry.file_name() != ".lock" {
                    found.push(entry.file_name().into_string().unwrap());
                }
            }
        }
        found
    }
}

fn quiet(_: &str) {}

fn digest(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}

fn wheel(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in members {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn tarball(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn package(registry: Registry, archive: &[u8]) -> Package {
    Package {
        registry,
        name: "thing".into(),
        version: "1.2.3".into(),
        archive_sha256: digest(archive),
        archive_bytes: archive.len() as u64,
        member: MEMBER.into(),
        member_sha256: digest(CONTENT),
        member_bytes: CONTENT.len() as u64,
        instead: "set THING_PATH to your own".into(),
    }
}

fn pypi() -> Registry {
    Registry::PyPi(WheelTags {
        platform: "manylinux_2_28_x86_64".into(),
        python: "3.11".into(),
        implementation: "cp".into(),
        abi: "cp311".into(),
    })
}

/// A machine whose pip delivers `archive`, and a pin of exactly it.
fn with_wheel(archive: &[u8]) -> (Machine, Package) {
    let machine = Machine::new();
    fs::write(machine.path("served"), archive).unwrap();
    machine.delivering("pip", "--dest", &machine.path("served"), "thing-1.2.3.whl");
    let package = package(pypi(), archive);
    (machine, package)
}

fn with_tarball(archive: &[u8]) -> (Machine, Package) {
    let machine = Machine::new();
    fs::write(machine.path("served"), archive).unwrap();
    machine.delivering("npm", "--pack-destination", &machine.path("served"), "thing-1.2.3.tgz");
    let package = package(Registry::Npm, archive);
    (machine, package)
}

#[test]
fn a_wheel_member_is_placed_in_the_cache_and_fetched_once() {
    let (machine, package) = with_wheel(&wheel(&[("thing/other", b"x"), (MEMBER, CONTENT)]));
    let told = AtomicUsize::new(0);
    let path = machine.fetcher().ensure(&package, &|_| _ = told.fetch_add(1, Ordering::Relaxed)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), CONTENT);
    assert!(path.starts_with(machine.path("cache")) && path.ends_with("libthing.so.1"), "{}", path.display());
    assert!(told.into_inner() > 0);
    assert_eq!(machine.fetcher().ensure(&package, &quiet).unwrap(), path);
    let calls = machine.calls("pip");
    assert_eq!(calls.lines().count(), 1, "{calls}");
    for part in ["download", "--no-deps", "--platform manylinux_2_28_x86_64", "--abi cp311", "thing==1.2.3"] {
        assert!(calls.contains(part), "{part} in {calls}");
    }
    assert_eq!(machine.cached_files(), ["libthing.so.1"]);
}

#[test]
fn an_npm_member_is_placed_in_the_cache() {
    let (machine, package) = with_tarball(&tarball(&[("thing/other", b"x"), (MEMBER, CONTENT)]));
    let path = machine.fetcher().ensure(&package, &quiet).unwrap();
    assert_eq!(fs::read(path).unwrap(), CONTENT);
    let calls = machine.calls("npm");
    assert!(calls.contains("pack") && calls.contains("thing@1.2.3") && calls.contains("--ignore-scripts"), "{calls}");
}

#[test]
fn a_damaged_cached_file_is_fetched_again() {
    let (machine, package) = with_wheel(&wheel(&[(MEMBER, CONTENT)]));
    let path = machine.fetcher().ensure(&package, &quiet).unwrap();
    fs::write(&path, b"cut").unwrap();
    assert_eq!(machine.fetcher().cached(&package).unwrap(), None);
    machine.fetcher().ensure(&package, &quiet).unwrap();
    assert_eq!(fs::read(path).unwrap(), CONTENT);
}

#[test]
fn a_cached_file_of_the_right_size_but_other_content_is_not_used() {
    let (machine, package) = with_wheel(&wheel(&[(MEMBER, CONTENT)]));
    let path = machine.fetcher().path_of(&package).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, vec![b'x'; CONTENT.len()]).unwrap();
    assert_eq!(machine.fetcher().cached(&package).unwrap(), None);
    machine.fetcher().ensure(&package, &quiet).unwrap();
    assert_eq!(fs::read(path).unwrap(), CONTENT);
}

#[test]
fn offline_nothing_is_run_and_the_error_names_the_variable_and_the_alternative() {
    let (machine, package) = with_wheel(&wheel(&[(MEMBER, CONTENT)]));
    let fetcher = Fetcher::new(FetchOptions { offline: true, ..machine.options() });
    let error = fetcher.ensure(&package, &quiet).unwrap_err();
    assert!(matches!(error, FetchError::Offline { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("ANCHORITE_OFFLINE") && text.contains("THING_PATH"), "{text}");
    assert_eq!(machine.calls("pip"), "");
    machine.fetcher().ensure(&package, &quiet).unwrap();
    fetcher.ensure(&package, &quiet).unwrap();
}

#[test]
fn without_a_client_the_error_names_what_to_install() {
    let machine = Machine::new();
    for (registry, client) in [(pypi(), "pip"), (Registry::Npm, "npm")] {
        let error = machine.fetcher().ensure(&package(registry, b""), &quiet).unwrap_err();
        assert!(matches!(&error, FetchError::NoClient { client: named, .. } if *named == client), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&format!("install {client}")) && text.contains("THING_PATH"), "{text}");
    }
}

#[test]
fn a_client_that_fails_gives_way_to_the_next_one() {
    let archive = wheel(&[(MEMBER, CONTENT)]);
    let (machine, package) = with_wheel(&archive);
    machine.program("pip", "exit 1");
    machine.program("pip3", "exec /nowhere/at/all");
    machine.delivering("python3", "--dest", &machine.path("served"), "thing-1.2.3.whl");
    machine.fetcher().ensure(&package, &quiet).unwrap();
    assert!(machine.calls("python3").starts_with("-m pip download"), "{}", machine.calls("python3"));
}

#[test]
fn when_each_client_fails_the_error_has_the_end_of_what_each_said() {
    let (machine, package) = with_wheel(b"");
    machine.program("pip", "yes chatter | head -c 100000 >&2; echo 'ERROR: no matching distribution' >&2; exit 3");
    machine.program("python3", "echo 'No module named pip' >&2; exit 1");
    let error = machine.fetcher().ensure(&package, &quiet).unwrap_err();
    let FetchError::ClientFailed { failures, .. } = &error else { panic!("{error:?}") };
    assert_eq!(failures.len(), 2);
    let text = error.to_string();
    assert!(text.contains("no matching distribution") && text.contains("No module named pip"), "{text}");
    assert!(text.contains("exit status: 3") && text.len() < 6000, "{}", text.len());
    assert_eq!(machine.cached_files(), Vec::<String>::new());
}

/// The script's child holds the pipes open and would go on for minutes; it must be ended too.
#[test]
fn a_client_that_hangs_is_ended_at_the_deadline_with_its_children() {
    let (machine, package) = with_wheel(b"");
    let mark = machine.path("child");
    machine.program("pip", &format!("sleep 300 & echo $! > '{}'; echo 'still waiting' >&2; wait", mark.display()));
    let mut options = machine.options();
    options.limits.deadline = Duration::from_secs(1);
    let started = Instant::now();
    let error = Fetcher::new(options).ensure(&package, &quiet).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert!(matches!(&error, FetchError::TimedOut { seconds: 1, stderr, .. } if stderr == "still waiting"), "{error:?}");
    let child = fs::read_to_string(mark).unwrap();
    let gone = fs::read_to_string(format!("/proc/{}/stat", child.trim())).map_or(true, |stat| stat.contains(") Z "));
    assert!(gone || !cfg!(target_os = "linux"), "the client's child still runs");
    assert_eq!(machine.cached_files(), Vec::<String>::new());
}

#[test]
fn an_archive_that_is_not_the_pinned_one_is_not_opened() {
    let (machine, mut package) = with_wheel(&wheel(&[(MEMBER, CONTENT)]));
    package.archive_sha256 = digest(b"something else");
    let error = machine.fetcher().ensure(&package, &quiet).unwrap_err();
    assert!(matches!(error, FetchError::WrongArchive { .. }), "{error:?}");
    assert_eq!(machine.cached_files(), Vec::<String>::new());
}

#[test]
fn a_client_that_delivers_nothing_is_an_error() {
    let (machine, package) = with_wheel(b"");
    machine.program("pip", "exit 0");
    let error = machine.fetcher().ensure(&package, &quiet).unwrap_err();
    assert!(matches!(error, FetchError::NotOneArchive { found: 0, .. }), "{error:?}");
}

#[test]
fn garbage_with_the_pinned_digest_is_a_damaged_archive() {
    for (machine, package) in [with_wheel(b"no archive at all"), with_tarball(b"no archive at all")] {
        let error = machine.fetcher().ensure(&package, &quiet).unwrap_err();
        assert!(matches!(error, FetchError::BadArchive { .. }), "{error:?}");
    }
}

#[test]
fn a_cut_archive_with_the_pinned_digest_is_an_error() {
    let whole = tarball(&[(MEMBER, CONTENT)]);
    for end in (0..whole.len() - 8).step_by(5) {
        let (machine, package) = with_tarball(&whole[..end]);
        if let Ok(path) = machine.fetcher().ensure(&package, &quiet) {
            assert_eq!(fs::read(path).unwrap(), CONTENT, "cut at {end}");
        } else {
            assert_eq!(machine.cached_files(), Vec::<String>::new(), "cut at {end}");
        }
    }
}

#[test]
fn a_missing_member_is_named() {
    let others: &[(&str, &[u8])] = &[("thing/capi/libthing.so.2", CONTENT), ("libthing.so.1", CONTENT)];
    for (machine, package) in [with_wheel(&wheel(others)), with_tarball(&tarball(others))] {
        let error = machine.fetcher().ensure(&package, &quiet).unwrap_err();
        assert!(matches!(&error, FetchError::NoMember { member, .. } if member == MEMBER), "{error:?}");
    }
}

/// A link of the member's name would make us write or read elsewhere.
#[test]
fn a_member_that_is_a_link_is_not_taken() {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, MEMBER, "/etc/passwd").unwrap();
    let (machine, package) = with_tarball(&tar.into_inner().unwrap().finish().unwrap());
    let error = machine.fetcher().ensure(&package, &quiet).unwrap_err();
    assert!(matches!(error, FetchError::NoMember { .. }), "{error:?}");
}

#[test]
fn a_member_of_another_size_or_content_is_not_taken() {
    let longer = [CONTENT, b"!"].concat();
    let mut other = CONTENT.to_vec();
    other[0] ^= 1;
    for content in [longer, other, Vec::new()] {
        for (machine, package) in [with_wheel(&wheel(&[(MEMBER, &content)])), with_tarball(&tarball(&[(MEMBER, &content)]))] {
            let error = machine.fetcher().ensure(&package, &quiet).unwrap_err();
            assert!(matches!(error, FetchError::WrongMember { .. }), "{error:?}");
            assert_eq!(machine.cached_files(), Vec::<String>::new());
        }
    }
}

/// 64 MB of zeros behind a header that says 27 bytes: not one byte more than pinned may reach the disk, and the answer
/// must come at once.
#[test]
fn a_member_that_unpacks_to_more_than_it_declares_is_stopped() {
    let mut archive = wheel(&[(MEMBER, &vec![0; 64 << 20])]);
    let size = (64_u32 << 20).to_le_bytes();
    let lie = u32::try_from(CONTENT.len()).unwrap().to_le_bytes();
    let places: Vec<usize> = archive.windows(4).enumerate().filter(|(_, bytes)| *bytes == size).map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    for at in places {
        archive[at..at + 4].copy_from_slice(&lie);
    }
    let (machine, package) = with_wheel(&archive);
    let error = machine.fetcher().ensure(&package, &quiet).unwrap_err();
    assert!(matches!(error, FetchError::WrongMember { .. } | FetchError::BadArchive { .. }), "{error:?}");
    assert_eq!(machine.cached_files(), Vec::<String>::new());
}

#[test]
fn a_tarball_that_unpacks_without_end_is_given_up() {
    let archive = tarball(&[("thing/filler", &vec![0; 8 << 20]), (MEMBER, CONTENT)]);
    let (machine, package) = with_tarball(&archive);
    let mut options = machine.options();
    options.limits.unpacked_bytes = 1 << 20;
    let error = Fetcher::new(options).ensure(&package, &quiet).unwrap_err();
    assert!(matches!(error, FetchError::NoMember { .. } | FetchError::BadArchive { .. }), "{error:?}");
}

#[test]
fn a_pin_that_could_be_taken_for_an_option_or_a_path_is_refused() {
    let (machine, good) = with_wheel(&wheel(&[(MEMBER, CONTENT)]));
    let bad = [
        Package { name: "--index-url=elsewhere".into(), ..good.clone() },
        Package { name: "../thing".into(), ..good.clone() },
        Package { version: "1.2.3 other".into(), ..good.clone() },
        Package { member: "thing/..".into(), ..good.clone() },
        Package { member: "thing/".into(), ..good },
    ];
    for package in bad {
        let error = machine.fetcher().ensure(&package, &quiet).unwrap_err();
        assert!(matches!(error, FetchError::BadPin { .. }), "{package:?}");
    }
    assert_eq!(machine.calls("pip"), "");
}

#[test]
fn threads_that_fetch_the_same_file_at_once_fetch_it_once() {
    let (machine, package) = with_wheel(&wheel(&[(MEMBER, CONTENT)]));
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..6).map(|_| scope.spawn(|| machine.fetcher().ensure(&package, &quiet).unwrap())).collect();
        for one in all {
            assert_eq!(fs::read(one.join().unwrap()).unwrap(), CONTENT);
        }
    });
    assert_eq!(machine.calls("pip").lines().count(), 1);
}

#[test]
fn a_lock_that_is_never_released_is_an_error_at_the_deadline() {
    let (machine, package) = with_wheel(&wheel(&[(MEMBER, CONTENT)]));
    let folder = machine.fetcher().path_of(&package).unwrap().parent().unwrap().to_owned();
    fs::create_dir_all(&folder).unwrap();
    let held = fs::File::create(folder.join(".lock")).unwrap();
    held.lock().unwrap();
    let mut options = machine.options();
    options.limits.deadline = Duration::from_millis(200);
    let error = Fetcher::new(options).ensure(&package, &quiet).unwrap_err();
    assert!(matches!(error, FetchError::Locked { .. }), "{error:?}");
}

#[test]
fn what_a_dead_fetch_left_behind_is_cleared() {
    let (machine, package) = with_wheel(&wheel(&[(MEMBER, CONTENT)]));
    let folder = machine.fetcher().path_of(&package).unwrap().parent().unwrap().to_owned();
    fs::create_dir_all(folder.join(".fetch/arrived-0")).unwrap();
    fs::write(folder.join(".fetch/arrived-0/half.whl"), b"half").unwrap();
    machine.fetcher().ensure(&package, &quiet).unwrap();
    assert_eq!(machine.cached_files(), ["libthing.so.1"]);
}

#[test]
fn a_cache_that_cannot_be_made_is_an_error_that_names_the_variable() {
    let (machine, package) = with_wheel(&wheel(&[(MEMBER, CONTENT)]));
    fs::write(machine.path("cache"), b"a file, not a folder").unwrap();
    let error = machine.fetcher().ensure(&package, &quiet).unwrap_err();
    assert!(error.to_string().contains("ANCHORITE_CACHE"), "{error}");
}

#[test]
fn the_environment_names_the_cache_folder() {
    let from = |pairs: &'static [(&str, &str)]| {
        FetchOptions::from_lookup(&move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    };
    let all = &[("ANCHORITE_CACHE", "/a"), ("XDG_CACHE_HOME", "/x"), ("HOME", "/h"), ("ANCHORITE_OFFLINE", "1")];
    assert_eq!(from(all).unwrap().cache, Path::new("/a"));
    assert!(from(all).unwrap().offline);
    let xdg = from(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h"), ("ANCHORITE_OFFLINE", "0")]).unwrap();
    assert_eq!((xdg.cache.as_path(), xdg.offline), (Path::new("/x/anchorite"), false));
    assert_eq!(from(&[("XDG_CACHE_HOME", "relative"), ("HOME", "/h")]).unwrap().cache, Path::new("/h/.cache/anchorite"));
    assert!(matches!(from(&[]), Err(FetchError::NoCacheFolder)));
}
