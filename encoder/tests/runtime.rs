//! Finding an ONNX Runtime library: order, refusals, and that what the user named is never passed over in silence.
//!
//! A real library comes from the machine as it would for a user (`ORT_DYLIB_PATH`, the cache, a package, or fetched);
//! libraries that are not it, or too old, are compiled here from a few lines of C.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "fetch_support/mod.rs"]
mod common;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anchorite_encoder::fetch::{FetchError, FetchLimits, FetchOptions, Fetcher};
use anchorite_encoder::runtime::{
    Origin, Provider, Refusal, RuntimeError, RuntimeOptions, cpu_features, locate, locate_or_fetch, pins,
};

fn quiet(_: &str) {}

/// The machine's own, searched or fetched once.
fn real_library() -> &'static Path {
    static REAL: OnceLock<PathBuf> = OnceLock::new();
    REAL.get_or_init(|| locate_or_fetch(&RuntimeOptions::from_env(), &quiet).unwrap().path)
}

/// A shared library from C source.
fn compiled(folder: &Path, name: &str, source: &str) -> PathBuf {
    let (from, to) = (folder.join("source.c"), folder.join(name));
    fs::write(&from, source).unwrap();
    let done = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&to).arg(&from).status().unwrap();
    assert!(done.success());
    to
}

/// An ONNX Runtime that says it is `version` and has no interface at all.
fn pretender(folder: &Path, name: &str, version: &str) -> PathBuf {
    let source = format!(
        "static const void *get_api(unsigned v) {{ return 0; }}\n\
         static const char *version(void) {{ return \"{version}\"; }}\n\
         static const struct {{ const void *(*a)(unsigned); const char *(*b)(void); }} base = {{ get_api, version }};\n\
         const void *OrtGetApiBase(void) {{ return &base; }}\n"
    );
    compiled(folder, name, &source)
}

fn named(path: &Path) -> RuntimeOptions {
    RuntimeOptions { library: Some(path.to_owned()), ..RuntimeOptions::default() }
}

fn refusal(path: &Path) -> Refusal {
    match locate(&named(path)) {
        Err(RuntimeError::Named { origin: Origin::Flag, path: in_error, refusal }) => {
            assert_eq!(in_error, path);
            refusal
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_named_library_is_used_and_asked_for_its_version() {
    let located = locate(&named(real_library())).unwrap();
    assert_eq!((located.path.as_path(), located.origin), (real_library(), Origin::Flag));
    assert!(located.version.starts_with("1."), "{}", located.version);
}

#[test]
fn the_flag_goes_before_the_variable_and_an_empty_variable_is_none() {
    let both = RuntimeOptions { env_library: Some("/nowhere".into()), ..named(real_library()) };
    assert_eq!(locate(&both).unwrap().origin, Origin::Flag);
    let variable = RuntimeOptions { library: None, env_library: Some(real_library().to_owned()), ..RuntimeOptions::default() };
    assert_eq!(locate(&variable).unwrap().origin, Origin::Variable);
    let empty = RuntimeOptions::from_lookup(&|name| (name == "ORT_DYLIB_PATH").then(OsString::new));
    assert_eq!(empty.env_library, None);
}

#[test]
fn a_named_file_that_is_no_library_is_an_error_that_names_it_and_its_fault() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("library.txt");
    fs::write(&text, "this is not a library, but it is long enough to hold an ELF header and then some\n").unwrap();
    assert!(matches!(refusal(&text), Refusal::NotALibrary { .. }));
    assert_eq!(refusal(&folder.path().join("missing.so")), Refusal::Missing);
    assert_eq!(refusal(folder.path()), Refusal::Folder);
    fs::write(folder.path().join("empty.so"), b"").unwrap();
    assert!(matches!(refusal(&folder.path().join("empty.so")), Refusal::NotALibrary { .. }));
    assert!(matches!(refusal(Path::new("/dev/null")), Refusal::NotALibrary { .. }));
    let error = locate(&RuntimeOptions { env_library: Some(text.clone()), ..RuntimeOptions::default() }).unwrap_err().to_string();
    assert!(error.contains("ORT_DYLIB_PATH") && error.contains(text.to_str().unwrap()), "{error}");
}

#[test]
fn another_library_an_old_one_and_a_hollow_one_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let other = compiled(folder.path(), "libother.so", "int answer(void) { return 42; }\n");
    assert_eq!(refusal(&other), Refusal::NotOnnxRuntime);
    let old = pretender(folder.path(), "libold.so", "1.12.1");
    assert!(matches!(refusal(&old), Refusal::TooOld { version, .. } if version == "1.12.1"));
    // Says that it is new but does not give the interface: `ort` would panic on it.
    let hollow = pretender(folder.path(), "libhollow.so", "1.31.0");
    assert!(matches!(refusal(&hollow), Refusal::TooOld { version, .. } if version == "1.31.0"));
    let null = compiled(folder.path(), "libnull.so", "const void *OrtGetApiBase(void) { return 0; }\n");
    assert_eq!(refusal(&null), Refusal::NotOnnxRuntime);
    let unresolved = compiled(folder.path(), "libneeds.so", "extern int gone; int *OrtGetApiBase(void) { return &gone; }\n");
    assert!(matches!(refusal(&unresolved), Refusal::NotLoadable { reason } if reason.contains("gone")));
}

/// The system's loader maps such a file and dies of SIGBUS; this must be an error at every length.
#[test]
fn a_library_that_was_cut_short_is_refused_before_it_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(real_library()).unwrap();
    let cut = folder.path().join("libonnxruntime.so");
    for length in [0, 1, 63, 64, 100, 1000, 100_000, whole.len() / 2, whole.len() * 9 / 10] {
        fs::write(&cut, &whole[..length]).unwrap();
        assert!(matches!(refusal(&cut), Refusal::CutShort { .. } | Refusal::NotALibrary { .. }), "{length}");
    }
}

