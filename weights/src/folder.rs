//! Folders without a checkpoint: what they hold instead, and what to do with it.

use std::path::Path;

use serde_json::Value;

use crate::text::{parse_json, read_text};

/// Describes what the folder at `path` holds, if the weights of a checkpoint are missing; `None` if that is unknown.
pub(crate) fn what_else(path: &Path) -> Option<String> {
    let entries = std::fs::read_dir(path).ok()?.flatten();
    let names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    what_else_of(&names, &base_model(&path.join(ADAPTER)).unwrap_or_default())
}

/// The file with the settings of a LoRA adapter.
pub(crate) const ADAPTER: &str = "adapter_config.json";

/// The name of an adapter's base model in its settings at `path`, with a space before it.
pub(crate) fn base_model(path: &Path) -> Option<String> {
    let text = read_text(path).ok()?;
    let base = parse_json::<Value>(&text).ok()?["base_model_name_or_path"].as_str()?.to_owned();
    Some(format!(" {}", crate::text::printable(&base)))
}

/// Describes a repository or folder with these files that is no checkpoint. `base` is empty, or the name of an
/// adapter's base model with a space before it.
pub(crate) fn what_else_of(names: &[String], base: &str) -> Option<String> {
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    let begins = |start: &str| names.iter().any(|name| name.starts_with(start));
    let ends = |end: &str| names.iter().any(|name| name.ends_with(end));
    let is_whole = |name: &String| {
        ["model.safetensors", "pytorch_model.bin"]
            .iter()
            .any(|whole| name == whole || *name == format!("{whole}.index.json"))
    };
    if names.iter().any(is_whole) {
        return None;
    }
    let is_shard = |name: &&String| {
        let known = ["model-", "pytorch_model-"].iter().any(|start| name.starts_with(start));
        known && name.contains("-of-") && (name.ends_with(".safetensors") || name.ends_with(".bin"))
    };
    let sentence = if has(ADAPTER) || begins("adapter_model.") || has("non_lora_trainables.bin") {
        format!(
            "a LoRA adapter, which is no checkpoint of its own: merge it into its base model{base} (LLaVA's \
             scripts/merge_lora_weights.py, or merge_and_unload of peft), and give the merged folder"
        )
    } else if has("mm_projector.bin") {
        "a projector alone (mm_projector.bin), as LLaVA's first training stage saves it: it has no language model; give the \
         checkpoint of the second stage"
            .to_owned()
    } else if let Some(shard) = names.iter().find(is_shard) {
        let (single, end) = if shard.ends_with(".bin") { ("pytorch_model", "bin") } else { ("model", "safetensors") };
        format!(
            "shards without their index ({} is there, {single}.{end}.index.json is not): fetch the index of the same checkpoint",
            crate::text::printable(shard)
        )
    } else if begins("global_step") || has("zero_to_fp32.py") || ends("_optim_states.pt") || ends("_model_states.pt") {
        "the state of a training with DeepSpeed: `python zero_to_fp32.py . .` in it makes a checkpoint of it".to_owned()
    } else if ends(".gguf") {
        "GGUF files: name the language model, as in --model DIR/FILE.gguf, or owner/name:FILE.gguf on the hub, and its image encoder as --mmproj"
            .to_owned()
    } else if begins("consolidated.") {
        "weights in Meta's own form (consolidated.*.pth); give the folder that is converted for transformers".to_owned()
    } else if has("optimizer.pt") || has("trainer_state.json") || has("scheduler.pt") {
        "the state of a training (trainer_state.json, optimizer.pt) without the model's weights".to_owned()
    } else if ends(".msgpack") || ends(".h5") || ends(".onnx") {
        "weights for another framework (Flax, TensorFlow or ONNX); give a checkpoint in safetensors, or PyTorch's"
            .to_owned()
    } else if has("model_index.json") {
        "a pipeline of diffusers".to_owned()
    } else {
        return None;
    };
    Some(sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_called_what_they_are() {
        let of = |names: &[&str]| what_else_of(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), "");
        assert_eq!(of(&["config.json", "model.safetensors", "adapter_config.json"]), None);
        assert_eq!(of(&["config.json", "tokenizer.model"]), None);
        for (names, named) in [
            (&["config.json", "adapter_config.json", "adapter_model.safetensors"][..], "LoRA adapter"),
            (&["config.json", "mm_projector.bin"], "projector"),
            (&["model-00001-of-00002.safetensors"], "without their index"),
            (&["pytorch_model-00001-of-00002.bin"], "pytorch_model.bin.index.json"),
            (&["global_step100", "latest", "zero_to_fp32.py"], "DeepSpeed"),
            (&["llava.Q4_K_M.gguf"], "GGUF"),
            (&["optimizer.pt", "trainer_state.json"], "training"),
        ] {
            let found = of(names).unwrap();
            assert!(found.contains(named), "{found}");
        }
    }
}
