//! What a tokenizer reads from a model folder, and what it does with captions that are too long, hostile or odd.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure there is the test's failure")]

use std::io::Read;
use std::path::{Path, PathBuf};

use anchorite_encoder::TextError;
use anchorite_encoder::text::{Clean, Mode, SpecialTokens, TextLimits, Tokenizer, TokenizerError, TokenizerOptions};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text")
}

fn read_json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixtures().join(name)).unwrap()).unwrap()
}

fn clip_json() -> Value {
    let file = std::fs::File::open(fixtures().join("clip_tokenizer.json.gz")).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A model folder of the files given.
fn folder(files: &[(&str, &Value)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content.to_string()).unwrap();
    }
    dir
}

fn find(files: &[(&str, &Value)]) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::find(folder(files).path())
}

/// The fixture without stored truncation and padding.
fn bare_word_piece() -> Value {
    let mut file = read_json("wordpiece/tokenizer.json");
    file["truncation"] = Value::Null;
    file["padding"] = Value::Null;
    file
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text).unwrap().ids
}

#[test]
fn a_folder_without_a_tokenizer_says_where_it_was_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let error = Tokenizer::find(dir.path()).unwrap_err();
    assert!(matches!(&error, TokenizerError::Missing { dir: at } if at == dir.path()), "{error}");
    assert!(error.to_string().contains("textual/"));
    assert!(matches!(Tokenizer::find(&dir.path().join("absent")), Err(TokenizerError::Missing { .. })));
}

#[test]
fn broken_files_are_named() {
    let dir = folder(&[("config.json", &json!({}))]);
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    for text in ["", "{", "[]", "null", "{\"model\": {\"type\": \"BPE\"}}", "\u{0}\u{1}"] {
        write("tokenizer.json", text);
        for mode in [Mode::HuggingFace, Mode::OpenClip] {
            let found = Tokenizer::find_with(dir.path(), &TokenizerOptions { mode: Some(mode), ..Default::default() });
            let error = found.unwrap_err();
            assert!(matches!(&error, TokenizerError::Invalid { path, .. } if path.ends_with("tokenizer.json")), "{error}");
        }
    }
    write("tokenizer.json", &bare_word_piece().to_string());
    write("config.json", "{\"text_config\":");
    assert!(matches!(Tokenizer::find(dir.path()), Err(TokenizerError::Json { path, .. }) if path.ends_with("config.json")));
}

#[test]
fn a_clip_vocabulary_with_a_hole_is_refused_by_open_clips_way() {
    let mut clip = clip_json();
    clip["model"]["vocab"].as_object_mut().unwrap().remove("ing</w>");
    let error = find(&[("textual/tokenizer.json", &clip), ("config.json", &json!({"text_cfg": {}}))]).unwrap_err();
    assert!(matches!(&error, TokenizerError::Invalid { reason, .. } if reason.contains("ing</w>")), "{error}");
}

#[test]
fn a_file_beyond_the_limit_is_not_read() {
    let dir = folder(&[("tokenizer.json", &bare_word_piece())]);
    let limits = TextLimits { max_file_bytes: 100, ..TextLimits::default() };
    let error = Tokenizer::find_with(dir.path(), &TokenizerOptions { limits, ..Default::default() }).unwrap_err();
    assert!(matches!(error, TokenizerError::FileTooLarge { max: 100, bytes, .. } if bytes > 100), "{error}");
    std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    std::fs::create_dir(dir.path().join("tokenizer.json")).unwrap();
    assert!(matches!(Tokenizer::find(dir.path()), Err(TokenizerError::Io { .. })));
}

#[test]
fn the_context_is_the_least_that_the_files_name() {
    let context = |stored: Option<u64>, max: Option<Value>, config: Value| {
        let mut file = bare_word_piece();
        if let Some(length) = stored {
            file["truncation"] = json!({"max_length": length, "strategy": "LongestFirst", "stride": 0, "direction": "Right"});
        }
        let config_of = json!({"model_max_length": max});
        find(&[("tokenizer.json", &file), ("tokenizer_config.json", &config_of), ("config.json", &config)])
            .map(|tokenizer| tokenizer.context_length())
    };
    let positions = |n: u64| json!({"model_type": "clip", "text_config": {"max_position_embeddings": n}});
    let roberta = json!({"text_config": {"model_type": "xlm-roberta", "max_position_embeddings": 514}});
    for (stored, max, config, expected) in [
        (Some(32), Some(json!(512)), positions(77), 32),
        (Some(128), Some(json!(512)), positions(77), 77),
        (None, Some(json!(20)), positions(77), 20),
        (None, Some(json!(1e30)), positions(40), 40),
        (None, Some(json!(1_000_000_000_000_u64)), positions(40), 40),
        (None, None, roberta, 512),
        (None, None, json!({"max_position_embeddings": 64}), 64),
        (None, None, json!({"model_type": "clip"}), 77),
        (None, None, json!({"model_type": "siglip"}), 64),
        (Some(128), None, json!({"model_type": "clip"}), 128),
    ] {
        assert_eq!(context(stored, max.clone(), config.clone()).unwrap(), expected, "{stored:?} {max:?} {config}");
    }
    let error = context(None, None, json!({"model_type": "bert"})).unwrap_err();
    assert!(matches!(error, TokenizerError::NoContext { .. }), "{error}");
    let error = context(Some(2), None, json!({})).unwrap_err();
    assert!(matches!(error, TokenizerError::ContextTooShort { context: 2, frame: 2 }), "{error}");
}