#[test]
fn a_library_of_another_processor_is_named_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libonnxruntime.so");
    let mut bytes = fs::read(real_library()).unwrap();
    bytes[18..20].copy_from_slice(&243_u16.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let refusal = refusal(&path);
    assert!(matches!(&refusal, Refusal::OtherMachine { theirs, .. } if theirs == "RISC-V"), "{refusal:?}");
}

#[test]
fn places_are_searched_in_order_and_what_is_passed_over_is_reported() {
    let root = tempfile::tempdir().unwrap();
    let folder = |name: &str| {
        let path = root.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    };
    let (executable, system, package) = (folder("executable"), folder("system"), folder("site/onnxruntime/capi"));
    fs::write(executable.join("libonnxruntime.so"), "text").unwrap();
    pretender(&system, "libonnxruntime.so.1.12.0", "1.12.0");
    fs::write(system.join("libonnxruntime_providers_shared.so"), "not looked at").unwrap();
    symlink(real_library(), package.join("libonnxruntime.so.1.31.1")).unwrap();
    let bin = folder("bin");
    common::script(&bin.join("python3"), &format!("printf %s '{}'", root.path().join("site/onnxruntime").display()));
    let fetch = FetchOptions {
        cache: root.path().join("cache"),
        offline: true,
        search_path: bin.clone().into(),
        limits: FetchLimits::default(),
    };
    let options = RuntimeOptions {
        executable_folder: Some(executable.clone()),
        fetch: Some(fetch),
        system_folders: vec![system.clone()],
        python_search_path: Some(bin.into()),
        ..RuntimeOptions::default()
    };
    let located = locate(&options).unwrap();
    assert_eq!(located.origin, Origin::Python);
    let tried: Vec<_> = located.tried.iter().map(|tried| tried.origin).collect();
    let place = |origin| tried.iter().position(|tried| *tried == origin).unwrap();
    assert!(place(Origin::Executable) < place(Origin::Cache) && place(Origin::Cache) < place(Origin::System), "{tried:?}");
    assert!(located.tried.iter().any(|tried| matches!(&tried.refusal, Refusal::TooOld { version, .. } if version == "1.12.0")));
    assert!(located.tried.iter().all(|tried| !tried.path.ends_with("libonnxruntime_providers_shared.so")));
    symlink(real_library(), system.join("libonnxruntime.so.1")).unwrap();
    assert_eq!(locate(&options).unwrap().origin, Origin::System);
    fs::remove_file(executable.join("libonnxruntime.so")).unwrap();
    symlink(real_library(), executable.join("libonnxruntime.so")).unwrap();
    assert_eq!(locate(&options).unwrap().origin, Origin::Executable);
}

