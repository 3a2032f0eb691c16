//! The OpenAPI document against a running server, by schemathesis from its package, unmodified: requests made from the document, good and bad, get
//! no 5xx and no status that the document does not name.

#[path = "../../tests/clients/python.rs"]
mod python;
mod support;

use anchorite_api::Limits;
use python::environment;

const PACKAGE: &str = "schemathesis==4.32.5";
/// Requests that a run must have made, or it proves nothing.
const LEAST: u64 = 2_000;
/// Cases of each operation in the random phase; the document's own examples and boundaries come on top. Fixed, so that a run tomorrow is this one.
const EXAMPLES: &str = "60";

#[test]
fn requests_made_from_the_document_get_documented_answers() {
    let Some(python) = environment("schemathesis-1", |python| python.pip("schemathesis", &["install", PACKAGE])) else { return };
    let server = support::start(Limits::default());
    while server.get("/readyz").status != 200 {
        std::thread::yield_now();
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = python.command();
    command.current_dir(folder.path()).args(["-m", "schemathesis.cli", "run", &server.url("/openapi.json")]);
    command.args(["--checks", "not_a_server_error,status_code_conformance", "--phases", "examples,coverage,fuzzing"]);
    command.args(["--max-examples", EXAMPLES, "--seed", "7", "--generation-database", "none", "--suppress-health-check", "all"]);
    command.args(["--continue-on-failure", "--no-color", "--warnings", "off", "--workers", "2"]);
    let output = command.output().expect("schemathesis starts");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    let metrics = server.get("/metrics");
    let counts = metrics.text().lines().filter(|line| line.starts_with("anchorite_http_requests_total"));
    let requests: u64 = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
    assert!(requests >= LEAST, "only {requests} requests were made:\n{told}");
}
