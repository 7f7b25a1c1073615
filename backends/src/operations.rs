//! The operations as models call them: by the backend's own body, or by the reference body where a user asks for it.
//!
//! `secateur check` compares both on a device. Where one differs, [`use_reference`] lets a user work until it is mended.

use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicU32, Ordering},
};

use burn::tensor::{Int, Tensor, TensorPrimitive, activation};

use secateur_blocks::Blocks;

use crate::{
    Mask, Rounding, VlmBackend, dpp,
    ops::{
        reference_add_bias, reference_apply_rope, reference_attend, reference_attention_received, reference_layer_norm,
        reference_linear, reference_linear_blocks, reference_quick_gelu, reference_rms_norm, reference_silu_mul,
        reference_write_positions,
    },
};

/// An operation of [`VlmBackend`] that backends have bodies of their own for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`VlmBackend::linear_rows`], [`VlmBackend::linear_rows_bf16`] and [`VlmBackend::linear_blocks`].
    Linear,
    /// [`VlmBackend::attend`] and [`VlmBackend::attend_bf16`].
    Attend,
    /// [`VlmBackend::silu_mul`].
    SiluMul,
    /// [`VlmBackend::quick_gelu`].
    QuickGelu,
    /// [`VlmBackend::exact_gelu`].
    ExactGelu,
    /// [`VlmBackend::add_bias`].
    AddBias,
    /// [`VlmBackend::rms_norm_rows`].
    RmsNorm,
    /// [`VlmBackend::layer_norm_rows`].
    LayerNorm,
    /// [`VlmBackend::apply_rope`].
    ApplyRope,
    /// [`VlmBackend::write_positions`].
    WritePositions,
    /// [`VlmBackend::greedy_dpp`].
    GreedyDpp,
    /// [`VlmBackend::attention_received`].
    AttentionReceived,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 12] = [
        Self::Linear,
        Self::Attend,
        Self::SiluMul,
        Self::QuickGelu,
        Self::ExactGelu,
        Self::AddBias,
        Self::RmsNorm,
        Self::LayerNorm,
        Self::ApplyRope,
        Self::WritePositions,
        Self::GreedyDpp,
        Self::AttentionReceived,
    ];

    /// The name that `--reference` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Attend => "attend",
            Self::SiluMul => "silu_mul",
            Self::QuickGelu => "quick_gelu",
            Self::ExactGelu => "exact_gelu",
            Self::AddBias => "add_bias",
            Self::RmsNorm => "rms_norm",
            Self::LayerNorm => "layer_norm",
            Self::ApplyRope => "apply_rope",
            Self::WritePositions => "write_positions",
            Self::GreedyDpp => "greedy_dpp",
            Self::AttentionReceived => "attention_received",
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Operation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|operation| operation.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{text}` is no operation; there are {names}")
        })
    }
}

/// The operations that run by their reference bodies, a bit each.
static REFERENCE: AtomicU32 = AtomicU32::new(0);

/// Lets these operations, and no others, run by their reference bodies, in the whole process.
pub fn use_reference(operations: &[Operation]) {
    REFERENCE.store(operations.iter().fold(0, |bits, operation| bits | operation.bit()), Ordering::Relaxed);
}

/// The operations that run by their reference bodies.
pub fn by_reference() -> Vec<Operation> {
    Operation::ALL.into_iter().filter(|operation| is_reference(*operation)).collect()
}

fn is_reference(operation: Operation) -> bool {
    REFERENCE.load(Ordering::Relaxed) & operation.bit() != 0
}

/// A linear layer, `x · weightᵀ`: `x` `[rows, in]`, `weight` `[out, in]`, result `[rows, out]`. With `bf16`, `x` may be rounded to the weight's
/// dtype.
pub fn linear<B: VlmBackend>(x: Tensor<B, 2>, weight: Tensor<B, 2>, bf16: bool) -> Tensor<B, 2> {
    let [x, weight] = [x, weight].map(|tensor| tensor.into_primitive().tensor());
    let product = match (is_reference(Operation::Linear), bf16) {
        (true, _) => reference_linear::<B>(x, weight),
        (false, true) => B::linear_rows_bf16(x, weight),
        (false, false) => B::linear_rows(x, weight),
    };
    Tensor::from_primitive(TensorPrimitive::Float(product))
}

/// A linear layer as [`linear`], plus `bias` `[out]` in every row.
pub fn linear_biased<B: VlmBackend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    bf16: bool,
) -> Tensor<B, 2> {
    if !bf16 || is_reference(Operation::Linear) || is_reference(Operation::AddBias) {
        return add_bias(linear(x, weight, bf16), bias);
    }
    let [x, weight] = [x, weight].map(|tensor| tensor.into_primitive().tensor());
    let sum = B::linear_rows_bf16_biased(x, weight, bias.into_primitive().tensor());
    Tensor::from_primitive(TensorPrimitive::Float(sum))
}

/// A linear layer, `x · weightᵀ`, with the weight `[out, in]` in blocks.
pub fn linear_blocks<B: VlmBackend>(x: Tensor<B, 2>, weight: &Blocks, rounding: Rounding) -> Tensor<B, 2> {
    let x = x.into_primitive().tensor();
    Tensor::from_primitive(TensorPrimitive::Float(match is_reference(Operation::Linear) {
        true => reference_linear_blocks::<B>(x, weight),
        false => B::linear_blocks(x, weight, rounding),
    }))
}

/// Attention, as [`VlmBackend::attend`] says. With `bf16`, everything may be rounded to bf16.
pub fn attend<B: VlmBackend>([q, k, v]: [Tensor<B, 4>; 3], mask: Mask, bf16: bool) -> Tensor<B, 4> {
    match (is_reference(Operation::Attend), bf16) {
        (true, _) => reference_attend(q, k, v, mask),
        (false, true) => B::attend_bf16(q, k, v, mask),
        (false, false) => B::attend(q, k, v, mask),
    }
}

/// The attention that each token receives, as [`VlmBackend::attention_received`] says.
pub fn attention_received<B: VlmBackend>(q: Tensor<B, 4>, k: Tensor<B, 4>, bf16: bool) -> Tensor<B, 2> {
    match is_reference(Operation::AttentionReceived) {
        true => reference_attention_received(q, k),
        false => B::attention_received(q, k, bf16),
    }
}

/// `silu(gate) · up`, both `[batch, tokens, features]`.
pub fn silu_mul<B: VlmBackend>(gate: Tensor<B, 3>, up: Tensor<B, 3>) -> Tensor<B, 3> {
    if is_reference(Operation::SiluMul) { reference_silu_mul(gate, up) } else { B::silu_mul(gate, up) }
}

/// `x · σ(1.702·x)` of `x` `[batch, tokens, features]`.
pub fn quick_gelu<B: VlmBackend>(x: Tensor<B, 3>) -> Tensor<B, 3> {
    if is_reference(Operation::QuickGelu) { reference_quick_gelu(x) } else { B::quick_gelu(x) }
}

/// `x · Φ(x)` of `x` `[batch, tokens, features]`.
pub fn exact_gelu<B: VlmBackend>(x: Tensor<B, 3>) -> Tensor<B, 3> {
    if is_reference(Operation::ExactGelu) { activation::gelu(x) } else { B::exact_gelu(x) }
}

/// Adds `bias` `[features]` to every row of `x` `[rows, features]`.
pub fn add_bias<B: VlmBackend>(x: Tensor<B, 2>, bias: Tensor<B, 1>) -> Tensor<B, 2> {
    if is_reference(Operation::AddBias) { reference_add_bias(x, bias) } else { B::add_bias(x, bias) }
}

/// RMS norm of the rows of `x` `[rows, features]`, times `weight` `[features]`.
pub fn rms_norm<B: VlmBackend>(x: Tensor<B, 2>, weight: Tensor<B, 1>, eps: f64) -> Tensor<B, 2> {
    match is_reference(Operation::RmsNorm) {
        true => reference_rms_norm(x, weight, eps),
        false => B::rms_norm_rows(x, weight, eps),
    }
}

/// Layer norm of the rows of `x` `[rows, features]`, times `weight`, plus `bias`, both `[features]`.
pub fn layer_norm<B: VlmBackend>(x: Tensor<B, 2>, weight: Tensor<B, 1>, bias: Tensor<B, 1>, eps: f64) -> Tensor<B, 2> {
    match is_reference(Operation::LayerNorm) {
        true => reference_layer_norm(x, weight, bias, eps),
        false => B::layer_norm_rows(x, weight, bias, eps),
    }
}

/// Rotary position embedding of `x` `[batch, heads, tokens, head_dim]`, by tables `[1, 1, tokens, head_dim]`.
pub fn apply_rope<B: VlmBackend>(x: Tensor<B, 4>, cos: Tensor<B, 4>, sin: Tensor<B, 4>) -> Tensor<B, 4> {
    match is_reference(Operation::ApplyRope) {
        true => reference_apply_rope(x, cos, sin),
        false => B::apply_rope(x, cos, sin),
    }
}

/// Writes `new` `[1, kv_heads, n, head_dim]` into `buffer` `[1, kv_heads, capacity, head_dim]` from position `at` on.
pub fn write_positions<B: VlmBackend>(buffer: Tensor<B, 4>, at: usize, new: Tensor<B, 4>) -> Tensor<B, 4> {
    match is_reference(Operation::WritePositions) {
        true => reference_write_positions(buffer, at, new),
        false => B::write_positions(buffer, at, new),
    }
}

/// The first `budget` choices of a determinantal point process over `vectors` `[sets, items, width]`, `[sets, budget]`.
pub fn greedy_dpp<B: VlmBackend>(vectors: Tensor<B, 3>, budget: usize) -> Tensor<B, 2, Int> {
    match is_reference(Operation::GreedyDpp) {
        true => dpp::on_device(vectors, budget),
        false => B::greedy_dpp(vectors, budget),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for operation in Operation::ALL {
            assert_eq!(operation.name().parse(), Ok(operation));
            assert_eq!(Operation::ALL.iter().filter(|other| other.bit() == operation.bit()).count(), 1);
        }
        assert!("attention".parse::<Operation>().unwrap_err().contains("attend, "));
    }
}
