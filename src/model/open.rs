//! Recognises a checkpoint's layout and fills the networks from it.

use std::{collections::BTreeMap, path::PathBuf};

use burn::tensor::DType;
use secateur_backends::VlmBackend;
use secateur_weights::{Checkpoint, Dtypes, Ignored, Rename, StoredTensor, find, load};
use serde::Deserialize;

use super::{
    Llava, LlavaConfig,
    config::{HfConfig, OriginalConfig, read_json},
    llava::Networks,
};
use crate::{Error, image::ClipProcessor, text::LlamaTokenizer};

/// How a checkpoint is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `liuhaotian/llava-v1.5-*`: flat config, the tower in a checkpoint of its own.
    Original,
    /// `llava-hf/llava-1.5-*-hf`: nested config, one set of shards.
    Hf,
}

/// A checkpoint whose small files were read and checked; no weight has been touched.
pub struct Opened {
    /// Its folder.
    pub folder: PathBuf,
    /// Its layout.
    pub layout: Layout,
    /// Its shape.
    pub config: LlavaConfig,
    /// Its tokenizer.
    pub tokenizer: LlamaTokenizer,
    /// Its picture settings.
    pub processor: ClipProcessor,
    tower: Option<PathBuf>,
}

const TEXT_SIDE: &str = "the text side of CLIP, which LLaVA does not use";
const LAST_NORM: &str = "applied after the last layer, which LLaVA does not read";
const BUFFER: &str = "a buffer that is computed";

/// Tower checkpoint → module.
///
/// | file | module |
/// |---|---|
/// | `vision_model.*` | `vision_tower.*` |
const TOWER: Rename = Rename {
    prefixes: &[("vision_model.", "vision_tower.")],
    ignored: &[
        Ignored { prefix: "text_model.", suffix: "", why: TEXT_SIDE },
        Ignored { prefix: "text_projection.", suffix: "", why: TEXT_SIDE },
        Ignored { prefix: "visual_projection.", suffix: "", why: TEXT_SIDE },
        Ignored { prefix: "logit_scale", suffix: "", why: TEXT_SIDE },
        Ignored { prefix: "vision_model.post_layernorm.", suffix: "", why: LAST_NORM },
        Ignored { prefix: "vision_model.", suffix: ".position_ids", why: BUFFER },
    ],
};

/// Original checkpoint → module.
///
/// | file | module |
/// |---|---|
/// | `model.mm_projector.0.*`, `.2.*` | `projector.linear_1.*`, `linear_2.*` |
/// | `model.*`, `lm_head.*` | `language_model.*` |
const ORIGINAL: Rename = Rename {
    prefixes: &[
        ("model.mm_projector.0.", "projector.linear_1."),
        ("model.mm_projector.2.", "projector.linear_2."),
        ("model.", "language_model."),
        ("lm_head.", "language_model.lm_head."),
    ],
    ignored: &[Ignored { prefix: "model.layers.", suffix: ".rotary_emb.inv_freq", why: BUFFER }],
};

/// llava-hf checkpoint → module; the second half is the order of transformers 4.52 and later.
///
/// | file | module |
/// |---|---|
/// | `vision_tower.vision_model.*` | `vision_tower.*` |
/// | `multi_modal_projector.*` | `projector.*` |
/// | `language_model.model.*`, `language_model.lm_head.*` | `language_model.*` |
const HF: Rename = Rename {
    prefixes: &[
        ("vision_tower.vision_model.", "vision_tower."),
        ("multi_modal_projector.", "projector."),
        ("language_model.model.", "language_model."),
        ("model.vision_tower.vision_model.", "vision_tower."),
        ("model.multi_modal_projector.", "projector."),
        ("model.language_model.", "language_model."),
        ("lm_head.", "language_model.lm_head."),
    ],
    ignored: &[
        Ignored { prefix: "vision_tower.vision_model.post_layernorm.", suffix: "", why: LAST_NORM },
        Ignored { prefix: "model.vision_tower.vision_model.post_layernorm.", suffix: "", why: LAST_NORM },
        Ignored { prefix: "vision_tower.", suffix: ".position_ids", why: BUFFER },
        Ignored { prefix: "language_model.", suffix: ".rotary_emb.inv_freq", why: BUFFER },
    ],
};

