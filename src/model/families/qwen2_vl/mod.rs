//! Qwen2-VL and Qwen2.5-VL, in the layouts of transformers 4 and 5.
//!
//! No method has official code for these models. Methods follow what their authors say (issues of VisPruner and CDPruner): the place of `[CLS]` attention
//! is taken by the attention that tokens receive in the tower's last block, that of tower features by merged embeddings, and every image and every slice
//! of a video's time keeps a budget of its own.

mod chat;
mod config;
mod gguf;
mod names;
mod networks;
mod preset;
mod tower;

use std::{collections::BTreeMap, path::Path, sync::Arc};

pub use chat::CHATML;
use config::VisionConfig;
use names::{NAMES, take_apart};
pub use networks::QwenVlm;
use secateur_backends::VlmBackend;
use secateur_weights::{Rename, StoredTensor};
use serde::Deserialize;

use super::{Chat, FamilyCheckpoint, Known, Place};
use crate::{
    Error,
    image::{DynamicProcessor, Grid, PixelLimits},
    model::{
        DecoderConfig, Fill, GgufFile, LoadOptions, Pair, PixelChoice, TilingChoice,
        config::{IMAGE_SETTINGS, read_json},
        towers::clip::TextSide,
    },
    pruner::{ClsAttention, Needs},
    text::Tokenizer,
    video::FrameRule,
};

/// The frames that are taken of a second of video, as `qwen_vl_utils` takes them.
const FRAMES_PER_SECOND: f64 = 2.0;

/// A checkpoint of Qwen2-VL or Qwen2.5-VL, of which no weight has been touched.
#[derive(Clone)]
pub struct Qwen2Vl {
    vision: VisionConfig,
    text: DecoderConfig,
    processor: DynamicProcessor,
    /// The GGUF files, where the checkpoint is a pair of these.
    pair: Option<Arc<Pair>>,
}

const fn known(id: &'static str, about: &'static str) -> Known {
    Known { id, about }
}

impl Qwen2Vl {
    /// The models that the family is made for.
    pub(super) const KNOWN: &[Known] = &[
        known("Qwen/Qwen2-VL-2B-Instruct", "Qwen2-VL 2B, images and videos"),
        known("Qwen/Qwen2-VL-7B-Instruct", "Qwen2-VL 7B, images and videos"),
        known("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen2.5-VL 3B, images and videos"),
        known("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen2.5-VL 7B, images and videos"),
        known("Qwen/Qwen2.5-VL-32B-Instruct", "Qwen2.5-VL 32B, images and videos"),
    ];
    /// The names of the family's presets.
    pub(super) const PRESETS: &[&str] = preset::PRESETS;

    /// The preset `name`.
    pub(super) fn preset(name: &str) -> Option<Self> {
        preset::preset(name)
    }

    /// Whether the checkpoint at `place` is a Qwen2-VL or Qwen2.5-VL.
    ///
    /// # Errors
    /// When its config cannot be read.
    pub(super) fn detect(place: &Place) -> Result<bool, Error> {
        #[derive(Deserialize)]
        struct Detect {
            model_type: Option<String>,
        }
        if let Some(pair) = place.pair {
            return gguf::detect(pair);
        }
        let Detect { model_type } = read_json(place.config)?;
        Ok(config::generation(model_type.as_deref()).is_some())
    }

    /// Reads the small files of a checkpoint.
    ///
    /// # Errors
    /// When one is missing or damaged, or asks for something that is not known.
    pub(super) fn open(place: &Place) -> Result<Self, Error> {
        if let Some(pair) = place.pair {
            return gguf::read(pair);
        }
        place.refuse_quantised()?;
        let (vision, text) = config::read(place.config)?;
        place.need(&IMAGE_SETTINGS)?;
        let processor = DynamicProcessor::read(place.folder)?;
        let [own, tower] = [[processor.patch, processor.merge, processor.frames], [vision.patch, vision.merge, vision.frames]];
        if own != tower {
            let reason = format!("patch_size, merge_size and temporal_patch_size are {own:?}, and those of the tower {tower:?}");
            return Err(Error::config(&place.folder.join(IMAGE_SETTINGS[0]), reason));
        }
        Ok(Self { vision, text, processor, pair: None })
    }

