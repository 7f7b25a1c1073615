//! The decoder (Llama, Mistral, Qwen2): one forward pass over the new tokens of one or several sequences.
//!
//! A [`Chunk`] is the part of a pass that belongs to one sequence. One kind of pass serves a prompt, several prompts at once, the next token of many
//! answers, training, attention maps and FastV's cut: products read every weight once for all chunks, and attention is each chunk's own.

mod attention;
mod chunk;
mod cut;
mod embedding;
mod layer;
mod maps;
mod overflow;
mod probe;

use std::ops::Range;

use attention::Attention;
use burn::{
    module::Module,
    tensor::{DType, Tensor, TensorData, backend::Backend},
};
use chunk::Wanted;
pub use chunk::{Chunk, Outputs, Positions};
use cut::Cut;
pub use cut::LayerCut;
use embedding::Embedding;
pub use embedding::Weights;
use layer::{Layer, Mlp, Pass};
use maps::Maps;
use overflow::Overflow;
use probe::{Probe, Unless};
use secateur_backends::{
    Rounding, VlmBackend,
    operations::{linear, linear_blocks},
};

use super::{Build, Linear, RmsNorm, Rope, bytes};
use crate::{Error, model::DecoderConfig, sequence::select, tensor::is_finite};

/// The decoder: `LlamaForCausalLM`, `MistralForCausalLM`, `Qwen2ForCausalLM`.
#[derive(Module, Debug)]
pub struct Decoder<B: Backend> {
    embed_tokens: Embedding<B>,
    layers: Vec<Layer<B>>,
    norm: RmsNorm<B>,
    /// The matrix before the logits; `None` where the embedding is that matrix, too.
    lm_head: Option<Linear<B>>,
    bf16: bool,
    #[module(skip)]
    rounding: Rounding,
}

impl<B: VlmBackend> Decoder<B> {
    /// An unfilled decoder.
    pub fn new(config: &DecoderConfig, build: Build<B>) -> Self {
        let (hidden, inner, device) = (config.hidden_size, config.intermediate_size, build.device);
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let (queries, keys) = (heads * config.head_dim, kv_heads * config.head_dim);
        let norm = || RmsNorm::new(hidden, config.rms_norm_eps, device);
        let layer = |_| Layer {
            input_layernorm: norm(),
            self_attn: Attention {
                q_proj: build.linear(hidden, queries, config.qkv_bias),
                k_proj: build.linear(hidden, keys, config.qkv_bias),
                v_proj: build.linear(hidden, keys, config.qkv_bias),
                o_proj: build.linear(queries, hidden, config.o_bias),
                heads,
                kv_heads,
            },
            post_attention_layernorm: norm(),
            mlp: Mlp {
                gate_proj: build.linear(hidden, inner, config.mlp_bias),
                up_proj: build.linear(hidden, inner, config.mlp_bias),
                down_proj: build.linear(inner, hidden, config.mlp_bias),
            },
        };
        Self {
            embed_tokens: Embedding::new([config.vocab_size, hidden], build),
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            norm: norm(),
            lm_head: (!config.tied).then(|| build.linear(hidden, config.vocab_size, false)),
            bf16: build.bf16,
            rounding: build.rounding(),
        }
    }

    /// The type that matrices are kept in: a dtype, or the layout of most blocks.
    pub fn weights(&self) -> Weights {
        let blocks = self.layers.iter().filter_map(|layer| layer.mlp.gate_proj.blocks()).next();
        match blocks.or_else(|| self.lm_head.as_ref()?.blocks()) {
            Some(blocks) => Weights::Blocks(blocks.kind()),
            None => Weights::Floats(
                self.lm_head.as_ref().map_or(&self.embed_tokens.weight, |head| &head.weight).val().dtype(),
            ),
        }
    }

    /// The bytes of the matrices that a step of decoding reads: those of the layers, and the one before the logits.
    pub fn step_bytes(&self) -> u64 {
        let layers = self.layers.iter().flat_map(|layer| {
            let (attention, mlp) = (&layer.self_attn, &layer.mlp);
            let products = [&attention.q_proj, &attention.k_proj, &attention.v_proj, &attention.o_proj];
            products.into_iter().chain([&mlp.gate_proj, &mlp.up_proj, &mlp.down_proj])
        });
        let head = match &self.lm_head {
            Some(head) => head.bytes(),
            None => bytes(self.embed_tokens.blocks(), &self.embed_tokens.weight),
        };
        layers.map(Linear::bytes).sum::<u64>() + head
    }

    /// Embeddings of `ids` in `dtype`, `[1, ids, hidden]`.
    pub fn embed(&self, ids: &[u32], dtype: DType) -> Tensor<B, 3> {
        self.embed_tokens.forward(ids, &self.norm.device()).cast(dtype).unsqueeze()
    }

