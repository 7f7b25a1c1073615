//! A checkpoint in a folder or on the hub: its small files are read and checked first, and its weights fill the networks.

mod open;
mod pair;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::tensor::DType;
pub use open::{Beside, open};
pub use pair::{Pair, is_gguf};
use secateur_backends::VlmBackend;
use secateur_weights::{Checkpoint as TensorFiles, StoredTensor};

use super::{
    DecoderConfig, Fill, Model, PixelChoice, Quantise, TilingChoice, Weights,
    config::{CONFIG, GENERATION_CONFIG},
    copies,
    families::{Chat, Family, FamilyCheckpoint},
    fill::split_off,
    loaded::Parts,
    mixture::Mixture,
    towers::clip::{TOWER, TextSide},
};
use crate::{
    Error,
    checksum::{Part, checkpoint_sha256, files_sha256},
    image::{ClipProcessor, Grid},
    pruner::{Budget, Needs},
    text::{ADDED_TOKENS, TOKENIZER_CONFIG, TOKENIZER_JSON, Tokenizer},
    video::FrameRule,
};

/// The name of the checkpoint that is inside the binary.
pub const DEMO: &str = "demo";

/// A checkpoint whose small files were read and checked; no weight has been touched.
pub struct Checkpoint {
    /// The folder of the checkpoint, or the language model's file in GGUF.
    pub folder: PathBuf,
    /// The checkpoint's tokenizer.
    pub tokenizer: Tokenizer,
    /// Notes for the user on how the checkpoint's files are read.
    pub notes: Vec<String>,
    pub(super) family: Family,
    pub(super) chat: Chat,
    /// The penalty for repetition in `generation_config.json`.
    pub(super) penalty: f32,
    /// The CLIP checkpoint that the user names for its text side.
    pub(super) clip: Option<String>,
    /// Whether the weights are random ones.
    pub(super) random: bool,
    /// The GGUF files, where the checkpoint is a pair of these.
    pub(super) pair: Option<Arc<Pair>>,
}

/// Options for loading: the dtype of weights, the text side, and the choice of tiles.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// The dtype that weights are kept in; by default as in the file. A request for bf16 gets bf16 products, too: inputs are rounded as on GPUs,
    /// where the processor has an instruction for that. A bf16 file without that request is computed in f32.
    pub dtype: Option<DType>,
    /// Whether the text side is needed that images and questions are compared with.
    pub joint: bool,
    /// The user's choice of tiles and of their order in the sequence, in place of the method's.
    pub tiling: TilingChoice,
    /// The mixture of blocks that the decoder's matrices are put into.
    pub quantise: Option<Quantise>,
    /// Whether products with weights in blocks may round their inputs to 8 bits where that is faster.
    pub int8: bool,
}

impl Checkpoint {
    /// The checkpoint as its family describes it.
    pub(super) fn about(&self) -> &dyn FamilyCheckpoint {
        self.family.as_checkpoint()
    }

    /// The decoder's shape.
    pub fn decoder(&self) -> &DecoderConfig {
        self.about().decoder()
    }

    /// Sets the number of the decoder's layers, for measurements with random weights.
    pub fn set_layers(&mut self, layers: usize) {
        self.family.as_checkpoint_mut().decoder_mut().num_hidden_layers = layers;
    }

    /// The tokens of one item of an image or video before pruning; of the largest, where they depend on the image.
    pub fn grid(&self) -> Grid {
        self.about().grid()
    }

    /// Whether every item has as many tokens as [`Self::grid`].
    pub fn has_fixed_grid(&self) -> bool {
        self.about().has_fixed_grid()
    }

