//! Ids and text against `LlamaTokenizer(use_fast=False)`, from `tokenizer.model` and from `tokenizer.json`.

use crate::common::{fixture, ids, json};
use proptest::prelude::*;
use secateur::text::{Prompt, Tokenizer};
use serde_json::Value;

const EXPECTED: &str = "tiny-llava-1.5/expected/tokenizer.json";

/// The same tokenizer from each kind of file; the JSON one beside the settings of the checkpoint it comes from.
fn tokenizers() -> Vec<(&'static str, Tokenizer)> {
    let model = Tokenizer::read(&fixture("tiny-llava-1.5/llava-v1.5-tiny"), 1280).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (from, name) in [("tokenizer-json", "tokenizer.json"), ("llava-v1.5-tiny", "tokenizer_config.json")] {
        std::fs::copy(fixture("tiny-llava-1.5").join(from).join(name), folder.path().join(name)).unwrap();
    }
    let json = Tokenizer::read(folder.path(), 1280).unwrap();
    vec![("tokenizer.model", model), ("tokenizer.json", json)]
}

fn rows(key: &str) -> Vec<Value> {
    let rows = json(EXPECTED)[key].as_array().unwrap().clone();
    assert!(rows.len() >= 8, "{key}");
    rows
}

#[test]
fn ids_are_those_of_the_slow_tokenizer() {
    for (source, tokenizer) in tokenizers() {
        for row in rows("encode") {
            let text = row["text"].as_str().unwrap();
            assert_eq!(tokenizer.encode(text).unwrap(), ids::<u32>(&row["ids"]), "{source}: {text:?}");
        }
    }
}

#[test]
fn text_is_that_of_the_slow_tokenizer() {
    for (source, tokenizer) in tokenizers() {
        for row in rows("encode") {
            let text = tokenizer.decode(&ids::<u32>(&row["ids"]));
            assert_eq!(text, row["decoded_skip_special"].as_str().unwrap(), "{source}: {row}");
        }
        for row in rows("decode") {
            let text = tokenizer.decode(&ids::<u32>(&row["ids"]));
            assert_eq!(text, row["skip_special"].as_str().unwrap(), "{source}: {row}");
        }
    }
}

#[test]
fn prompts_are_split_at_images_as_the_official_code_does() {
    for (source, tokenizer) in tokenizers() {
        for row in rows("image_token") {
            let text = row["prompt"].as_str().unwrap();
            assert_eq!(Prompt::new(text, "", &tokenizer).unwrap().ids, ids::<i64>(&row["ids"]), "{source}: {text:?}");
        }
        let mut without = 0;
        for row in rows("conversations") {
            // Two templates cannot be made into a prompt by the official code either.
            let Some(text) = row["prompt_one_turn"].as_str() else {
                without += 1;
                continue;
            };
            let name = &row["template"];
            assert_eq!(
                Prompt::new(text, "", &tokenizer).unwrap().ids,
                ids::<i64>(&row["ids_one_turn"]),
                "{source}: {name}"
            );
        }
        assert_eq!(without, 2, "{source}");
    }
}

/// Vicuna folders have a `<pad>` that the model has no embedding for.
#[test]
fn added_tokens_beyond_the_vocabulary_are_plain_text() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tokenizer.model", "tokenizer_config.json"] {
        std::fs::copy(fixture("tiny-llava-1.5/llava-v1.5-tiny").join(name), folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join("added_tokens.json"), r#"{"<pad>": 1280}"#).unwrap();
    let without = Tokenizer::read(folder.path(), 1280).unwrap();
    assert!(without.encode("a<pad>b").unwrap().iter().all(|&id| id < 1280));
    assert_eq!(without.decode(&without.encode("a<pad>b").unwrap()), "a<pad>b");
    let with = Tokenizer::read(folder.path(), 1344).unwrap();
    assert!(with.encode("a<pad>b").unwrap().contains(&1280));
    let error = Tokenizer::read(folder.path(), 1000).err().unwrap().to_string();
    assert!(error.contains("ids up to 1279") && error.contains("1000 embeddings"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Every text comes back, from both files alike.
    #[test]
    fn any_text_comes_back(text in "[^▁<]{0,40}") {
        let all = tokenizers();
        let [(_, model), (_, json)] = &all[..] else { unreachable!() };
        let ids = model.encode(&text).unwrap();
        prop_assert_eq!(model.decode(&ids), text.clone());
        prop_assert_eq!(json.decode(&json.encode(&text).unwrap()), text);
    }
}
