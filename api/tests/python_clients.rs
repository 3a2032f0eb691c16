//! The package in `python/`, installed by pip, and OpenAI's own client, unmodified, against a running server.

#[path = "../../tests/clients/python.rs"]
mod python;
mod support;

use std::{fs, path::Path, time::Duration};

use anchorite_api::Limits;
use python::{Python, environment, in_tree, run};
use support::{
    RED, TestServer,
    filling::{Ground, PARQUET},
    start,
};

/// What both clients need, by version, so that a run tomorrow is this one.
const PACKAGES: [&str; 4] = ["requests==2.34.2", "pyarrow==26.0.1", "numpy==2.4.6", "openai==3.54.0"];

fn clients() -> Option<Python> {
    let python = environment("python-clients-1", |python| {
        python.pip("the clients", &[&["install"], &PACKAGES[..]].concat());
        python.pip("the build backend", &["install", "setuptools==84.2.1"]);
    })?;
    let package = in_tree("python");
    let package = package.to_str().expect("a plain path");
    python.pip("this package", &["install", "--no-deps", "--no-build-isolation", "--force-reinstall", package]);
    Some(python)
}

fn drive(python: &Python, which: &str, server: &TestServer) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let picture = folder.path().join("red.jpg");
    fs::write(&picture, RED).expect("writes");
    drive_with(python, which, server, &picture)
}

fn drive_with(python: &Python, which: &str, server: &TestServer, file: &Path) -> String {
    let mut command = python.command();
    command.current_dir(file.parent().expect("a folder")).arg(in_tree("tests/clients/python_clients_drive.py"));
    let printed = run("the client", command.args([which, &server.url("")]).arg(file));
    String::from_utf8(printed).expect("UTF-8").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// One test, because installing is not for two at once.
#[test]
fn the_unmodified_clients_get_correct_answers() {
    let Some(python) = clients() else { return };
    let server = start(Limits::default());
    assert_eq!(drive(&python, "anchorite", &server), "search choose embed anchors iterate laziness refusals");
    assert_eq!(drive(&python, "openai", &server), "openai");
    let ground = Ground::default();
    let parquet = ground.folder.path().join("sent.parquet");
    fs::write(&parquet, PARQUET).expect("writes");
    assert_eq!(drive_with(&python, "ingest", &ground.serve(Limits::default()), &parquet), "ingest");
    let narrow = start(Limits { max_in_flight: 1, retry_after: Duration::from_secs(1), ..Limits::default() });
    assert_eq!(drive(&python, "busy", &narrow), "busy");
}
