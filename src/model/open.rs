//! Recognises a checkpoint's layout and fills the networks from it.

use std::{collections::BTreeMap, path::PathBuf};

use burn::tensor::DType;
use secateur_backends::VlmBackend;
use secateur_weights::{Checkpoint, Dtypes, StoredTensor, WeightsError, find, find_tower, load};

use super::{
    ClipJoint, ClipTextConfig, Llava, LlavaConfig, TilingChoice,
    config::{HfConfig, Layout, OriginalConfig, Pictures, Signs, read_json},
    layers::Rounds,
    llava::{Joint, Networks},
    names::{HF, JOINT, ORIGINAL, POST_LAYERNORM, TOWER},
};
use crate::{
    Error,
    checksum::{Part, checkpoint_sha256},
    demo,
    image::ClipProcessor,
    merge::Merge,
    text::{ADDED_TOKENS, ClipTokenizer, LlamaTokenizer, TOKENIZER_CONFIG, TOKENIZER_JSON},
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
    /// The towers' own checkpoints, where the config names them: that for pictures, then that for videos.
    towers: Vec<PathBuf>,
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

/// The CLIP checkpoint that every LLaVA's tower comes from, whose text side llava-hf checkpoints leave out.
const CLIP: &str = "openai/clip-vit-large-patch14-336";

/// A checkpoint's small files.
const CONFIG: &str = "config.json";
const PICTURES: &str = "preprocessor_config.json";

/// The name of the checkpoint that is inside the binary.
pub const DEMO: &str = "demo";

/// Reads the small files of the checkpoint `model`: a folder, a Hugging Face id, or [`DEMO`]. `clip` names the CLIP checkpoint whose
/// text side to use, where the model's own tower is not it.
///
/// # Errors
/// When it is not there, or not a LLaVA checkpoint in one of the known layouts.
pub fn open(model: &str, clip: Option<&str>) -> Result<Opened, Error> {
    let folder = if model == DEMO { demo::unpack()? } else { find(model, None)? };
    let path = folder.join(CONFIG);
    let layout = read_json::<Signs>(&path)?.layout(&path)?;
    let (config, towers, own_tower) = match layout {
        Layout::Hf => (read_json::<HfConfig>(&path)?.check(&path)?, Vec::new(), true),
        Layout::Video => {
            let config: OriginalConfig = read_json(&path)?;
            let [image, video] = config.towers(&path)?.map(|name| find_tower(name, Some(&folder)));
            let (image, video) = (image?, video?);
            let config = config.check(&path, &image.join(CONFIG), Some(&video.join(CONFIG)))?;
            (config, vec![image, video], false)
        }
        Layout::Original => {
            let config: OriginalConfig = read_json(&path)?;
            let tower = find(config.tower(&path)?, Some(&folder))?;
            let own_tower = config.own_tower();
            (config.check(&path, &tower.join(CONFIG), None)?, vec![tower], own_tower)
        }
    };
    let processor_path = towers.first().unwrap_or(&folder).join(PICTURES);
    let processor = match layout {
        // LanguageBind's checkpoints have no such file; its code has the numbers.
        Layout::Video => ClipProcessor::languagebind(config.vision.image_size),
        Layout::Original | Layout::Hf => ClipProcessor::read(&processor_path)?,
    };
    if processor.size != config.vision.image_size {
        return Err(Error::config(
            &processor_path,
            format!("pictures of {} pixels for a tower that reads {}", processor.size, config.vision.image_size),
        ));
    }
    let tokenizer = LlamaTokenizer::read(&folder, config.text.vocab_size)?;
    let clip = clip.map(str::to_owned);
    Ok(Opened { folder, layout, config, tokenizer, processor, towers, own_tower, clip })
}

impl Opened {
    /// Fills the networks.
    ///
    /// # Errors
    /// When a shard is missing or damaged, or names and shapes do not fit.
    pub fn load<B: VlmBackend>(self, options: LoadOptions, device: &B::Device) -> Result<Llava<B>, Error> {
        self.check_tiling(options.tiling)?;
        let mut tensors = self.tensors()?;
        let norm = split_off(&mut tensors, POST_LAYERNORM);
        let kept = |dtype| B::weight_dtype(dtype, device);
        let stored = tensors.get("language_model.lm_head.weight").map_or(DType::F32, |tensor| tensor.dtype);
        let activations = B::activation_dtype(kept(options.dtype.unwrap_or(stored)));
        let networks = Networks::new(&self.config, device);
        // Where activations are 16-bit, an f32 tower beside a 16-bit language model would be cast at every product.
        let weights = options.dtype.or((activations != DType::F32).then_some(activations));
        let dtypes = Dtypes { weights, vectors: activations };
        let networks = load::<B, _>(networks, tensors, dtypes, kept, &self.folder)?;
        let joint = if options.joint { Some(self.load_joint::<B>(norm, device)?) } else { None };
        Ok(self.assemble(networks, joint, activations, options, device))
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

    /// All tensors by their module paths.
    fn tensors(&self) -> Result<BTreeMap<String, StoredTensor>, Error> {
        let own = Checkpoint::open(&self.folder)?;
        if self.towers.is_empty() {
            return Ok(HF.apply(own)?);
        }
        let mut all = ORIGINAL.apply(own)?;
        if self.own_tower {
            return Ok(all);
        }
        // The official loader takes the towers that the config names, whatever else the checkpoint holds.
        split_off(&mut all, "vision_tower.");
        for (tower, module) in self.towers.iter().zip(["vision_tower.", "video_tower."]) {
            let tensors = TOWER.apply(Checkpoint::open(tower)?)?;
            all.extend(tensors.into_iter().map(|(path, tensor)| (path.replacen("vision_tower.", module, 1), tensor)));
        }
        Ok(all)
    }

    /// The checksum of all files that are read, the towers' included.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn sha256(&self) -> Result<String, Error> {
        let own = [CONFIG, PICTURES, LlamaTokenizer::file(&self.folder), ADDED_TOKENS, TOKENIZER_CONFIG];
        let mut parts = vec![Part { folder: &self.folder, small: &own, weights: true }];
        // A tower that was trained too has its weights in the checkpoint.
        let tower = |folder| Part { folder, small: &[CONFIG, PICTURES], weights: !self.own_tower };
        parts.extend(self.towers.iter().map(|folder| tower(folder)));
        checkpoint_sha256(&parts)
    }

    /// The checksum of CLIP's text side.
    ///
    /// # Errors
    /// As [`Self::check_joint`], or when a file cannot be read.
    pub fn clip_sha256(&self) -> Result<String, Error> {
        let (folder, ..) = self.open_joint()?;
        checkpoint_sha256(&[Part { folder: &folder, small: &[CONFIG, TOKENIZER_JSON], weights: true }])
    }

    /// Checks that CLIP's text side is at hand, before any weight is read.
    ///
    /// # Errors
    /// When its folder, config or tokenizer is missing or of another kind.
    pub fn check_joint(&self) -> Result<(), Error> {
        self.open_joint().map(|_| ())
    }

    /// Folder, config and tokenizer of CLIP's text side.
    ///
    /// # Errors
    /// As [`Self::check_joint`].
    pub fn open_joint(&self) -> Result<(PathBuf, ClipTextConfig, ClipTokenizer), Error> {
        if self.layout == Layout::Video {
            let reason = "methods that compare patches with the question need the text side of CLIP, and LanguageBind's is \
                          another network";
            return Err(Error::config(&self.folder, reason));
        }
        let folder = match (&self.clip, self.towers.first()) {
            (Some(name), _) => find_clip(name)?,
            (None, Some(tower)) => tower.clone(),
            (None, None) => find_clip(CLIP)?,
        };
        let config = ClipTextConfig::read(&folder.join(CONFIG), &self.config.vision)?;
        let (window, pooling) = (config.max_position_embeddings, config.pooling());
        let tokenizer = ClipTokenizer::read(&folder, window, config.vocab_size, pooling)?;
        Ok((folder, config, tokenizer))
    }

    /// CLIP's text side, in f32; the norm between tower and joint space is the tower's own, `norm`, where the checkpoint
    /// brought its tower along.
    fn load_joint<B: VlmBackend>(
        &self,
        norm: BTreeMap<String, StoredTensor>,
        device: &B::Device,
    ) -> Result<Joint<B>, Error> {
        let (folder, config, tokenizer) = self.open_joint()?;
        let mut tensors = JOINT.apply(Checkpoint::open(&folder)?)?;
        for (path, tensor) in norm {
            tensors.insert(path.replace(POST_LAYERNORM, "post_layernorm."), tensor);
        }
        let vision = &self.config.vision;
        let clip = ClipJoint::<B>::new(vision.hidden_size, vision.layer_norm_eps, &config, device);
        let dtypes = Dtypes { weights: None, vectors: DType::F32 };
        let clip = load::<B, _>(clip, tensors, dtypes, |dtype| widest::<B>(dtype, device), &folder)?;
        Ok(Joint { clip, tokenizer })
    }
}

/// The folder of the CLIP checkpoint `name`.
fn find_clip(name: &str) -> Result<PathBuf, WeightsError> {
    find(name, None).map_err(|error| match error {
        WeightsError::Hub { id, reason, .. } => {
            let advice = format!(
                "methods that read CLIP's text side need it: give its folder (--clip DIR), or fetch it where there is a \
                 network with `secateur pull {id}`"
            );
            WeightsError::Hub { id, reason, advice }
        }
        error => error,
    })
}

/// The dtype of the text side's weights: products with f32 activations take 16-bit weights only where
/// [`VlmBackend::activation_dtype`] says so.
fn widest<B: VlmBackend>(dtype: DType, device: &B::Device) -> DType {
    let kept = B::weight_dtype(dtype, device);
    if B::activation_dtype(kept) == DType::F32 { kept } else { DType::F32 }
}

/// Takes out the entries whose paths start with `prefix`.
fn split_off(tensors: &mut BTreeMap<String, StoredTensor>, prefix: &str) -> BTreeMap<String, StoredTensor> {
    tensors.extract_if(.., |path, _| path.starts_with(prefix)).collect()
}
