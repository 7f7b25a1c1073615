//! A loaded model: a family's networks, its tokenizer, and its form of conversations.

use std::ops::Range;

use burn::tensor::{DType, Tensor, backend::Backend};
use secateur_backends::VlmBackend;

use super::{
    Chunk, Decoder, DecoderConfig, Fill, KvCache, LayerCut, Stage, Vlm, Weights, families::Chat, finite::Source,
};
use crate::{
    Error,
    image::{Grid, GridRule},
    pruner::{Budget, Needs},
    sequence::Merge,
    tensor::{host, is_finite},
    text::{ChatForm, IMAGE_TOKEN, Prompt, Tokenizer},
    video::{FrameRule, Media},
};

use super::{Question, Views, towers::clip::VisionOutput};

/// The user's choice of tiles and of their order in the sequence, in place of the method's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TilingChoice {
    /// The rule that chooses the grid of tiles; `None` leaves it to the method.
    pub grid: Option<GridRule>,
    /// The rule by which the crops become one sequence; `None` leaves it to the method and the checkpoint.
    pub merge: Option<Merge>,
}

/// The user's choice of the number of pixels that images are resized to, in place of the checkpoint's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PixelChoice {
    /// The smallest number; `None` leaves the checkpoint's.
    pub least: Option<usize>,
    /// The largest number; `None` leaves the checkpoint's.
    pub most: Option<usize>,
}

/// The parts of a model that come from a checkpoint's small files.
pub(super) struct Parts {
    pub(super) tokenizer: Tokenizer,
    pub(super) chat: Chat,
    pub(super) decoder: DecoderConfig,
    pub(super) grid: Grid,
    pub(super) fixed_grid: bool,
    pub(super) frames: Option<FrameRule>,
    pub(super) penalty: f32,
}

/// A loaded model of any family.
pub struct Model<B: Backend> {
    pub(super) vlm: Box<dyn Vlm<B>>,
    tokenizer: Tokenizer,
    chat: Chat,
    decoder: DecoderConfig,
    grid: Grid,
    fixed_grid: bool,
    frames: Option<FrameRule>,
    penalty: f32,
    activations: DType,
    cache: DType,
    device: B::Device,
    /// The tensors that the model was filled from.
    pub(super) source: Source,
    notes: Vec<String>,
}

impl<B: VlmBackend> Model<B> {
    pub(super) fn new(vlm: Box<dyn Vlm<B>>, parts: Parts, fill: Fill<B>, notes: Vec<String>) -> Self {
        let Parts { tokenizer, chat, decoder, grid, fixed_grid, frames, penalty } = parts;
        let activations = fill.activations();
        let cache = B::cache_dtype(activations, fill.build().bf16);
        let device = fill.device().clone();
        let source = fill.source();
        Self {
            vlm,
            tokenizer,
            chat,
            decoder,
            grid,
            fixed_grid,
            frames,
            penalty,
            activations,
            cache,
            device,
            source,
            notes,
        }
    }

    /// The family's networks.
    pub fn vlm(&self) -> &dyn Vlm<B> {
        &*self.vlm
    }

    /// Adds a note for the user.
    pub(super) fn note(&mut self, note: &str) {
        self.notes.push(note.to_owned());
    }

    /// Notes for the user on how the model was filled.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The decoder's shape.
    pub fn decoder_config(&self) -> &DecoderConfig {
        &self.decoder
    }

    /// The decoder.
    pub fn decoder(&self) -> &Decoder<B> {
        self.vlm.decoder()
    }

    /// The tokens of one item of an image or video before pruning; of the largest, where they depend on the image.
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// Whether every item has as many tokens as [`Self::grid`].
    pub fn has_fixed_grid(&self) -> bool {
        self.fixed_grid
    }

    /// The number of tokens that `budget` keeps of an item of `tokens`. Where that number depends on the image, a budget above it keeps all.
    ///
    /// # Errors
    /// When the budget is 0, or above the tokens that every item has.
    pub fn budget(&self, budget: Budget, tokens: usize) -> Result<usize, Error> {
        if self.fixed_grid { budget.of(tokens) } else { budget.of_any(tokens) }
    }

    /// The frames that are taken from a video; `None` for a model that reads images only.
    pub fn frames(&self) -> Option<FrameRule> {
        self.frames
    }