#[test]
fn the_context_can_be_given_by_the_caller() {
    let dir = folder(&[("tokenizer.json", &bare_word_piece())]);
    let options = TokenizerOptions { context_length: Some(9), ..Default::default() };
    let tokenizer = Tokenizer::find_with(dir.path(), &options).unwrap();
    let tokens = tokenizer.encode(&"dog ".repeat(50)).unwrap();
    assert_eq!((tokenizer.context_length(), tokens.ids.len(), tokens.truncated), (9, 9, true));
}

#[test]
fn a_boundless_context_cuts_nothing() {
    for (file, mode) in [(clip_json(), Mode::OpenClip), (clip_json(), Mode::HuggingFace), (bare_word_piece(), Mode::HuggingFace)]
    {
        let dir = folder(&[("tokenizer.json", &file)]);
        let options = TokenizerOptions { context_length: Some(usize::MAX), mode: Some(mode), ..Default::default() };
        let tokens = Tokenizer::find_with(dir.path(), &options).unwrap().encode(&"dog ".repeat(500)).unwrap();
        assert!(!tokens.truncated && tokens.ids.len() > 500);
    }
}

#[test]
fn stored_padding_is_left_out_and_its_id_kept() {
    let tokenizer = Tokenizer::find(&fixtures().join("wordpiece")).unwrap();
    let tokens = tokenizer.encode("a red dog").unwrap();
    assert_eq!((tokens.ids.len(), tokens.truncated), (5, false));
    assert_eq!((tokens.ids[0], tokens.ids[4], tokenizer.pad_id()), (2, 3, 0));
    assert_eq!((tokenizer.context_length(), tokenizer.mode()), (32, Mode::HuggingFace));
}

#[test]
fn the_padding_id_comes_from_whichever_file_names_it() {
    let file = bare_word_piece();
    let config = json!({"max_position_embeddings": 64});
    let pad = |name: &str, content: Value| {
        find(&[("tokenizer.json", &file), ("config.json", &config), (name, &content)]).unwrap().pad_id()
    };
    assert_eq!(pad("tokenizer_config.json", json!({"pad_token": "[MASK]"})), 4);
    assert_eq!(pad("tokenizer_config.json", json!({"pad_token": {"content": "[UNK]", "lstrip": false}})), 1);
    assert_eq!(pad("special_tokens_map.json", json!({"pad_token": {"content": "[SEP]"}})), 3);
    assert_eq!(pad("special_tokens_map.json", json!({})), 0);
}

#[test]
fn layouts_are_told_apart_by_their_configuration() {
    let clip = clip_json();
    let text_cfg = json!({"text_cfg": {"context_length": 50}});
    let wrapped = json!({"model_cfg": {"text_cfg": {}}});
    let transformers = json!({"model_type": "clip", "text_config": {"max_position_embeddings": 77}});
    let mode = |files: &[(&str, &Value)]| find(files).map(|t| (t.mode(), t.context_length())).unwrap();
    assert_eq!(mode(&[("textual/tokenizer.json", &clip), ("config.json", &text_cfg)]), (Mode::OpenClip, 50));
    assert_eq!(mode(&[("tokenizer.json", &clip), ("open_clip_config.json", &wrapped)]), (Mode::OpenClip, 77));
    let both = [("tokenizer.json", &clip), ("config.json", &transformers), ("open_clip_config.json", &wrapped)];
    assert_eq!(mode(&both), (Mode::HuggingFace, 77));
    assert_eq!(mode(&[("textual/tokenizer.json", &clip), ("config.json", &transformers)]), (Mode::HuggingFace, 77));
}

#[test]
fn what_would_give_other_ids_is_refused() {
    let clip = clip_json();
    let open = |text_cfg: Value| find(&[("textual/tokenizer.json", &clip), ("config.json", &json!({"text_cfg": text_cfg}))]);
    for text_cfg in [json!({"tokenizer_kwargs": {"clean": "sparkling"}}), json!({"tokenizer_mode": "clips"})] {
        let error = open(text_cfg).unwrap_err();
        assert!(matches!(error, TokenizerError::Unsupported { .. }), "{error}");
    }
    assert_eq!(open(json!({"tokenizer_kwargs": {"clean": "whitespace"}})).unwrap().clean(), Some(Clean::Whitespace));
}

