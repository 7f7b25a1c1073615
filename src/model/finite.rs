//! The search for the first part of a model that gives numbers that are not finite.
//!
//! Results are checked where they leave the device anyway: the tower's output, what methods rank by, logits. Only when one of them is not
//! finite, all weights are looked through, and if these are finite, the networks are run again part by part.

use std::collections::BTreeMap;

use burn::tensor::DType;
use secateur_backends::VlmBackend;
use secateur_weights::{NotFinite, StoredTensor};

use super::{Model, Stage};
use crate::Error;

/// The tensors that a model was filled from.
#[derive(Clone, Default)]
pub(super) struct Source {
    /// The tensors by their paths in the model.
    tensors: BTreeMap<String, StoredTensor>,
    /// The dtype that matrices are kept in.
    weights: Option<DType>,
}

impl Source {
    /// An empty source for a model whose matrices are kept in `weights`.
    pub(super) fn new(weights: DType) -> Self {
        Self { tensors: BTreeMap::new(), weights: Some(weights) }
    }

    /// Adds the tensors of a network, whose paths start with `prefix`.
    pub(super) fn add(&mut self, prefix: &str, tensors: BTreeMap<String, StoredTensor>) {
        self.tensors.extend(tensors.into_iter().map(|(path, tensor)| (format!("{prefix}{path}"), tensor)));
    }

    /// The first tensor, in the order in which a model computes, that is not finite.
    fn first(&self) -> Option<(&StoredTensor, &str, NotFinite)> {
        let mut paths: Vec<&String> = self.tensors.keys().collect();
        paths.sort_by_key(|path| order(path));
        paths.into_iter().find_map(|path| {
            let tensor = &self.tensors[path];
            let matrix = tensor.shape.len() > 1 && !path.starts_with("clip.");
            let kept = self.weights.filter(|_| matrix).unwrap_or(DType::F32);
            Some((tensor, &path[..], tensor.not_finite(kept)?))
        })
    }

    /// The first tensor below `path`.
    fn below(&self, path: &str) -> Option<&StoredTensor> {
        self.tensors
            .range(path.to_owned()..)
            .next()
            .filter(|(found, _)| found.starts_with(path))
            .map(|(_, tensor)| tensor)
    }
}

/// The place of a tensor in the order of computing: the network, the layer, the place in the layer.
fn order(path: &str) -> (usize, usize, usize) {
    const NETWORKS: [&str; 6] =
        ["vision_tower.", "video_tower.", "clip.", "projector.", "image_newline", "language_model."];
    let network = NETWORKS.iter().position(|network| path.starts_with(network)).unwrap_or(NETWORKS.len());
    let layer = path.split_once("layers.").and_then(|(_, rest)| rest.split('.').next()?.parse::<usize>().ok());
    let place = match layer {
        Some(layer) => layer + 1,
        None if path.contains("embed") || path.contains("pre_layrnorm") => 0,
        None => usize::MAX,
    };
    const PARTS: [&str; 12] = [
        "layer_norm1",
        "input_layernorm",
        "q_proj",
        "k_proj",
        "v_proj",
        "out_proj",
        "o_proj",
        "layer_norm2",
        "post_attention_layernorm",
        "gate_proj",
        "up_proj",
        "down_proj",
    ];
    (network, place, PARTS.iter().position(|part| path.contains(part)).unwrap_or(PARTS.len()))
}

/// A part of a model, in words.
fn part(path: &str) -> String {
    let network = match path.split('.').next().unwrap_or_default() {
        "vision_tower" => "the vision tower",
        "video_tower" => "the video tower",
        "projector" => "the projector",
        "clip" => "CLIP's text side",
        _ => "the language model",
    };
    let layer = path.split_once("layers.").and_then(|(_, rest)| rest.split('.').next());
    layer.map_or_else(|| network.to_owned(), |layer| format!("{network}, layer {layer}"))
}

impl<B: VlmBackend> Model<B> {
    /// The error for numbers that are not finite.
    pub(super) fn not_finite(&self, stage: Stage<B>) -> Error {
        if let Some((tensor, path, NotFinite { nan, infinite })) = self.source.first() {
            let count: usize = tensor.shape.iter().product();
            let found = match (nan, infinite) {
                (nan, 0) => format!("{nan} of its {count} numbers are NaN"),
                (0, infinite) => format!("{infinite} of its {count} numbers are infinite"),
                (nan, infinite) => format!("of its {count} numbers {nan} are NaN and {infinite} infinite"),
            };
            let kept = match self.source.weights.filter(|kept| *kept != DType::F32 && *kept != tensor.dtype) {
                Some(kept) => format!(" as {kept:?}"),
                None => String::new(),
            };
            let (part, tensor, file) = (part(path), tensor.name.to_string(), tensor.path().to_owned());
            return Error::NotFinite { part, tensor, file, found: format!("{found}{kept}") };
        }
        let overflow = self.vlm.first_overflow(&stage);
        let path = overflow.unwrap_or_else(|| "language_model.".to_owned());
        let below = self.source.below(&path);
        Error::NotFinite {
            part: part(&path),
            tensor: below.map_or_else(|| path.clone(), |tensor| tensor.name.to_string()),
            file: below.map(|tensor| tensor.path().to_owned()).unwrap_or_default(),
            found: format!(
                "all weights are finite, and the result of this part is not: it overflows in {:?}{}",
                self.activations(),
                if self.activations() == DType::F32 { "" } else { "; try --dtype f32" }
            ),
        }
    }
}
