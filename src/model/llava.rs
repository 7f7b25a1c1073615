//! LLaVA: see a picture, keep some of its tokens, answer.

use burn::{
    module::{Module, Param},
    tensor::{DType, Tensor, TensorData, backend::Backend},
};
use secateur_backends::VlmBackend;

use super::{
    ClipJoint, ClipVision, KvCache, LayerCut, Llama, LlavaConfig, Part, Projector, Sight,
    config::Pictures,
    finite::{Source, Stage},
    layers::{Rounds, unfilled},
};
use crate::{
    Error,
    image::{ClipProcessor, GridRule, Rgb, Tiles, crops},
    merge::Merge,
    pruner::{Needs, Tiling},
    tensor::{host, is_finite},
    text::{ClipTokenizer, LlamaTokenizer, Template},
    video::Video,
};

/// The three networks, as one module that a checkpoint fills.
#[derive(Module, Debug)]
pub(super) struct Networks<B: Backend> {
    pub(super) vision_tower: ClipVision<B>,
    /// Video-LLaVA's, for the frames of a video.
    pub(super) video_tower: Option<ClipVision<B>>,
    pub(super) projector: Projector<B>,
    pub(super) language_model: Llama<B>,
    /// Ends a row of tiles, where the checkpoint was trained so; `[hidden]`.
    pub(super) image_newline: Option<Param<Tensor<B, 1>>>,
}

impl<B: VlmBackend> Networks<B> {
    /// Unfilled networks of this shape.
    pub(super) fn new(config: &LlavaConfig, device: &B::Device) -> Self {
        let newlines = matches!(config.pictures, Pictures::AnyRes { merge: Merge::SpatialUnpad, .. });
        Self {
            vision_tower: ClipVision::new(&config.vision, config.read_layers, device),
            video_tower: config.video.as_ref().map(|video| ClipVision::new(video, config.read_layers, device)),
            projector: Projector::new(config.vision.hidden_size, config.text.hidden_size, device),
            language_model: Llama::new(&config.text, device),
            image_newline: newlines.then(|| unfilled([config.text.hidden_size], device)),
        }
    }
}

impl<B: Backend> Rounds for Networks<B> {
    fn round(&mut self) {
        self.vision_tower.round();
        self.video_tower.as_mut().map(Rounds::round);
        self.projector.round();
        self.language_model.round();
    }
}

/// CLIP's text side, for methods that compare the picture with the question.
pub(super) struct Joint<B: Backend> {
    pub(super) clip: ClipJoint<B>,
    pub(super) tokenizer: ClipTokenizer,
}

/// A loaded model.
pub struct Llava<B: Backend> {
    pub(super) networks: Networks<B>,
    pub(super) joint: Option<Joint<B>>,
    pub(super) config: LlavaConfig,
    pub(super) tokenizer: LlamaTokenizer,
    pub(super) processor: ClipProcessor,
    pub(super) activations: DType,
    pub(super) device: B::Device,
    /// What the user wants instead of a method's own way with crops.
    pub(super) tiling: TilingChoice,
    /// The tensors that it was filled from.
    pub(super) source: Source,
    /// What a reader must know of tensors that were passed over.
    pub(super) notes: Vec<String>,
}

/// What to do with LLaVA-NeXT's crops, where it is not left to the method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TilingChoice {
    /// How the grid of tiles is chosen.
    pub grid: Option<GridRule>,
    /// How the crops become one sequence.
    pub merge: Option<Merge>,
}

impl<B: VlmBackend> Llava<B> {
    /// The model's shape.
    pub fn config(&self) -> &LlavaConfig {
        &self.config
    }

    /// What a reader must know of how it was filled.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What the language model computes in, and keeps keys and values in.
    pub fn activations(&self) -> DType {
        self.activations
    }

