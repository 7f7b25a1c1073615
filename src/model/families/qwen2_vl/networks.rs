//! The networks of Qwen2-VL and Qwen2.5-VL, loaded.

use burn::{
    module::Module,
    tensor::{DType, Tensor, TensorData, backend::Backend},
};
use secateur_backends::VlmBackend;

use super::{
    Qwen2Vl,
    config::VisionConfig,
    tower::{Merger, Tower},
};
use crate::{
    Error,
    image::{DynamicProcessor, Grid, PixelLimits, Rgb, Tiles},
    model::{
        Build, Decoder, DecoderConfig, Fill, MediaPositions, Placement, Question, Rope, Shown, Stage, Views, VisionOutput, Vlm,
    },
    pruner::{Keep, Needs, Relevance, Tiling},
    sequence::{Merge, Visual},
    tensor::is_finite,
    video::Media,
};

/// The three networks, as one module that a checkpoint fills.
#[derive(Module, Debug)]
struct Networks<B: Backend> {
    vision_tower: Tower<B>,
    projector: Merger<B>,
    language_model: Decoder<B>,
}

/// The frames a second of a video that comes without times, as the processor assumes them.
const RATE: f64 = 2.0;

/// A loaded Qwen2-VL or Qwen2.5-VL.
pub struct QwenVlm<B: Backend> {
    networks: Networks<B>,
    vision: VisionConfig,
    processor: DynamicProcessor,
    rope: Rope<B>,
    activations: DType,
    device: B::Device,
}

impl<B: VlmBackend> Networks<B> {
    fn new(vision: &VisionConfig, text: &DecoderConfig, build: Build<B>) -> Self {
        Self {
            vision_tower: Tower::new(vision, build),
            projector: Merger::new(vision, text.hidden_size, build),
            language_model: Decoder::new(text, build),
        }
    }
}

impl<B: VlmBackend> QwenVlm<B> {
    /// Fills the networks.
    ///
    /// # Errors
    /// When names and shapes do not fit, or a shard is damaged.
    pub(super) fn load(checkpoint: Qwen2Vl, fill: &mut Fill<B>) -> Result<Self, Error> {
        let Qwen2Vl { vision, text, processor, .. } = checkpoint;
        let networks = fill.module("", Networks::new(&vision, &text, fill.build()))?;
        let (rope, activations, device) = (Rope::new(&text, fill.device()), fill.activations(), fill.device().clone());
        Ok(Self { networks, vision, processor, rope, activations, device })
    }

    /// Pixels on the device, `[items, patches, numbers]`.
    fn on_device(&self, views: &Views) -> Tensor<B, 3> {
        let [items, patches, planes, pixels] = views.shape;
        let data = TensorData::new(views.pixels.clone(), [items, patches, planes * pixels]);
        Tensor::<B, 3>::from_data(data, (&self.device, DType::F32)).cast(self.activations)
    }

    /// Views of frames that were resized.
    fn views(&self, frames: &[&Rgb], placement: Placement) -> Views {
        let DynamicProcessor { patch, merge, frames: each, .. } = self.processor;
        let patches = placement.grid.tokens() * merge * merge;
        let shape = [placement.items, patches, 3 * each, patch * patch];
        Views { pixels: self.processor.patches(frames), shape, placement }
    }

    /// The placement of an image, or of a video of `frames`, that was resized to the size of `first`.
    fn placement(&self, first: &Rgb, size: (usize, usize), video: Option<usize>, step: u32) -> Placement {
        let token = self.processor.token();
        Placement {
            grid: Grid::image(first.height / token, first.width / token),
            size,
            video: video.is_some(),
            tiles: None,
            merge: Merge::Flat,
            items: video.map_or(1, |frames| frames.div_ceil(self.processor.frames)),
            placeholders: 1,
            step,
        }
    }

    /// The views of an image that was resized: a still image is as many equal frames as a patch covers.
    fn image_views(&self, resized: &Rgb, size: (usize, usize)) -> Views {
        self.views(&vec![resized; self.processor.frames], self.placement(resized, size, None, 0))
    }

    /// The positions between two slices of a video with so many frames a second.
    fn step(&self, rate: Option<f64>) -> u32 {
        match self.vision.tokens_per_second {
            None => 1,
            // transformers drops the fraction of the seconds before it multiplies.
            Some(tokens) => ((self.processor.frames as f64 / rate.unwrap_or(RATE)).floor() * tokens) as u32,
        }
    }

    /// The frames of a video at the size that the tower reads; the last one is there again where a slice of time lacks frames.
    fn frames(&self, frames: &[Rgb]) -> Result<Vec<Rgb>, Error> {
        let mut resized =
            frames.iter().map(|frame| self.processor.resized(frame, self.processor.videos)).collect::<Result<Vec<_>, _>>()?;
        while !resized.is_empty() && !resized.len().is_multiple_of(self.processor.frames) {
            resized.extend(resized.last().cloned());
        }
        Ok(resized)
    }

    /// The number of tokens of an image of `size`.
    fn tokens(&self, size: (usize, usize), limits: PixelLimits) -> usize {
        let token = self.processor.token();
        // An image that is refused is refused where it is encoded.
        self.processor.size(size, limits).map_or(0, |(width, height)| (width / token) * (height / token))
    }
}

impl<B: VlmBackend> Vlm<B> for QwenVlm<B> {
    fn preprocess(&self, media: &Media, _tiling: Tiling) -> Result<Views, Error> {
        match media {
            Media::Image(image) => {
                let resized = self.processor.resized(image, self.processor.images)?;
                Ok(self.image_views(&resized, (image.width, image.height)))
            }
            Media::Video(video) => {
                let frames = self.frames(&video.frames)?;
                let Some((first, own)) = frames.first().zip(video.frames.first()) else {
                    return Err(Error::Video { path: video.path.clone(), reason: "there is no frame in it".to_owned() });
                };
                let size = (own.width, own.height);
                let placement = self.placement(first, size, Some(frames.len()), self.step(video.rate));
                Ok(self.views(&frames.iter().collect::<Vec<_>>(), placement))
            }
        }
    }

