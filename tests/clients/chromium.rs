//! Headless Chromium, driven by playwright's Python client, for the tests of several packages (included by `#[path]`).
//!
//! Playwright and axe come from the package index; the browser is the machine's own (Debian: `apt-get install chromium`), since playwright's own is
//! no package. Without a browser the test is left out and says so; where `CI` is set it fails, so that nothing is green that did not run.

use std::{
    env,
    path::{Path, PathBuf},
};

use super::python::{Python, environment, in_tree, run};

/// Which browser; otherwise one of [`NAMES`] on the path.
const CHROMIUM: &str = "ANCHORITE_CHROMIUM";
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// By version, so that a run tomorrow is this one. `axe-playwright-python` brings axe-core 4.12.
const PACKAGES: [&str; 2] = ["playwright==1.65.2", "axe-playwright-python==0.1.8"];

pub(crate) struct Chromium {
    python: Python,
    browser: PathBuf,
}

/// The browser and its driver; none where either is left out or missing.
#[expect(clippy::print_stderr, reason = "a test that was left out must say so")]
pub(crate) fn chromium() -> Option<Chromium> {
    let Some(browser) = found() else {
        let how = format!(
            "no Chromium on the path ({}) and none named by {CHROMIUM}; Debian: apt-get install chromium",
            NAMES.join(", ")
        );
        assert!(env::var_os("CI").is_none(), "{how}");
        eprintln!("left out: {how}");
        return None;
    };
    let python = environment("chromium-1", |python| python.pip("the browser's driver", &[&["install"], &PACKAGES[..]].concat()))?;
    Some(Chromium { python, browser })
}

fn found() -> Option<PathBuf> {
    if let Some(named) = env::var_os(CHROMIUM) {
        return Some(named.into());
    }
    let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH")?).collect();
    NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|file| file.is_file())
}

impl Chromium {
    /// Runs a driver of `tests/clients`, and gives the names of the checks that it made.
    #[track_caller]
    pub(crate) fn drive(&self, driver: &str, args: &[&Path]) -> Vec<String> {
        let mut command = self.python.command();
        command.arg(in_tree(&format!("tests/clients/{driver}"))).arg(&self.browser).args(args);
        // A caller's own browser settings are none of ours.
        for name in ["CHROMIUM_FLAGS", "DEBUG", "PWDEBUG"] {
            command.env_remove(name);
        }
        let printed = String::from_utf8(run("the browser", &mut command)).expect("UTF-8");
        printed.lines().filter_map(|line| line.strip_prefix("checked ")).map(str::to_owned).collect()
    }
}
