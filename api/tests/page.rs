//! The page at `/` and the one at `/docs`, in a real browser: what a visitor does, and what must be seen after it. The moves and the checks are in
//! `tests/clients/page_drive.py`.

#[path = "../../tests/clients/chromium.rs"]
mod chromium;
#[path = "../../tests/clients/python.rs"]
mod python;
mod support;

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use anchorite_anchors::Retriever;
use anchorite_api::Limits;
use anchorite_encoder::fake::FakeEncoder;
use anchorite_index::Pair;
use python::in_tree;
use support::{DIM, TestServer, pair, start, start_keyed, start_pools, store};

fn start_one(name: &str, pairs: &[Pair]) -> TestServer {
    let retriever = Retriever::new(Arc::new(FakeEncoder::new(DIM)), store(pairs)).expect("they match");
    start_pools(vec![(name.to_owned(), retriever)], Limits::default())
}

#[test]
fn a_visitor_finds_filters_selects_and_exports_with_mouse_and_keys_alone() {
    let Some(chromium) = chromium::chromium() else { return };
    let many: Vec<Pair> = (0..60).map(|row| pair(row, Some(&format!("caption number {row}")), None)).collect();
    let servers = [start(Limits::default()), start_keyed(), start_one("many", &many), start_one("empty", &[])];
    let urls = servers.each_ref().map(|server| server.url(""));
    let fixtures = in_tree("api/tests/fixtures");
    let args: Vec<&Path> = std::iter::once(fixtures.as_path()).chain(urls.iter().map(Path::new)).collect();
    let checked = chromium.drive("page_drive.py", &args);
    assert_eq!(
        checked.join(" "),
        "typing pictures likes filters pools details more keyboard export keys states sizes accessibility docs"
    );
}

#[test]
fn every_file_of_the_page_is_served_and_every_served_file_is_named() {
    let server = start(Limits::default());
    let folder = in_tree("api/src/page");
    let files: BTreeSet<String> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    for file in &files {
        let path = match file.as_str() {
            "index.html" => "/".to_owned(),
            "docs.html" => "/docs".to_owned(),
            other => format!("/page/{other}"),
        };
        let reply = server.get(&path);
        assert_eq!((reply.status, reply.header("x-content-type-options")), (200, "nosniff"), "{path}");
        let policy = reply.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{path}: {policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("data:") && !policy.contains('*'), "{path}: {policy}");
        let request = ureq::http::Request::get(server.url(&path)).header("if-none-match", reply.header("etag"));
        assert_eq!(server.send(request.body(Vec::new()).expect("a request")).status, 304, "{path}");
        let text = reply.text();
        assert!(!text.replace("http://www.w3.org/2000/svg", "").contains("://"), "{path} has an address of another host");
        for named in text.split(['"', '\'']).filter_map(|part| part.strip_prefix("/page/").or(part.strip_prefix("./"))) {
            assert!(files.contains(named), "{path} names {named}");
        }
        assert!(!text.contains(" style=") && !text.contains("<style") && !text.contains("innerHTML"), "{path}");
        let attributes = text.split(" on").skip(1).map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_lowercase()));
        assert_eq!(
            attributes.filter(|rest| rest.starts_with("=\"")).count(),
            0,
            "{path} has scripts that the policy would block"
        );
    }
    assert_eq!(server.get("/page/nothing.js").status, 404);
}

#[test]
fn a_key_is_not_asked_for_the_page_itself_but_for_all_it_shows() {
    let server = start_keyed();
    for path in ["/", "/docs", "/page/main.js", "/page/page.css"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    for path in ["/v1/pools", "/v1/pools/fruit/fields", "/v1/pools/fruit/pairs/0/image"] {
        assert_eq!(server.get(path).status, 401, "{path}");
    }
}
