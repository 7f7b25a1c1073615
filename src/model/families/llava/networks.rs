//! LLaVA's networks, loaded.

use burn::{
    module::{Module, Param},
    tensor::{DType, Tensor, TensorData, backend::Backend},
};
use secateur_backends::VlmBackend;

use super::{Images, LlavaConfig, Projector, shown};
use crate::{
    Error,
    image::{ClipProcessor, Grid, Rgb, Tiles, crops},
    model::{
        Build, Decoder, Fill, LoadOptions, Placement, Question, Rope, Shown, Stage, TilingChoice, Views, Vlm,
        blocks::unfilled,
        towers::clip::{ClipVision, Joint, VisionOutput},
    },
    pruner::{Keep, Needs, NoPruning, Tiling},
    sequence::{Geometry, Merge, Visual, order},
    tensor::is_finite,
    video::Media,
};

/// The three networks, as one module that a checkpoint fills.
#[derive(Module, Debug)]
pub struct Networks<B: Backend> {
    vision_tower: ClipVision<B>,
    projector: Projector<B>,
    language_model: Decoder<B>,
    /// The embedding that ends a row of patches, `[hidden]`, where the checkpoint was trained with one.
    image_newline: Option<Param<Tensor<B, 1>>>,
}

impl<B: VlmBackend> Networks<B> {
    /// Unfilled networks of the shape `config`.
    fn new(config: &LlavaConfig, build: Build<B>) -> Self {
        let newlines = matches!(config.images, Images::AnyRes { merge: Merge::SpatialUnpad, .. });
        Self {
            vision_tower: ClipVision::new(&config.vision, config.vision_feature_layer, build),
            projector: Projector::new(config.vision.hidden_size, config.text.hidden_size, build),
            language_model: Decoder::new(&config.text, build),
            image_newline: newlines.then(|| unfilled([config.text.hidden_size], build.device)),
        }
    }
}

/// A loaded LLaVA-1.5 or LLaVA-NeXT.
pub struct LlavaVlm<B: Backend> {
    networks: Networks<B>,
    joint: Option<Joint<B>>,
    config: LlavaConfig,
    processor: ClipProcessor,
    /// The user's choice of tiles and of their order in the sequence, in place of the method's.
    tiling: TilingChoice,
    rope: Rope<B>,
    activations: DType,
    device: B::Device,
}

impl<B: VlmBackend> LlavaVlm<B> {
    /// Fills the networks.
    ///
    /// # Errors
    /// When names and shapes do not fit, or a shard is damaged.
    pub(in crate::model) fn load(
        config: LlavaConfig,
        processor: ClipProcessor,
        fill: &mut Fill<B>,
        options: LoadOptions,
    ) -> Result<Self, Error> {
        let networks = fill.module("", Networks::new(&config, fill.build()))?;
        let joint = fill.joint(&config.vision)?;
        let (rope, activations, device) = (Rope::new(&config.text, fill.device()), fill.activations(), fill.device().clone());
        Ok(Self { networks, joint, config, processor, tiling: options.tiling, rope, activations, device })
    }

    /// The settings of the image processor.
    pub(in crate::model) fn processor(&self) -> &ClipProcessor {
        &self.processor
    }

    /// The tokens of one crop.
    pub(in crate::model) fn grid(&self) -> Grid {
        self.config.vision.grid()
    }

    /// Pixels on the device, `[items, 3, height, width]`.
    pub(in crate::model) fn on_device(&self, views: &Views) -> Tensor<B, 4> {
        let pixels = TensorData::new(views.pixels.clone(), views.shape);
        Tensor::<B, 4>::from_data(pixels, (&self.device, DType::F32)).cast(self.activations)
    }

    /// The tiles of an image of `size` (width, height), if there are any, and the rule by which the crops become one sequence, where a method asks
    /// for `tiling`.
    fn tiles(&self, size: (usize, usize), tiling: Tiling) -> (Option<Tiles>, Merge) {
        let Images::AnyRes { resolutions, merge } = &self.config.images else { return (None, Merge::Flat) };
        let Tiling { grid, unpad } = tiling;
        let own = if *merge == Merge::SpatialUnpad && !unpad { Merge::Spatial } else { *merge };
        let grid = self.tiling.grid.unwrap_or(grid);
        (Some(grid.tiles(size, resolutions, self.processor.size)), self.tiling.merge.unwrap_or(own))
    }