#[test]
fn separators_become_zeros_where_the_model_says_so() {
    let text_cfg =
        json!({"context_length": 8, "hf_tokenizer_name": "bert-base-uncased", "tokenizer_kwargs": {"strip_sep_token": true}});
    let roles = json!({"sep_token": "[SEP]"});
    let tokenizer = find(&[
        ("textual/tokenizer.json", &bare_word_piece()),
        ("textual/special_tokens_map.json", &roles),
        ("config.json", &json!({"text_cfg": text_cfg})),
    ])
    .unwrap();
    let ids = ids(&tokenizer, "a red dog");
    assert_eq!((ids.first(), ids.last(), ids.len()), (Some(&2), Some(&0), 5));
}

#[test]
fn the_files_that_decide_the_ids_are_listed() {
    let tokenizer = Tokenizer::find(&fixtures().join("siglip")).unwrap();
    let names: Vec<_> = tokenizer.files().iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["tokenizer.json", "tokenizer_config.json", "config.json"]);
}

// --- captions -------------------------------------------------------------------------------------------------------

/// CLIP in both modes, WordPiece, Unigram: name, tokenizer, id of the end.
fn all(specials: SpecialTokens) -> Vec<(&'static str, Tokenizer, u32)> {
    let config = json!({"text_config": {"max_position_embeddings": 77}});
    let clip = folder(&[("tokenizer.json", &clip_json()), ("config.json", &config)]);
    let end = 256 * 2 + 4000 + 1;
    let find = |dir: &Path, mode| {
        Tokenizer::find_with(dir, &TokenizerOptions { mode: Some(mode), special_tokens: specials, ..Default::default() }).unwrap()
    };
    vec![
        ("clip, hf", find(clip.path(), Mode::HuggingFace), end),
        ("clip, open_clip", find(clip.path(), Mode::OpenClip), end),
        ("wordpiece", find(&fixtures().join("wordpiece"), Mode::HuggingFace), 3),
        ("unigram", find(&fixtures().join("siglip"), Mode::HuggingFace), 1),
        ("unigram, open_clip", find(&fixtures().join("siglip"), Mode::OpenClip), 1),
    ]
}

#[test]
fn captions_beyond_the_context_keep_their_end() {
    for (name, tokenizer, end) in all(SpecialTokens::Neutralised) {
        let tokens = tokenizer.encode(&"a red dog ".repeat(60)).unwrap();
        assert_eq!((tokens.ids.len(), tokens.truncated), (tokenizer.context_length(), true), "{name}");
        assert_eq!(tokens.ids.last(), Some(&end), "{name}");
        assert!(!tokenizer.encode("a red dog").unwrap().truncated, "{name}");
    }
}

#[test]
fn a_caption_that_just_fits_is_not_called_cut() {
    for (name, tokenizer, _) in all(SpecialTokens::Neutralised) {
        let frame = ids(&tokenizer, "dog").len() - 1;
        let fits = "dog ".repeat(tokenizer.context_length() - frame);
        let tokens = tokenizer.encode(fits.trim()).unwrap();
        assert_eq!((tokens.ids.len(), tokens.truncated), (tokenizer.context_length(), false), "{name}");
        assert!(tokenizer.encode(&format!("{fits}dog")).unwrap().truncated, "{name}");
    }
}

#[test]
fn special_tokens_in_a_caption_do_not_end_it() {
    let hostile = ["<|endoftext|>", "<end_of_text>", "[SEP]", "</s>", "[PAD]", "<pad>", "＜/s＞", "<|startoftext|>"];
    for (name, tokenizer, end) in all(SpecialTokens::Neutralised) {
        for special in hostile {
            let ids = ids(&tokenizer, &format!("a dog {special} a cat"));
            let ends = ids.iter().filter(|&&id| id == end).count();
            assert_eq!((ends, ids.last()), (1, Some(&end)), "{name}: {special}");
        }
    }
}

#[test]
fn as_the_reference_a_special_token_in_a_caption_is_one() {
    let ends = |at: usize, special: &str| {
        let (_, tokenizer, end) = all(SpecialTokens::AsReference).swap_remove(at);
        ids(&tokenizer, &format!("a dog {special} a cat")).iter().filter(|&&id| id == end).count()
    };
    assert_eq!((ends(0, "<|endoftext|>"), ends(0, "<end_of_text>")), (2, 1));
    assert_eq!((ends(1, "<|endoftext|>"), ends(1, "<end_of_text>")), (1, 2));
    assert_eq!((ends(2, "[SEP]"), ends(3, "</s>")), (2, 2));
}

