//! The Llama language model, one sequence at a time.

use burn::{
    module::{Module, Param},
    tensor::{DType, Int, Tensor, TensorData, activation, backend::Backend},
};
use secateur_backends::VlmBackend;

use super::{KvCache, Linear, LlamaConfig, RmsNorm, layers::unfilled, rope::RopeRows};

/// `LlamaForCausalLM`.
#[derive(Module, Debug)]
pub struct Llama<B: Backend> {
    embed_tokens: Embedding<B>,
    layers: Vec<Layer<B>>,
    norm: RmsNorm<B>,
    lm_head: Linear<B>,
}

#[derive(Module, Debug)]
struct Embedding<B: Backend> {
    /// `[vocabulary, hidden]`.
    weight: Param<Tensor<B, 2>>,
}

#[derive(Module, Debug)]
struct Layer<B: Backend> {
    input_layernorm: RmsNorm<B>,
    self_attn: Attention<B>,
    post_attention_layernorm: RmsNorm<B>,
    mlp: Mlp<B>,
}

#[derive(Module, Debug)]
struct Attention<B: Backend> {
    q_proj: Linear<B>,
    k_proj: Linear<B>,
    v_proj: Linear<B>,
    o_proj: Linear<B>,
    heads: usize,
    kv_heads: usize,
}

#[derive(Module, Debug)]
struct Mlp<B: Backend> {
    gate_proj: Linear<B>,
    up_proj: Linear<B>,
    down_proj: Linear<B>,
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
        let [_, new, hidden] = embeds.dims();
        let rope = cache.rope.rows(cache.len(), new, embeds.dtype());
        let mut x = embeds;
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x, i, &rope, cache);
        }
        cache.advance(new);
        let last = self.norm.forward(x.narrow(1, new - 1, 1).reshape([1, hidden]));
        self.lm_head.forward(last).cast(DType::F32).squeeze_dim(0)
    }
}

impl<B: VlmBackend> Layer<B> {
    fn forward(&self, x: Tensor<B, 3>, index: usize, rope: &RopeRows<B>, cache: &mut KvCache<B>) -> Tensor<B, 3> {
        let x = x.clone() + self.self_attn.forward(self.input_layernorm.forward(x), index, rope, cache);
        x.clone() + self.mlp.forward(self.post_attention_layernorm.forward(x))
    }
}

impl<B: VlmBackend> Attention<B> {
    fn forward(&self, x: Tensor<B, 3>, layer: usize, rope: &RopeRows<B>, cache: &mut KvCache<B>) -> Tensor<B, 3> {
        let [batch, new, _] = x.dims();
        // [1, new, heads · head_dim] → [1, heads, new, head_dim]
        let split = |x: Tensor<B, 3>, heads: usize| {
            let head_dim = x.dims()[2] / heads;
            x.reshape([batch, new, heads, head_dim]).swap_dims(1, 2)
        };
        let q = rope.rotate(split(self.q_proj.forward(x.clone()), self.heads));
        let k = rope.rotate(split(self.k_proj.forward(x.clone()), self.kv_heads));
        let v = split(self.v_proj.forward(x), self.kv_heads);
        let [k, v] = cache.append(layer, k, v).map(|x| self.repeat(x));
        let attended = B::attend(q, k, v, new > 1).swap_dims(1, 2);
        let [_, _, heads, head_dim] = attended.dims();
        self.o_proj.forward(attended.reshape([batch, new, heads * head_dim]))
    }

    /// Key and value heads, each as often as query heads share it.
    fn repeat(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let groups = self.heads / self.kv_heads;
        if groups == 1 {
            return x;
        }
        let [batch, heads, len, head_dim] = x.dims();
        x.unsqueeze_dim::<5>(2).expand([batch, heads, groups, len, head_dim]).reshape([
            batch,
            heads * groups,
            len,
            head_dim,
        ])
    }
}

impl<B: VlmBackend> Mlp<B> {
    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let gate = activation::silu(self.gate_proj.forward(x.clone()));
        self.down_proj.forward(gate * self.up_proj.forward(x))
    }
}
