//! Models from a hub: the real download code against a server of ours on the loopback interface, and models from a cache
//! without any hub.
#![cfg(feature = "hub")]

mod hub_support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anchorite_encoder::hub::{HubError, HubLimits, HubOptions, Variant, blobs_of, resolve};
use hub_support::{COMMIT, Hub, Server, hex};

fn quiet(_: &str) {}

fn clip() -> Hub {
    let names = [
        "README.md",
        "config.json",
        "model.safetensors",
        "onnx/model.onnx",
        "onnx/text_model.onnx",
        "onnx/text_model_fp16.onnx",
        "onnx/vision_model.onnx",
        "onnx/vision_model.onnx_data",
        "onnx/vision_model_fp16.onnx",
        "preprocessor_config.json",
        "tokenizer.json",
    ];
    let content = |name: &str| name.bytes().cycle().take(if name.ends_with("_data") { 3 << 20 } else { 2000 }).collect();
    Hub::of("models/org/clip", names.iter().map(|name| ((*name).to_owned(), content(name))).collect())
}

fn full() -> Variant {
    Variant::default()
}

#[test]
fn a_local_folder_is_taken_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().to_str().unwrap();
    assert_eq!(resolve(name, &full(), &HubOptions::default(), &quiet).unwrap(), folder.path());
}

#[test]
fn what_looks_like_a_path_but_is_no_folder_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    fs::write(&file, b"x").unwrap();
    let error = resolve(file.to_str().unwrap(), &full(), &HubOptions::default(), &quiet).unwrap_err();
    assert!(matches!(error, HubError::IsFile { .. }), "{error:?}");
    for model in [
        "/no/such/folder",
        "./missing",
        "../up/there",
        "~/model",
        "one",
        "",
        "a/b/c",
        "org/",
        "/name",
        "org/..",
        "-x/y",
        "org/na me",
        "org/name@",
        "org/name@../x",
    ] {
        let error = resolve(model, &full(), &HubOptions::default(), &quiet).unwrap_err();
        assert!(matches!(error, HubError::NoFolder { .. }), "{model}: {error:?}");
        assert!(error.to_string().contains("org/name"), "{error}");
    }
}

#[test]
fn a_model_is_downloaded_once_with_only_the_files_it_needs_and_then_serves_offline() {
    let server = Server::new(clip());
    let cache = tempfile::tempdir().unwrap();
    let options = server.options(cache.path());
    let told = Mutex::new(Vec::new());
    let folder = resolve("org/clip", &full(), &options, &|text| told.lock().unwrap().push(text.to_owned())).unwrap();
    assert_eq!(folder, cache.path().join("models--org--clip/snapshots").join(COMMIT));
    let hub = clip();
    for name in ["config.json", "onnx/vision_model.onnx", "onnx/vision_model.onnx_data", "onnx/text_model.onnx", "tokenizer.json"]
    {
        assert_eq!(fs::read(folder.join(name)).unwrap(), hub.files[name], "{name}");
    }
    for name in ["README.md", "model.safetensors", "onnx/model.onnx", "onnx/text_model_fp16.onnx"] {
        assert!(!folder.join(name).exists(), "{name}");
    }
    assert!(told.into_inner().unwrap().iter().any(|text| text.contains("vision_model.onnx_data, 3.1 MB")));
    let before = server.requests().len();
    resolve("org/clip", &full(), &options, &quiet).unwrap();
    assert_eq!(server.requests().len(), before + 1, "only the listing is asked for again");
    let offline = HubOptions { offline: true, endpoint: Some("http://127.0.0.1:1".to_owned()), ..options };
    assert_eq!(resolve("org/clip", &full(), &offline, &quiet).unwrap(), folder);
    let by_commit = format!("org/clip@{COMMIT}");
    assert_eq!(resolve(&by_commit, &full(), &offline, &quiet).unwrap(), folder);
    let half = Variant { suffix: "_fp16".to_owned() };
    let error = resolve("org/clip", &half, &offline, &quiet).unwrap_err();
    assert!(error.to_string().contains("onnx/vision_model_fp16.onnx"), "{error}");
}

