//! A policy is data: read whole, printed whole, refused where it makes no sense.

use anchorite_anchors::{
    Policy,
    policy::{Control, Diversity, Shares, TemplateSet, Templates},
};
use anchorite_index::Side;

#[test]
fn a_printed_policy_reads_back_as_itself() {
    let all = r#"
        seed = 7
        effort = "normal"
        validation = 0.1
        directions = [{ from = "image", to = "image" }, { from = "text", to = "image", weight = 0.5 }]
        [queries]
        per = "class"
        text = "class-name"
        templates = "openai-imagenet-7"
        class_names = ["cat", "dog"]
        [control]
        kind = "stratified-random"
        column = "style"
        [select]
        k = false
        target = 100
        near_duplicate = false
        class = { minimum = 1, maximum = 9 }
        percentile = { keep = 0.3 }
        diversity = { kind = "mmr" }
        [exclude]
        keys = ["a", "b"]
        words = ["golden retriever"]
        fields = [{ column = "style", value = "emoji" }, { column = "year", value = 2020 }]
        [protect]
        perceptual = false
        sets = [{ name = "r", source = "r.parquet" }]
    "#;
    let policy = Policy::from_toml(all).expect("reads");
    assert_eq!(policy.select.k, None);
    assert_eq!(policy.select.near_duplicate, None);
    assert_eq!(policy.protect.perceptual, None);
    assert_eq!(policy.protect.similarity, Some(0.95));
    assert_eq!(policy.control, Control::StratifiedRandom { column: "style".into(), shares: Shares::Retrieved });
    assert_eq!(policy.select.diversity, Diversity::Mmr { lambda: 0.5, shortlist: 50 });
    assert_eq!(Policy::from_json(&policy.to_json()).expect("reads its own"), policy);
}

#[test]
fn an_empty_policy_is_the_default_and_prints_every_default() {
    let policy = Policy::from_toml("").expect("reads");
    assert_eq!(policy, Policy::from_json("{}").expect("reads"));
    assert_eq!(policy, Policy::default());
    assert_eq!((policy.directions[0].from, policy.directions[0].to), (Side::Image, Side::Image));
    let printed: serde_json::Value = serde_json::from_str(&policy.to_json()).expect("JSON");
    for field in
        ["/select/k", "/select/near_duplicate", "/select/target", "/control/kind", "/protect/similarity", "/queries/templates"]
    {
        assert!(printed.pointer(field).is_some(), "{field} is not printed");
    }
    assert_eq!(printed["effort"], "exact");
}

#[test]
fn what_makes_no_sense_is_refused_with_the_field_named() {
    let cases = [
        ("k = 3", "unknown field `k`"),
        ("[select]\nkk = 3", "unknown field `kk`"),
        ("[select]\nk = 0", "select.k"),
        ("[select]\nk = true", "false to leave it out"),
        ("[select]\nk = false", "has a k, a target"),
        ("[select]\nthreshold = 2.0", "select.threshold"),
        ("[select]\nthreshold = nan", "select.threshold"),
        ("[select]\npercentile = { keep = 0.0 }", "select.percentile.keep"),
        ("[select.class]\nminimum = 5\nmaximum = 4", "select.class.minimum"),
        ("[select.class]\nquota = 5\nmaximum = 4", "select.class.quota"),
        ("[select]\ndiversity = { kind = \"mmr\", lambda = 1.5 }", "lambda"),
        ("directions = []", "directions"),
        ("directions = [{ from = \"image\", to = \"image\", weight = -1 }]", "directions.weight"),
        ("directions = [{ from = \"image\", to = \"text\" }, { from = \"image\", to = \"text\" }]", "each direction once"),
        ("[queries]\ntemplates = [\"no place\"]", "queries.templates"),
        ("[exclude]\nwords = [\"-\"]", "exclude.words"),
        ("[exclude]\nkeys = [\"a key\"]", "no key"),
        ("validation = 1.0", "validation"),
        ("format = 2", "format 2"),
        ("[protect]\nperceptual = 100", "protect.perceptual"),
        ("[[protect.sets]]\nname = \"\"\nsource = \"x\"", "protect.sets.name"),
    ];
    for (toml, says) in cases {
        let error = Policy::from_toml(toml).expect_err(toml).to_string();
        assert!(error.contains(says), "{toml}: {error}");
    }
}

#[test]
fn the_shipped_templates_are_the_published_ones() {
    let prompts = Templates::Named(TemplateSet::OpenaiImagenet80).prompts("dog");
    assert_eq!(prompts.len(), 80);
    assert_eq!(prompts[0], "a bad photo of a dog.");
    assert!(prompts.iter().all(|p| p.contains("dog")));
    assert_eq!(Templates::Named(TemplateSet::OpenaiImagenet7).prompts("dog")[0], "itap of a dog.");
    assert_eq!(Templates::Own(vec!["{} and {}".into()]).prompts("a"), ["a and a"]);
}
