//! Keys: who may ask for what. The matrix of routes and scopes is generated from the route table's own document.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use anchorite_api::{Keys, KeysError, Limits, Scope, key_line};
use serde_json::{Value as Json, json};
use support::{Reply, SECRETS, TestServer, start_keyed};

fn ask(server: &TestServer, method: &str, path: &str, authorization: Option<&str>) -> Reply {
    let mut request = ureq::http::Request::builder().method(method).uri(server.url(path));
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    server.send(request.body(Vec::new()).expect("a request"))
}

/// Path, method and scope of every documented route.
fn routes(document: &Json) -> Vec<(String, String, Option<String>)> {
    let paths = document["paths"].as_object().expect("paths");
    let operations = paths.iter().flat_map(|(path, methods)| {
        methods.as_object().expect("methods").iter().map(move |(method, is)| (path, method, is["x-scope"].as_str()))
    });
    operations.map(|(path, method, scope)| (path.clone(), method.to_uppercase(), scope.map(str::to_owned))).collect()
}

fn concrete(path: &str) -> String {
    path.replace("{pool}", "fruit").replace("{id}", "0")
}

#[test]
fn every_route_answers_exactly_the_keys_that_its_scope_allows() {
    let server = start_keyed();
    let document = ask(&server, "GET", "/openapi.json", None).ok();
    let mut tried = BTreeMap::new();
    for (path, method, scope) in routes(&document) {
        let path = concrete(&path);
        let status = |authorization: Option<&str>| ask(&server, &method, &path, authorization).status;
        let Some(scope) = scope else {
            assert!(![401, 403].contains(&status(None)), "{path} is open");
            continue;
        };
        let wanted: Scope = scope.parse().expect("a scope");
        for refused in
            [None, Some("Bearer nonsense"), Some("Bearer "), Some("Basic cmVhZGluZyBzZWNyZXQ="), Some("reading secret")]
        {
            assert_eq!(status(refused), 401, "{method} {path} with {refused:?}");
        }
        for (has, secret) in SECRETS {
            let found = status(Some(&format!("bearer {secret}")));
            assert_eq!(found == 403, has < wanted, "{method} {path} with {has}: {found}");
            assert_ne!(found, 401, "{method} {path} with {has}");
        }
        *tried.entry(scope).or_insert(0) += 1;
    }
    assert!(tried["read"] > 10 && tried["write"] > 1 && tried["admin"] > 0, "{tried:?}");
}

/// A route that becomes open must be added here by hand.
#[test]
fn only_these_routes_are_open() {
    let document = serde_json::to_value(anchorite_api::openapi()).expect("JSON");
    let open: BTreeSet<String> =
        routes(&document).into_iter().filter(|(_, _, scope)| scope.is_none()).map(|(path, ..)| path).collect();
    assert_eq!(open, ["/healthz", "/readyz"].map(str::to_owned).into());
}

#[test]
fn refusals_say_what_to_do_and_repeat_no_secret() {
    let server = start_keyed();
    let missing = ask(&server, "GET", "/v1/pools", None);
    assert_eq!((missing.code().as_str(), missing.header("www-authenticate")), ("key_missing", "Bearer"));
    let unknown = ask(&server, "GET", "/v1/pools", Some("Bearer hush-hush"));
    assert_eq!(unknown.code(), "key_unknown");
    assert!(!unknown.text().contains("hush"), "{}", unknown.text());
    let narrow = ask(&server, "POST", "/v1/pools/fruit/reload", Some("Bearer reading secret"));
    assert_eq!((narrow.status, narrow.code().as_str()), (403, "key_scope"));
    assert!(narrow.text().contains("admin"), "{}", narrow.text());
    let legacy = ask(&server, "GET", "/indices-list", None);
    assert!(legacy.status == 401 && legacy.json()["message"].is_string(), "clip-retrieval's dialect: {}", legacy.text());
}

#[test]
fn a_server_without_keys_asks_for_none() {
    let server = support::start(Limits::default());
    assert_eq!(ask(&server, "POST", "/v1/pools/fruit/reload", None).ok(), json!({"generation": 1, "changed": false}));
}

#[test]
fn a_key_file_that_is_not_one_is_refused_by_line() {
    let line = key_line("a", Scope::Read, "s");
    let other = key_line("b", Scope::Admin, "t");
    assert!(!line.contains('s') || !line.ends_with(" s"), "the secret is not in the file");
    for (text, error) in [
        (String::new(), KeysError::Empty),
        ("# nothing\n".to_owned(), KeysError::Empty),
        (format!("{line}\n{line}\n"), KeysError::Twice { line: 2, name: "a".to_owned() }),
        (format!("{other}\na read\n"), KeysError::Line { line: 2 }),
        (line.replace(" read ", " everything "), KeysError::Line { line: 1 }),
        (line.replace("sha256:", "md5:"), KeysError::Line { line: 1 }),
        (line.chars().take(line.len() - 1).collect(), KeysError::Line { line: 1 }),
        (format!("{line}00"), KeysError::Line { line: 1 }),
        (format!("{line} more"), KeysError::Line { line: 1 }),
        ("a read sha256:\u{e9}".to_owned() + &"0".repeat(62), KeysError::Line { line: 1 }),
    ] {
        assert_eq!(Keys::parse(&text), Err(error), "{text}");
    }
    assert!(Keys::parse(&format!("{line}\n{other}")).is_ok());
}