    /// Runs `x` `[batch, rows, hidden]`, the rows of all chunks one after another (several sequences in a batch are one chunk), and returns
    /// the normalised final states of the rows that the chunks want, `[wanted, hidden]`. Caches count the rows as theirs afterwards.
    pub fn forward(&self, x: Tensor<B, 3>, chunks: &mut [Chunk<B>], rope: &Rope<B>) -> Tensor<B, 2> {
        self.run(x, chunks, rope, &mut Unless(&|| false))
    }

    /// Runs [`Self::forward`] unless cancelled: the pass ends between two layers once `is_cancelled` says so; then there is no result, and the caches
    /// are of no use.
    pub fn forward_unless(
        &self,
        x: Tensor<B, 3>,
        chunks: &mut [Chunk<B>],
        rope: &Rope<B>,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Option<Tensor<B, 2>> {
        let states = self.run(x, chunks, rope, &mut Unless(is_cancelled));
        (!is_cancelled()).then_some(states)
    }

    /// The logits of normalised states: `[rows, hidden]` → `[rows, vocabulary]` in f32.
    pub fn logits(&self, states: Tensor<B, 2>) -> Tensor<B, 2> {
        let logits = match &self.lm_head {
            Some(head) => head.forward(states),
            None => match self.embed_tokens.blocks() {
                Some(blocks) => linear_blocks(states, blocks, self.rounding),
                None => linear(states, self.embed_tokens.weight.val(), self.bf16),
            },
        };
        logits.cast(DType::F32)
    }

    /// Runs [`Self::forward`] for a prompt of which some visual tokens are dropped between two layers; also returns the visual tokens that were kept,
    /// as indices into [`LayerCut::visual`]. The tokens that stay keep their positions.
    ///
    /// # Errors
    /// When the budget is not between 1 and the number of visual tokens, or the pass was cancelled.
    pub fn forward_cut(
        &self,
        x: Tensor<B, 3>,
        chunk: Chunk<B>,
        rope: &Rope<B>,
        cut: &LayerCut<B>,
    ) -> Result<(Tensor<B, 2>, Vec<usize>), Error> {
        let mut probe = Cut::new(cut, chunk.rows);
        let states = self.run(x, &mut [chunk], rope, &mut probe);
        if (cut.is_cancelled)() { Err(Error::Cancelled) } else { Ok((states, probe.kept()?)) }
    }

    /// The attention that the queries of each span of `x` `[1, tokens, hidden]` pay together to each token of `columns`, averaged over heads:
    /// `[layer][span][column]`, of the first `layers` layers.
    pub fn attention_maps(
        &self,
        x: Tensor<B, 3>,
        rope: &Rope<B>,
        columns: &[usize],
        spans: &[Range<usize>],
        layers: usize,
    ) -> Vec<Vec<Vec<f32>>> {
        let tokens = x.dims()[1];
        let columns: Vec<i32> = columns.iter().map(|&column| column as i32).collect();
        let columns = Tensor::from_data(TensorData::new(columns.clone(), [columns.len()]), &x.device());
        let mut maps = Maps { columns, spans, layers, found: Vec::new() };
        self.run(x, &mut [Chunk::whole(tokens)], rope, &mut maps);
        maps.found
    }

    /// Runs a whole prompt, `x` `[1, tokens, hidden]`, and returns the path of the weights of the first part whose result is not finite.
    pub(in crate::model) fn first_overflow(&self, x: Tensor<B, 3>, rope: &Rope<B>) -> Option<String> {
        let tokens = x.dims()[1];
        let mut overflow = Overflow::default();
        let states = self.run(x, &mut [Chunk::whole(tokens)], rope, &mut overflow);
        let after = |part: &str, finite: bool| (!finite).then(|| part.to_owned());
        overflow
            .path
            .or_else(|| after("norm.", is_finite(&states)))
            .or_else(|| after("lm_head.", is_finite(&self.logits(states))))
    }

    fn run(
        &self,
        mut x: Tensor<B, 3>,
        chunks: &mut [Chunk<B>],
        rope: &Rope<B>,
        probe: &mut dyn Probe<B>,
    ) -> Tensor<B, 2> {
        let [batch, _, hidden] = x.dims();
        let layers = probe.layers(self.layers.len());
        let rows: Vec<usize> = chunks.iter().map(|chunk| chunk.rows).collect();
        let ropes = chunks.iter().map(|chunk| rope.rows(&chunk.positions, chunk.rows, x.dtype())).collect();
        let mut pass = Pass { chunks, ropes, rows, probe };
        for (i, layer) in self.layers.iter().take(layers).enumerate() {
            if pass.probe.is_cancelled() {
                break;
            }
            let last = i + 1 == layers;
            let wanted = last.then(|| Wanted::new(pass.chunks, &pass.rows, batch));
            x = layer.forward(x, i, &mut pass, wanted.as_ref());
            if let Some(rows) = pass.probe.keep(i).filter(|_| !last) {
                let index: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
                let index = Tensor::from_data(TensorData::new(index, [rows.len()]), &x.device());
                pass.ropes[0] = pass.ropes[0].select(&index);
                pass.rows[0] = rows.len();
                x = select(x.squeeze_dim(0), rows).unsqueeze();
            }
        }
        for chunk in pass.chunks {
            let end = chunk.positions.end(chunk.rows);
            if let Some(cache) = &mut chunk.cache {
                cache.advance(end);
            }
        }
        let rows = x.dims()[0] * x.dims()[1];
        self.norm.forward(x.reshape([rows, hidden]))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Distribution;
    use secateur_backends::{Flex, Mask};

    use super::*;
    use crate::model::{
        KvCache,
        blocks::testing::{Noise, difference},
    };

    fn config() -> DecoderConfig {
        DecoderConfig {
            vocab_size: 10,
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 6,
            max_position_embeddings: 64,
            qkv_bias: true,
            o_bias: true,
            ..DecoderConfig::default()
        }
    }

    fn noise(shape: [usize; 3]) -> Tensor<Flex, 3> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Default::default())
    }

