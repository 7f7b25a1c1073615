//! The fast backend for CPUs: Burn's Flex backend, with our own products for 16-bit and large weights, and our own
//! bodies for the operations between them.

use burn::tensor::{
    Bool, DType, Int, Tensor, TensorPrimitive, activation,
    ops::{AttentionModuleOptions, FloatTensor},
};
use burn_flex::FlexTensor;
use secateur_blocks::Blocks;

use crate::{
    Mask, Rounding, VlmBackend, dpp,
    kernels::{
        attention, blocks, cache, elementwise,
        instructions::{Instructions, has},
        linear, one_query, received, rotate,
    },
    ops::{
        add_after, reference_add_bias, reference_attend, reference_attention_received, reference_silu_mul, reference_layer_norm, reference_linear, reference_linear_blocks, reference_quick_gelu,
        reference_rms_norm, reference_apply_rope, reference_write_positions,
    },
};

/// Burn's Flex backend.
pub type Flex = burn_flex::Flex;

/// The smallest `heads · head_dim` that uses our own attention.
const WIDE: usize = 1 << 7;

/// Whether all numbers are finite; other types than f32 are not checked.
fn is_finite(x: &FlexTensor) -> bool {
    x.dtype() != DType::F32 || x.storage::<f32>().iter().all(|x| x.is_finite())
}

/// The CPU, the only device.
pub(crate) fn device(index: Option<usize>) -> Option<burn_flex::FlexDevice> {
    index.is_none_or(|index| index == 0).then_some(burn_flex::FlexDevice)
}

pub(crate) use crate::host::devices;

