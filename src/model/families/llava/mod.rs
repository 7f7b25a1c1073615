//! LLaVA-1.5 and LLaVA-NeXT on Vicuna, and LLaVA-NeXT on Mistral and on Llama-3; in the original layout and in that of llava-hf.

pub mod chat;
mod config;
mod detect;
mod gguf;
mod names;
mod networks;
mod preset;
mod projector;
mod shown;

use std::{collections::BTreeMap, path::Path, sync::Arc};

pub(super) use config::{ClipConfig, OriginalConfig};
use config::HfConfig;
pub use config::{Images, LlavaConfig};
use detect::{Detect, Language, Layout};
pub(super) use names::ORIGINAL;
pub(super) use preset::clip_l;
use names::HF;
pub use networks::{LlavaVlm, Networks};
pub use projector::Projector;
use secateur_backends::VlmBackend;
use secateur_weights::{Rename, StoredTensor, find_config};
pub(super) use shown::shown;

use super::{Chat, FamilyCheckpoint, Known, Place, Tower};
use crate::{
    Error,
    image::{ClipProcessor, Grid},
    model::{
        DecoderConfig, Fill, GgufFile, LoadOptions, Pair, TilingChoice,
        config::{CONFIG, IMAGE_SETTINGS, named_in_config, read_json, refuse_quantised},
        towers::clip::{CLIP, TextSide},
    },
    pruner::{ClsAttention, Needs},
    sequence::Merge,
    text::{Spaces, Tokenizer},
};

/// A checkpoint of LLaVA-1.5 or LLaVA-NeXT, of which no weight has been touched.
#[derive(Clone)]
pub struct Llava {
    /// The shapes of the networks, and the images that they read.
    pub config: LlavaConfig,
    /// The settings of the image processor.
    pub processor: ClipProcessor,
    language: Language,
    layout: Layout,
    towers: Vec<Tower>,
    /// Whether the tower was trained, too, and lies in the checkpoint itself.
    own_tower: bool,
    /// The GGUF files, where the checkpoint is a pair of these.
    pair: Option<Arc<Pair>>,
}

/// Whether the config at `path` is that of an original Video-LLaVA, which has LLaVA's fields and two towers.
///
/// # Errors
/// When it cannot be read, or is that of a family that is refused by name.
pub(super) fn is_video_llava(path: &Path) -> Result<bool, Error> {
    let (layout, _) = read_json::<Detect>(path)?.check(path)?;
    Ok(layout == Layout::Video)
}

/// The error for a config that no family knows.
pub(super) fn unknown(place: &Place) -> Error {
    if let Some(pair) = place.pair {
        return gguf::unknown(pair);
    }
    let checked = read_json::<Detect>(place.config).and_then(|detect| detect.check(place.config));
    match checked {
        Err(error) => error,
        Ok(_) => Error::config(place.config, "no family of models that is known has such a config"),
    }
}

impl Llava {
    /// The models that the family is made for.
    pub(super) const KNOWN: &[Known] = &[
        known("liuhaotian/llava-v1.5-7b", "LLaVA-1.5 7B, original layout"),
        known("liuhaotian/llava-v1.5-13b", "LLaVA-1.5 13B, original layout"),
        known("llava-hf/llava-1.5-7b-hf", "LLaVA-1.5 7B, transformers layout"),
        known("llava-hf/llava-1.5-13b-hf", "LLaVA-1.5 13B, transformers layout"),
        known("liuhaotian/llava-v1.6-vicuna-7b", "LLaVA-NeXT 7B, original layout"),
        known("liuhaotian/llava-v1.6-vicuna-13b", "LLaVA-NeXT 13B, original layout"),
        known("llava-hf/llava-v1.6-vicuna-7b-hf", "LLaVA-NeXT 7B, transformers layout"),
        known("llava-hf/llava-v1.6-vicuna-13b-hf", "LLaVA-NeXT 13B, transformers layout"),
        known("liuhaotian/llava-v1.6-mistral-7b", "LLaVA-NeXT on Mistral 7B, original layout"),
        known("llava-hf/llava-v1.6-mistral-7b-hf", "LLaVA-NeXT on Mistral 7B, transformers layout"),
        known("lmms-lab/llama3-llava-next-8b", "LLaVA-NeXT on Llama-3 8B, original layout"),
        known("llava-hf/llama3-llava-next-8b-hf", "LLaVA-NeXT on Llama-3 8B, transformers layout"),
    ];
    /// The names of the family's presets.
    pub(super) const PRESETS: &[&str] = preset::PRESETS;

