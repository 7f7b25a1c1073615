//! `secateur list`: what is there, a line each.

use std::fmt::Write;

use secateur_backends::BACKENDS;
use serde_json::{Map, Value, json};

use super::{
    args::{ListArgs, Listing},
    print, print_json,
};
use crate::{
    model::DEMO,
    pruner::{Method, Params, Place, methods},
    task::TASKS,
};

/// Checkpoints that Secateur is made for, and their layout.
const MODELS: &[(&str, &str)] = &[
    (DEMO, "a small LLaVA-1.5 for drawn pictures, inside the binary"),
    ("liuhaotian/llava-v1.5-7b", "LLaVA-1.5 7B, original layout"),
    ("liuhaotian/llava-v1.5-13b", "LLaVA-1.5 13B, original layout"),
    ("llava-hf/llava-1.5-7b-hf", "LLaVA-1.5 7B, transformers layout"),
    ("llava-hf/llava-1.5-13b-hf", "LLaVA-1.5 13B, transformers layout"),
    ("liuhaotian/llava-v1.6-vicuna-7b", "LLaVA-NeXT 7B, original layout"),
    ("liuhaotian/llava-v1.6-vicuna-13b", "LLaVA-NeXT 13B, original layout"),
    ("llava-hf/llava-v1.6-vicuna-7b-hf", "LLaVA-NeXT 7B, transformers layout"),
    ("llava-hf/llava-v1.6-vicuna-13b-hf", "LLaVA-NeXT 13B, transformers layout"),
    ("LanguageBind/Video-LLaVA-7B", "Video-LLaVA 7B, pictures and videos, original layout"),
];

pub(super) fn run(args: &ListArgs) -> anyhow::Result<()> {
    let all = [
        ("methods", Listing::Methods),
        ("models", Listing::Models),
        ("benchmarks", Listing::Benchmarks),
        ("backends", Listing::Backends),
    ];
    let chosen = all.into_iter().filter(|(_, listing)| args.what.is_none_or(|what| what == *listing));
    if args.markdown && args.what.is_some_and(|what| what != Listing::Methods) {
        anyhow::bail!("--markdown writes the table of methods; the other lists have none");
    }
    if args.markdown {
        return Ok(print(markdown().trim_end())?);
    }
    if args.json {
        let lists: Map<String, Value> =
            chosen.map(|(title, listing)| (title.to_owned(), Value::Array(rows(listing)))).collect();
        return print_json(&lists);
    }
    for (title, listing) in chosen {
        if args.what.is_none() {
            print(title)?;
        }
        for row in rows(listing) {
            print(&line(&row))?;
        }
    }
    Ok(())
}

fn rows(listing: Listing) -> Vec<Value> {
    match listing {
        Listing::Methods => methods(Params::default()).iter().map(|method| describe(&**method)).collect(),
        Listing::Models => MODELS.iter().map(|(name, about)| json!({"name": name, "about": about})).collect(),
        Listing::Benchmarks => TASKS.iter().map(|t| json!({"name": t.name(), "about": t.about()})).collect(),
        Listing::Backends => {
            BACKENDS.iter().map(|b| json!({"name": b.name, "about": b.about, "compiled": b.compiled})).collect()
        }
    }
}

fn describe(method: &dyn Method) -> Value {
    let tiling = method.tiling();
    json!({
        "name": method.name(),
        "about": method.idea(),
        "cues": cues(method),
        "paper": method.paper(),
        "where": method.place().name(),
        "grid": tiling.grid.name(),
        "newlines": tiling.unpad,
    })
}

/// What a method reads.
fn cues(method: &dyn Method) -> Vec<&'static str> {
    match method.place() {
        Place::Llm => vec!["the language model's attention"],
        Place::Nowhere | Place::Tower => method.needs().names(),
    }
}

/// The methods as README shows them.
fn markdown() -> String {
    let mut table =
        "| method | idea | reads | prunes in | LLaVA-NeXT grid | paper |\n|---|---|---|---|---|---|\n".to_owned();
    for method in methods(Params::default()) {
        let paper = match method.paper() {
            "" => String::new(),
            url => format!("[{}]({url})", url.strip_prefix("https://arxiv.org/abs/").unwrap_or("code")),
        };
        let cues = cues(&*method).join(", ");
        let (place, grid) = (method.place().name(), method.tiling().grid.name());
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| `{}` | {} | {cues} | {place} | `{grid}` | {paper} |", method.name(), method.idea());
    }
    table
}

fn line(row: &Value) -> String {
    let text = |key: &str| row[key].as_str().unwrap_or_default();
    let mut line = format!("{:<33} {}", text("name"), text("about"));
    if row["compiled"] == false {
        // Writing to a string cannot fail.
        let _ = write!(line, " (not compiled in; rebuild with `--features {}`)", text("name"));
    }
    let cues: Vec<&str> = row["cues"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let parts =
        [("reads ", cues.join(", ")), ("prunes in the ", text("where").to_owned()), ("", text("paper").to_owned())];
    for (word, part) in parts.iter().filter(|(_, part)| !part.is_empty()) {
        let _ = write!(line, "; {word}{part}");
    }
    line
}
