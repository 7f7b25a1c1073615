//! The first part of a language model whose result is not finite.

use burn::tensor::Tensor;
use secateur_backends::{Mask, VlmBackend};

use super::Llama;
use crate::{
    model::{LlamaConfig, finite::Overflow, rope::Rope},
    tensor::is_finite,
};

impl<B: VlmBackend> Llama<B> {
    /// Runs a whole prompt, `embeds` `[1, tokens, hidden]`, part by part, and names the first whose result is not finite.
    pub(in crate::model) fn first_overflow(&self, config: &LlamaConfig, embeds: Tensor<B, 3>) -> Option<Overflow> {
        let [_, tokens, _] = embeds.dims();
        let rope = Rope::new(config, tokens, &embeds.device()).rows(0, tokens, embeds.dtype());
        let mut x = embeds;
        for (i, layer) in self.layers.iter().enumerate() {
            let overflow = |part: &str| Some(Overflow { path: format!("layers.{i}.{part}") });
            let normed = layer.input_layernorm.forward(x.clone());
            if !is_finite(&normed) {
                return overflow("input_layernorm.");
            }
            let products = layer.self_attn.products(normed.clone(), normed);
            let names = ["self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."];
            if let Some(at) = products.iter().position(|product| !is_finite(product)) {
                return overflow(names[at]);
            }
            let (q, new) = layer.self_attn.split(products, [&rope; 2]);
            let [k, v] = new.map(|x| layer.self_attn.repeat(x));
            let attended = layer.self_attn.attend([q, k, v], Mask::Causal);
            if !is_finite(&attended) {
                return overflow("self_attn.");
            }
            x = x + layer.self_attn.o_proj.forward(attended);
            if !is_finite(&x) {
                return overflow("self_attn.o_proj.");
            }
            let normed = layer.post_attention_layernorm.forward(x.clone());
            if !is_finite(&normed) {
                return overflow("post_attention_layernorm.");
            }
            let [gate, up] = [&layer.mlp.gate_proj, &layer.mlp.up_proj].map(|product| product.forward(normed.clone()));
            if !is_finite(&gate) {
                return overflow("mlp.gate_proj.");
            }
            if !is_finite(&up) {
                return overflow("mlp.up_proj.");
            }
            x = x + layer.mlp.down_proj.forward(B::gate(gate, up));
            if !is_finite(&x) {
                return overflow("mlp.down_proj.");
            }
        }
        let states = self.norm.forward(x.squeeze_dim(0));
        if !is_finite(&states) {
            return Some(Overflow { path: "norm.".to_owned() });
        }
        (!is_finite(&self.logits(states))).then(|| Overflow { path: "lm_head.".to_owned() })
    }
}