    /// The preset `name`.
    pub(super) fn preset(name: &str) -> Option<Self> {
        preset::preset(name)
    }

    /// Whether the checkpoint at `place` is a LLaVA-1.5 or LLaVA-NeXT.
    ///
    /// # Errors
    /// When its config cannot be read, or is that of a family that is refused by name.
    pub(super) fn detect(place: &Place) -> Result<bool, Error> {
        if let Some(pair) = place.pair {
            return gguf::detect(pair);
        }
        let (layout, _) = read_json::<Detect>(place.config)?.check(place.config)?;
        Ok(layout != Layout::Video)
    }

    /// Reads the small files of the checkpoint in `folder`.
    ///
    /// # Errors
    /// When one is missing or damaged, or asks for something that is not known.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        Self::open(&Place { folder, config: &folder.join(CONFIG), hub: None, pair: None })
    }

    /// Reads the small files of a checkpoint.
    ///
    /// # Errors
    /// When one is missing or damaged, or asks for something that is not known.
    pub(super) fn open(place: &Place) -> Result<Self, Error> {
        if let Some(pair) = place.pair {
            let (config, processor, language) = gguf::read(pair)?;
            let (layout, pair) = (Layout::Hf, Some(pair.clone()));
            return Ok(Self { config, processor, language, layout, towers: Vec::new(), own_tower: true, pair });
        }
        let path = place.config;
        let (layout, language) = read_json::<Detect>(path)?.check(path)?;
        place.refuse_quantised()?;
        let (config, towers, own_tower) = match layout {
            Layout::Hf => {
                let config = read_json::<HfConfig>(path)?.check(path)?;
                place.need(&IMAGE_SETTINGS)?;
                (config, Vec::new(), true)
            }
            Layout::Original | Layout::Video => {
                let config = OriginalConfig::read(path)?;
                let (field, name) = ("mm_vision_tower", config.tower(path)?.to_owned());
                let found = find_config(&name, Some(place.folder), &[&IMAGE_SETTINGS]);
                let folder = named_in_config(path, field, &name, found)?;
                let own_tower = config.own_tower();
                refuse_quantised(&folder.join(CONFIG))?;
                let config = config.check(path, &folder.join(CONFIG))?;
                let tower = Tower { field, name, folder, module: "vision_tower.", bare: false };
                (config, vec![tower], own_tower)
            }
        };
        let settings = towers.first().map_or(place.folder, |tower| &tower.folder);
        let processor = ClipProcessor::read(settings)?;
        if processor.size != config.vision.image_size {
            let reason =
                format!("images of {} pixels for a tower that reads {}", processor.size, config.vision.image_size);
            return Err(Error::config(&ClipProcessor::file(settings), reason));
        }
        Ok(Self { config, processor, language, layout, towers, own_tower, pair: None })
    }

    /// The networks, filled.
    ///
    /// # Errors
    /// When names and shapes do not fit, or a shard is damaged.
    pub(super) fn load<B: VlmBackend>(
        self,
        fill: &mut Fill<B>,
        options: LoadOptions,
    ) -> Result<LlavaVlm<B>, Error> {
        LlavaVlm::load(self.config, self.processor, fill, options)
    }
}

const fn known(id: &'static str, about: &'static str) -> Known {
    Known { id, about }
}

impl FamilyCheckpoint for Llava {
    fn decoder(&self) -> &DecoderConfig {
        &self.config.text
    }

    fn decoder_mut(&mut self) -> &mut DecoderConfig {
        &mut self.config.text
    }