    /// The networks, filled.
    ///
    /// # Errors
    /// When names and shapes do not fit, or a shard is damaged.
    pub(super) fn load<B: VlmBackend>(self, fill: &mut Fill<B>, _options: LoadOptions) -> Result<QwenVlm<B>, Error> {
        QwenVlm::load(self, fill)
    }
}

impl FamilyCheckpoint for Qwen2Vl {
    fn decoder(&self) -> &DecoderConfig {
        &self.text
    }

    fn decoder_mut(&mut self) -> &mut DecoderConfig {
        &mut self.text
    }

    /// The grid of the largest square image.
    fn grid(&self) -> Grid {
        let side = self.processor.images.most.isqrt() / self.processor.token();
        Grid::image(side.max(1), side.max(1))
    }

    fn has_fixed_grid(&self) -> bool {
        false
    }

    /// The side of a square of 1,296 tokens, which papers count.
    fn usual_side(&self) -> usize {
        36 * self.processor.token()
    }

    fn frames(&self) -> Option<FrameRule> {
        Some(FrameRule::Rate(FRAMES_PER_SECOND))
    }

    fn chat(&self, tokenizer: &Tokenizer, config: &Path) -> Result<Chat, Error> {
        chat::chat(tokenizer, config)
    }

    fn check_needs(&self, needs: Needs) -> Result<(), Error> {
        let refuse = |reason: &str| Err(Error::config(Path::new("Qwen2-VL"), reason));
        if needs.cls_attention == ClsAttention::All {
            return refuse("the method reads the attention of [CLS] in every layer of the tower, and this tower has no [CLS]");
        }
        if needs.joint {
            return refuse("the method compares images with CLIP's text, and this tower was not trained beside one");
        }
        Ok(())
    }

    fn set_pixels(&mut self, PixelChoice { least, most }: PixelChoice) -> Result<(), String> {
        for limits in [&mut self.processor.images, &mut self.processor.videos] {
            let chosen = PixelLimits { least: least.unwrap_or(limits.least), most: most.unwrap_or(limits.most) };
            *limits = chosen.check()?;
        }
        Ok(())
    }

    fn rules(&self) -> Option<&'static str> {
        Some("by the authors' description; there is no official code for this model")
    }

    fn reads_text_side(&self, _needs: Needs) -> bool {
        false
    }

    fn names(&self) -> &'static Rename {
        &NAMES
    }

    fn take_apart(&self, tensors: &mut BTreeMap<String, StoredTensor>) {
        take_apart(tensors);
    }

    fn tensors_of_pair(&self) -> Result<BTreeMap<String, StoredTensor>, Error> {
        self.pair.as_ref().map_or_else(|| Ok(BTreeMap::new()), |pair| gguf::tensors(pair, &self.vision, &self.text))
    }

    fn gguf_files(&self, folder: &Path) -> Result<[GgufFile; 2], Error> {
        gguf::files(self, folder)
    }

    fn has_own_towers(&self) -> bool {
        true
    }

    fn has_image_settings(&self) -> bool {
        true
    }

    fn check_tiling(&self, choice: TilingChoice, folder: &Path) -> Result<(), Error> {
        if choice == TilingChoice::default() {
            return Ok(());
        }
        Err(Error::config(folder, "--grid and --merge are for LLaVA-NeXT; this model reads an image as a whole"))
    }

    fn text_side(&self, _clip: Option<&str>, folder: &Path) -> Result<TextSide, Error> {
        Err(Error::config(folder, "this tower has no text side with which words and images could be compared"))
    }

    fn has_random_text_side(&self) -> bool {
        false
    }
}
