//! The shapes at which operations are checked: small odd ones, then those of LLaVA-1.5-7B and Qwen2.5-VL.

use burn::tensor::{DType, Tensor};
use secateur_backends::{
    BlockType, Blocks, Mask, Rounding, RowOrder, VlmBackend,
    operations::{
        Operation, add_bias, apply_rope, attend, attention_received, exact_gelu, greedy_dpp, layer_norm, linear,
        linear_blocks, quick_gelu, rms_norm, silu_mul, write_positions,
    },
};

use secateur_blocks::quantise;

use super::operations::Checker;
use crate::tensor::host;

/// Rows, inputs and outputs of linear layers.
const LINEAR_SMALL: [[usize; 3]; 6] =
    [[1, 128, 344], [5, 96, 31], [2, 32, 16], [70, 300, 130], [576, 40, 2], [600, 616, 128]];
const LINEAR: [[usize; 3]; 8] = [
    // LLaVA-1.5-7B: a tower layer, a token, the MLP of a prompt of 64 visual tokens.
    [577, 1024, 4096],
    [1, 4096, 4096],
    [104, 4096, 11008],
    [104, 11008, 4096],
    // Qwen2.5-VL-7B: keys, a token, a tower layer; and the 3B model's MLP.
    [104, 3584, 512],
    [1, 3584, 18944],
    [256, 1280, 3420],
    [104, 2048, 11008],
];

/// Rows, inputs and outputs of linear layers with weights in blocks.
const BLOCKS: [[usize; 3]; 3] = [[1, 512, 70], [6, 256, 31], [40, 768, 64]];
/// The layouts of Q4_K_M, and one with blocks of 32.
const LAYOUTS: [BlockType; 3] = [BlockType::Q4K, BlockType::Q6K, BlockType::Q8_0];

/// Batch, heads, key heads, queries, keys, head size, and the mask.
struct Heads(usize, [usize; 2], [usize; 2], usize, Mask);

const ATTEND_SMALL: [Heads; 4] = [
    Heads(1, [2, 2], [1, 9], 300, Mask::None),
    Heads(1, [6, 2], [40, 100], 32, Mask::Causal),
    Heads(1, [3, 3], [77, 77], 64, Mask::None),
    Heads(2, [2, 1], [7, 7], 24, Mask::Causal),
];
const ATTEND: [Heads; 6] = [
    // LLaVA-1.5-7B: the tower, the whole prompt, a token.
    Heads(1, [16, 16], [577, 577], 64, Mask::None),
    Heads(1, [32, 32], [616, 616], 128, Mask::Causal),
    Heads(1, [32, 32], [1, 680], 128, Mask::None),
    // Qwen2.5-VL-7B: the tower's windows, a prompt, a token.
    Heads(16, [16, 16], [64, 64], 80, Mask::None),
    Heads(1, [28, 4], [400, 400], 128, Mask::Causal),
    Heads(1, [28, 4], [1, 680], 128, Mask::None),
];

/// Runs all of them; `checker` collects what is found.
pub(super) fn all<B: VlmBackend>(checker: &mut Checker<B>) {
    for (shapes, large) in [(&LINEAR_SMALL[..], false), (&LINEAR[..], true)] {
        shapes.iter().for_each(|&shape| products(checker, shape, large));
    }
    if checker.weights == DType::F32 && B::keeps_blocks() {
        LAYOUTS.iter().for_each(|&kind| BLOCKS.iter().for_each(|&shape| in_blocks(checker, shape, kind)));
    }
    // Between products nothing differs from f32 where activations are in f32.
    if checker.activations == DType::F32 && checker.weights != DType::F32 {
        rounded_attention(checker);
        return;
    }
    for (shapes, large) in [(&ATTEND_SMALL[..], false), (&ATTEND[..], true)] {
        shapes.iter().for_each(|heads| attention(checker, heads, large, false));
    }
    rounded_attention(checker);
    for (rows, width, large) in [(1, 5, false), (33, 345, false), (104, 11008, true), (104, 18944, true)] {
        steps(checker, [1, rows, width], large);
    }
    for (rows, width, large) in
        [(1, 8, false), (3, 300, false), (616, 4096, true), (616, 3584, true), (577, 1024, true)]
    {
        norms(checker, [rows, width], large);
    }
    for (heads, tokens, width, large) in [(3, 9, 16, false), (32, 616, 128, true), (4, 400, 128, true)] {
        positions(checker, [heads, tokens, width], large);
    }
    for (heads, tokens, width, large) in [(3, 70, 24, false), (16, 2048, 80, true)] {
        received(checker, [heads, tokens, width], large);
    }
    choices(checker);
}

