//! Video-LLaVA on Vicuna in its original layout: LLaVA with LanguageBind's towers, one for images and one for the frames of a video.

mod networks;

use std::path::Path;

pub use networks::VideoLlavaVlm;
use secateur_backends::VlmBackend;
use secateur_weights::{Rename, find_config};

use super::{
    Chat, FamilyCheckpoint, Known, Place, Tower,
    llava::{ClipConfig, LlavaConfig, ORIGINAL, OriginalConfig, chat::VICUNA_V1, check_tiling, clip_l, is_video_llava},
};
use crate::{
    Error,
    image::{Aspect, ClipProcessor, Grid},
    model::{
        DecoderConfig, Fill, LoadOptions, TilingChoice,
        config::{CONFIG, named_in_config, read_json, refuse_quantised},
        families::llava::Images,
        towers::clip::{ClipVisionConfig, TextSide},
    },
    text::{ChatForm, Placement, Spaces, Tokenizer, Videos},
    video::FrameRule,
};

/// Video-LLaVA's `llava_v1`, for videos: another system text than LLaVA's, and all placeholders on one line.
pub const LLAVA_V1: ChatForm = ChatForm {
    name: "llava_v1",
    start: "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, \
            detailed, and polite answers to the human's questions. ",
    placement: Placement::OneLine,
    videos: Videos::Frames,
    ..VICUNA_V1
};

/// A checkpoint of Video-LLaVA, of which no weight has been touched.
#[derive(Clone, Debug)]
pub struct VideoLlava {
    /// The shapes of the networks, with the tower for images.
    pub config: LlavaConfig,
    /// The shape of the tower for videos.
    pub video: ClipVisionConfig,
    processor: ClipProcessor,
    towers: Vec<Tower>,
}

impl VideoLlava {
    /// The models that the family is made for.
    pub(super) const KNOWN: &[Known] = &[Known {
        id: "LanguageBind/Video-LLaVA-7B",
        about: "Video-LLaVA 7B, images and videos, original layout",
    }];
    /// The names of the family's presets.
    pub(super) const PRESETS: &[&str] = &["video-7b"];

    /// The preset `name`.
    pub(super) fn preset(name: &str) -> Option<Self> {
        Self::PRESETS.contains(&name).then(|| {
            let vision = ClipVisionConfig { hidden_act: "gelu".to_owned(), ..clip_l(224) };
            let video = ClipVisionConfig { add_time_attn: true, num_frames: 8, ..vision.clone() };
            let (text, images) = (DecoderConfig::default(), Images::Single(Aspect::Pad));
            let config = LlavaConfig { vision, text, vision_feature_layer: 23, images };
            Self { config, video, processor: ClipProcessor::languagebind(224), towers: Vec::new() }
        })
    }

    /// Whether the checkpoint at `place` is a Video-LLaVA.
    ///
    /// # Errors
    /// When its config cannot be read.
    pub(super) fn detect(place: &Place) -> Result<bool, Error> {
        Ok(place.pair.is_none() && is_video_llava(place.config)?)
    }

    /// Reads the small files of a checkpoint.
    ///
    /// # Errors
    /// When one is missing or damaged, or asks for something that is not known.
    pub(super) fn open(place: &Place) -> Result<Self, Error> {
        let path = place.config;
        place.refuse_quantised()?;
        let config = OriginalConfig::read(path)?;
        let tower = |field, name: &str, module| {
            let folder = named_in_config(path, field, name, find_config(name, Some(place.folder), &[]))?;
            Ok::<_, Error>(Tower { field, name: name.to_owned(), folder, module, bare: true })
        };
        let [image, video] = config.towers(path)?;
        let image = tower("mm_image_tower", image, "vision_tower.")?;
        let video = tower("mm_video_tower", video, "video_tower.")?;
        let [image_config, video_config] = [&image, &video].map(|tower| tower.folder.join(CONFIG));
        refuse_quantised(&image_config)?;
        refuse_quantised(&video_config)?;
        let config = config.check(path, &image_config)?;
        let video_tower = check_video_tower(&video_config, &config.vision)?;
        // LanguageBind's checkpoints have no settings of an image processor; its code has the numbers.
        let processor = ClipProcessor::languagebind(config.vision.image_size);
        Ok(Self { config, video: video_tower, processor, towers: vec![image, video] })
    }

    /// The networks, filled.
    ///
    /// # Errors
    /// When names and shapes do not fit, or a shard is damaged.
    pub(super) fn load<B: VlmBackend>(
        self,
        fill: &mut Fill<B>,
        options: LoadOptions,
    ) -> Result<VideoLlavaVlm<B>, Error> {
        VideoLlavaVlm::load(self.config, &self.video, self.processor, fill, options)
    }
}

/// The checked config of a video tower, whose features go through the same projector as those of the tower `vision`.
fn check_video_tower(path: &Path, vision: &ClipVisionConfig) -> Result<ClipVisionConfig, Error> {
    let video = read_json::<ClipConfig>(path)?.vision_config;
    video.check(path)?;
    let sizes =
        |tower: &ClipVisionConfig| (tower.hidden_size, tower.image_size, tower.patch_size, tower.num_hidden_layers);
    if sizes(&video) != sizes(vision) {
        return Err(Error::config(
            path,
            format!(
                "the video tower has hidden size, image size, patch size and layers {:?}, the image tower {:?}; \
                 expected the same",
                sizes(&video),
                sizes(vision)
            ),
        ));
    }
    Ok(video)
}

impl FamilyCheckpoint for VideoLlava {
    fn decoder(&self) -> &DecoderConfig {
        &self.config.text
    }

    fn decoder_mut(&mut self) -> &mut DecoderConfig {
        &mut self.config.text
    }

    fn grid(&self) -> Grid {
        self.config.vision.grid()
    }

    fn usual_side(&self) -> usize {
        self.config.vision.image_size
    }

    fn frames(&self) -> Option<FrameRule> {
        Some(FrameRule::Count(self.video.num_frames))
    }

    /// Video-LLaVA's own form, for images too; its scripts for benchmarks of images ask like LLaVA's.
    fn chat(&self, _tokenizer: &Tokenizer, _config: &Path) -> Result<Chat, Error> {
        Ok(Chat { benchmarks: &VICUNA_V1, ..Chat::of(&LLAVA_V1, Spaces::Slow) })
    }

    fn names(&self) -> &'static Rename {
        &ORIGINAL
    }

    fn towers(&self) -> &[Tower] {
        &self.towers
    }

    fn has_image_settings(&self) -> bool {
        false
    }

    fn check_tiling(&self, choice: TilingChoice, folder: &Path) -> Result<(), Error> {
        check_tiling(&self.config.images, choice, folder)
    }

    fn text_side(&self, _clip: Option<&str>, folder: &Path) -> Result<TextSide, Error> {
        let reason = "methods that compare patches with the question need the text side of CLIP, and LanguageBind's is \
                      another network";
        Err(Error::config(folder, reason))
    }

    fn has_random_text_side(&self) -> bool {
        false
    }
}
