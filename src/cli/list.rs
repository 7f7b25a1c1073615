//! `secateur list`: what is there, a line each.

use secateur_backends::BACKENDS;
use serde_json::{Map, Value, json};

use super::{
    args::{ListArgs, Listing},
    print, print_json,
};
use crate::{pruner::methods, task::TASKS};

/// Checkpoints that Secateur is made for, and their layout.
const MODELS: &[(&str, &str)] = &[
    ("liuhaotian/llava-v1.5-7b", "LLaVA-1.5 7B, original layout"),
    ("liuhaotian/llava-v1.5-13b", "LLaVA-1.5 13B, original layout"),
    ("llava-hf/llava-1.5-7b-hf", "LLaVA-1.5 7B, transformers layout"),
    ("llava-hf/llava-1.5-13b-hf", "LLaVA-1.5 13B, transformers layout"),
];

pub(super) fn run(args: &ListArgs) -> anyhow::Result<()> {
    let all = [
        ("methods", Listing::Methods),
        ("models", Listing::Models),
        ("benchmarks", Listing::Benchmarks),
        ("backends", Listing::Backends),
    ];
    let chosen = all.into_iter().filter(|(_, listing)| args.what.is_none_or(|what| what == *listing));
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
        Listing::Methods => methods()
            .iter()
            .map(|m| json!({"name": m.name(), "about": m.idea(), "paper": m.paper(), "where": prunes(m.name())}))
            .collect(),
        Listing::Models => MODELS.iter().map(|(name, about)| json!({"name": name, "about": about})).collect(),
        Listing::Benchmarks => TASKS.iter().map(|t| json!({"name": t.name(), "about": t.about()})).collect(),
        Listing::Backends => {
            BACKENDS.iter().map(|b| json!({"name": b.name, "about": b.about, "compiled": b.compiled})).collect()
        }
    }
}

/// Where a method drops tokens; all of them do it before the language model so far.
fn prunes(name: &str) -> &'static str {
    if name == "none" { "" } else { "tower" }
}

fn line(row: &Value) -> String {
    let text = |key: &str| row[key].as_str().unwrap_or_default();
    let note = match (text("paper"), row["compiled"].as_bool()) {
        (_, Some(false)) => format!(" (not compiled in; rebuild with `--features {}`)", text("name")),
        ("", _) => String::new(),
        (paper, _) => format!(" ({paper})"),
    };
    format!("{:<26} {}{note}", text("name"), text("about"))
}