#[test]
fn with_nothing_anywhere_the_error_says_what_was_looked_at_and_what_to_set_or_install() {
    let root = tempfile::tempdir().unwrap();
    let bin = root.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let fetch = |offline| FetchOptions {
        cache: root.path().join("cache"),
        offline,
        search_path: bin.clone().into(),
        limits: FetchLimits::default(),
    };
    let options = |offline| RuntimeOptions {
        executable_folder: Some(bin.clone()),
        fetch: Some(fetch(offline)),
        python_search_path: Some(bin.clone().into()),
        ..RuntimeOptions::default()
    };
    let error = locate_or_fetch(&options(false), &quiet).unwrap_err();
    let RuntimeError::NotFound { fetching, .. } = &error else { panic!("{error:?}") };
    assert!(fetching.iter().all(|error| matches!(error, FetchError::NoClient { .. })), "{fetching:?}");
    let text = error.to_string();
    for part in ["install pip", "install npm", "ORT_DYLIB_PATH", "--ort-library", "python3 -m pip", bin.to_str().unwrap()] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let text = locate_or_fetch(&options(true), &quiet).unwrap_err().to_string();
    assert!(text.contains("ANCHORITE_OFFLINE"), "{text}");
}

#[test]
fn a_broken_python_is_reported_and_does_not_stop_the_search() {
    let root = tempfile::tempdir().unwrap();
    common::script(&root.path().join("python3"), "echo 'Fatal Python error' >&2; exit 1");
    common::script(&root.path().join("python"), "exit 0");
    let options = RuntimeOptions { python_search_path: Some(root.path().into()), ..RuntimeOptions::default() };
    let Err(RuntimeError::NotFound { tried, .. }) = locate(&options) else { panic!() };
    assert!(tried[0].to_string().contains("Fatal Python error"), "{}", tried[0]);
    assert_eq!(tried[1].refusal, Refusal::NoPackage);
}

#[test]
fn a_file_in_the_cache_that_is_not_the_pinned_one_is_not_loaded() {
    let root = tempfile::tempdir().unwrap();
    let fetch = FetchOptions {
        cache: root.path().to_owned(),
        offline: true,
        search_path: OsString::new(),
        limits: FetchLimits::default(),
    };
    let path = Fetcher::new(fetch.clone()).path_of(&pins::packages_here()[0]).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    pretender(path.parent().unwrap(), "library.so", "1.31.1");
    fs::rename(path.with_file_name("library.so"), &path).unwrap();
    let options = RuntimeOptions { fetch: Some(fetch), ..RuntimeOptions::default() };
    let Err(RuntimeError::NotFound { tried, .. }) = locate(&options) else { panic!() };
    assert!(tried.iter().any(|tried| tried.path == path && tried.refusal == Refusal::NotAsPinned), "{tried:?}");
}

#[test]
fn each_pinned_platform_has_a_wheel_and_a_tarball_of_well_formed_pins() {
    let root = tempfile::tempdir().unwrap();
    let fetcher = Fetcher::new(FetchOptions {
        cache: root.path().to_owned(),
        offline: true,
        search_path: OsString::new(),
        limits: FetchLimits::default(),
    });
    let platforms =
        [("linux", "x86_64"), ("linux", "aarch64"), ("macos", "aarch64"), ("windows", "x86_64"), ("windows", "aarch64")];
    for (os, arch) in platforms {
        let packages = pins::packages(os, arch);
        assert_eq!(packages.len(), 2, "{os} {arch}");
        for package in packages {
            fetcher.path_of(&package).unwrap();
            assert!(package.member.contains(&*package.version) || package.member.contains("onnxruntime"));
        }
    }
    assert!(pins::packages("plan9", "x86_64").is_empty());
}