fn products<B: VlmBackend>(checker: &mut Checker<B>, [rows, inputs, outputs]: [usize; 3], large: bool) {
    if !checker.holds(inputs * outputs) {
        return;
    }
    let x = checker.activations([rows, inputs]);
    let weight = checker.random([outputs, inputs], checker.weights, (inputs as f64).sqrt().recip());
    let shape = format!("{rows}×{inputs} to {outputs}");
    let exact = || linear(x.clone(), weight.clone(), false);
    checker.compare(Operation::Linear, &shape, large, checker.tolerance(), exact);
    if !large {
        checker.compare_with_float64(&shape, [&x, &weight], exact);
    }
    // `--dtype bf16` lets CPUs round.
    if checker.weights == DType::BF16 && checker.activations == DType::F32 {
        let rounded = || linear(x.clone(), weight.clone(), true);
        checker.compare(Operation::Linear, format!("{shape}, rounded"), large, 1.6e-2, rounded);
    }
}

fn in_blocks<B: VlmBackend>(checker: &mut Checker<B>, [rows, inputs, outputs]: [usize; 3], kind: BlockType) {
    let values = host(checker.random::<2>([outputs, inputs], DType::F32, (inputs as f64).sqrt().recip()));
    let mut bytes = Vec::new();
    let blocks = quantise(kind, &values, &mut bytes)
        .and_then(|()| Blocks::new(kind, [outputs, inputs], RowOrder::Plain, bytes.into()));
    let Some(blocks) = blocks else { return };
    let x = checker.activations([rows, inputs]);
    let shape = format!("{rows}×{inputs} to {outputs}, {kind}");
    checker.compare(Operation::Linear, shape, false, checker.tolerance(), || {
        linear_blocks(x.clone(), &blocks, Rounding::None)
    });
}

fn attention<B: VlmBackend>(checker: &mut Checker<B>, heads: &Heads, large: bool, rounded: bool) {
    let &Heads(batch, [heads, kv_heads], [queries, keys], width, mask) = heads;
    let q = checker.activations([batch, heads, queries, width]);
    let [k, v] = [0, 1].map(|_| checker.activations([batch, kv_heads, keys, width]));
    let kind = if mask == Mask::Causal { ", causal" } else { "" };
    let [by, rounds] = [(batch, "×"), (usize::from(rounded), "")].map(|(count, sign)| match (count, sign) {
        (1, "×") | (0, _) => String::new(),
        (_, "") => ", rounded".to_owned(),
        (count, sign) => format!("{count}{sign}"),
    });
    let shape = format!("{by}{heads}/{kv_heads} heads of {width}, {queries} to {keys}{kind}{rounds}");
    let allowed = if rounded { 1.6e-2 } else { checker.tolerance() };
    let work = || attend([q.clone(), k.clone(), v.clone()], mask, rounded);
    checker.compare(Operation::Attend, shape, large, allowed, work);
}

