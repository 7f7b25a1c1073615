//! Video-LLaVA's networks, loaded: LLaVA's, and a tower for videos.

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};
use secateur_backends::VlmBackend;

use crate::{
    Error,
    image::{ClipProcessor, Rgb, Tiles},
    model::{
        Decoder, Fill, LoadOptions, Placement, Question, Rope, Shown, Stage, Views, Vlm,
        families::llava::{LlavaConfig, LlavaVlm},
        towers::clip::{ClipVision, ClipVisionConfig, VisionOutput},
    },
    pruner::{Keep, Needs, Tiling},
    sequence::{Merge, Visual, with_class},
    video::Media,
};

/// The tower for videos, under its name in the checkpoint.
#[derive(Module, Debug)]
struct VideoNetworks<B: Backend> {
    video_tower: ClipVision<B>,
}

/// A loaded Video-LLaVA.
pub struct VideoLlavaVlm<B: Backend> {
    images: LlavaVlm<B>,
    videos: VideoNetworks<B>,
    /// Number of frames that the tower for videos reads.
    frames: usize,
}

impl<B: VlmBackend> VideoLlavaVlm<B> {
    /// Fills the networks.
    ///
    /// # Errors
    /// When names and shapes do not fit, or a shard is damaged.
    pub(super) fn load(
        config: LlavaConfig,
        video: &ClipVisionConfig,
        processor: ClipProcessor,
        fill: &mut Fill<B>,
        options: LoadOptions,
    ) -> Result<Self, Error> {
        let tower = ClipVision::new(video, config.vision_feature_layer, fill.build());
        let videos = fill.module("video_tower.", VideoNetworks { video_tower: tower })?;
        let images = LlavaVlm::load(config, processor, fill, options)?;
        Ok(Self { images, videos, frames: video.num_frames })
    }
}

impl<B: VlmBackend> Vlm<B> for VideoLlavaVlm<B> {
    fn preprocess(&self, media: &Media, tiling: Tiling) -> Result<Views, Error> {
        let video = match media {
            Media::Image(_) => return self.images.preprocess(media, tiling),
            Media::Video(video) => video,
        };
        if video.frames.len() != self.frames {
            let reason = format!("{} frames for a tower that reads {}", video.frames.len(), self.frames);
            return Err(Error::Video { path: video.path.clone(), reason });
        }
        let processor = self.images.processor();
        let pixels: Vec<f32> = video.frames.iter().flat_map(|frame| processor.frame_pixels(frame)).collect();
        let size = video.frames.first().map_or((0, 0), |frame| (frame.width, frame.height));
        let shape = [self.frames, 3, processor.size, processor.size];
        let placement = Placement {
            grid: self.images.grid(),
            size,
            video: true,
            tiles: None,
            merge: Merge::Flat,
            items: self.frames,
            placeholders: self.frames,
            step: 0,
        };
        Ok(Views { pixels, shape, placement })
    }

    fn most_tokens(&self, media: &Media) -> usize {
        self.images.most_tokens(media)
    }

    fn squeezed(&self, image: &Rgb) -> (Rgb, Views) {
        self.images.squeezed(image)
    }

    fn encode(&self, views: &Views, needs: Needs) -> VisionOutput<B> {
        match views.placement.video {
            true => self.videos.video_tower.encode(self.images.on_device(views), needs),
            false => self.images.encode(views, needs),
        }
    }

    fn project(&self, features: Tensor<B, 3>) -> Tensor<B, 3> {
        self.images.project(features)
    }

    fn joint(&self, features: Tensor<B, 3>, question: Question) -> Result<(Tensor<B, 3>, Tensor<B, 2>), Error> {
        self.images.joint(features, question)
    }

    /// The order of the kept tokens. Video-LLaVA reads \[CLS\] of each frame of a video; FasterVLM's branch, like everything for images, leaves it
    /// out.
    fn sequence(&self, placement: &Placement, keep: &Keep, class: bool) -> Vec<Visual> {
        let order = self.images.sequence(placement, keep, false);
        if class && placement.video { with_class(order) } else { order }
    }

    fn unpruned(&self, placement: &Placement) -> (Placement, usize) {
        if placement.video { (*placement, self.frames) } else { self.images.unpruned(placement) }
    }

    fn shown(&self, media: &Media, tiles: Option<Tiles>) -> Shown {
        self.images.shown(media, tiles)
    }

    fn decoder(&self) -> &Decoder<B> {
        self.images.decoder()
    }

    fn rope(&self) -> &Rope<B> {
        self.images.rope()
    }

    fn first_overflow(&self, stage: &Stage<B>) -> Option<String> {
        match stage {
            Stage::Tower(views) if views.placement.video => {
                let found = self.videos.video_tower.first_overflow(self.images.on_device(views));
                found.map(|path| format!("video_tower.{path}"))
            }
            stage => self.images.first_overflow(stage),
        }
    }
}