    /// The factor by which the checkpoint's own settings make tokens less likely that were there before; 1 changes nothing.
    pub fn repetition_penalty(&self) -> f32 {
        self.penalty
    }

    /// The ids of a prompt as the model's own processor gives them, where an image or video has an id for each of its tokens; `tokens` are their numbers
    /// before pruning, and whether they are videos.
    pub fn processor_ids(&self, prompt: &Prompt, tokens: &[(usize, bool)]) -> Vec<i64> {
        let Some([image, video]) = self.chat.pads else { return prompt.ids.clone() };
        let mut tokens = tokens.iter();
        let mut ids = Vec::with_capacity(prompt.ids.len());
        for &id in &prompt.ids {
            match (id == IMAGE_TOKEN).then(|| tokens.next()).flatten() {
                Some(&(count, is_video)) => {
                    ids.extend(std::iter::repeat_n(i64::from(if is_video { video } else { image }), count))
                }
                None => ids.push(id),
            }
        }
        ids
    }

    /// The ids that a penalty for repetition counts as there: those of the prompt's text, and those that stand for its images and its videos, if there are
    /// some.
    pub(crate) fn ids_of(&self, prompt: &Prompt, [images, videos]: [bool; 2]) -> Vec<u32> {
        let text = prompt.ids.iter().filter_map(|&id| u32::try_from(id).ok());
        let pads = self.chat.pads.map(|[image, video]| [(image, images), (video, videos)]).into_iter().flatten();
        text.chain(pads.filter(|(_, there)| *there).map(|(pad, _)| pad)).collect()
    }

    /// The dtype that the decoder computes in.
    pub fn activations(&self) -> DType {
        self.activations
    }

    /// The dtype that keys and values are kept in.
    pub fn cache_dtype(&self) -> DType {
        self.cache
    }

    /// The type that the decoder's matrices are kept in.
    pub fn decoder_weights(&self) -> Weights {
        self.decoder().weights()
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The form of conversations that the model was trained on.
    pub fn chat(&self) -> &'static ChatForm {
        self.chat.own
    }