/// The attention that tokens receive, of heads of `width`.
fn received<B: VlmBackend>(checker: &mut Checker<B>, [heads, tokens, width]: [usize; 3], large: bool) {
    let [q, k] = [0, 1].map(|_| checker.activations([1, heads, tokens, width]));
    let name = format!("{heads} heads of {width}, {tokens} tokens");
    let allowed = checker.tolerance();
    let work = || attention_received(q.clone(), k.clone(), false);
    checker.compare(Operation::AttentionReceived, name, large, allowed, work);
}

/// Attention of whoever asks for bf16, on a device that computes in f32.
fn rounded_attention<B: VlmBackend>(checker: &mut Checker<B>) {
    if checker.weights == DType::BF16 && checker.activations == DType::F32 {
        ATTEND_SMALL.iter().for_each(|heads| attention(checker, heads, false, true));
        ATTEND.iter().for_each(|heads| attention(checker, heads, true, true));
    }
}

fn steps<B: VlmBackend>(checker: &mut Checker<B>, shape: [usize; 3], large: bool) {
    let (x, y) = (checker.activations(shape), checker.activations(shape));
    let bias = checker.activations([shape[2]]);
    let name = format!("{}×{}", shape[1], shape[2]);
    let allowed = checker.tolerance();
    checker.compare(Operation::SiluMul, &name, large, allowed, || silu_mul(x.clone(), y.clone()));
    checker.compare(Operation::QuickGelu, &name, large, allowed, || quick_gelu(x.clone()));
    checker.compare(Operation::ExactGelu, &name, large, allowed, || exact_gelu(x.clone()));
    let rows = || x.clone().reshape([shape[1], shape[2]]);
    checker.compare(Operation::AddBias, &name, large, allowed, || add_bias(rows(), bias.clone()));
}

fn norms<B: VlmBackend>(checker: &mut Checker<B>, shape: [usize; 2], large: bool) {
    let x = checker.activations(shape);
    let [weight, bias] = [0, 1].map(|_| checker.activations([shape[1]]));
    let name = format!("{}×{}", shape[0], shape[1]);
    let allowed = checker.tolerance();
    checker.compare(Operation::RmsNorm, &name, large, allowed, || rms_norm(x.clone(), weight.clone(), 1e-5));
    let layer = || layer_norm(x.clone(), weight.clone(), bias.clone(), 1e-5);
    checker.compare(Operation::LayerNorm, &name, large, allowed, layer);
}

fn positions<B: VlmBackend>(checker: &mut Checker<B>, [heads, tokens, width]: [usize; 3], large: bool) {
    // Heads lie in rows of tokens, as after a product.
    let x = checker.activations([1, tokens, heads, width]).swap_dims(1, 2);
    let half = checker.activations([1, 1, tokens, width / 2]);
    let [cos, sin] = [0, 1].map(|_| Tensor::cat(vec![half.clone(), half.clone()], 3));
    let name = format!("{heads} heads of {width}, {tokens} tokens");
    let allowed = checker.tolerance();
    checker.compare(Operation::ApplyRope, &name, large, allowed, || apply_rope(x.clone(), cos.clone(), sin.clone()));
    let dtype = checker.activations;
    let buffer = || Tensor::<B, 4>::zeros([1, heads, tokens + 8, width], (&x.device(), dtype));
    let buffers = std::cell::RefCell::new(vec![buffer(), buffer(), buffer(), buffer(), buffer()]);
    // A buffer with one owner, which may be written in place.
    let write = || write_positions(buffers.borrow_mut().pop().unwrap_or_else(buffer), 3, x.clone());
    checker.compare(Operation::WritePositions, &name, large, 0.0, write);
}

/// CDPruner's choice among vectors that are far apart, so that no rounding changes it.
fn choices<B: VlmBackend>(checker: &mut Checker<B>) {
    let vectors = checker.random([2, 60, 40], DType::F32, 1.0);
    let work = || greedy_dpp(vectors.clone(), 12).float();
    checker.compare(Operation::GreedyDpp, "2 sets, 12 of 60", false, 0.0, work);
}