    #[test]
    fn states_of_some_tokens_are_those_of_all() {
        let (config, device) = (config(), Default::default());
        let decoder = Decoder::<Flex>::new(&config, Build::exact(&device)).map(&mut Noise);
        let rope = Rope::new(&config, &device);
        const TOKENS: usize = 11;
        let embeds = noise([2, TOKENS, 16]);
        let positions: Vec<usize> = (0..5).chain([5, 6, 7, 5, 6, 7]).collect();
        for mask in [Mask::Causal, Mask::Turns { shared: 5, turn: 3 }] {
            let states = |rows| {
                let (positions, outputs) = (Positions::These(positions.clone()), Outputs::These(rows));
                let chunk = Chunk { positions, outputs, mask, ..Chunk::whole(TOKENS) };
                decoder.forward(embeds.clone(), &mut [chunk], &rope)
            };
            let all = states((0..2 * TOKENS).collect());
            for rows in [vec![TOKENS - 1], vec![6, 10, TOKENS + 7], vec![TOKENS + 2, 9]] {
                let expected = select(all.clone(), rows.clone());
                let difference = difference(states(rows.clone()), expected);
                assert!(difference < 1e-4, "{rows:?} with {mask:?}: {difference}");
            }
        }
    }

    /// Checks that several sequences in a pass, of which some outputs are wanted, give what each gives alone, in one go and token by token.
    #[test]
    fn chunks_of_a_pass_do_not_see_each_other() {
        let (config, device) = (config(), Default::default());
        let decoder = Decoder::<Flex>::new(&config, Build::exact(&device)).map(&mut Noise);
        let rope = Rope::new(&config, &device);
        let prompts: Vec<Tensor<Flex, 3>> = [7, 1, 4].map(|tokens| noise([1, tokens, 16])).to_vec();
        let cache = || KvCache::<Flex>::new(&config, 8, 4, DType::F32, &device);
        let mut caches = [cache(), cache(), cache()];
        let mut chunks: Vec<Chunk<Flex>> =
            caches.iter_mut().zip(&prompts).map(|(cache, prompt)| Chunk::next(cache, prompt.dims()[1], 0)).collect();
        chunks[0].outputs = Outputs::These(vec![2, 6]);
        let together = decoder.forward(Tensor::cat(prompts.clone(), 1), &mut chunks, &rope);
        let alone = prompts.iter().enumerate().map(|(i, prompt)| {
            let states = decoder.forward(prompt.clone(), &mut [Chunk::whole(prompt.dims()[1])], &rope);
            select(states, if i == 0 { vec![2, 6] } else { vec![prompt.dims()[1] - 1] })
        });
        let worst = difference(together, Tensor::cat(alone.collect(), 0));
        assert!(worst < 1e-4, "{worst}");

        let mut step_by_step = cache();
        let first = &prompts[0];
        for i in 0..7 {
            let state =
                decoder.forward(first.clone().narrow(1, i, 1), &mut [Chunk::next(&mut step_by_step, 1, 0)], &rope);
            if i == 6 {
                let whole = decoder.forward(first.clone(), &mut [Chunk::whole(7)], &rope).narrow(0, 6, 1);
                let worst = difference(state, whole);
                assert!(worst < 1e-4, "{worst}");
            }
        }
        assert_eq!((step_by_step.next_position(), step_by_step.tokens(1)), (7, 7));
    }
}
