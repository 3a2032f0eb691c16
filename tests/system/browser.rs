//! Promise: the page, and clip-retrieval's own unmodified page, work in a real browser on a served pool; pairs selected there are a manifest that the
//! program verifies. The moves are in `tests/clients/demo_drive.py` and `front_drive.py`; what the page does in every state is in
//! `api/tests/page.rs`.

use std::{env, path::Path};

use crate::{
    chromium, clip_client,
    program::{demo, run, text},
};

/// A folder that screenshots go to, for people to look at: `docs` when they are to be renewed.
const SCREENSHOTS: &str = "ANCHORITE_SCREENSHOTS";

#[test]
fn pairs_selected_on_the_page_are_a_manifest_that_verifies() {
    let Some(chromium) = chromium::chromium() else { return };
    let server = demo().serve();
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("anchors.parquet");
    let screenshots = env::var_os(SCREENSHOTS).unwrap_or_else(|| folder.path().into());
    let checked = chromium.drive("demo_drive.py", &[Path::new(&server.url), &manifest, Path::new(&screenshots)]);
    assert_eq!(checked, ["selection", "phone"]);

    let verified = run(&["anchors", "verify", &text(&manifest), "--pool", &demo().pool, "--json"]).with(0).json();
    assert_eq!(
        (&verified["anchors"], &verified["same"], &verified["coverage"]),
        (&3.into(), &3.into(), &1.0.into()),
        "{verified}"
    );
    assert_eq!(verified["same_encoder"], true, "{verified}");
}

#[test]
fn the_unmodified_page_of_clip_retrieval_searches_the_demo() {
    let (Some(chromium), Some(wheel)) = (chromium::chromium(), clip_client::installed()) else { return };
    let server = demo().serve();
    let [checks, words, caption] = ["words,picture,caption,download", "a slice of pizza", "pizza"].map(Path::new);
    let checked = chromium.drive("front_drive.py", &[wheel.front(), Path::new(&server.url), checks, words, caption]);
    assert_eq!(checked, ["words", "picture", "caption", "download"]);
}