    /// The form in which the model's authors ask the questions of benchmarks about images.
    pub fn benchmark_chat(&self) -> &'static ChatForm {
        self.chat.benchmarks
    }

    /// The ids that end an answer.
    pub fn ends(&self) -> &[u32] {
        &self.chat.ends
    }

    /// Replaces the ids that end an answer.
    pub fn set_ends(&mut self, ends: Vec<u32>) {
        self.chat.ends = ends;
    }

    /// The vision tower's output for `views`.
    ///
    /// # Errors
    /// When it is not finite.
    pub fn encode(&self, views: Views, needs: Needs) -> Result<VisionOutput<B>, Error> {
        let output = self.vlm.encode(&views, needs);
        if output.is_finite() { Ok(output) } else { Err(self.not_finite(Stage::Tower(views))) }
    }

    /// Projects tower features `[items, tokens, vision]` to embeddings `[items, tokens, hidden]`.
    ///
    /// # Errors
    /// When these are not finite.
    pub fn project(&self, features: Tensor<B, 3>) -> Result<Tensor<B, 3>, Error> {
        let projected = self.vlm.project(features);
        if is_finite(&projected) { Ok(projected) } else { Err(self.not_finite(Stage::Projector)) }
    }

    /// Tower features and a question in a space where they can be compared: `[items, tokens, joint]` and `[segments, joint]`.
    ///
    /// # Errors
    /// When the model was loaded without its text side, or the numbers are not finite.
    pub fn joint(&self, features: Tensor<B, 3>, prompt: &Prompt) -> Result<(Tensor<B, 3>, Tensor<B, 2>), Error> {
        let ids = self.chat.user.as_ref().map(|user| user.texts(&prompt.ids)).unwrap_or_default();
        let question = Question { text: &prompt.question, ids: &ids };
        let (image, text) = self.vlm.joint(features, question)?;
        if is_finite(&image) && is_finite(&text) { Ok((image, text)) } else { Err(self.not_finite(Stage::Joint)) }
    }

    /// Checks that the model can read a prompt of `prompt` tokens and one token more.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check_length(&self, prompt: usize) -> Result<(), Error> {
        let limit = self.decoder.max_position_embeddings;
        if prompt < limit { Ok(()) } else { Err(Error::TooLong { prompt, limit }) }
    }

    /// Bytes of the keys and values of `tokens` tokens.
    pub fn kv_bytes(&self, tokens: usize) -> usize {
        let DecoderConfig { num_hidden_layers, num_key_value_heads, head_dim, .. } = self.decoder;
        2 * num_hidden_layers * num_key_value_heads * head_dim * tokens * self.cache.size()
    }

    /// A bound on the tokens that the decoder reads of an image or a video.
    pub fn most_tokens(&self, media: &Media) -> usize {
        self.vlm.most_tokens(media)
    }

    /// An empty cache for a prompt of `prompt` tokens and an answer of `answer`, or for as many as the model reads.
    ///
    /// # Errors
    /// When the model cannot read the prompt and one token more.
    pub fn cache(&self, prompt: usize, answer: usize) -> Result<KvCache<B>, Error> {
        self.check_length(prompt)?;
        let answer = answer.min(self.decoder.max_position_embeddings - prompt);
        Ok(KvCache::new(&self.decoder, prompt, answer, self.cache, &self.device))
    }

    /// Runs `embeds` `[1, rows of all chunks, hidden]` and returns the logits of the rows that the chunks want, `[wanted][vocabulary]`. They may be
    /// not finite: see [`Self::check_logits`].
    pub fn logits(&self, embeds: Tensor<B, 3>, chunks: &mut [Chunk<B>]) -> Vec<Vec<f32>> {
        let states = self.decoder().forward(embeds, chunks, self.vlm.rope());
        self.rows_of_logits(states)
    }

    /// Computes [`Self::logits`] unless cancelled: the pass ends between two layers once `is_cancelled` says so, and there are no logits.
    pub fn logits_unless(
        &self,
        embeds: Tensor<B, 3>,
        chunks: &mut [Chunk<B>],
        is_cancelled: &dyn Fn() -> bool,
    ) -> Option<Vec<Vec<f32>>> {
        let states = self.decoder().forward_unless(embeds, chunks, self.vlm.rope(), is_cancelled)?;
        Some(self.rows_of_logits(states))
    }

    /// Computes [`Self::logits`] for a prompt of which visual tokens are dropped inside the decoder; also returns the visual tokens that were kept.
    ///
    /// # Errors
    /// When the budget is not between 1 and the number of visual tokens, or the model has no layer to cut before.
    pub fn logits_cut(
        &self,
        embeds: Tensor<B, 3>,
        chunk: Chunk<B>,
        cut: &LayerCut<B>,
    ) -> Result<(Vec<f32>, Vec<usize>), Error> {
        check_layer(cut.pruner.layer(), self.decoder.num_hidden_layers)?;
        let (states, kept) = self.decoder().forward_cut(embeds, chunk, self.vlm.rope(), cut)?;
        Ok((self.rows_of_logits(states).concat(), kept))
    }

    fn rows_of_logits(&self, states: Tensor<B, 2>) -> Vec<Vec<f32>> {
        let logits = host(self.decoder().logits(states));
        logits.chunks(self.decoder.vocab_size).map(<[f32]>::to_vec).collect()
    }

    /// The attention that the queries of each span of a prompt pay together to each token of `columns`: [`Decoder::attention_maps`].
    pub fn attention_maps(
        &self,
        embeds: Tensor<B, 3>,
        columns: &[usize],
        spans: &[Range<usize>],
        layers: usize,
    ) -> Vec<Vec<Vec<f32>>> {
        self.decoder().attention_maps(embeds, self.vlm.rope(), columns, spans, layers)
    }

    /// Refuses logits, or attention in the decoder, that are not finite; `embeds` makes the embeddings `[1, tokens, hidden]` that they come from,
    /// where they are known.
    ///
    /// # Errors
    /// When one is not; the error names the part of the model that is to blame.
    pub fn check_logits(&self, logits: &[f32], embeds: impl FnOnce() -> Option<Tensor<B, 3>>) -> Result<(), Error> {
        if logits.iter().all(|logit| logit.is_finite()) {
            return Ok(());
        }
        Err(self.not_finite(Stage::Decoder(embeds())))
    }

    /// Embeddings of tokens, `[1, ids, hidden]`.
    pub fn embed(&self, ids: &[u32]) -> Tensor<B, 3> {
        self.decoder().embed(ids, self.activations)
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