/// What tells the layouts apart.
#[derive(Deserialize)]
struct Signs {
    text_config: Option<serde::de::IgnoredAny>,
    mm_vision_tower: Option<serde::de::IgnoredAny>,
}

/// Reads the small files of the checkpoint `model`, a folder or a Hugging Face id.
///
/// # Errors
/// When it is not there, or not a LLaVA-1.5 checkpoint in one of the known layouts.
pub fn open(model: &str) -> Result<Opened, Error> {
    let folder = find(model, None)?;
    let path = folder.join("config.json");
    let signs: Signs = read_json(&path)?;
    let (layout, config, tower) = if signs.text_config.is_some() {
        (Layout::Hf, read_json::<HfConfig>(&path)?.check(&path)?, None)
    } else if signs.mm_vision_tower.is_some() {
        let config: OriginalConfig = read_json(&path)?;
        let tower = find(config.tower(&path)?, Some(&folder))?;
        (Layout::Original, config.check(&path, &tower.join("config.json"))?, Some(tower))
    } else {
        return Err(Error::config(
            &path,
            "neither a llava-hf config (`text_config`) nor an original LLaVA config (`mm_vision_tower` is missing)",
        ));
    };
    let processor_path = tower.as_ref().unwrap_or(&folder).join("preprocessor_config.json");
    let processor = ClipProcessor::read(&processor_path)?;
    if processor.size != config.vision.image_size {
        return Err(Error::config(
            &processor_path,
            format!("pictures of {} pixels for a tower that reads {}", processor.size, config.vision.image_size),
        ));
    }
    let tokenizer = LlamaTokenizer::read(&folder, config.text.vocab_size)?;
    Ok(Opened { folder, layout, config, tokenizer, processor, tower })
}

impl Opened {
    /// Fills the networks; `dtype` is the weights', by default the file's own.
    ///
    /// # Errors
    /// When a shard is missing or damaged, or names and shapes do not fit.
    pub fn load<B: VlmBackend>(self, dtype: Option<DType>, device: &B::Device) -> Result<Llava<B>, Error> {
        let tensors = self.tensors()?;
        let kept = |dtype| B::weight_dtype(dtype, device);
        let stored = tensors.get("language_model.lm_head.weight").map_or(DType::F32, |tensor| tensor.dtype);
        let activations = B::activation_dtype(kept(dtype.unwrap_or(stored)));
        let networks = Networks::new(&self.config, device);
        // Where activations are 16-bit, an f32 tower beside a 16-bit language model would be cast at every product.
        let weights = dtype.or((activations != DType::F32).then_some(activations));
        let dtypes = Dtypes { weights, vectors: activations };
        let networks = load::<B, _>(networks, tensors, dtypes, kept, &self.folder)?;
        Ok(Llava {
            networks,
            config: self.config,
            tokenizer: self.tokenizer,
            processor: self.processor,
            activations,
            device: device.clone(),
        })
    }

    /// All tensors by their module paths.
    fn tensors(&self) -> Result<BTreeMap<String, StoredTensor>, Error> {
        let own = Checkpoint::open(&self.folder)?;
        let Some(tower) = &self.tower else { return Ok(HF.apply(own)?) };
        let mut all = ORIGINAL.apply(own)?;
        for (path, tensor) in TOWER.apply(Checkpoint::open(tower)?)? {
            if all.insert(path.clone(), tensor).is_some() {
                let reason = format!("both it and the tower {} hold `{path}`", tower.display());
                return Err(Error::config(&self.folder, reason));
            }
        }
        Ok(all)
    }
}