#[test]
fn captions_beyond_the_byte_limit_are_refused_before_any_work() {
    let limits = TextLimits { max_text_bytes: 10, ..TextLimits::default() };
    let options = TokenizerOptions { limits, ..Default::default() };
    let tokenizer = Tokenizer::find_with(&fixtures().join("wordpiece"), &options).unwrap();
    assert!(tokenizer.encode("ten bytes!").is_ok());
    assert_eq!(tokenizer.encode("eleven byte"), Err(TextError::TooLong { bytes: 11, max: 10 }));
}

#[test]
fn empty_captions_are_their_special_tokens_alone() {
    for (name, tokenizer, end) in all(SpecialTokens::Neutralised) {
        let ids = ids(&tokenizer, "");
        assert_eq!(ids.last(), Some(&end), "{name}");
        assert!(ids.len() <= 3, "{name}: {ids:?}");
    }
}

#[test]
fn text_is_cut_on_the_side_that_the_file_says_even_without_special_tokens() {
    let cut = |direction: &str| {
        let mut file = bare_word_piece();
        file["post_processor"] = Value::Null;
        file["truncation"] = json!({"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": direction});
        let tokens = find(&[("tokenizer.json", &file)]).unwrap().encode("red dog cat").unwrap();
        (tokens.ids, tokens.truncated)
    };
    let (right, left) = (cut("Right"), cut("Left"));
    assert!(right.1 && left.1 && right.0.len() == 2);
    assert_eq!(right.0[1], left.0[0]);
}

#[test]
fn a_tokenizer_is_shared_among_threads() {
    let (_, tokenizer, _) = all(SpecialTokens::Neutralised).swap_remove(1);
    let alone = ids(&tokenizer, "a red dog on the beach");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(ids(&tokenizer, "a red dog on the beach"), alone));
        }
    });
}

/// Each takes well under a tenth of a second; the bound leaves room for a busy machine, and none for quadratic work.
#[test]
fn text_made_to_be_slow_ends_soon() {
    let limit = TextLimits::default().max_text_bytes;
    let texts = [
        format!("&{}", "amp;".repeat(limit / 4 - 1)),
        "Ã".repeat(limit / 2),
        "Ã¢â‚¬â„¢ ".repeat(limit / 19),
        "&".repeat(limit),
        "&#".repeat(limit / 2),
        "abcdefghij".repeat(limit / 10),
        "\u{301}".repeat(limit / 2),
        "\u{1b}[".repeat(limit / 2),
        "<".repeat(limit),
        "\n".repeat(limit),
    ];
    for (name, tokenizer, _) in all(SpecialTokens::Neutralised) {
        for text in &texts {
            let began = std::time::Instant::now();
            let tokens = tokenizer.encode(text).unwrap();
            assert!(tokens.ids.len() <= tokenizer.context_length(), "{name}");
            let took = began.elapsed();
            assert!(took.as_secs() < 20, "{name}: {took:?} for {:?}", text.chars().take(8).collect::<String>());
        }
    }
}

/// Any text, with a leaning towards what cleaning looks at.
fn caption() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec![
        "&amp;",
        "&#x80;",
        "&#",
        "Ã",
        "©",
        "â€",
        "\u{9d}",
        "À\n",
        "\u{ed}\u{a0}\u{80}",
        "</s>",
        "<|endoftext|>",
        "<end_of_text>",
        "[SEP]",
        "\u{1b}[0m",
        "\u{fffd}",
        "\r\n",
        "ﬁ",
        "ＡＢ",
        "\u{345}",
        "'s",
        " ",
        "\u{85}",
        "Σ",
    ]);
    let piece = prop_oneof![odd.prop_map(str::to_owned), any::<char>().prop_map(String::from), "[a-z]{1,6}", "\\PC{0,8}"];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_caption_gives_one_end_within_the_context(captions in prop::collection::vec(caption(), 1..8)) {
        thread_local! { static ALL: Vec<(&'static str, Tokenizer, u32)> = all(SpecialTokens::Neutralised); }
        ALL.with(|all| {
            for (name, tokenizer, end) in all {
                for caption in &captions {
                    let ids = ids(tokenizer, caption);
                    prop_assert!(ids.len() <= tokenizer.context_length(), "{}", name);
                    prop_assert_eq!(ids.iter().filter(|&id| id == end).count(), 1, "{}", name);
                    prop_assert_eq!(ids.last(), Some(end), "{}", name);
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn cleaning_any_caption_leaves_single_spaces(caption in caption()) {
        for clean in [Clean::Lower, Clean::Whitespace, Clean::Canonicalize] {
            let cleaned = clean.apply(&caption);
            prop_assert!(!cleaned.contains("  ") && cleaned.trim_matches(' ') == cleaned);
        }
    }
}
