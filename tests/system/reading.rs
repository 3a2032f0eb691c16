//! Promise: how the system is told that pools will be read is chosen by memory, can be said, and is shown. Which of both `auto` chooses
//! for given sizes: `index/tests/pool/access.rs`.

use crate::program::{Server, demo, model};

#[test]
fn the_choice_is_shown_in_the_log_and_the_metrics() {
    let pool = format!("demo={}", demo().pool);
    for (args, expected, said) in [(&[][..], "system", true), (&["--access", "searched"], "searched", false)] {
        let server = Server::start(&[&["--pool", &pool, "--model", model()][..], args].concat());
        let metrics = server.get("/metrics").text();
        let shown: Vec<&str> = metrics.lines().filter(|line| line.starts_with("anchorite_pools_access{")).collect();
        assert_eq!(shown, [format!("anchorite_pools_access{{access=\"{expected}\"}} 1")]);
        let ended = server.stop().with(0);
        assert_eq!(ended.stderr.contains("of memory is left: --access system"), said, "{}", ended.stderr);
    }
}
