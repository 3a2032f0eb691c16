//! clip-retrieval's own client from its wheel, unmodified, against a running server.
//!
//! Needs `python3` with `venv` and pip, and a package index on the first run; what it installs is kept under the target folder.
//! Without them the test fails and says how to leave it out.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anchorite_api::Limits;
use serde_json::Value as Json;
use support::{CAPTIONS, RED, base64, start, text_vector};

const WHEEL: &str = "clip-retrieval==2.45.0";
const SKIP: &str = "ANCHORITE_SKIP_CLIENTS";

#[track_caller]
fn run(what: &str, command: &mut Command) -> Vec<u8> {
    let how = format!("{what} needs python3 with venv and pip, and a package index; {SKIP}=1 leaves this test out");
    let output = command.output().unwrap_or_else(|e| panic!("{how}: {command:?}: {e}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{how}: {command:?}: {}\n{stdout}\n{stderr}", output.status);
    output.stdout
}

/// A Python with `requests`, and the client's module beside it; made once.
fn client() -> (PathBuf, PathBuf) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clip-client-2.45.0");
    let (python, module) = (folder.join("venv/bin/python"), folder.join("clip_retrieval/clip_client.py"));
    let done = folder.join("done");
    if !done.exists() {
        fs::create_dir_all(&folder).expect("a folder under target");
        run("the client's environment", Command::new("python3").args(["-m", "venv"]).arg(folder.join("venv")));
        let pip = || {
            let mut pip = Command::new(&python);
            pip.args(["-m", "pip", "--disable-pip-version-check", "--quiet"]);
            pip
        };
        run("the client's HTTP library", pip().args(["install", "requests"]));
        run("the client", pip().args(["download", "--no-deps", WHEEL, "--dest"]).arg(&folder));
        let unpack = "import glob, sys, zipfile; [wheel] = glob.glob(sys.argv[1] + '/clip_retrieval-*.whl'); \
            zipfile.ZipFile(wheel).extract('clip_retrieval/clip_client.py', sys.argv[1])";
        run("the client's module", Command::new(&python).args(["-c", unpack]).arg(&folder));
        fs::write(&done, WHEEL).expect("writes under target");
    }
    (python, module)
}

fn ids(results: &Json) -> Vec<u64> {
    results.as_array().unwrap_or_else(|| panic!("no array: {results}")).iter().map(|r| r["id"].as_u64().expect("an id")).collect()
}

#[test]
fn the_unmodified_client_gets_correct_answers() {
    if std::env::var_os(SKIP).is_some_and(|v| v == "1") {
        eprintln!("left out, as {SKIP}=1 asks");
        return;
    }
    let (python, module) = client();
    let server = start(Limits::default());
    let files = tempfile::tempdir().expect("a folder");
    let (picture, embedding) = (files.path().join("red.jpg"), files.path().join("embedding.json"));
    fs::write(&picture, RED).expect("writes");
    fs::write(&embedding, serde_json::json!(text_vector(CAPTIONS[4])).to_string()).expect("writes");
    let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/clients/clip_client_drive.py");
    let mut drive = Command::new(python);
    drive.arg(driver).arg(module).args([server.url(""), "fruit".to_owned(), CAPTIONS[1].to_owned()]).args([picture, embedding]);
    let answers: Json = serde_json::from_slice(&run("the client", &mut drive)).expect("JSON");

    let text = &answers["text"];
    assert_eq!((ids(text).len(), ids(text)[0]), (3, 1));
    for field in ["url", "caption", "similarity", "id"] {
        assert!(!text[0][field].is_null(), "upstream's own test looks for {field}: {text}");
    }
    assert_eq!(text[0]["caption"], CAPTIONS[1]);
    assert_eq!(ids(&answers["text_defaults"]).len(), 5, "seven rows have pictures, two of them repeat another's");
    assert_eq!((ids(&answers["image"]), &answers["image"][0]["image"]), (vec![0, 3], &base64(RED).into()));
    assert_eq!(ids(&answers["image_deduplicated"]), [0], "the client asks for deduplication unless told otherwise");
    assert_eq!(ids(&answers["embedding"]), [4]);
    let message = |name: &str| answers[name]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message("unknown_index").contains("no-such-index"), "{}", answers["unknown_index"]);
    assert!(message("wrong_dimension").contains("17 values"), "{}", answers["wrong_dimension"]);
}
