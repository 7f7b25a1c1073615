//! The smallest family that answers, for tests: an image's four quarters are four tokens, their mean colours the features.

use std::path::Path;

use burn::tensor::{Tensor, TensorData, backend::Backend};
use secateur_backends::VlmBackend;
use secateur_weights::Rename;

use super::{Chat, FamilyCheckpoint, Known, Place};
use crate::{
    Error,
    image::{Grid, Rgb, Tiles},
    model::{
        Decoder, DecoderConfig, Fill, LoadOptions, Placement, Question, Rope, Shown, Stage, TilingChoice, Views, VisionOutput, Vlm,
        config::read_json,
        towers::clip::TextSide,
    },
    pruner::{Keep, Needs, Tiling},
    sequence::{Merge, Visual},
    text::{ChatForm, Placement as Placeholders, Spaces, Tokenizer},
    video::Media,
};

const FORM: ChatForm = ChatForm {
    system: crate::text::System::Start(["", ""]),
    name: "toy",
    start: "",
    user: ["", " ="],
    answer: [" ", "\n"],
    trims: true,
    placement: Placeholders::OneLine,
    media: ["", ""],
    videos: crate::text::Videos::None,
};

/// A checkpoint of the toy family.
#[derive(Clone, Debug)]
pub struct Toy {
    decoder: DecoderConfig,
}

impl Toy {
    pub(super) const KNOWN: &[Known] = &[];
    pub(super) const PRESETS: &[&str] = &["toy"];

    pub(super) fn preset(name: &str) -> Option<Self> {
        (name == "toy").then(|| Self {
            decoder: DecoderConfig {
                hidden_size: 16,
                intermediate_size: 32,
                num_hidden_layers: 2,
                num_attention_heads: 4,
                num_key_value_heads: 2,
                head_dim: 8,
                tied: true,
                max_position_embeddings: 64,
                ..DecoderConfig::default()
            },
        })
    }

    pub(super) fn detect(place: &Place) -> Result<bool, Error> {
        Ok(place.pair.is_none() && read_json::<serde_json::Value>(place.config)?["model_type"] == "toy")
    }

    pub(super) fn open(_place: &Place) -> Result<Self, Error> {
        Ok(Self::preset("toy").expect("it is there"))
    }

    pub(super) fn load<B: VlmBackend>(self, fill: &mut Fill<B>, _options: LoadOptions) -> Result<ToyVlm<B>, Error> {
        let decoder = fill.module("", Decoder::new(&self.decoder, fill.build()))?;
        Ok(ToyVlm { decoder, rope: Rope::new(&self.decoder, fill.device()), hidden: self.decoder.hidden_size })
    }
}

impl FamilyCheckpoint for Toy {
    fn decoder(&self) -> &DecoderConfig {
        &self.decoder
    }

    fn decoder_mut(&mut self) -> &mut DecoderConfig {
        &mut self.decoder
    }

    fn grid(&self) -> Grid {
        Grid::image(2, 2)
    }

    fn usual_side(&self) -> usize {
        2
    }

    fn chat(&self, _tokenizer: &Tokenizer, _config: &Path) -> Result<Chat, Error> {
        Ok(Chat::of(&FORM, Spaces::Slow))
    }

    fn names(&self) -> &'static Rename {
        &Rename { prefixes: &[], parts: &[], ignored: &[] }
    }

    fn has_image_settings(&self) -> bool {
        false
    }

    fn check_tiling(&self, _choice: TilingChoice, _folder: &Path) -> Result<(), Error> {
        Ok(())
    }

    fn text_side(&self, _clip: Option<&str>, folder: &Path) -> Result<TextSide, Error> {
        Err(Error::config(folder, "a toy has no text side"))
    }
}

/// A loaded model of the toy family.
pub struct ToyVlm<B: Backend> {
    decoder: Decoder<B>,
    rope: Rope<B>,
    hidden: usize,
}