impl VlmBackend for Flex {
    /// Widens 16-bit weights inside the product: the reference body would write an f32 copy of the whole matrix for
    /// every token. f32 weights use the same kernel, which saves half of the time at few rows.
    fn linear_rows(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x_dtype, weight_dtype): (DType, DType) = (x.dtype(), weight.dtype());
        let contiguous = |tensor: &FlexTensor| tensor.is_contiguous() && tensor.layout().start_offset() == 0;
        let ours = matches!(weight_dtype, DType::F16 | DType::BF16 | DType::F32);
        if x_dtype != DType::F32 || !ours || !contiguous(&weight) {
            return reference_linear::<Self>(x, weight);
        }
        linear::product(&x.to_contiguous(), &weight)
    }

    /// Uses the processor's own product of bf16 numbers for bf16 weights, where it has one.
    fn linear_rows_bf16(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x_dtype, weight_dtype): (DType, DType) = (x.dtype(), weight.dtype());
        if x_dtype != DType::F32 || weight_dtype != DType::BF16 {
            return Self::linear_rows(x, weight);
        }
        let x = x.to_contiguous();
        linear::rounded(&x, &weight, None).unwrap_or_else(|| Self::linear_rows(x, weight))
    }

    /// Adds the bias while the sums are in the cache.
    fn linear_rows_bf16_biased(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let (x_dtype, weight_dtype): (DType, DType) = (x.dtype(), weight.dtype());
        if x_dtype == DType::F32 && weight_dtype == DType::BF16 {
            let x = x.to_contiguous();
            if let Some(sum) = linear::rounded(&x, &weight, Some(&bias)) {
                return sum;
            }
        }
        add_after::<Self>(Self::linear_rows_bf16(x, weight), bias)
    }

    fn multiplies_int8() -> bool {
        has(Instructions::Avx512Vnni)
    }

    /// Multiplies blocks as they lie in the file.
    fn linear_blocks(x: FloatTensor<Self>, weight: &Blocks, rounding: Rounding) -> FloatTensor<Self> {
        let dtype: DType = x.dtype();
        match dtype {
            DType::F32 => blocks::product(&x.to_contiguous(), weight, rounding),
            _ => reference_linear_blocks::<Self>(x, weight),
        }
    }

    /// Reads heads in place: Flex's own attention copies them first. Only small towers keep Flex's attention:
    /// VisPruner's official picks depend on the last bits of their features, and agree with Flex's.
    fn attend(q: Tensor<Self, 4>, k: Tensor<Self, 4>, v: Tensor<Self, 4>, mask: Mask) -> Tensor<Self, 4> {
        mask.check([q.dims(), k.dims(), v.dims()]);
        let inputs = [&q, &k, &v].map(|x| x.clone().into_primitive().tensor());
        let [flex_q, flex_k, flex_v] = inputs.each_ref();
        let [_, heads, queries, head_dim] = q.dims();
        let own = heads == k.dims()[1];
        let attended = match (queries, mask) {
            (1, Mask::None | Mask::Causal) => one_query::one_query(flex_q, flex_k, flex_v),
            // Burn's own attention gives 0 where scores are NaN.
            (_, Mask::None) if own && heads * head_dim < WIDE && [flex_q, flex_k].into_iter().all(is_finite) => None,
            _ if k.dtype() != DType::F32 => attention::attend([flex_q, &in_f32(&k), &in_f32(&v)], mask),
            _ => attention::attend([flex_q, flex_k, flex_v], mask),
        };
        match attended {
            Some(attended) => wrap(attended),
            None if own && k.dtype() == q.dtype() => {
                let (options, hidden) = options(&q, &k, mask);
                burn::tensor::module::attention(q, k, v, hidden, None, options)
            }
            None => reference_attend(q, k, v, mask),
        }
    }

    /// Uses instructions for bf16, where the processor has some.
    fn attend_bf16(q: Tensor<Self, 4>, k: Tensor<Self, 4>, v: Tensor<Self, 4>, mask: Mask) -> Tensor<Self, 4> {
        mask.check([q.dims(), k.dims(), v.dims()]);
        // A single query reads the cache in place.
        if q.dims()[2] == 1 {
            return Self::attend(q, k, v, mask);
        }
        let inputs = [q.clone().into_primitive().tensor(), in_f32(&k), in_f32(&v)];
        match attention::attend_bf16(inputs.each_ref(), mask) {
            Some(attended) => wrap(attended),
            None => Self::attend(q, k, v, mask),
        }
    }

    /// Adds up column by column, on all threads, and on the matrix unit where rounding is allowed.
    fn attention_received(q: Tensor<Self, 4>, k: Tensor<Self, 4>, bf16: bool) -> Tensor<Self, 2> {
        let inputs = [&q, &k].map(|x| x.clone().into_primitive().tensor());
        match received::received(inputs.each_ref(), bf16) {
            Some(found) => wrap(found),
            None => reference_attention_received(q, k),
        }
    }

    fn silu_mul(gate: Tensor<Self, 3>, up: Tensor<Self, 3>) -> Tensor<Self, 3> {
        let [flex_gate, flex_up] = [&gate, &up].map(|x| x.clone().into_primitive().tensor());
        match elementwise::gate(&flex_gate, &flex_up) {
            Some(gated) => wrap(gated),
            None => reference_silu_mul(gate, up),
        }
    }

    fn quick_gelu(x: Tensor<Self, 3>) -> Tensor<Self, 3> {
        match elementwise::quick_gelu(&x.clone().into_primitive().tensor()) {
            Some(found) => wrap(found),
            None => reference_quick_gelu(x),
        }
    }

    fn exact_gelu(x: Tensor<Self, 3>) -> Tensor<Self, 3> {
        match elementwise::exact_gelu(&x.clone().into_primitive().tensor()) {
            Some(found) => wrap(found),
            None => activation::gelu(x),
        }
    }

    /// Adds the bias in place, on all threads.
    fn add_bias(x: Tensor<Self, 2>, bias: Tensor<Self, 1>) -> Tensor<Self, 2> {
        let flex_bias = bias.clone().into_primitive().tensor();
        match elementwise::add_bias(x.into_primitive().tensor(), &flex_bias) {
            Ok(sum) => wrap(sum),
            Err(x) => reference_add_bias(wrap(x), bias),
        }
    }

    fn rms_norm_rows(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f64) -> Tensor<Self, 2> {
        let [flex_x, flex_weight] = [x.clone().into_primitive().tensor(), weight.clone().into_primitive().tensor()];
        match elementwise::rms_norm(&flex_x, &flex_weight, eps as f32) {
            Some(found) => wrap(found),
            None => reference_rms_norm(x, weight, eps),
        }
    }

    fn layer_norm_rows(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, bias: Tensor<Self, 1>, eps: f64) -> Tensor<Self, 2> {
        let flex_x = x.clone().into_primitive().tensor();
        let [flex_weight, flex_bias] = [&weight, &bias].map(|x| x.clone().into_primitive().tensor());
        match elementwise::layer_norm(&flex_x, &flex_weight, &flex_bias, eps as f32) {
            Some(found) => wrap(found),
            None => reference_layer_norm(x, weight, bias, eps),
        }
    }

    /// The dtype is bf16 where the run computes in bf16: this halves the bytes for every token of an answer.
    fn cache_dtype(activations: DType, bf16: bool) -> DType {
        if bf16 { DType::BF16 } else { activations }
    }

    /// Rotates in one pass instead of six.
    fn apply_rope(x: Tensor<Self, 4>, cos: Tensor<Self, 4>, sin: Tensor<Self, 4>) -> Tensor<Self, 4> {
        let [flex_x, flex_cos, flex_sin] = [&x, &cos, &sin].map(|x| x.clone().into_primitive().tensor());
        match rotate::rotate(&flex_x, [&flex_cos, &flex_sin]) {
            Some(rotated) => wrap(rotated),
            None => reference_apply_rope(x, cos, sin),
        }
    }

    /// Writes into the buffer in place: Flex's `slice_assign` copies the whole buffer first.
    fn write_positions(buffer: Tensor<Self, 4>, at: usize, new: Tensor<Self, 4>) -> Tensor<Self, 4> {
        let (buffer, new) = (buffer.into_primitive().tensor(), new.into_primitive().tensor());
        match cache::write_positions(buffer, at, &new) {
            Ok(written) => wrap(written),
            Err(buffer) => reference_write_positions(wrap(buffer), at, wrap(new)),
        }
    }

    /// Computes on the host: it is the device and has f64, and a loop over slices beats a dozen tensor operations a step.
    fn greedy_dpp(vectors: Tensor<Self, 3>, budget: usize) -> Tensor<Self, 2, Int> {
        dpp::on_host(vectors, budget)
    }
}

