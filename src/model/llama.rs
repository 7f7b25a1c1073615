//! The Llama language model: one sequence at a time with a cache, or whole sequences for training.

mod attention;
mod finite;
mod layer;
mod watch;

use std::ops::Range;

use attention::Attention;
use burn::{
    module::{Module, Param},
    tensor::{DType, Int, Tensor, TensorData, backend::Backend},
};
use layer::{Layer, Mlp, last_token};
use secateur_backends::{Mask, VlmBackend};

use super::{
    KvCache, Linear, LlamaConfig, RmsNorm,
    layers::{Rounds, unfilled},
    rope::{Rope, RopeRows},
};
use crate::{Error, merge::select, pruner::LayerPruner};

/// `LlamaForCausalLM`.
#[derive(Module, Debug)]
pub struct Llama<B: Backend> {
    embed_tokens: Embedding<B>,
    layers: Vec<Layer<B>>,
    norm: RmsNorm<B>,
    lm_head: Linear<B>,
}

/// Visual tokens to drop on the way through the layers.
pub struct LayerCut<'a, B: VlmBackend> {
    /// The method that chooses.
    pub pruner: &'a dyn LayerPruner<B>,
    /// The positions of the visual tokens in the prompt, ascending.
    pub visual: &'a [usize],
    /// How many of them stay.
    pub budget: usize,
}

/// A sequence among others that a pass reads.
pub struct Part<'a, B: Backend> {
    /// What was read of it before.
    pub cache: &'a mut KvCache<B>,
    /// How many new tokens of it there are.
    pub new: usize,
    /// How many tokens before these, of which its cache has none yet, are those at the beginning of the part before it: keys and values
    /// are taken over from there, layer by layer.
    pub shared: usize,
}

#[derive(Module, Debug)]
struct Embedding<B: Backend> {
    /// `[vocabulary, hidden]`.
    weight: Param<Tensor<B, 2>>,
}

impl<B: VlmBackend> Llama<B> {
    /// An unfilled model.
    pub fn new(config: &LlamaConfig, device: &B::Device) -> Self {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (heads, kv_heads, head_dim) = (config.num_attention_heads, config.num_key_value_heads, config.head_dim());
        let norm = || RmsNorm::new(hidden, config.rms_norm_eps, device);
        let plain = |inputs, outputs| Linear::new(inputs, outputs, false, device);
        let layer = |_| Layer {
            input_layernorm: norm(),
            self_attn: Attention {
                q_proj: plain(hidden, heads * head_dim),
                k_proj: plain(hidden, kv_heads * head_dim),
                v_proj: plain(hidden, kv_heads * head_dim),
                o_proj: plain(heads * head_dim, hidden),
                heads,
                kv_heads,
            },
            post_attention_layernorm: norm(),
            mlp: Mlp {
                gate_proj: plain(hidden, inner),
                up_proj: plain(hidden, inner),
                down_proj: plain(inner, hidden),
            },
        };
        Self {
            embed_tokens: Embedding { weight: unfilled([config.vocab_size, hidden], device) },
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            norm: norm(),
            lm_head: plain(hidden, config.vocab_size),
        }
    }

    /// What matrices are kept in.
    pub fn weights(&self) -> DType {
        self.lm_head.weight.val().dtype()
    }

    /// Embeddings of `ids` in `dtype`, `[1, ids, hidden]`.
    pub fn embed(&self, ids: &[u32], dtype: DType) -> Tensor<B, 3> {
        let weight = self.embed_tokens.weight.val();
        let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        let ids = TensorData::new(ids.clone(), [ids.len()]);
        let ids = Tensor::<B, 1, Int>::from_data(ids, &weight.device());
        weight.select(0, ids).cast(dtype).unsqueeze()
    }

    /// Runs `embeds` `[1, new, hidden]` at the positions after those in `cache`, and returns the logits of the last
    /// one, `[vocabulary]` in f32.
    pub fn forward(&self, embeds: Tensor<B, 3>, cache: &mut KvCache<B>) -> Tensor<B, 1> {
        let new = embeds.dims()[1];
        let rope = cache.rope.rows(cache.len(), new, embeds.dtype());
        let x = self.run_last(embeds, 0..self.layers.len(), &rope, cache);
        cache.advance(new);
        self.head(x)
    }

    /// Runs the new tokens of several sequences, `embeds` `[1, all of them, hidden]`, one sequence after another, at the positions after those in
    /// their caches, and returns the logits of each one's last token, `[sequences, vocabulary]` in f32. Products read every weight once for
    /// all of them; attention is each sequence's own, so that none needs padding.
    pub fn forward_each(&self, embeds: Tensor<B, 3>, parts: &mut [Part<B>]) -> Tensor<B, 2> {
        let dtype = embeds.dtype();
        parts.iter_mut().for_each(|part| part.cache.advance(part.shared));
        let ropes: Vec<RopeRows<B>> =
            parts.iter().map(|Part { cache, new, .. }| cache.rope.rows(cache.len(), *new, dtype)).collect();
        let x = self.layers.iter().enumerate().fold(embeds, |x, (i, layer)| {
            let last = i + 1 == self.layers.len();
            layer.forward_each(x, i, &ropes, parts, last)
        });
        parts.iter_mut().for_each(|part| part.cache.advance(part.new));
        self.logits(self.norm.forward(x.squeeze_dim(0)))
    }

