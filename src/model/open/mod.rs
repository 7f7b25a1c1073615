//! A checkpoint in a folder or on the hub: its small files are read and checked first, and its weights fill the networks.

mod joint;
mod names;
mod read;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::tensor::DType;
pub use names::is_tower;
pub use read::open;
use secateur_backends::VlmBackend;
use secateur_weights::{Checkpoint, Dtypes, StoredTensor, load};

use super::{
    Llava, LlavaConfig, TilingChoice,
    config::{Layout, Pictures},
    copies,
    finite::Source,
    layers::Rounds,
    llava::{Joint, Networks},
    names::{HF, ORIGINAL, POST_LAYERNORM, TOWER},
};
use crate::{
    Error,
    checksum::{Part, checkpoint_sha256},
    image::ClipProcessor,
    merge::Merge,
    text::{ADDED_TOKENS, LlamaTokenizer, TOKENIZER_CONFIG},
};

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
    /// What a reader must know of how its files are read.
    pub notes: Vec<String>,
    /// The towers' own checkpoints, where the config names them: that for pictures, then that for videos.
    towers: Vec<PathBuf>,
    /// What the config calls the first of them.
    tower_name: String,
    /// Whether the tower's weights are in the checkpoint itself.
    own_tower: bool,
    /// The CLIP checkpoint that the user names for its text side.
    clip: Option<String>,
}

/// What to load beside the three networks, and how to use them.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// What weights are kept in; by default as in the file. Who asks for bf16 gets bf16 products, too: inputs are rounded as on
    /// GPUs, where the processor has an instruction for that. A bf16 file alone is computed in f32.
    pub dtype: Option<DType>,
    /// Whether CLIP's text side is needed.
    pub joint: bool,
    /// What to do with LLaVA-NeXT's crops, where it is not left to the method.
    pub tiling: TilingChoice,
}
/// A checkpoint's description.
const CONFIG: &str = "config.json";

/// The name of the checkpoint that is inside the binary.
pub const DEMO: &str = "demo";
impl Opened {
    /// Fills the networks.
    ///
    /// # Errors
    /// When a shard is missing or damaged, or names and shapes do not fit.
    pub fn load<B: VlmBackend>(self, options: LoadOptions, device: &B::Device) -> Result<Llava<B>, Error> {
        self.check_tiling(options.tiling)?;
        let (mut tensors, notes) = self.tensors()?;
        let norm = split_off(&mut tensors, POST_LAYERNORM);
        let kept = |dtype| B::weight_dtype(dtype, device);
        let stored = tensors.get("language_model.lm_head.weight").map_or(DType::F32, |tensor| tensor.dtype);
        let activations = B::activation_dtype(kept(options.dtype.unwrap_or(stored)));
        let networks = Networks::new(&self.config, device);
        // Where activations are 16-bit, an f32 tower beside a 16-bit language model would be cast at every product.
        let weights = options.dtype.or((activations != DType::F32).then_some(activations));
        let dtypes = Dtypes { weights, vectors: activations };
        let mut source = Source::new(tensors.clone(), weights.map_or(DType::F32, kept));
        let networks = load::<B, _>(networks, tensors, dtypes, kept, &self.folder)?;
        let joint = match options.joint {
            true => {
                let (joint, tensors) = self.load_joint::<B>(norm, device)?;
                source.add("clip.", tensors);
                Some(joint)
            }
            false => None,
        };
        let model = self.assemble(networks, joint, activations, options, device);
        Ok(Llava { source, notes, ..model })
    }

    /// The model, from networks that are filled.
    pub(super) fn assemble<B: VlmBackend>(
        self,
        mut networks: Networks<B>,
        joint: Option<Joint<B>>,
        activations: DType,
        options: LoadOptions,
        device: &B::Device,
    ) -> Llava<B> {
        // Who asks for bf16 gets bf16 products.
        if options.dtype == Some(DType::BF16) {
            networks.round();
        }
        Llava {
            networks,
            joint,
            config: self.config,
            tokenizer: self.tokenizer,
            processor: self.processor,
            activations,
            device: device.clone(),
            tiling: options.tiling,
            source: Source::default(),
            notes: Vec::new(),
        }
    }