/// A tensor of the cache as f32.
fn in_f32(x: &Tensor<Flex, 4>) -> FlexTensor {
    let stored = x.clone().into_primitive().tensor();
    if x.dtype() == DType::F32 {
        return stored;
    }
    cache::widened(&stored).unwrap_or_else(|| x.clone().cast(DType::F32).into_primitive().tensor())
}

/// The `mask` in the form that Burn's attention takes.
fn options(
    q: &Tensor<Flex, 4>,
    k: &Tensor<Flex, 4>,
    mask: Mask,
) -> (AttentionModuleOptions, Option<Tensor<Flex, 4, Bool>>) {
    let options = AttentionModuleOptions { is_causal: mask == Mask::Causal, ..Default::default() };
    let [batch, heads, queries, _] = q.dims();
    let keys = k.dims()[2];
    let hidden = matches!(mask, Mask::Turns { .. }).then(|| mask.hidden(queries, keys, &q.device())).flatten();
    (options, hidden.map(|hidden| hidden.expand([batch, heads, queries, keys])))
}

pub(crate) fn wrap<const D: usize>(tensor: FlexTensor) -> Tensor<Flex, D> {
    Tensor::from_primitive(TensorPrimitive::Float(tensor))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;
    use crate::{
        ops::reference_attend,
        testing::{check, tensors},
    };

    #[test]
    fn kernels_are_their_reference_bodies() {
        // The sizes cover one block of queries, several blocks, a last block that is not whole, and a cache before the
        // new queries.
        for (queries, keys) in [(5, 5), (64, 64), (130, 130), (70, 100)] {
            for mask in [Mask::None, Mask::Causal, Mask::Turns { shared: keys - queries + 2, turn: 9 }] {
                let [q, k, v, _] = tensors(queries, keys);
                let expected = reference_attend(q.clone(), k.clone(), v.clone(), mask);
                check(Flex::attend(q, k, v, mask), expected, &format!("{queries} queries, {keys} keys, {mask:?}"));
            }
        }
    }

    #[test]
    fn steps_between_products_are_their_reference_bodies() {
        // The rows fill less than a chunk, and several chunks.
        for rows in [3, 300] {
            let random = |shape: [usize; 2]| Tensor::<Flex, 2>::random(shape, Distribution::Normal(0.5, 4.0), &Default::default());
            let (x, y) = (random([rows, 200]), random([rows, 200]));
            let (weight, bias) = (random([1, 200]).squeeze_dim(0), random([1, 200]).squeeze_dim(0));
            let deep = |x: Tensor<Flex, 2>| x.unsqueeze::<4>();
            let flat = |x: Tensor<Flex, 3>| x.unsqueeze::<4>();
            let [wide_x, wide_y] = [&x, &y].map(|x| x.clone().unsqueeze::<3>());
            let gated = reference_silu_mul(wide_x.clone(), wide_y.clone());
            check(flat(Flex::silu_mul(wide_x.clone(), wide_y)), flat(gated), "gate");
            let gelu = reference_quick_gelu(wide_x.clone());
            check(flat(Flex::quick_gelu(wide_x.clone())), flat(gelu), "quick_gelu");
            check(flat(Flex::exact_gelu(wide_x.clone())), flat(activation::gelu(wide_x)), "exact_gelu");
            let expected = deep(reference_add_bias(x.clone(), bias.clone()));
            let shared = x.clone();
            check(deep(Flex::add_bias(shared, bias.clone())), expected.clone(), "add_bias of what others hold");
            check(deep(Flex::add_bias(x.clone() + 0.0, bias.clone())), expected, "add_bias in place");
            let expected = reference_rms_norm(x.clone(), weight.clone(), 1e-5);
            check(deep(Flex::rms_norm_rows(x.clone(), weight.clone(), 1e-5)), deep(expected), "rms_norm");
            let expected = reference_layer_norm(x.clone(), weight.clone(), bias.clone(), 1e-5);
            check(deep(Flex::layer_norm_rows(x, weight, bias, 1e-5)), deep(expected), "layer_norm");
        }
    }

    #[test]
    fn what_overflows_is_not_hidden() {
        for mask in [Mask::Causal, Mask::Turns { shared: 1, turn: 1 }] {
            let [q, k, v, _] = tensors(3, 3);
            let attended = Flex::attend(q.clone() * f32::MAX, k.clone() * f32::MAX, v.clone(), mask);
            assert!(attended.into_data().iter::<f32>().all(f32::is_nan), "{mask:?}");
            // A single query has a kernel of its own.
            let attended = Flex::attend(q.narrow(2, 2, 1) * f32::MAX, k * f32::MAX, v, Mask::None);
            assert!(attended.into_data().iter::<f32>().all(f32::is_nan), "one query");
        }
        let bad = Tensor::<Flex, 3>::from_floats([[[f32::NAN, f32::INFINITY]]], &Default::default());
        let found: Vec<f32> = Flex::quick_gelu(bad).into_data().iter().collect();
        assert!(found[0].is_nan() && found[1] == f32::INFINITY, "{found:?}");
    }
}
