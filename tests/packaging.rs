//! Promise: the images of `docker/` are pinned, small and without rights, and take the ONNX Runtime that the program itself would fetch.
//! Read from the files; `docker/exercise.py` carries them out.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::Path};

use anchorite_encoder::runtime::pins;

const IMAGES: [&str; 2] = ["docker/Dockerfile", "docker/Dockerfile.cuda"];

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// A word and what follows it, continued lines joined.
fn instructions(text: &str) -> Vec<(String, String)> {
    let kept: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let joined = kept.join("\n").replace("\\\n", " ");
    let split = |line: &str| line.trim().split_once(' ').map(|(word, rest)| (word.to_owned(), rest.trim().to_owned()));
    joined.lines().filter_map(split).collect()
}

/// What is wrong with a Dockerfile.
fn faults(text: &str) -> Vec<String> {
    let all = instructions(text);
    let last = all.iter().rposition(|(word, _)| word == "FROM").unwrap_or(0);
    let mut faults: Vec<String> = all.iter().filter(|(word, _)| word == "FROM").filter_map(|(_, base)| unpinned(base)).collect();
    let of_last = |wanted: &str| -> Vec<&str> {
        all[last..].iter().filter(|(word, _)| word == wanted).map(|(_, rest)| rest.as_str()).collect()
    };
    let mut demand = |holds: bool, fault: &str| {
        if !holds {
            faults.push(fault.to_owned());
        }
    };
    demand(
        of_last("FROM").iter().all(|base| base.contains("/distroless/") && base.ends_with(":nonroot")),
        "the last base has a shell or root",
    );
    demand(of_last("RUN").is_empty(), "the last stage runs something");
    demand(matches!(of_last("USER")[..], [user] if user.starts_with("65532:")), "no numeric user other than root");
    demand(of_last("VOLUME") == ["/data"], "not one volume, /data");
    demand(of_last("STOPSIGNAL") == ["SIGTERM"], "not stopped by SIGTERM");
    let health = of_last("HEALTHCHECK");
    demand(matches!(health[..], [check] if check.contains("CMD [\"/usr/local/bin/anchorite\", \"health\"")), "no health check");
    let exec = |word| matches!(of_last(word)[..], [command] if command.starts_with('['));
    demand(exec("ENTRYPOINT") && exec("CMD"), "a command needs a shell");
    let runs: Vec<&str> = all.iter().filter(|(word, _)| word == "RUN").map(|(_, rest)| rest.as_str()).collect();
    demand(
        runs.iter().any(|run| run.contains("cargo build") && run.contains("--locked")),
        "the build takes other crates than the lock file's",
    );
    demand(runs.iter().all(|run| !run.contains("pip ") || run.contains("--require-hashes")), "pip takes files without a digest");
    demand(!text.contains("ADD ") && !text.contains("curl"), "something is fetched without a digest");
    faults
}

/// A base without a version. Distroless has none but of Debian's.
fn unpinned(base: &str) -> Option<String> {
    let image = base.split_whitespace().next().unwrap_or_default();
    let tag = image.rsplit('/').next().and_then(|name| name.split_once(':')).map(|(_, tag)| tag);
    let pinned = image.contains("@sha256:")
        || tag.is_some_and(|tag| tag.starts_with(|c: char| c.is_ascii_digit()))
        || (image.contains("distroless/cc-debian") && tag == Some("nonroot"));
    (!pinned).then(|| format!("{image} is not pinned"))
}

#[test]
fn images_are_pinned_and_have_neither_shell_nor_root() {
    for image in IMAGES {
        assert_eq!(faults(&read(image)), Vec::<String>::new(), "{image}");
    }
}

/// Each rule finds what it is for.
#[test]
fn every_rule_finds_its_fault() {
    let good = read(IMAGES[0]);
    let broken = [
        ("rust:1.95.0-slim-bookworm", "rust:latest", "not pinned"),
        ("python:3.11-slim-bookworm", "python", "not pinned"),
        ("gcr.io/distroless/cc-debian12:nonroot", "debian:12-slim", "a shell or root"),
        ("USER 65532:65532", "USER root", "user other than root"),
        ("USER 65532:65532", "RUN id", "runs something"),
        ("VOLUME /data", "VOLUME /", "not one volume"),
        ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL", "SIGTERM"),
        ("HEALTHCHECK", "LABEL", "no health check"),
        ("ENTRYPOINT [\"/usr/local/bin/anchorite\"]", "ENTRYPOINT anchorite", "needs a shell"),
        (" --locked", "", "lock file"),
        (" --require-hashes", "", "pip"),
        ("WORKDIR /src", "ADD https://example.invalid/x /x", "fetched"),
    ];
    for (from, to, fault) in broken {
        assert!(good.contains(from), "{from} is not there to be broken");
        let found = faults(&good.replace(from, to));
        assert!(found.iter().any(|said| said.contains(fault)), "{to}: {found:?}");
    }
}

/// What is tried of one image's build stage is then known of the other's.
#[test]
fn both_images_are_built_alike() {
    let build = |image: &str| -> Vec<(String, String)> {
        let all = instructions(&read(image));
        let stages: Vec<usize> = (0..all.len()).filter(|&at| all[at].0 == "FROM").collect();
        assert_eq!(stages.len(), 3, "{image}: build, runtime, and what runs");
        assert!(all[0].1.ends_with(" AS build"), "{image}: {:?}", all[0]);
        all[..stages[1]].to_vec()
    };
    assert_eq!(build(IMAGES[0]), build(IMAGES[1]));
}

#[test]
fn images_carry_the_library_that_the_program_would_fetch() {
    let wheel = &pins::packages("linux", "x86_64")[0];
    let cpu = read(IMAGES[0]);
    let digest = wheel.archive_sha256.to_string();
    assert!(cpu.contains(&format!("onnxruntime=={}", pins::PYPI_VERSION)) && cpu.contains(&digest), "{digest}");
    let gpu = read("docker/cuda.txt");
    let wanted: Vec<&str> = gpu.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(wanted[0].starts_with(&format!("onnxruntime-gpu=={} ", pins::PYPI_VERSION)), "{}", wanted[0]);
    for line in wanted {
        let (_, digest) = line.split_once(" --hash=sha256:").unwrap_or_else(|| panic!("no digest: {line}"));
        assert!(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()), "{line}");
    }
}

/// The lines of compose.yaml that keep the server small, each by itself.
#[test]
fn compose_gives_the_server_no_more_than_it_needs() {
    let text = read("docker/compose.yaml");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect();
    for wanted in [
        "read_only: true",
        "cap_drop: [ALL]",
        "security_opt: [\"no-new-privileges:true\"]",
        "- 127.0.0.1:7801:7801",
        "- ./data:/data",
    ] {
        assert!(lines.contains(&wanted), "{wanted}");
    }
    for (key, expected) in [("healthcheck:", 1), ("volumes:", 1), ("ports:", 1), ("privileged:", 0), ("user:", 0)] {
        assert_eq!(lines.iter().filter(|line| line.starts_with(key)).count(), expected, "{key}");
    }
    let image = read(IMAGES[0]);
    let check = image.lines().find_map(|line| line.split_once("HEALTHCHECK").map(|(_, rest)| rest)).unwrap();
    let (_, check) = check.split_once("CMD [").unwrap();
    assert!(
        lines.contains(&format!("test: [\"CMD\", {check}").as_str()),
        "compose.yaml checks another thing than the image: {check}"
    );
}
