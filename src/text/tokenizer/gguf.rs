//! Tokenizers of GGUF files: SentencePiece's pieces with scores (`llama`), and Llama-3's pieces of bytes (`gpt2`).

use secateur_weights::{Gguf, Value, printable};
use serde_json::json;

use super::{
    Kind, Tokenizer,
    byte_level::ByteLevel,
    check_pieces,
    llama::LlamaTokenizer,
    sentencepiece::SentencePiece,
    vocabulary::{CONTROL, UNKNOWN, USER_DEFINED},
};
use crate::{Error, unwind::guarded};

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const PRE: &str = "tokenizer.ggml.pre";
/// The names of Llama-3's pattern.
const LLAMA_3: [&str; 3] = ["llama-bpe", "llama3", "llama-v3"];
/// The name of Qwen2's pattern.
const QWEN_2: &str = "qwen2";
/// The pattern by which Qwen2's tokenizer cuts text.
const QWEN_PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The pattern by which Llama-3's tokenizer cuts text.
const PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Tokenizer {
    /// The tokenizer that is in a GGUF file; `vocabulary` is the number of embeddings.
    ///
    /// # Errors
    /// When a setting is missing, damaged or of a kind that is not known, or there are more pieces than embeddings.
    pub fn of_gguf(file: &Gguf, vocabulary: usize) -> Result<Self, Error> {
        let text = |value: &'_ Value| if let Value::Text(text) = value { Some(text.clone()) } else { None };
        let tokens = file.list(TOKENS, "a list of texts", text)?.ok_or_else(|| file.missing(TOKENS))?;
        if tokens.is_empty() {
            return Err(Error::config(&file.path, format!("the setting `{TOKENS}` is an empty list")));
        }
        check_pieces(std::iter::once(tokens.len() as u32 - 1), vocabulary, &file.path)?;
        let kind = |value: &Value| if let Value::Int(kind) = value { i32::try_from(*kind).ok() } else { None };
        let types = file.list(TYPES, "a list of whole numbers", kind)?.ok_or_else(|| file.missing(TYPES))?;
        check_count(file, TYPES, types.len(), tokens.len())?;
        match file.text(MODEL)?.ok_or_else(|| file.missing(MODEL))? {
            "llama" => sentence_piece(file, tokens, types),
            "gpt2" => bytes(file, tokens, types, vocabulary),
            other => {
                let reason =
                    format!("the tokenizer ({MODEL}) is `{}`; llama and gpt2 (Llama-3) are known", printable(other));
                Err(Error::config(&file.path, reason))
            }
        }
    }
}

fn check_count(file: &Gguf, key: &str, found: usize, expected: usize) -> Result<(), Error> {
    if found == expected {
        return Ok(());
    }
    Err(Error::config(&file.path, format!("the setting `{key}` has {found} entries, and `{TOKENS}` {expected}")))
}

/// The ids of the tokens that start and end a text; without the settings, `usual` ones.
fn ends(file: &Gguf, usual: Option<[usize; 2]>, count: usize) -> Result<[u32; 2], Error> {
    let (bos, eos) = (usual.map(|[bos, _]| bos), usual.map(|[_, eos]| eos));
    Ok([id(file, "tokenizer.ggml.bos_token_id", bos, count)?, id(file, "tokenizer.ggml.eos_token_id", eos, count)?])
}

/// The id in the setting `key`, of `count` tokens; without the setting, the `usual` one.
fn id(file: &Gguf, key: &str, usual: Option<usize>, count: usize) -> Result<u32, Error> {
    let id = file.count(key)?.or(usual).ok_or_else(|| file.missing(key))?;
    if id < count {
        return Ok(id as u32);
    }
    Err(Error::config(&file.path, format!("the setting `{key}` is {id}, and there are {count} tokens")))
}

fn sentence_piece(file: &Gguf, tokens: Vec<String>, types: Vec<i32>) -> Result<Tokenizer, Error> {
    let score = |value: &Value| if let Value::Float(score) = value { Some(*score as f32) } else { None };
    let scores = file.list(SCORES, "a list of numbers", score)?.ok_or_else(|| file.missing(SCORES))?;
    check_count(file, SCORES, scores.len(), tokens.len())?;
    // Llama's own, which files may leave out.
    let ends = ends(file, Some([1, 2]), tokens.len())?;
    // Added tokens are found in a text as control tokens are.
    let types = types.into_iter().map(|kind| if kind == USER_DEFINED { CONTROL } else { kind });
    let pieces = tokens.into_iter().zip(scores).zip(types).map(|((token, score), kind)| (token, score, kind));
    let pieces = SentencePiece::of(pieces).ok_or_else(|| {
        let reason = "expected a tokenizer like Llama's: <unk>, <s>, </s>, bytes like <0x0A>, and normal pieces";
        Error::config(&file.path, reason)
    })?;
    Ok(Tokenizer(Kind::Llama(Box::new(LlamaTokenizer::of(&file.path, pieces, ends)))))
}

fn bytes(file: &Gguf, tokens: Vec<String>, types: Vec<i32>, vocabulary: usize) -> Result<Tokenizer, Error> {
    let refuse = |reason: String| Err(Error::config(&file.path, reason));
    let pre = file.text(PRE)?.unwrap_or("");
    let is_qwen = pre == QWEN_2;
    if !LLAMA_3.contains(&pre) && !is_qwen {
        return refuse(format!(
            "the tokenizer is gpt2 with the pattern `{}` ({PRE}); {} and {QWEN_2} are known",
            printable(pre),
            LLAMA_3[0]
        ));
    }
    let text = |value: &'_ Value| if let Value::Text(text) = value { Some(text.clone()) } else { None };
    let merges = file.list(MERGES, "a list of texts", text)?.ok_or_else(|| file.missing(MERGES))?;
    // Qwen's prompts have no start, whatever token the file names for it.
    let ends = if is_qwen {
        (None, id(file, "tokenizer.ggml.eos_token_id", None, tokens.len())?)
    } else {
        ends(file, None, tokens.len()).map(|[bos, eos]| (Some(bos), eos))?
    };
    let is_special = |kind: i32| [UNKNOWN, CONTROL, USER_DEFINED].contains(&kind);
    let added: Vec<_> = tokens
        .iter()
        .zip(&types)
        .enumerate()
        .filter(|(_, (token, kind))| is_special(**kind) && !token.is_empty())
        .map(|(id, (token, kind))| {
            let special = *kind != USER_DEFINED;
            json!({ "id": id, "content": token, "special": special, "normalized": false, "single_word": false, "lstrip": false, "rstrip": false })
        })
        .collect();
    let vocab: serde_json::Map<String, _> =
        tokens.into_iter().enumerate().map(|(id, token)| (token, json!(id))).collect();
    let whole = json!({
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": if is_qwen { QWEN_PATTERN } else { PATTERN } }, "behavior": "Isolated", "invert": false },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false },
        ] },
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": { "type": "BPE", "ignore_merges": !is_qwen, "vocab": vocab, "merges": merges },
        "normalizer": if is_qwen { json!({ "type": "NFC" }) } else { json!(null) },
    });
    let read = guarded(|| tokenizers::Tokenizer::from_bytes(whole.to_string().as_bytes())).and_then(Result::ok);
    let Some(tokenizer) = read else {
        return refuse(format!("its tokenizer cannot be read: a merge of `{MERGES}` does not belong to `{TOKENS}`"));
    };
    Ok(Tokenizer(Kind::Bytes(Box::new(ByteLevel::of(tokenizer, &file.path, vocabulary, ends)))))
}
