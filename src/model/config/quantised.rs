//! Configs of quantised checkpoints, whose weights are not read.

use std::path::Path;

use serde_json::Value;

use super::{from_json, text_of_config};
use crate::Error;

/// Settings that only quantised checkpoints have.
const FIELDS: [&str; 2] = ["quantization_config", "compression_config"];

/// Files that tools of quantisation leave beside the config.
const FILES: [&str; 3] = ["quantize_config.json", "quant_config.json", "quantization_config.json"];

/// Refuses the config at `path` if the weights are quantised.
///
/// # Errors
/// When the weights are quantised, with the name of the form of quantisation.
pub(in crate::model) fn refuse_quantised(path: &Path) -> Result<(), Error> {
    let config: Value = from_json(path, &text_of_config(path)?)?;
    let places = [("", &config), ("text_config.", &config["text_config"])];
    for (prefix, place) in places {
        let found = FIELDS.iter().find_map(|field| is_quantised(&place[*field]).then(|| (field, &place[*field])));
        if let Some((field, settings)) = found {
            return Err(refusal(path, &format!("{prefix}{field}"), &form(settings)));
        }
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    match FILES.iter().map(|name| folder.join(name)).find(|file| file.is_file()) {
        Some(file) => Err(refusal(path, &file.display().to_string(), "GPTQ or AWQ")),
        None => Ok(()),
    }
}

/// Whether `settings` ask for quantisation: tools leave settings of bitsandbytes with all of it switched off.
fn is_quantised(settings: &Value) -> bool {
    let off = |name: &str| settings[name].as_bool() == Some(false);
    settings.is_object() && !(off("load_in_4bit") && off("load_in_8bit"))
}

/// The name of a form of quantisation, with its bits.
fn form(settings: &Value) -> String {
    let method = settings["quant_method"].as_str().or(settings["quantization_method"].as_str());
    let flag = |name: &str| settings[name].as_bool().unwrap_or(false);
    let name = match method.map(str::to_lowercase).as_deref() {
        Some("awq") => "AWQ".to_owned(),
        Some("gptq") => "GPTQ".to_owned(),
        Some("bitsandbytes") => "bitsandbytes".to_owned(),
        Some(other) => secateur_weights::printable(other),
        None if flag("load_in_4bit") || flag("load_in_8bit") => "bitsandbytes".to_owned(),
        None => "in a form that it does not name".to_owned(),
    };
    let bits = settings["bits"].as_u64().or(settings["w_bit"].as_u64());
    let bits = bits.or(flag("load_in_4bit").then_some(4)).or(flag("load_in_8bit").then_some(8));
    bits.map_or(name.clone(), |bits| format!("{name}, {bits} bits"))
}

fn refusal(path: &Path, field: &str, form: &str) -> Error {
    let reason = format!(
        "{field} says that the weights are quantised ({form}), which are not read; give the checkpoint that they were made from, in \
         f16, bf16 or f32"
    );
    Error::config(path, reason)
}