    /// The source of the methods' rules, where it is not the official code of each method for such a model.
    pub fn rules(&self) -> Option<&'static str> {
        self.about().rules()
    }

    /// Refuses a budget that no image could keep.
    ///
    /// # Errors
    /// When it is above the tokens that every item has. Where these depend on the image, any number is possible.
    pub fn check_budget(&self, budget: Budget) -> Result<(), Error> {
        let tokens = self.grid().tokens();
        if self.has_fixed_grid() { budget.of(tokens).map(|_| ()) } else { budget.of_any(tokens).map(|_| ()) }
    }

    /// Sets the limits of the number of pixels that images are resized to.
    ///
    /// # Errors
    /// When they are not possible, or the model reads all images at one size; a sentence says which.
    pub fn set_pixels(&mut self, pixels: PixelChoice) -> Result<(), String> {
        self.family.as_checkpoint_mut().set_pixels(pixels)
    }

    /// Whether cues take the text side of the tower.
    pub fn reads_text_side(&self, needs: Needs) -> bool {
        self.about().reads_text_side(needs)
    }

    /// The factor by which the checkpoint's own settings make tokens less likely that were there before; 1 changes nothing.
    pub fn repetition_penalty(&self) -> f32 {
        self.penalty
    }

    /// The side in pixels of a square image that the model reads as its papers count it.
    pub fn usual_side(&self) -> usize {
        self.about().usual_side()
    }

    /// Whether the weights are random ones.
    pub fn is_random(&self) -> bool {
        self.random
    }

    /// Frames that are taken from a video; `None` for a model that reads images only.
    pub fn frames(&self) -> Option<FrameRule> {
        self.about().frames()
    }

    /// The form of the checkpoint's conversations.
    pub fn chat(&self) -> &Chat {
        &self.chat
    }

    /// Fills the networks.
    ///
    /// # Errors
    /// When a shard is missing or damaged, or names and shapes do not fit.
    pub fn load<B: VlmBackend>(self, options: LoadOptions, device: &B::Device) -> Result<Model<B>, Error> {
        self.check_tiling(options.tiling)?;
        if self.random {
            let text = options.joint.then(|| super::preset::text_side(&self)).transpose()?;
            let fill = Fill::random(options.dtype, text, device);
            return self.fill(fill, options, Vec::new());
        }
        let (tensors, mut notes) = self.tensors()?;
        let head = ["language_model.lm_head.weight", "language_model.embed_tokens.weight"];
        let stored = head.iter().find_map(|name| tensors.get(*name)).map_or(DType::F32, |tensor| match tensor.blocks {
            // Blocks that do not stay in blocks become 16-bit weights.
            Some(_) if !B::keeps_blocks() => DType::F16,
            _ => tensor.dtype,
        });
        if !B::keeps_blocks() && tensors.values().any(|tensor| tensor.blocks.is_some()) {
            notes.push(
                "this backend has no products of blocks: they become 16-bit weights, and take their memory".to_owned(),
            );
        }
        let text = options.joint.then(|| self.text_side()).transpose()?;
        let fill = Fill::stored(tensors, self.folder.clone(), stored, options.dtype, text, device);
        self.fill(fill, options, notes)
    }

    fn fill<B: VlmBackend>(
        self,
        fill: Fill<B>,
        options: LoadOptions,
        mut notes: Vec<String>,
    ) -> Result<Model<B>, Error> {
        let layers = self.decoder().num_hidden_layers;
        let mixture = options.quantise.map(|quantise| Mixture { quantise, layers });
        if mixture.is_some() && !B::keeps_blocks() {
            notes.push("--quantize: this backend has no products of blocks, and weights stay as they are".to_owned());
        }
        if mixture.is_some() && self.blocks().is_some() {
            notes.push("--quantize: weights that are in blocks stay in theirs".to_owned());
        }
        if options.int8 && !B::multiplies_int8() {
            let missing = "no products of bytes are here (AVX-512 VNNI), and activations stay as they are";
            notes.push(format!("--activations int8: {missing}"));
        }
        let mut fill = fill.quantised(mixture).with_int8(options.int8);
        let (decoder, grid, frames) = (self.decoder().clone(), self.grid(), self.frames());
        let (fixed_grid, penalty) = (self.has_fixed_grid(), self.penalty);
        let vlm = self.family.load(&mut fill, options)?;
        let parts = Parts { tokenizer: self.tokenizer, chat: self.chat, decoder, grid, fixed_grid, frames, penalty };
        let mut model = Model::new(vlm, parts, fill, notes);
        if options.int8 && matches!(model.decoder_weights(), Weights::Floats(_)) {
            model.note(
                "--activations int8 is for weights in blocks, and these are not; --quantize puts them into blocks",
            );
        }
        Ok(model)
    }

    /// The CLIP checkpoint that was named for its text side.
    pub fn clip(&self) -> Option<&str> {
        self.clip.as_deref()
    }

    /// Folder, config and tokenizer of the text side that images and questions are compared with.
    ///
    /// # Errors
    /// When its folder, config or tokenizer is missing or of another kind.
    pub fn text_side(&self) -> Result<TextSide, Error> {
        self.about().text_side(self.clip.as_deref(), &self.folder)
    }

    /// Checks that the text side is at hand, before any weight is read. A preset has a text side where the family has one.
    ///
    /// # Errors
    /// As [`Self::text_side`].
    pub fn check_text_side(&self) -> Result<(), Error> {
        if self.random && self.about().has_random_text_side() { Ok(()) } else { self.text_side().map(|_| ()) }
    }

    /// The layouts of the decoder's blocks in a GGUF file, from the most frequent down.
    pub fn blocks(&self) -> Option<String> {
        let pair = self.pair.as_ref()?;
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for kind in pair.decoder.tensors.values().filter_map(|tensor| tensor.blocks) {
            *counts.entry(kind.name()).or_default() += 1;
        }
        let mut kinds: Vec<(&str, usize)> = counts.into_iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let names: Vec<&str> = kinds.into_iter().map(|(name, _)| name).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// The id of the text side, where it does not come with the checkpoint.
    pub fn text_side_id(&self) -> Option<&'static str> {
        self.about().text_side_id()
    }

    /// The checksum of the text side.
    ///
    /// # Errors
    /// As [`Self::text_side`], or when a file cannot be read.
    pub fn text_side_sha256(&self) -> Result<String, Error> {
        let TextSide { folder, .. } = self.text_side()?;
        checkpoint_sha256(&[Part { folder: &folder, small: &[CONFIG, TOKENIZER_JSON], weights: true }])
    }

    /// Refuses cues that the checkpoint cannot give.
    ///
    /// # Errors
    /// When it cannot; the error says why, and what to do.
    pub fn check_needs(&self, needs: Needs) -> Result<(), Error> {
        self.about().check_needs(needs)
    }

    /// Refuses a choice of tiles that the model cannot take.
    ///
    /// # Errors
    /// When it cannot; the error says why.
    pub fn check_tiling(&self, choice: TilingChoice) -> Result<(), Error> {
        self.about().check_tiling(choice, &self.folder)
    }

    /// All tensors by their module paths, and notes on those that are passed over.
    pub(super) fn tensors(&self) -> Result<(BTreeMap<String, StoredTensor>, Vec<String>), Error> {
        let about = self.about();
        if self.pair.is_some() {
            return Ok((about.tensors_of_pair()?, Vec::new()));
        }
        let own = TensorFiles::open(&self.folder)?;
        let mut notes: Vec<String> = copies::frequencies(&own, about.decoder()).into_iter().collect();
        let mut all = about.names().apply(own)?;
        about.take_apart(&mut all);
        notes.extend(copies::tied_head(&mut all, about.decoder(), &self.folder.join(CONFIG)));
        if about.has_own_towers() {
            return Ok((all, notes));
        }
        // The official loader takes the towers that the config names, whatever else the checkpoint holds.
        for tower in about.towers() {
            let copy = split_off(&mut all, tower.module);
            let tensors = TOWER.apply(TensorFiles::open(&tower.folder)?)?;
            let at_module = |(path, tensor): (String, _)| (path.replacen("vision_tower.", tower.module, 1), tensor);
            let tensors: BTreeMap<_, _> = tensors.into_iter().map(at_module).collect();
            notes.extend(copies::note(&copy, &tensors, &self.folder.join(CONFIG), &tower.folder));
            all.extend(tensors);
        }
        Ok((all, notes))
    }

    /// The checksum of all files that are read, the towers' included.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn sha256(&self) -> Result<String, Error> {
        if let Some(pair) = &self.pair {
            return files_sha256(&pair.files());
        }
        let images = |folder: &Path| {
            let file = ClipProcessor::file(folder);
            file.file_name().unwrap_or_default().to_string_lossy().into_owned()
        };
        let own_images = images(&self.folder);
        let tokenizer = Tokenizer::file(&self.folder);
        let own = [CONFIG, &own_images, tokenizer, ADDED_TOKENS, TOKENIZER_CONFIG, GENERATION_CONFIG];
        let mut parts = vec![Part { folder: &self.folder, small: &own, weights: true }];
        let towers = self.about().towers();
        let settings: Vec<String> = towers.iter().map(|tower| images(&tower.folder)).collect();
        let small: Vec<[&str; 2]> = settings.iter().map(|images| [CONFIG, &images[..]]).collect();
        // A tower that was trained too has its weights in the checkpoint.
        let weights = !self.about().has_own_towers();
        parts.extend(towers.iter().zip(&small).map(|(tower, small)| Part { folder: &tower.folder, small, weights }));
        checkpoint_sha256(&parts)
    }
}
