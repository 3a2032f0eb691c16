//! Promise: help reads well, wrong usage is code 2, and what a flag says an environment variable can say.

use std::{fs, path::Path};

use crate::{
    datasets::{samples, write_samples},
    program::{demo, finish, model, program, run, text},
};

const COMMANDS: [&[&str]; 7] = [&[], &["demo"], &["ingest"], &["pool", "info"], &["serve"], &["search"], &["doctor"]];

/// Each option's part of the help, from its flag to the next one's.
fn entries(help: &str) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    for line in help.lines() {
        let text = line.trim_start();
        match entries.last_mut() {
            _ if text.starts_with('-') && line.len() - text.len() <= 6 => entries.push(text.to_owned()),
            Some(last) => last.push_str(line),
            None => {}
        }
    }
    assert!(entries.len() > 2, "{help}");
    entries
}

/// What a person asks is no setting.
fn asks(entry: &str) -> bool {
    ["--text ", "--image ", "--key ", "-h, --help", "-V, --version"].iter().any(|flag| entry.starts_with(flag))
}

#[test]
fn every_command_has_help_and_names_a_variable_for_each_flag() {
    for command in COMMANDS {
        let help = run(&[command, &["--help"]].concat()).with(0).stdout;
        assert!(help.contains("Usage: anchorite"), "{help}");
        for entry in entries(&help).iter().filter(|e| !asks(e)) {
            assert!(entry.contains("[env:"), "`{command:?}`: no variable for {entry}");
        }
    }
}

#[test]
fn wrong_usage_is_code_2_and_says_what_is_missing() {
    run(&[]).with(2).says(&["Usage: anchorite"]);
    run(&["embroider"]).with(2).says(&["unrecognized subcommand"]);
    run(&["ingest", "--pool", "p"]).with(2).says(&["<SOURCES>"]);
    run(&["ingest", "data.parquet"]).with(2).says(&["--pool"]);
    run(&["search", "--pool", "p"]).with(2).says(&["--text", "--image"]);
    run(&["search", "--text", "a"]).with(2).says(&["--pool", "--server"]);
    run(&["search", "--pool", "p", "--text", "a", "-k", "many"]).with(2).says(&["many"]);
    run(&["search", "--pool", "p", "--text", "a", "--filter", r#"{"eq": {"field": "lang"}}"#])
        .with(2)
        .says(&["value is missing"]);
    let both = run(&["search", "--pool", "p", "--server", "u", "--text", "a"]).with(2);
    both.says(&["a pool or a server, not both", "Usage: anchorite search"]);
    run(&["search", "--pool", "p", "--pool-name", "n", "--text", "a"]).with(2).says(&["--pool-name"]);
    run(&["serve"]).with(2).says(&["--pool"]);
    run(&["serve", "--pool", "p", "--listen", "here"]).with(2).says(&["here"]);
    run(&["doctor", "--provider", "abacus"]).with(2).says(&["cpu", "cuda"]);
    run(&["doctor", "--log", "[["]).with(2).says(&["--log"]);
}

#[test]
fn variables_serve_as_flags_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.parquet");
    write_samples(&file, &samples(3));
    let pool = folder.path().join("pool");
    let set = |args: &[&str], variables: &[(&str, &Path)]| finish(program().args(args).envs(variables.iter().copied()));
    let rejects = folder.path().join("listed.parquet");
    let all: [(&str, &Path); 7] = [
        ("ANCHORITE_POOL", &pool),
        ("ANCHORITE_MODEL", Path::new(model())),
        ("ANCHORITE_THREADS", Path::new("1")),
        ("ANCHORITE_REJECTS", &rejects),
        ("ANCHORITE_NO_PICTURES", Path::new("1")),
        ("ANCHORITE_JSON", Path::new("yes")),
        ("ANCHORITE_MAX_REJECTS", Path::new("0")),
    ];
    let report = set(&["ingest", &text(&file)], &all).with(0).json();
    assert_eq!(report["accepted"], 3);
    assert!(rejects.is_file());
    let found = set(&["search", "--text", "a"], &[all[0], all[1], all[5], ("ANCHORITE_K", Path::new("2"))]).with(0).json();
    assert_eq!(found.as_array().unwrap().len(), 2);

    // Switches: the words for off are off.
    for (word, offline) in
        [("1", true), ("true", true), ("yes", true), ("0", false), ("false", false), ("off", false), ("", false)]
    {
        let report = set(&["doctor", "--json"], &[("ANCHORITE_OFFLINE", Path::new(word))]).json();
        assert_eq!(report["machine"]["fetch"]["offline"], offline, "{word:?}");
    }
    // A flag wins over a variable.
    let found =
        set(&["search", "--text", "a", "-k", "1"], &[all[0], all[1], all[5], ("ANCHORITE_K", Path::new("2"))]).with(0).json();
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert!(fs::metadata(&pool).unwrap().is_dir());
}

#[test]
fn a_server_that_is_named_wins_over_a_pool_in_the_environment() {
    let server = demo().serve();
    let mut command = program();
    command.env("ANCHORITE_POOL", "/no/such/pool").args(["search", "--json", "--text", "a", "--server", &server.url]);
    assert_eq!(finish(&mut command).with(0).json().as_array().unwrap().len(), 10);
    let mut command = program();
    command.env("ANCHORITE_SERVER", "http://127.0.0.1:1");
    command.args(["search", "--json", "--text", "a", "--pool", &demo().pool, "--model", model()]);
    assert_eq!(finish(&mut command).with(0).json().as_array().unwrap().len(), 10);
}