    /// What the language model's matrices are kept in.
    pub fn language_weights(&self) -> DType {
        self.networks.language_model.weights()
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &LlamaTokenizer {
        &self.tokenizer
    }

    /// The template that it was trained on.
    pub fn template(&self) -> Template {
        self.config.template()
    }

    /// The model's picture settings.
    pub fn processor(&self) -> &ClipProcessor {
        &self.processor
    }

    /// How a picture of `size` (width, height) is taken apart, and its tokens put in a row, where a method asks for
    /// `tiling`: the tiles, if there are any, and the order.
    pub fn tiles(&self, size: (usize, usize), tiling: Tiling) -> (Option<Tiles>, Merge) {
        let Pictures::AnyRes { resolutions, merge } = &self.config.pictures else { return (None, Merge::Flat) };
        let Tiling { grid, unpad } = tiling;
        let own = if *merge == Merge::SpatialUnpad && !unpad { Merge::Spatial } else { *merge };
        let grid = self.tiling.grid.unwrap_or(grid);
        (Some(grid.tiles(size, resolutions, self.processor.size)), self.tiling.merge.unwrap_or(own))
    }

    /// The normalised pixels of a picture's crops, `crops · 3 · side · side` of them.
    pub fn pixels(&self, picture: &Rgb, tiles: Option<Tiles>) -> Vec<f32> {
        match (&self.config.pictures, tiles) {
            (Pictures::Single(aspect), _) => self.processor.pixels(picture, *aspect),
            (_, tiles) => {
                // Without tiles, the whole picture alone.
                let tiles = tiles.unwrap_or(Tiles { columns: 0, rows: 0 });
                let crops = crops(picture, &self.processor, tiles);
                crops.iter().flat_map(|crop| self.processor.normalise(crop)).collect()
            }
        }
    }

    /// The tower's view of a picture's crops.
    ///
    /// # Errors
    /// When it is not finite.
    pub fn look(&self, pixels: Vec<f32>, needs: Needs) -> Result<Sight<B>, Error> {
        let side = self.processor.size;
        let crops = pixels.len() / (3 * side * side);
        let pixels = TensorData::new(pixels, [crops, 3, side, side]);
        let pixels = Tensor::<B, 4>::from_data(pixels, (&self.device, DType::F32)).cast(self.activations);
        let sight = self.networks.vision_tower.encode(pixels.clone(), needs);
        if sight.is_finite() { Ok(sight) } else { Err(self.not_finite(Stage::Tower(pixels))) }
    }

    /// The video tower's view of a video's frames.
    ///
    /// # Errors
    /// When they are not as many as it reads, or there is no such tower.
    pub fn watch(&self, video: &Video, needs: Needs) -> Result<Sight<B>, Error> {
        let (tower, frames) = match (&self.networks.video_tower, self.config.frames()) {
            (Some(tower), Some(frames)) if video.frames.len() == frames => (tower, frames),
            (Some(_), Some(frames)) => {
                let reason = format!("{} frames for a tower that reads {frames}", video.frames.len());
                return Err(Error::Video { path: video.path.clone(), reason });
            }
            _ => return Err(Error::NoVideo { path: video.path.clone() }),
        };
        let side = self.processor.size;
        let pixels: Vec<f32> = video.frames.iter().flat_map(|frame| self.processor.frame_pixels(frame)).collect();
        let pixels = TensorData::new(pixels, [frames, 3, side, side]);
        let pixels = Tensor::<B, 4>::from_data(pixels, (&self.device, DType::F32)).cast(self.activations);
        let sight = tower.encode(pixels.clone(), needs);
        if sight.is_finite() { Ok(sight) } else { Err(self.not_finite(Stage::VideoTower(pixels))) }
    }

    /// Tower features `[crops, patches, vision]` to embeddings `[crops, patches, hidden]`.
    ///
    /// # Errors
    /// When these are not finite.
    pub fn project(&self, features: Tensor<B, 3>) -> Result<Tensor<B, 3>, Error> {
        let projected = self.networks.projector.forward(features);
        if is_finite(&projected) { Ok(projected) } else { Err(self.not_finite(Stage::Projector)) }
    }

    /// The patches and a question in CLIP's joint space: `[crops, patches, joint]` and `[segments, joint]`.
    ///
    /// # Errors
    /// When the model was loaded without CLIP's text side.
    pub fn joint(&self, features: Tensor<B, 3>, question: &str) -> Result<(Tensor<B, 3>, Tensor<B, 2>), Error> {
        let Joint { clip, tokenizer } = self.joint.as_ref().ok_or(Error::NoClipText)?;
        let (image, text) = (clip.image_embeds(features), clip.text_embeds(&tokenizer.segments(question)?));
        if is_finite(&image) && is_finite(&text) { Ok((image, text)) } else { Err(self.not_finite(Stage::Joint)) }
    }

    /// # Errors
    /// When the model cannot read a prompt of so many tokens and one token more.
    pub fn check_length(&self, prompt: usize) -> Result<(), Error> {
        let limit = self.config.text.max_position_embeddings;
        if prompt < limit { Ok(()) } else { Err(Error::TooLong { prompt, limit }) }
    }

    /// An empty cache for a prompt and an answer of so many tokens, or for as many as the model reads.
    ///
    /// # Errors
    /// When the model cannot read the prompt and one token more.
    pub fn cache(&self, prompt: usize, answer: usize) -> Result<KvCache<B>, Error> {
        self.check_length(prompt)?;
        let limit = self.config.text.max_position_embeddings;
        let answer = answer.min(limit - prompt);
        Ok(KvCache::new(&self.config.text, prompt, answer, self.activations, &self.device))
    }

    /// Runs embeddings `[1, new, hidden]` and returns the next token's logits, which may be anything: see [`Self::check_logits`].
    pub fn logits(&self, embeds: Tensor<B, 3>, cache: &mut KvCache<B>) -> Vec<f32> {
        host(self.networks.language_model.forward(embeds, cache))
    }

    /// Runs the new tokens of several sequences, `[1, all of them, hidden]`, and returns the logits of what comes next in each.
    pub fn logits_each(&self, embeds: Tensor<B, 3>, parts: &mut [Part<B>]) -> Vec<Vec<f32>> {
        if let [Part { cache, shared: 0, .. }] = parts {
            return vec![self.logits(embeds, cache)];
        }
        let logits = host(self.networks.language_model.forward_each(embeds, parts));
        logits.chunks(logits.len() / parts.len().max(1)).map(<[f32]>::to_vec).collect()
    }

    /// Refuses logits, or attention in the language model, that are not finite; `embeds` makes the embeddings `[1, tokens, hidden]` that they come from, where they are known.
    ///
    /// # Errors
    /// When one is not; the error names the part of the model that is to blame.
    pub fn check_logits(&self, logits: &[f32], embeds: impl FnOnce() -> Option<Tensor<B, 3>>) -> Result<(), Error> {
        if logits.iter().all(|logit| logit.is_finite()) {
            return Ok(());
        }
        Err(self.not_finite(Stage::Language(embeds())))
    }

    /// [`Self::logits`] for a prompt of which visual tokens are dropped inside the language model; also returns which of them
    /// stayed.
    ///
    /// # Errors
    /// When the budget is not between 1 and the number of visual tokens, or the model has no layer to cut before.
    pub fn logits_cut(
        &self,
        embeds: Tensor<B, 3>,
        cache: &mut KvCache<B>,
        cut: &LayerCut<B>,
    ) -> Result<(Vec<f32>, Vec<usize>), Error> {
        check_layer(cut.pruner.layer(), self.config.text.num_hidden_layers)?;
        let (logits, kept) = self.networks.language_model.forward_cut(embeds, cache, cut)?;
        Ok((host(logits), kept))
    }

    /// The language model itself.
    pub fn language_model(&self) -> &Llama<B> {
        &self.networks.language_model
    }

    /// Embeddings of tokens, `[1, ids, hidden]`.
    pub fn embed(&self, ids: &[u32]) -> Tensor<B, 3> {
        self.networks.language_model.embed(ids, self.activations)
    }

    /// What ends a row of tiles, `[hidden]`.
    pub(super) fn newline(&self) -> Option<Tensor<B, 1>> {
        self.networks.image_newline.as_ref().map(|newline| newline.val().cast(self.activations))
    }

    /// Waits for queued work, so that times mean something on GPUs.
    pub(super) fn wait(&self) {
        // A device that fails here fails again, and is reported, when results are read.
        let _ = B::sync(&self.device);
    }
}

/// Refuses a cut where there are not layers on both sides.
///
/// # Errors
/// When `layer` is not between 1 and one less than `layers`.
pub fn check_layer(layer: usize, layers: usize) -> Result<(), Error> {
    if (1..layers).contains(&layer) { Ok(()) } else { Err(Error::Layer { layer, layers }) }
}