#[test]
fn offline_what_is_missing_is_named() {
    let cache = tempfile::tempdir().unwrap();
    let options = HubOptions { cache: Some(cache.path().to_owned()), offline: true, ..HubOptions::default() };
    let error = resolve("org/clip", &full(), &options, &quiet).unwrap_err();
    assert!(matches!(error, HubError::NotCached { .. }), "{error:?}");
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
    let repository = cache.path().join("models--org--clip");
    let snapshot = repository.join("snapshots").join(COMMIT);
    fs::create_dir_all(snapshot.join("onnx")).unwrap();
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), COMMIT).unwrap();
    fs::write(snapshot.join("onnx/vision_model.onnx"), b"x").unwrap();
    fs::write(snapshot.join("preprocessor_config.json"), b"{}").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("../../../blobs/gone", snapshot.join("onnx/text_model.onnx")).unwrap();
    let error = resolve("org/clip", &full(), &options, &quiet).unwrap_err();
    let HubError::Incomplete { missing, .. } = &error else { panic!("{error:?}") };
    assert_eq!(missing, &["onnx/text_model.onnx", "tokenizer.json"]);
}

/// The reference is written last, so that what is half there is not taken for a model.
#[test]
fn an_interrupted_download_is_an_error_and_the_next_try_goes_on_from_there() {
    let cache = tempfile::tempdir().unwrap();
    let broken = Server::new(Hub { cut: Some("onnx/vision_model.onnx_data".to_owned()), ..clip() });
    let error = resolve("org/clip", &full(), &broken.options(cache.path()), &quiet).unwrap_err();
    assert!(matches!(error, HubError::Download { .. } | HubError::Damaged { .. }), "{error:?}");
    assert!(!cache.path().join("models--org--clip/refs/main").exists());
    let offline = HubOptions { offline: true, ..broken.options(cache.path()) };
    assert!(matches!(resolve("org/clip", &full(), &offline, &quiet), Err(HubError::NotCached { .. })));
    let whole = Server::new(clip());
    let folder = resolve("org/clip", &full(), &whole.options(cache.path()), &quiet).unwrap();
    assert_eq!(fs::read(folder.join("onnx/vision_model.onnx_data")).unwrap(), clip().files["onnx/vision_model.onnx_data"]);
    assert!(!whole.requests().iter().any(|path| path.ends_with("/config.json")), "what came the first time is not fetched again");
}

#[test]
fn a_file_that_is_not_what_was_announced_is_removed() {
    let lie = BTreeMap::from([("onnx/text_model.onnx".to_owned(), hex(b"something else"))]);
    let server = Server::new(Hub { lies: lie, ..clip() });
    let cache = tempfile::tempdir().unwrap();
    let error = resolve("org/clip", &full(), &server.options(cache.path()), &quiet).unwrap_err();
    assert!(matches!(&error, HubError::Damaged { file, .. } if file == "onnx/text_model.onnx"), "{error:?}");
    let file = cache.path().join("models--org--clip/snapshots").join(COMMIT).join("onnx/text_model.onnx");
    assert!(file.symlink_metadata().is_err());
}

#[test]
fn a_cached_file_of_the_wrong_size_is_downloaded_again() {
    let server = Server::new(clip());
    let cache = tempfile::tempdir().unwrap();
    let folder = resolve("org/clip", &full(), &server.options(cache.path()), &quiet).unwrap();
    fs::write(folder.join("tokenizer.json").canonicalize().unwrap(), b"cut").unwrap();
    resolve("org/clip", &full(), &server.options(cache.path()), &quiet).unwrap();
    assert_eq!(fs::read(folder.join("tokenizer.json")).unwrap(), clip().files["tokenizer.json"]);
}