    fn most_tokens(&self, media: &Media) -> usize {
        match media {
            Media::Image(image) => self.tokens((image.width, image.height), self.processor.images),
            Media::Video(video) => {
                let slices = video.frames.len().div_ceil(self.processor.frames);
                let first = video.frames.first().map_or((1, 1), |frame| (frame.width, frame.height));
                slices * self.tokens(first, self.processor.videos)
            }
        }
    }

    fn squeezed(&self, image: &Rgb) -> (Rgb, Views) {
        // An image that is too long for the processor is seen as a square.
        let side = self.processor.token();
        let resized = self.processor.resized(image, self.processor.images);
        let resized = resized.unwrap_or_else(|_| Rgb { width: side, height: side, data: vec![0; 3 * side * side] });
        let views = self.image_views(&resized, (image.width, image.height));
        (resized, views)
    }

    fn encode(&self, views: &Views, needs: Needs) -> VisionOutput<B> {
        let Networks { vision_tower, projector, .. } = &self.networks;
        vision_tower.encode(self.on_device(views), views.placement.grid, projector, needs)
    }

    /// The merged embeddings as they are: the merger is a part of [`Self::encode`], since methods compare what it makes.
    fn project(&self, features: Tensor<B, 3>) -> Tensor<B, 3> {
        features
    }

    /// The merged embeddings, and the decoder's embeddings of the user's own text.
    fn joint(&self, features: Tensor<B, 3>, question: Question) -> Result<(Tensor<B, 3>, Tensor<B, 2>), Error> {
        let embeddings = match question.ids {
            // Without words, tokens are like nothing, and matter alike.
            [] => Tensor::zeros([1, features.dims()[2]], (&self.device, features.dtype())),
            ids => self.decoder().embed(ids, self.activations).squeeze_dim(0),
        };
        Ok((features, embeddings))
    }

    fn relevance(&self) -> Relevance {
        Relevance::Like
    }

    /// Time, row and column of each token; what follows begins behind the largest of all tokens, whether they are kept or not.
    fn positions(&self, placement: &Placement, order: &[Visual], keep: &Keep) -> Option<MediaPositions> {
        let &Placement { grid, items, step, .. } = placement;
        let of = |crop: usize, token: usize| {
            let time = u32::try_from(crop).unwrap_or(u32::MAX).saturating_mul(step);
            [time, (token / grid.columns) as u32, (token % grid.columns) as u32]
        };
        let tokens = order.iter().map(|visual| match *visual {
            Visual::Patch { crop, patch } => of(crop, patch),
            Visual::Blend { crop, index } => of(crop, keep.blends()[crop][index].centre.unwrap_or(0)),
            Visual::Newline | Visual::Class { .. } => [0; 3],
        });
        let last = (items as u32 - 1).saturating_mul(step).max(grid.rows as u32 - 1).max(grid.columns as u32 - 1);
        Some(MediaPositions { tokens: tokens.collect(), length: last.saturating_add(1) })
    }

    /// Item after item, tokens in the order of rows; a blend stands at the place of its centre.
    fn sequence(&self, _placement: &Placement, keep: &Keep, _class: bool) -> Vec<Visual> {
        let mut all = Vec::new();
        for (crop, (plain, blends)) in keep.plain().iter().zip(keep.blends()).enumerate() {
            let plain = plain.iter().map(|&patch| (patch, Visual::Patch { crop, patch }));
            // A blend without a centre stands behind all others.
            let blends = blends.iter().enumerate();
            let blends = blends.map(|(index, blend)| (blend.centre.unwrap_or(usize::MAX), Visual::Blend { crop, index }));
            let mut item: Vec<(usize, Visual)> = plain.chain(blends).collect();
            item.sort_by_key(|(place, _)| *place);
            all.extend(item.into_iter().map(|(_, visual)| visual));
        }
        all
    }

    fn unpruned(&self, placement: &Placement) -> (Placement, usize) {
        (*placement, placement.items)
    }

    fn shown(&self, media: &Media, _tiles: Option<Tiles>) -> Shown {
        match media {
            Media::Image(image) => Shown { items: vec![self.squeezed(image).0], columns: None, unpadded: None },
            Media::Video(video) => {
                let frames = self.frames(&video.frames).unwrap_or_default();
                let items = frames.into_iter().step_by(self.processor.frames).collect();
                Shown { items, columns: None, unpadded: None }
            }
        }
    }

    fn decoder(&self) -> &Decoder<B> {
        &self.networks.language_model
    }

    fn rope(&self) -> &Rope<B> {
        &self.rope
    }

    fn first_overflow(&self, stage: &Stage<B>) -> Option<String> {
        match stage {
            Stage::Tower(views) => {
                let found = self.networks.vision_tower.first_overflow(self.on_device(views), views.placement.grid);
                Some(found.map_or_else(|| "projector.".to_owned(), |path| format!("vision_tower.{path}")))
            }
            Stage::Joint | Stage::Projector => Some("projector.".to_owned()),
            Stage::Decoder(embeds) => {
                let embeds = embeds.clone()?;
                if !is_finite(&embeds) {
                    return Some("projector.".to_owned());
                }
                let found = self.networks.language_model.first_overflow(embeds, &self.rope);
                found.map(|path| format!("language_model.{path}"))
            }
        }
    }
}
