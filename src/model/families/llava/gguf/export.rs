//! LLaVA-1.5 and LLaVA-NeXT as the settings and tensors of a pair of GGUF files.

use std::path::Path;

use secateur_weights::Setting;

use super::{
    CHAT_TEMPLATE, FEATURE_LAYER,
    tensors::of_encoder,
};
use crate::{
    Error,
    image::ClipProcessor,
    model::{
        ClipVisionConfig, GgufFile, RopeScaling,
        families::llava::{Images, LlavaConfig, detect::Language},
        gguf::{
            decoder::{decoder_settings, of_decoder},
            settings::{count, flag, number, text, three},
            tensors::parts,
        },
    },
    sequence::Merge,
};

/// Mistral's form of conversations, by which a file tells that it is one.
const MISTRAL_INSTRUCT: &str = "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]\
    {% else %} {{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}";

/// The two files: the language model's, without its tokenizer, and the image encoder's. The encoder has the layers that LLaVA reads.
///
/// # Errors
/// When llama.cpp has no setting for something that the model has.
pub(in crate::model::families::llava) fn files(config: &LlavaConfig, processor: &ClipProcessor,
    language: Language,
    path: &Path) -> Result<[GgufFile; 2], Error> {
    let refuse = |what: &str| Err(Error::config(path, format!("{what}, which GGUF files of Llamas cannot say")));
    let text = &config.text;
    if text.qkv_bias || text.o_bias || text.mlp_bias {
        return refuse("its products have biases");
    }
    let vision = ClipVisionConfig { num_hidden_layers: config.vision_feature_layer, ..config.vision.clone() };
    let newline = matches!(config.images, Images::AnyRes { merge: Merge::SpatialUnpad, .. });
    let mut decoder = decoder_settings(text, "llama");
    if language == Language::Mistral {
        decoder.push((CHAT_TEMPLATE.to_owned(), Setting::Text(MISTRAL_INSTRUCT.to_owned())));
    }
    match text.rope.scaling {
        RopeScaling::None => {}
        RopeScaling::Linear(factor) => {
            decoder.push(("llama.rope.scaling.type".to_owned(), Setting::Text("linear".to_owned())));
            decoder.push(("llama.rope.scaling.factor".to_owned(), Setting::Number(factor as f32)));
        }
        RopeScaling::Llama3(_) => return refuse("its rotary positions are scaled by Llama-3.1's rule"),
    }
    let encoder = of_encoder(&vision, text.hidden_size, ["ffn_up", "ffn_down"], newline.then_some("v.image_newline"));
    Ok([
        GgufFile { settings: decoder, tensors: parts(of_decoder(text, true)) },
        GgufFile { settings: encoder_settings(config, &vision, processor), tensors: parts(encoder) },
    ])
}

fn encoder_settings(
    config: &LlavaConfig,
    vision: &ClipVisionConfig,
    processor: &ClipProcessor,
) -> Vec<(String, Setting)> {
    let mut settings = vec![
        text("general.architecture", "clip"),
        text("general.type", "mmproj"),
        count("general.file_type", 1),
        flag("clip.has_text_encoder", false),
        flag("clip.has_vision_encoder", true),
        flag("clip.has_llava_projector", true),
        text("clip.projector_type", "mlp"),
        flag("clip.use_gelu", !vision.quick_gelu()),
        count("clip.vision.image_size", vision.image_size),
        count("clip.vision.patch_size", vision.patch_size),
        count("clip.vision.embedding_length", vision.hidden_size),
        count("clip.vision.feed_forward_length", vision.intermediate_size),
        count("clip.vision.projection_dim", config.text.hidden_size),
        count("clip.vision.attention.head_count", vision.num_attention_heads),
        number("clip.vision.attention.layer_norm_epsilon", vision.layer_norm_eps),
        count("clip.vision.block_count", vision.num_hidden_layers),
        three("clip.vision.image_mean", processor.mean),
        three("clip.vision.image_std", processor.std),
        (FEATURE_LAYER.to_owned(), Setting::Counts(vec![vision.num_hidden_layers as i32])),
    ];
    if let Images::AnyRes { resolutions, merge } = &config.images {
        let pairs = resolutions.iter().flat_map(|&(width, height)| [width as i32, height as i32]).collect();
        settings.push(("clip.vision.image_grid_pinpoints".to_owned(), Setting::Counts(pairs)));
        settings.push(text("clip.vision.image_aspect_ratio", "anyres"));
        let merge = match merge {
            Merge::Flat => "flat",
            Merge::Spatial => "spatial",
            Merge::SpatialUnpad => "spatial_unpad",
        };
        settings.push(text("clip.vision.mm_patch_merge_type", merge));
    }
    settings
}