    /// The CLIP checkpoint that was named for its text side.
    pub fn clip(&self) -> Option<&str> {
        self.clip.as_deref()
    }

    /// Refuses tiles for a model that sees a picture as one crop, and newlines for one that never learned any.
    ///
    /// # Errors
    /// When `choice` asks for either.
    pub fn check_tiling(&self, choice: TilingChoice) -> Result<(), Error> {
        let refuse = |reason| Err(Error::config(&self.folder, reason));
        match &self.config.pictures {
            Pictures::Single(_) if choice != TilingChoice::default() => {
                refuse("--grid and --merge are for LLaVA-NeXT; this checkpoint sees a picture as one crop")
            }
            Pictures::AnyRes { merge, .. }
                if choice.merge == Some(Merge::SpatialUnpad) && *merge != Merge::SpatialUnpad =>
            {
                refuse("--merge spatial-unpad needs a newline token, which this checkpoint was not trained with")
            }
            _ => Ok(()),
        }
    }

    /// All tensors by their module paths, and what to say of those that are passed over.
    fn tensors(&self) -> Result<(BTreeMap<String, StoredTensor>, Vec<String>), Error> {
        let own = Checkpoint::open(&self.folder)?;
        let mut notes: Vec<String> = copies::frequencies(&own, &self.config.text).into_iter().collect();
        if self.towers.is_empty() {
            return Ok((HF.apply(own)?, notes));
        }
        let mut all = ORIGINAL.apply(own)?;
        if self.own_tower {
            return Ok((all, notes));
        }
        // The official loader takes the towers that the config names, whatever else the checkpoint holds.
        for (tower, module) in self.towers.iter().zip(["vision_tower.", "video_tower."]) {
            let copy = split_off(&mut all, module);
            let tensors = TOWER.apply(Checkpoint::open(tower)?)?;
            let tensors = tensors.into_iter().map(|(path, tensor)| (path.replacen("vision_tower.", module, 1), tensor));
            let tensors: BTreeMap<_, _> = tensors.collect();
            notes.extend(copies::note(&copy, &tensors, &self.folder.join(CONFIG), tower));
            all.extend(tensors);
        }
        Ok((all, notes))
    }

    /// The checksum of all files that are read, the towers' included.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn sha256(&self) -> Result<String, Error> {
        let pictures = |folder: &Path| {
            let file = ClipProcessor::file(folder);
            file.file_name().unwrap_or_default().to_string_lossy().into_owned()
        };
        let images = pictures(&self.folder);
        let own = [CONFIG, &images, LlamaTokenizer::file(&self.folder), ADDED_TOKENS, TOKENIZER_CONFIG];
        let mut parts = vec![Part { folder: &self.folder, small: &own, weights: true }];
        let towers: Vec<(&PathBuf, String)> = self.towers.iter().map(|folder| (folder, pictures(folder))).collect();
        let small: Vec<[&str; 2]> = towers.iter().map(|(_, images)| [CONFIG, &images[..]]).collect();
        // A tower that was trained too has its weights in the checkpoint.
        let tower = |(folder, small)| Part { folder, small, weights: !self.own_tower };
        parts.extend(towers.iter().map(|(folder, _)| &***folder).zip(small.iter().map(|small| &small[..])).map(tower));
        checkpoint_sha256(&parts)
    }
}

/// Takes out the entries whose paths start with `prefix`.
fn split_off(tensors: &mut BTreeMap<String, StoredTensor>, prefix: &str) -> BTreeMap<String, StoredTensor> {
    tensors.extract_if(.., |path, _| path.starts_with(prefix)).collect()
}
