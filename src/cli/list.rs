//! `secateur list`: models, methods, benchmarks and backends, with a line for each.

use std::fmt::Write;

use secateur_backends::{BACKENDS, BackendInfo, DeviceInfo, devices};
use serde_json::{Map, Value, json};

use super::{
    args::{ListArgs, Listing},
    print, print_json, with_kernels,
};
use crate::{
    model::{DEMO, families::known},
    pruner::{Method, Params, Place, methods},
    published::all_published,
    task::TASKS,
};

/// A note on the list of methods.
const WITHOUT_CODE: &str = "on Qwen2-VL and Qwen2.5-VL, rules are by the authors' description: no method has official code for them; trim and datp cannot run there";

pub(super) fn run(args: &ListArgs) -> anyhow::Result<()> {
    let all = [
        ("methods", Listing::Methods),
        ("models", Listing::Models),
        ("benchmarks", Listing::Benchmarks),
        ("backends", Listing::Backends),
        ("devices", Listing::Devices),
        ("published", Listing::Published),
    ];
    let chosen = all
        .into_iter()
        .filter(|(_, listing)| args.what.map_or(*listing != Listing::Published, |what| what == *listing));
    if args.markdown && args.what.is_some_and(|what| what != Listing::Methods) {
        usage!("--markdown writes the table of methods; the other lists have none");
    }
    if args.markdown {
        return Ok(print(markdown().trim_end())?);
    }
    if args.json {
        let lists: Map<String, Value> =
            chosen.map(|(title, listing)| (title.to_owned(), Value::Array(asked(listing, &args.words)))).collect();
        return print_json(&lists);
    }
    for (title, listing) in chosen {
        if args.what.is_none() {
            print(title)?;
        }
        let rows = asked(listing, &args.words);
        if rows.is_empty() && !args.words.is_empty() {
            say!("note: no line of {title} has all of these words");
        }
        for row in rows {
            print(&line(&row))?;
        }
        if listing == Listing::Methods {
            say!("note: {WITHOUT_CODE}");
        }
    }
    Ok(())
}

/// The rows of a list that have all of `words`, each as one of their values or, longer texts, inside of one.
fn asked(listing: Listing, words: &[String]) -> Vec<Value> {
    let has = |row: &Value, word: &String| {
        let values = row.as_object().into_iter().flat_map(Map::values);
        let mut texts = values.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_lowercase));
        let word = word.to_lowercase();
        match listing {
            Listing::Published => texts.any(|text| text == word),
            _ => texts.any(|text| text.contains(&word)),
        }
    };
    rows(listing).into_iter().filter(|row| words.iter().all(|word| has(row, word))).collect()
}

fn rows(listing: Listing) -> Vec<Value> {
    match listing {
        Listing::Methods => methods(Params::default()).iter().map(|method| describe(&**method)).collect(),
        Listing::Models => {
            let demo = json!({"name": DEMO, "about": "a small LLaVA-1.5 for drawn images, inside the binary"});
            let known = known().into_iter().map(|model| json!({"name": model.id, "about": model.about}));
            std::iter::once(demo).chain(known).collect()
        }
        Listing::Benchmarks => TASKS.iter().map(|t| json!({"name": t.name(), "about": t.card().about})).collect(),
        Listing::Backends => BACKENDS.iter().map(backend).collect(),
        Listing::Published => all_published().iter().map(|figure| json!(figure)).collect(),
        Listing::Devices => BACKENDS.iter().filter(|row| row.compiled).flat_map(devices_of).collect(),
    }
}

/// The devices of a backend, by the numbers that `--device` takes.
fn devices_of(row: &BackendInfo) -> Vec<Value> {
    let devices = devices(row.name).unwrap_or_default();
    let describe = |(index, device): (usize, DeviceInfo)| {
        let DeviceInfo { name, kind, memory, largest } = device;
        json!({"backend": row.name, "device": index, "name": name, "kind": kind.name(), "memory": memory, "largest_tensor": largest})
    };
    devices.into_iter().enumerate().map(describe).collect()
}

/// A backend, with the kernels that it has for this processor.
fn backend(row: &BackendInfo) -> Value {
    let value = json!({"name": row.name, "about": row.about, "compiled": row.compiled});
    with_kernels(value, row.name)
}

fn describe(method: &dyn Method) -> Value {
    let tiling = method.card().tiling;
    json!({
        "name": method.name(),
        "about": method.card().idea,
        "cues": cues(method),
        "paper": method.card().paper,
        "where": method.card().place.name(),
        "grid": tiling.grid.name(),
        "newlines": tiling.unpad,
    })
}

/// The names of the cues that a method reads.
fn cues(method: &dyn Method) -> Vec<&'static str> {
    match method.card().place {
        Place::Llm => vec!["the language model's attention"],
        Place::Nowhere | Place::Tower => method.card().needs.names(),
    }
}

/// The table of methods in the README.
fn markdown() -> String {
    let mut table =
        "| method | idea | reads | prunes in | LLaVA-NeXT grid | paper |\n|---|---|---|---|---|---|\n".to_owned();
    for method in methods(Params::default()) {
        let paper = match method.card().paper {
            "" => String::new(),
            url => format!("[{}]({url})", url.strip_prefix("https://arxiv.org/abs/").unwrap_or("code")),
        };
        let cues = cues(&*method).join(", ");
        let (place, grid) = (method.card().place.name(), method.card().tiling.grid.name());
        // Writing to a string cannot fail.
        let _ =
            writeln!(table, "| `{}` | {} | {cues} | {place} | `{grid}` | {paper} |", method.name(), method.card().idea);
    }
    table
}

fn line(row: &Value) -> String {
    let text = |key: &str| row[key].as_str().unwrap_or_default();
    if let Some(number) = row["device"].as_u64() {
        let memory = row["memory"].as_u64().map(|bytes| format!(", {:.1} GiB", bytes as f64 / f64::from(1 << 30)));
        let target = format!("--backend {} --device {number}", text("backend"));
        return format!("{target:<33} {}: {}{}", text("kind"), text("name"), memory.unwrap_or_default());
    }
    if !row["score"].is_null() {
        let tokens = row["tokens"].as_u64().map_or_else(|| "all".to_owned(), |tokens| tokens.to_string());
        let score = row["score"].as_f64().unwrap_or_default();
        return format!(
            "{:<16} {:<12} {tokens:>4} {:<14} {score:>8.2}  {}",
            text("model"),
            text("method"),
            text("benchmark"),
            text("source")
        );
    }
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