    fn grid(&self) -> Grid {
        self.config.vision.grid()
    }

    /// The side of one crop, or of two side by side where an image is the whole and four tiles.
    fn usual_side(&self) -> usize {
        let side = self.config.vision.image_size;
        if matches!(self.config.images, Images::AnyRes { .. }) { 2 * side } else { side }
    }

    fn chat(&self, tokenizer: &Tokenizer, config: &Path) -> Result<Chat, Error> {
        let tiles = matches!(self.config.images, Images::AnyRes { .. });
        let (form, ends) = chat::chat_form(self.language, tiles, tokenizer, config)?;
        // The official builder takes the fast tokenizer for Mistral, and the slow one for Vicuna.
        let spaces = if self.language == Language::Mistral { Spaces::Fast } else { Spaces::Slow };
        Ok(Chat { ends, ..Chat::of(form, spaces) })
    }

    fn tensors_of_pair(&self) -> Result<BTreeMap<String, StoredTensor>, Error> {
        self.pair.as_ref().map_or_else(|| Ok(BTreeMap::new()), |pair| gguf::tensors(pair, &self.config))
    }

    fn gguf_files(&self, folder: &Path) -> Result<[GgufFile; 2], Error> {
        gguf::files(&self.config, &self.processor, self.language, folder)
    }

    fn check_needs(&self, needs: Needs) -> Result<(), Error> {
        match &self.pair {
            Some(pair) if needs.cls_attention == ClsAttention::All => {
                gguf::check_all_layers(&pair.mmproj.path, &self.config.vision, self.config.vision_feature_layer)
            }
            _ => Ok(()),
        }
    }

    fn names(&self) -> &'static Rename {
        if self.layout == Layout::Hf { &HF } else { &ORIGINAL }
    }

    fn towers(&self) -> &[Tower] {
        &self.towers
    }

    fn has_own_towers(&self) -> bool {
        self.own_tower
    }

    fn has_image_settings(&self) -> bool {
        self.layout == Layout::Hf
    }

    fn check_tiling(&self, choice: TilingChoice, folder: &Path) -> Result<(), Error> {
        check_tiling(&self.config.images, choice, folder)
    }

    fn text_side(&self, clip: Option<&str>, folder: &Path) -> Result<TextSide, Error> {
        let vision = &self.config.vision;
        if let (None, Some(pair)) = (clip, &self.pair) {
            let reason = format!(
                "CLIP's text tower and its projection are not in GGUF files, and a method reads them: name the CLIP checkpoint that the tower is \
                 from (--clip {CLIP}), or take another method (fastervlm, vispruner, divprune, visionzip)"
            );
            return Err(Error::config(&pair.mmproj.path, reason));
        }
        match (clip, self.towers.first()) {
            (None, Some(tower)) if !self.own_tower => TextSide::open_folder(tower.folder.clone(), vision),
            (None, Some(tower)) => TextSide::open_named(&tower.name, folder, vision),
            (clip, _) => TextSide::open(clip, vision),
        }
    }

    fn text_side_id(&self) -> Option<&'static str> {
        (self.layout == Layout::Hf && self.pair.is_none()).then_some(CLIP)
    }
}

/// Refuses tiles for a model that reads an image as one crop, and newlines for a model that was trained without them.
///
/// # Errors
/// When `choice` asks for either.
pub(super) fn check_tiling(images: &Images, choice: TilingChoice, folder: &Path) -> Result<(), Error> {
    let refuse = |reason| Err(Error::config(folder, reason));
    match images {
        Images::Single(_) if choice != TilingChoice::default() => {
            refuse("--grid and --merge are for LLaVA-NeXT; this checkpoint sees an image as one crop")
        }
        Images::AnyRes { merge, .. } if choice.merge == Some(Merge::SpatialUnpad) && *merge != Merge::SpatialUnpad => {
            refuse("--merge spatial-unpad needs a newline token, which this checkpoint was not trained with")
        }
        _ => Ok(()),
    }
}