    /// The same for a prompt of which some visual tokens are dropped between two layers; also returns which of them
    /// stayed, as indices into [`LayerCut::visual`]. The others keep their positions.
    ///
    /// # Errors
    /// When the budget is not between 1 and the number of visual tokens.
    pub fn forward_cut(
        &self,
        embeds: Tensor<B, 3>,
        cache: &mut KvCache<B>,
        cut: &LayerCut<B>,
    ) -> Result<(Tensor<B, 1>, Vec<usize>), Error> {
        let [_, new, hidden] = embeds.dims();
        let (below, last) = (cut.pruner.layer(), cut.pruner.layer() - 1);
        let rope = cache.rope.rows(cache.len(), new, embeds.dtype());
        let x = self.run(embeds, 0..last, &rope, cache);
        let (x, row) = self.layers[last].forward_noting(x, last, &rope, cache);
        let visual: Vec<i32> = cut.visual.iter().map(|&position| position as i32).collect();
        let visual = Tensor::from_data(TensorData::new(visual, [cut.visual.len()]), &x.device());
        let kept = cut.pruner.keep(row.select(1, visual), cut.budget)?;

        let mut stays = vec![true; new];
        cut.visual.iter().for_each(|&position| stays[position] = false);
        kept.iter().for_each(|&i| stays[cut.visual[i]] = true);
        let rows: Vec<usize> = (0..new).filter(|&position| stays[position]).collect();
        let x = select(x.reshape([new, hidden]), rows.clone()).unsqueeze();
        let rows: Vec<i32> = rows.into_iter().map(|row| row as i32).collect();
        let rows = Tensor::from_data(TensorData::new(rows.clone(), [rows.len()]), &x.device());
        let x = self.run_last(x, below..self.layers.len(), &rope.select(&rows), cache);
        cache.advance(new);
        Ok((self.head(x), kept))
    }

    /// Runs whole sequences `[batch, tokens, hidden]` at once, without a cache, and returns the last layer's normalised states of some
    /// of their tokens, `[rows, hidden]`: what training needs. `rows` are counted through all sequences; token `i` of each stands at
    /// `positions[i]`.
    pub fn states(
        &self,
        config: &LlamaConfig,
        embeds: Tensor<B, 3>,
        positions: &[usize],
        mask: Mask,
        rows: Vec<usize>,
    ) -> Tensor<B, 2> {
        let length = positions.iter().max().map_or(0, |last| last + 1);
        let rope = Rope::new(config, length, &embeds.device()).rows(0, length, embeds.dtype());
        let places: Vec<i32> = positions.iter().map(|&position| position as i32).collect();
        let rope = rope.select(&Tensor::from_data(TensorData::new(places, [positions.len()]), &embeds.device()));
        let mut x = embeds;
        for (i, layer) in self.layers.iter().enumerate() {
            let last = i + 1 == self.layers.len();
            x = layer.forward_all(x, &rope, mask, last.then_some(&rows));
        }
        self.norm.forward(x.squeeze_dim(0))
    }

    /// Normalised states `[rows, hidden]` → logits `[rows, vocabulary]` in f32.
    pub fn logits(&self, states: Tensor<B, 2>) -> Tensor<B, 2> {
        self.lm_head.forward(states).cast(DType::F32)
    }

    fn run(
        &self,
        mut x: Tensor<B, 3>,
        layers: Range<usize>,
        rope: &RopeRows<B>,
        cache: &mut KvCache<B>,
    ) -> Tensor<B, 3> {
        for i in layers {
            x = self.layers[i].forward(x, i, rope, cache);
        }
        x
    }

    /// [`Self::run`] through the last layers, of which only the last token's state is wanted, `[1, 1, hidden]`.
    fn run_last(
        &self,
        x: Tensor<B, 3>,
        layers: Range<usize>,
        rope: &RopeRows<B>,
        cache: &mut KvCache<B>,
    ) -> Tensor<B, 3> {
        let Some(last) = layers.clone().next_back() else { return last_token(x) };
        let x = self.run(x, layers.start..last, rope, cache);
        self.layers[last].forward_last(x, last, rope, cache)
    }

    /// The logits of a state `[1, 1, hidden]`.
    fn head(&self, x: Tensor<B, 3>) -> Tensor<B, 1> {
        self.logits(self.norm.forward(x.squeeze_dim(0))).squeeze_dim(0)
    }
}

impl<B: Backend> Rounds for Llama<B> {
    fn round(&mut self) {
        self.lm_head.round();
        for Layer { self_attn, mlp, .. } in &mut self.layers {
            let Attention { q_proj, k_proj, v_proj, o_proj, .. } = self_attn;
            let Mlp { gate_proj, up_proj, down_proj } = mlp;
            [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj].into_iter().for_each(Rounds::round);
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Distribution;
    use secateur_backends::Flex;

    use super::*;
    use crate::model::layers::{Noise, difference};

    #[test]
    fn states_of_some_tokens_are_those_of_all() {
        let device = Default::default();
        let config = LlamaConfig {
            vocab_size: 10,
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            position_scale: 1.0,
            max_position_embeddings: 64,
        };
        let llama = Llama::<Flex>::new(&config, &device).map(&mut Noise);
        const TOKENS: usize = 11;
        let embeds = Tensor::<Flex, 3>::random([2, TOKENS, 16], Distribution::Normal(0.0, 1.0), &device);
        let positions: Vec<usize> = (0..5).chain([5, 6, 7, 5, 6, 7]).collect();
        for mask in [Mask::Causal, Mask::Turns { shared: 5, turn: 3 }] {
            let states = |rows| llama.states(&config, embeds.clone(), &positions, mask, rows);
            let all = states((0..2 * TOKENS).collect());
            for rows in [vec![TOKENS - 1], vec![6, 10, TOKENS + 7], vec![TOKENS + 2, 9]] {
                let expected = select(all.clone(), rows.clone());
                let difference = difference(states(rows.clone()), expected);
                assert!(difference < 1e-4, "{rows:?} with {mask:?}: {difference}");
            }
        }
    }
}