    /// The normalised pixels of an image's crops, one after another.
    fn pixels(&self, image: &Rgb, tiles: Option<Tiles>) -> Vec<f32> {
        match (&self.config.images, tiles) {
            (Images::Single(aspect), _) => self.processor.pixels(image, *aspect),
            (_, tiles) => {
                // The whole image is the only crop without tiles.
                let tiles = tiles.unwrap_or(Tiles { columns: 0, rows: 0 });
                let crops = crops(image, &self.processor, tiles);
                crops.iter().flat_map(|crop| self.processor.normalise(crop)).collect()
            }
        }
    }

    /// Views of `pixels`, for an image of `size` (width, height).
    fn views(&self, pixels: Vec<f32>, size: (usize, usize), (tiles, merge): (Option<Tiles>, Merge)) -> Views {
        let side = self.processor.size;
        let items = pixels.len() / (3 * side * side);
        let shape = [items, 3, side, side];
        let grid = self.grid();
        let placement = Placement { grid, size, video: false, tiles, merge, items, placeholders: 1, step: 0 };
        Views { pixels, shape, placement }
    }
}

impl<B: VlmBackend> Vlm<B> for LlavaVlm<B> {
    fn preprocess(&self, media: &Media, tiling: Tiling) -> Result<Views, Error> {
        let image = match media {
            Media::Image(image) => image,
            Media::Video(video) => return Err(Error::NoVideo { path: video.path.clone() }),
        };
        let size = (image.width, image.height);
        let (tiles, merge) = self.tiles(size, tiling);
        Ok(self.views(self.pixels(image, tiles), size, (tiles, merge)))
    }

    fn most_tokens(&self, media: &Media) -> usize {
        let side = self.processor.size;
        let items = match (media, &self.config.images) {
            (Media::Video(video), _) => video.frames.len(),
            (Media::Image(_), Images::Single(_)) => 1,
            // VisPruner and CDPruner always take four tiles.
            (Media::Image(_), Images::AnyRes { resolutions, .. }) => {
                let tiles = resolutions.iter().map(|(width, height)| width / side * (height / side));
                1 + tiles.max().unwrap_or(0).max(4)
            }
        };
        // A row may end with a newline token, and a frame may have its class token.
        items * (self.grid().tokens() + self.grid().rows + 1)
    }

    fn squeezed(&self, image: &Rgb) -> (Rgb, Views) {
        let square = crops(image, &self.processor, Tiles { columns: 0, rows: 0 }).swap_remove(0);
        let views = self.views(self.processor.normalise(&square), (image.width, image.height), (None, Merge::Flat));
        (square, views)
    }

    fn encode(&self, views: &Views, needs: Needs) -> VisionOutput<B> {
        self.networks.vision_tower.encode(self.on_device(views), needs)
    }

    fn project(&self, features: Tensor<B, 3>) -> Tensor<B, 3> {
        self.networks.projector.forward(features)
    }

    fn joint(&self, features: Tensor<B, 3>, question: Question) -> Result<(Tensor<B, 3>, Tensor<B, 2>), Error> {
        self.joint.as_ref().ok_or(Error::NoClipText)?.compare(features, question.text)
    }

    fn sequence(&self, placement: &Placement, keep: &Keep, _class: bool) -> Vec<Visual> {
        let &Placement { size, tiles, merge, grid, .. } = placement;
        order(keep, Geometry { tiles, size, side: grid.columns }, merge)
    }

    fn unpruned(&self, placement: &Placement) -> (Placement, usize) {
        let (tiles, merge) = self.tiles(placement.size, NoPruning::default().tiling);
        (Placement { tiles, merge, ..*placement }, tiles.map_or(1, Tiles::crops))
    }

    fn newline(&self) -> Option<Tensor<B, 1>> {
        self.networks.image_newline.as_ref().map(|newline| newline.val().cast(self.activations))
    }

    fn shown(&self, media: &Media, tiles: Option<Tiles>) -> Shown {
        shown::shown(media, tiles, &self.processor, &self.config.images)
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
                let found = self.networks.vision_tower.first_overflow(self.on_device(views));
                found.map(|path| format!("vision_tower.{path}"))
            }
            Stage::Joint => Some("clip.".to_owned()),
            Stage::Projector => Some("projector.".to_owned()),
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