impl<B: VlmBackend> ToyVlm<B> {
    fn views(&self, image: &Rgb) -> Views {
        let mut sums = [[0.0f32; 3]; 4];
        for (i, pixel) in image.data.chunks_exact(3).enumerate() {
            let (right, low) = (2 * (i % image.width) >= image.width, 2 * (i / image.width) >= image.height);
            let quarter = &mut sums[usize::from(right) + 2 * usize::from(low)];
            quarter.iter_mut().zip(pixel).for_each(|(sum, level)| *sum += f32::from(*level) / 255.0);
        }
        let placement = Placement {
            grid: Grid::image(2, 2),
            size: (image.width, image.height),
            video: false,
            tiles: None,
            merge: Merge::Flat,
            items: 1,
            placeholders: 1,
            step: 0,
        };
        Views { pixels: sums.concat(), shape: [1, 4, 1, 3], placement }
    }
}

impl<B: VlmBackend> Vlm<B> for ToyVlm<B> {
    fn preprocess(&self, media: &Media, _tiling: Tiling) -> Result<Views, Error> {
        match media {
            Media::Image(image) => Ok(self.views(image)),
            Media::Video(video) => Err(Error::NoVideo { path: video.path.clone() }),
        }
    }

    fn most_tokens(&self, _media: &Media) -> usize {
        4
    }

    fn squeezed(&self, image: &Rgb) -> (Rgb, Views) {
        (image.clone(), self.views(image))
    }

    fn encode(&self, views: &Views, _needs: Needs) -> VisionOutput<B> {
        let features = TensorData::new(views.pixels.clone(), [1, 4, 3]);
        let features = Tensor::<B, 3>::from_data(features, self.rope.device());
        VisionOutput { class: None, features, cls_attention: None, keys: None, layer: 1 }
    }

    fn project(&self, features: Tensor<B, 3>) -> Tensor<B, 3> {
        let [items, tokens, _] = features.dims();
        let padding = Tensor::zeros([items, tokens, self.hidden - 3], &features.device());
        Tensor::cat(vec![features, padding], 2)
    }

    fn joint(&self, _features: Tensor<B, 3>, _question: Question) -> Result<(Tensor<B, 3>, Tensor<B, 2>), Error> {
        Err(Error::NoClipText)
    }

    fn sequence(&self, _placement: &Placement, keep: &Keep, _class: bool) -> Vec<Visual> {
        keep.plain()[0].iter().map(|&patch| Visual::Patch { crop: 0, patch }).collect()
    }

    fn unpruned(&self, placement: &Placement) -> (Placement, usize) {
        (*placement, 1)
    }

    fn shown(&self, media: &Media, _tiles: Option<Tiles>) -> Shown {
        let items = match media {
            Media::Image(image) => vec![image.clone()],
            Media::Video(video) => video.frames.clone(),
        };
        Shown { items, columns: None, unpadded: None }
    }

    fn decoder(&self) -> &Decoder<B> {
        &self.decoder
    }

    fn rope(&self) -> &Rope<B> {
        &self.rope
    }

    fn first_overflow(&self, _stage: &Stage<B>) -> Option<String> {
        None
    }
}

#[cfg(feature = "flex")]
#[test]
fn a_family_is_a_folder_and_a_row() {
    use crate::{
        engine::{Decoding, answer, go_on},
        model::preset,
        pruner::{Params, selector},
        text::Prompt,
    };
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    std::fs::write(&config, r#"{"model_type": "toy"}"#).unwrap();
    let place = Place { folder: folder.path(), config: &config, hub: None, pair: None };
    assert!(matches!(super::Family::open(&place), Ok(super::Family::Toy(_))));

    let model = preset("toy").unwrap().load::<secateur_backends::Flex>(Default::default(), &Default::default()).unwrap();
    let image = Rgb { width: 4, height: 4, data: (0..48).collect() };
    let prompt = Prompt::new(&model.chat().render("What?", &[1]).unwrap(), "", model.tokenizer()).unwrap();
    let method = selector("grid", Params::default()).unwrap();
    let decoding = Decoding { stops: false, ..Decoding::greedy(5) };
    let (visual, found) =
        answer(&model, &[image.into()], &prompt, &method, Some(2.into()), decoding, go_on).unwrap();
    assert_eq!((visual[0].order.len(), visual[0].unpruned, found.ids.len()), (2, 4, 5));
}