#[test]
fn a_provider_that_the_library_lacks_is_refused_with_what_to_do() {
    let available = vec!["CPUExecutionProvider".to_owned()];
    Provider::Cpu.check(&available).unwrap();
    let error = Provider::Cuda.check(&available).unwrap_err().to_string();
    assert!(error.contains("CUDAExecutionProvider") && error.contains("onnxruntime-gpu"), "{error}");
    assert_eq!("CUDA".parse::<Provider>().unwrap(), Provider::Cuda);
    for (provider, name) in [(Provider::TensorRt, "Tensorrt"), (Provider::Rocm, "ROCM"), (Provider::CoreMl, "CoreML")] {
        let error = provider.check(&available).unwrap_err().to_string();
        assert!(
            error.contains(&format!("{name}ExecutionProvider")) && error.contains("provider cpu") || error.contains("or cpu"),
            "{error}"
        );
        assert_eq!(provider.to_string().parse::<Provider>().unwrap(), provider);
        provider.check(&[provider.ort_name().to_owned()]).unwrap();
    }
    assert!("tpu".parse::<Provider>().unwrap_err().to_string().contains("cpu or cuda"));
}

#[test]
fn cpu_features_are_those_that_the_kernel_lists() {
    let listed = fs::read_to_string("/proc/cpuinfo").unwrap();
    let flags: Vec<&str> = listed.lines().filter(|line| line.starts_with("flags")).flat_map(str::split_whitespace).collect();
    if cfg!(target_arch = "x86_64") {
        for (ours, kernel) in [("avx2", "avx2"), ("fma", "fma"), ("f16c", "f16c"), ("avx512f", "avx512f")] {
            assert_eq!(cpu_features().contains(&ours), flags.contains(&kernel), "{ours}");
        }
    }
}

/// The real thing through the real clients; needs the network, so only on request.
#[test]
fn with_anchorite_test_fetch_set_the_pinned_libraries_are_fetched_with_the_machines_pip_and_npm() {
    if std::env::var_os("ANCHORITE_TEST_FETCH").is_none_or(|value| value != "1") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let fetch = FetchOptions { cache: root.path().to_owned(), offline: false, ..FetchOptions::from_env().unwrap() };
    let options = RuntimeOptions { fetch: Some(fetch.clone()), ..RuntimeOptions::default() };
    let located = locate_or_fetch(&options, &|told| println!("{told}")).unwrap();
    assert_eq!((located.origin, located.version.as_str()), (Origin::FetchedPyPi, pins::PYPI_VERSION));
    assert_eq!(locate(&options).unwrap().origin, Origin::Cache);
    let package = &pins::packages_here()[1];
    let path = Fetcher::new(fetch).ensure(package, &|told| println!("{told}")).unwrap();
    assert_eq!(locate(&named(&path)).unwrap().version, pins::NPM_VERSION);
}

/// The GPU build lists its provider on any machine; that there is no driver is said before anything is read, in words.
#[test]
fn a_provider_without_its_driver_is_refused_by_name() {
    let missing = |name: &str| Err(format!("{name}: cannot open shared object file"));
    assert!(Provider::Cpu.check_driver(missing).is_ok(), "the processor needs none");
    assert!(Provider::Cuda.check_driver(|_| Ok(())).is_ok());
    let said = Provider::Cuda.check_driver(missing).unwrap_err().to_string();
    for part in ["provider cuda", "libcuda.so.1", "cannot open", "driver", "--gpus all", "provider cpu"] {
        assert!(said.contains(part), "no {part:?} in: {said}");
    }
}