/// The client asks for what comes after such a rest, gets nothing, and would fail for ever.
#[test]
fn a_rest_of_an_earlier_download_that_is_too_long_to_go_on_from_is_thrown_away() {
    for extra in [0, 10] {
        let server = Server::new(clip());
        let cache = tempfile::tempdir().unwrap();
        let content = &clip().files["onnx/text_model.onnx"];
        let blobs = cache.path().join("models--org--clip/blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(hex(content)).with_extension("part"), vec![b'?'; content.len() + extra]).unwrap();
        let folder = resolve("org/clip", &full(), &server.options(cache.path()), &quiet).unwrap();
        assert_eq!(&fs::read(folder.join("onnx/text_model.onnx")).unwrap(), content);
    }
}

#[test]
fn a_snapshots_links_lead_to_its_blobs_folder() {
    let server = Server::new(clip());
    let cache = tempfile::tempdir().unwrap();
    let folder = resolve("org/clip", &full(), &server.options(cache.path()), &quiet).unwrap();
    let blobs = blobs_of(&folder).unwrap().canonicalize().unwrap();
    let target = folder.join("onnx/vision_model.onnx_data").canonicalize().unwrap();
    assert_eq!(target.parent().unwrap(), blobs);
    assert_eq!(blobs_of(cache.path()), None);
}

#[test]
fn a_hub_that_says_nothing_is_given_up_on() {
    let server = Server::new(Hub { hang: Some("onnx/text_model.onnx".to_owned()), ..clip() });
    let cache = tempfile::tempdir().unwrap();
    let limits = HubLimits { stall: Duration::from_millis(300), ..HubLimits::default() };
    let options = HubOptions { limits, ..server.options(cache.path()) };
    let error = resolve("org/clip", &full(), &options, &quiet).unwrap_err();
    assert!(matches!(&error, HubError::Stalled { what, .. } if what == "onnx/text_model.onnx"), "{error:?}");
}

#[test]
fn the_token_is_sent_and_without_it_the_error_says_so() {
    let server = Server::new(Hub { token: Some("secret".to_owned()), ..clip() });
    let cache = tempfile::tempdir().unwrap();
    let error = resolve("org/clip", &full(), &server.options(cache.path()), &quiet).unwrap_err();
    assert!(matches!(error, HubError::NotFound { has_token: false, .. }) && error.to_string().contains("HF_TOKEN"), "{error:?}");
    let options = HubOptions { token: Some("secret".to_owned()), ..server.options(cache.path()) };
    resolve("org/clip", &full(), &options, &quiet).unwrap();
}

#[test]
fn an_unknown_model_an_unknown_variant_and_no_hub_at_all_are_told_apart() {
    let server = Server::new(clip());
    let cache = tempfile::tempdir().unwrap();
    let options = server.options(cache.path());
    let error = resolve("org/other", &full(), &options, &quiet).unwrap_err();
    assert!(matches!(error, HubError::NotFound { .. }), "{error:?}");
    let variant = Variant { suffix: "_q4".to_owned() };
    let error = resolve("org/clip", &variant, &options, &quiet).unwrap_err();
    assert!(matches!(error, HubError::NotAModel { .. }) && error.to_string().contains("_fp16"), "{error}");
    let error = resolve("org/clip", &Variant { suffix: "/../x".to_owned() }, &options, &quiet).unwrap_err();
    assert!(matches!(error, HubError::BadSuffix { .. }), "{error:?}");
    let nobody = HubOptions { endpoint: Some("http://127.0.0.1:1".to_owned()), ..options };
    let error = resolve("org/clip", &full(), &nobody, &quiet).unwrap_err();
    assert!(matches!(error, HubError::Download { .. }) && error.to_string().contains("HF_ENDPOINT"), "{error:?}");
}

#[test]
fn a_commit_that_would_name_a_folder_elsewhere_is_refused() {
    let server = Server::new(Hub { sha: "../../../outside".to_owned(), ..clip() });
    let cache = tempfile::tempdir().unwrap();
    let error = resolve("org/clip", &full(), &server.options(cache.path()), &quiet).unwrap_err();
    assert!(matches!(error, HubError::BadAnswer { .. }), "{error:?}");
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
}

#[test]
fn the_environment_is_read_as_the_hubs_own_client_reads_it() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("token"), " from-login\n").unwrap();
    let home = home.path().to_str().unwrap();
    let from = |pairs: &[(&str, &str)]| {
        HubOptions::from_lookup(&|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    };
    let plain = from(&[("HOME", "/h")]);
    assert_eq!(plain.cache.as_deref(), Some(Path::new("/h/.cache/huggingface/hub")));
    assert_eq!((plain.offline, plain.endpoint, plain.token), (false, None, None));
    let login = from(&[("HF_HOME", home)]);
    assert_eq!((login.cache, login.token.as_deref()), (Some(Path::new(home).join("hub")), Some("from-login")));
    let all = from(&[
        ("HF_HOME", home),
        ("HF_HUB_CACHE", "/c"),
        ("HF_TOKEN", "t"),
        ("HF_HUB_OFFLINE", "1"),
        ("HF_ENDPOINT", "http://mirror/"),
    ]);
    assert_eq!(all.cache.as_deref(), Some(Path::new("/c")));
    assert_eq!((all.token.as_deref(), all.offline, all.endpoint.as_deref()), (Some("t"), true, Some("http://mirror")));
    assert!(from(&[("HF_HUB_OFFLINE", "0"), ("ANCHORITE_OFFLINE", "yes")]).offline);
    assert_eq!(from(&[("HUGGINGFACE_HUB_CACHE", "/old")]).cache.as_deref(), Some(Path::new("/old")));
    assert_eq!(from(&[]).cache, None);
    let error = resolve("org/clip", &full(), &from(&[]), &quiet).unwrap_err();
    assert!(error.to_string().contains("HF_HOME"), "{error}");
}
