//! The cost of a prompt in the decoder, by arithmetic.
//!
//! Prefill of n tokens: 2 operations a multiply-add, of which every layer has n · (2·h·q + 2·h·kv + 3·h·i) in its
//! products and 2·n²·q in its attention, where h is the width, q and kv the width of all query and of all key heads,
//! and i the width inside the MLP. The attention is counted whole, as papers on pruning do, though half of it is masked.

use secateur_backends::VlmBackend;

use crate::{
    engine::{Generated, kept},
    model::{DecoderConfig, VisualTokens},
    pruner::Selector,
};

/// The formula of [`prefill_flops`], for people.
pub const FORMULA: &str = "2 a multiply-add; each layer n·h·(2q + 2kv + 3i) in products and 2·n²·q in attention, not halved for its mask \
                           (n tokens, h width, q and kv widths of query and key heads, i inside the MLP)";

/// The number of visual tokens in each layer of the decoder.
pub fn visual_tokens<B: VlmBackend>(
    selector: &Selector<B>,
    layers: usize,
    seen: &[VisualTokens<B>],
    generated: &Generated,
) -> Vec<usize> {
    let before = seen.iter().map(|seen| seen.order.len()).sum();
    let below = match selector {
        Selector::Before(_) => layers,
        Selector::Inside(pruner) => pruner.layer(),
    };
    (0..layers).map(|layer| if layer < below { before } else { kept(seen, generated).1 }).collect()
}

/// The operations of a prefill with `layers` tokens in each layer.
pub fn prefill_flops(config: &DecoderConfig, layers: &[usize]) -> u64 {
    let layer = |&tokens: &usize| {
        let attention = 2 * tokens * tokens * config.num_attention_heads * config.head_dim;
        2 * (tokens * layer_weights(config) + attention) as u64
    };
    layers.iter().map(layer).sum()
}

/// The operations that a prefill with `layers` tokens in each layer really takes: the last layer is computed for the
/// last token only, and all other tokens only give it keys and values.
pub fn prefill_work(config: &DecoderConfig, layers: &[usize]) -> u64 {
    let Some((&last, before)) = layers.split_last() else { return 0 };
    let queries = config.num_attention_heads * config.head_dim;
    let keys = config.num_key_value_heads * config.head_dim;
    let all = last * 2 * config.hidden_size * keys;
    let one = config.hidden_size * (2 * queries + 3 * config.intermediate_size) + 2 * last * queries;
    prefill_flops(config, before) + 2 * (all + one) as u64
}

/// The number of weights in the products of a layer; each weight is a multiply-add for every token.
fn layer_weights(config: &DecoderConfig) -> usize {
    let queries = config.num_attention_heads * config.head_dim;
    let keys = config.num_key_value_heads * config.head_dim;
    config.hidden_size * (2 * queries + 2 * keys + 3 * config.intermediate_size)
}

/// The bytes of the keys and values with `layers` tokens in each layer, each number in `bytes` bytes.
pub fn kv_bytes(config: &DecoderConfig, layers: &[usize], bytes: usize) -> u64 {
    let tokens: usize = layers.iter().sum();
    (2 * config.num_key_value_heads * config.head_dim * tokens * bytes) as u64
}

/// The bytes that a step of decoding reads after `layers` tokens in each layer: the `weights` bytes of the layers and of the last
/// product, and the keys and values, in `value` bytes a number.
pub fn step_bytes(config: &DecoderConfig, layers: &[usize], weights: u64, value: usize) -> u64 {
    weights + kv_bytes(config, layers, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figures of LLaVA-1.5-7B: 3.82 T multiply-adds and 288 MiB for 576 tokens, by hand.
    #[test]
    fn the_7b_figures_are_those_of_paper_and_pencil() {
        let config = DecoderConfig::default();
        let layer = 576 * (4 * 4096 * 4096 + 3 * 4096 * 11_008) + 2 * 576 * 576 * 4096_u64;
        assert_eq!(prefill_flops(&config, &[576; 32]), 2 * 32 * layer);
        assert_eq!(prefill_flops(&config, &[576; 32]) / 2 / 10_000_000_000, 381);
        // The last layer of 616 tokens takes 41.7 GFLOP instead of 255.6.
        let last = prefill_work(&config, &[616]);
        assert_eq!(last, 2 * (616 * 2 * 4096 * 4096 + 2 * 4096 * 4096 + 3 * 4096 * 11_008 + 2 * 616 * 4096));
        assert_eq!((last / 100_000_000, prefill_flops(&config, &[616]) / 100_000_000), (416, 2555));
        assert_eq!(prefill_work(&config, &[616; 32]), prefill_flops(&config, &[616; 31]) + last);
        assert_eq!(kv_bytes(&config, &[1; 32], 2), 512 << 10);
        assert_eq!(kv_bytes(&config, &[576; 32], 2), 288 << 20);
        assert_eq!(kv_bytes(&config, &[2880; 32], 2), 1440 << 20);
        // 6.6 billion weights.
        let weights = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11_008) + 4096 * 32_000_u64;
        assert_eq!(step_bytes(&config, &[616; 32], 2 * weights, 2), 2 * weights + (308 << 20));
        assert_eq!(weights / 100_000_000, 66);
    }
}
