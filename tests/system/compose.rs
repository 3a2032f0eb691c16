//! Promise: `docker/compose.yaml` is what Docker's own compose program takes, and what it says is what the program takes: its command with its
//! environment serves, its health check finds the server well, and its stop signal ends it within the time that it grants.
//!
//! The compose program (1.29.2, the last that is a Python package; `config` asks no engine) checks the file by the compose specification's schema. It
//! starts nothing here: the test does, with the temporary folder in the place of `/data`.

use std::{path::Path, time::Instant};

use serde_json::{Value as Json, json};

use crate::{
    program::{Running, Server, demo, finish, model, program, run, text},
    python::{Python, environment, in_tree, run as run_client},
};

/// Without what its package asks for besides: it cannot be built any more (PyYAML below 6), or is for engines on other machines.
const PACKAGES: [&str; 18] = [
    "docker-compose==1.29.2",
    "docker==6.1.3",
    "requests==2.31.0",
    "urllib3==1.26.20",
    "idna==3.20",
    "certifi==2026.10.18",
    "charset-normalizer==3.5.2",
    "PyYAML==6.0.3",
    "jsonschema==3.2.0",
    "attrs==26.1.0",
    "pyrsistent==0.20.0",
    "six==1.17.0",
    "setuptools==75.8.0",
    "python-dotenv==0.21.1",
    "dockerpty==0.4.1",
    "docopt==0.6.2",
    "texttable==1.7.0",
    "packaging==26.3",
];
const ALSO: [&str; 2] = ["distro==1.9.0", "websocket-client==0.59.0"];

/// Reads a file as the compose program does, and prints it in full as JSON.
const READ: &str = "import json, subprocess, sys, yaml; \
    told = subprocess.run([sys.executable, '-m', 'compose', '-f', sys.argv[1], 'config'], capture_output=True, text=True); \
    print(json.dumps({'refused': told.stderr} if told.returncode else yaml.safe_load(told.stdout)))";

fn compose(python: &Python, file: &Path) -> Json {
    let mut command = python.command();
    // Settings of the caller's own would go into the file's.
    for name in ["ANCHORITE_MODEL", "COMPOSE_FILE", "COMPOSE_PROFILES", "DOCKER_HOST"] {
        command.env_remove(name);
    }
    serde_json::from_slice(&run_client("docker's compose", command.args(["-c", READ]).arg(file))).unwrap()
}

fn words(list: &Json) -> Vec<String> {
    list.as_array().unwrap_or_else(|| panic!("no list: {list}")).iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_compose_file_is_sound_and_its_commands_are_the_programs() {
    let install = |python: &Python| python.pip("docker's compose", &[&["install", "--no-deps"], &PACKAGES[..], &ALSO].concat());
    let Some(python) = environment("docker-compose-1.29.2", install) else { return };
    let file = in_tree("docker/compose.yaml");
    let folder = tempfile::tempdir().unwrap();

    let wrong = folder.path().join("wrong.yaml");
    let said = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&wrong, said.replace("read_only:", "read_onyl:")).unwrap();
    assert!(compose(&python, &wrong)["refused"].as_str().is_some_and(|why| why.contains("read_onyl")), "the check can fail");

    let told = compose(&python, &file);
    let server = &told["services"]["server"];
    assert_eq!((&server["read_only"], &server["cap_drop"]), (&json!(true), &json!(["ALL"])), "{told}");
    assert_eq!(server["build"]["dockerfile"], "docker/Dockerfile");
    assert!(Path::new(server["build"]["context"].as_str().unwrap()).join("docker/Dockerfile").is_file(), "{server}");

    let keys = text(folder.path().join("keys"));
    let _ = run(&["keys", "add", &keys, "me", "--scope", "admin"]).with(0);
    let here = |word: &str| match word {
        "/data/model" => model().to_owned(),
        "/data/keys" => keys.clone(),
        // Its port is published on loopback only; here it is the machine's own, and any that is free.
        "0.0.0.0:7801" => "127.0.0.1:0".to_owned(),
        word => word.replace("/data/main.pool", &demo().pool),
    };
    let mut serve = program();
    serve.args(words(&server["command"]).iter().map(|word| here(word)));
    for (name, value) in server["environment"].as_object().unwrap() {
        serve.env(name, here(value.as_str().unwrap()));
    }
    let served = Server::of(Running::start(&mut serve));
    let reply = served.post("/v1/search", &json!({ "text": "a boat", "k": 1 }));
    assert_eq!(reply.status, 401, "it has the keys: {}", reply.text());

    let check = words(&server["healthcheck"]["test"]);
    assert_eq!(check[..2], ["CMD", "/usr/local/bin/anchorite"], "{check:?}");
    let check = |url: &str| {
        let of_file = check[2..].iter().map(|word| word.replace("http://127.0.0.1:7801", url));
        finish(program().args(of_file)).code
    };
    let well = (0..10_000).any(|_| check(&served.url) == Some(0));
    assert!(well, "it is well once it is warm");
    let url = served.url.clone();
    let asked = Instant::now();
    served.stop().with(0);
    assert!(asked.elapsed().as_secs() < 15, "stop_grace_period is {}", server["stop_grace_period"]);
    assert_eq!(check(&url), Some(1), "and not when it is gone");
}
