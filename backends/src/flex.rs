//! The CPU, fast: Burn's Flex backend with products of its own for 16-bit and large weights, and bodies of its own for what lies
//! between them, in inference and in training.

use burn::tensor::{
    Bool, DType, Int, Tensor, TensorPrimitive, activation,
    ops::{AttentionModuleOptions, FloatTensor},
};
use burn_flex::FlexTensor;

use crate::{
    Mask, VlmBackend, dpp, gradients,
    kernels::{self, attention, cache, elementwise, linear, one_query, rotate},
    ops::{
        reference_add_bias, reference_attend, reference_silu_mul, reference_layer_norm, reference_linear, reference_quick_gelu,
        reference_rms_norm, reference_apply_rope, reference_write_positions,
    },
};

/// Burn's Flex backend.
pub type Flex = burn_flex::Flex;

/// The smallest f32 weight, in numbers, that goes by our own kernel.
const LARGE: usize = 1 << 18;
/// The smallest `heads · head_dim` that goes by our own attention.
const WIDE: usize = 1 << 7;

/// Whether all numbers are finite; other types than f32 are not looked at.
fn is_finite(x: &FlexTensor) -> bool {
    x.dtype() != DType::F32 || x.storage::<f32>().iter().all(|x| x.is_finite())
}

/// The CPU.
pub(crate) fn device() -> burn_flex::FlexDevice {
    burn_flex::FlexDevice
}

impl VlmBackend for Flex {
    /// 16-bit weights are widened inside the product: the reference body would write an f32 copy of the whole matrix for every
    /// token. Large f32 ones go the same way, which saves half of the time at few rows; small ones do not, as VisPruner's official picks
    /// hang on the last bits of a small tower's features.
    fn linear_rows(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x_dtype, weight_dtype): (DType, DType) = (x.dtype(), weight.dtype());
        let contiguous = |tensor: &FlexTensor| tensor.is_contiguous() && tensor.layout().start_offset() == 0;
        let large = weight.layout().num_elements() >= LARGE;
        let ours = matches!(weight_dtype, DType::F16 | DType::BF16) || weight_dtype == DType::F32 && large;
        if x_dtype != DType::F32 || !ours || !contiguous(&weight) {
            return reference_linear::<Self>(x, weight);
        }
        linear::product(&x.to_contiguous(), &weight)
    }

    /// With bf16 weights by the processor's own product of bf16 numbers, where it has one.
    fn linear_rows_bf16(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x_dtype, weight_dtype): (DType, DType) = (x.dtype(), weight.dtype());
        if x_dtype != DType::F32 || weight_dtype != DType::BF16 {
            return Self::linear_rows(x, weight);
        }
        let x = x.to_contiguous();
        linear::rounded(&x, &weight).unwrap_or_else(|| Self::linear_rows(x, weight))
    }

    /// Bodies that read heads where they lie: Flex's own attention copies them first. Only small towers keep Flex's: VisPruner's
    /// official picks hang on the last bits of their features, and are met with these.
    fn attend(q: Tensor<Self, 4>, k: Tensor<Self, 4>, v: Tensor<Self, 4>, mask: Mask) -> Tensor<Self, 4> {
        mask.check([q.dims(), k.dims(), v.dims()]);
        let inputs = [&q, &k, &v].map(|x| x.clone().into_primitive().tensor());
        let [flex_q, flex_k, flex_v] = inputs.each_ref();
        let [_, heads, queries, head_dim] = q.dims();
        let own = heads == k.dims()[1];
        let attended = match (queries, mask) {
            (1, Mask::None | Mask::Causal) => one_query::one_query(flex_q, flex_k, flex_v),
            // Burn's own gives 0 where scores are no numbers.
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

    /// By instructions for bf16, where the processor has some.
    fn attend_bf16(q: Tensor<Self, 4>, k: Tensor<Self, 4>, v: Tensor<Self, 4>, mask: Mask) -> Tensor<Self, 4> {
        mask.check([q.dims(), k.dims(), v.dims()]);
        // A single query reads the cache where it is.
        if q.dims()[2] == 1 {
            return Self::attend(q, k, v, mask);
        }
        let inputs = [q.clone().into_primitive().tensor(), in_f32(&k), in_f32(&v)];
        match attention::attend_bf16(inputs.each_ref(), mask) {
            Some(attended) => wrap(attended),
            None => Self::attend(q, k, v, mask),
        }
    }

    fn attend_training(q: Tensor<Self, 4>, k: Tensor<Self, 4>, v: Tensor<Self, 4>, mask: Mask) -> Tensor<Self, 4> {
        mask.check([q.dims(), k.dims(), v.dims()]);
        let inputs = [&q, &k, &v].map(|x| x.clone().into_primitive().tensor());
        match attention::attend(inputs.each_ref(), mask) {
            Some(attended) => wrap(attended),
            None => Self::attend(q, k, v, mask),
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

    /// In place, on all threads.
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

    /// A strip of the score matrix at a time, where plain operations write it out whole, several times.
    fn attend_backward(inputs: [Tensor<Self, 4>; 3], grad: Tensor<Self, 4>, mask: Mask) -> [Tensor<Self, 4>; 3] {
        mask.check(inputs.each_ref().map(Tensor::dims));
        let [q, k, v] = inputs.clone().map(|x| x.into_primitive().tensor());
        let flex_grad = grad.clone().into_primitive().tensor();
        match attention::attend_backward([&q, &k, &v], &flex_grad, mask) {
            Some(found) => found.map(wrap),
            None => gradients::attend(inputs, grad, mask),
        }
    }

    fn silu_mul_backward(inputs: [Tensor<Self, 3>; 2], grad: Tensor<Self, 3>) -> [Tensor<Self, 3>; 2] {
        let [gate, up] = inputs.clone().map(|x| x.into_primitive().tensor());
        match kernels::gradients::gate([&gate, &up], &grad.clone().into_primitive().tensor()) {
            Some(found) => found.map(wrap),
            None => gradients::gate(inputs, grad),
        }
    }

    fn quick_gelu_backward(x: Tensor<Self, 3>, grad: Tensor<Self, 3>) -> Tensor<Self, 3> {
        let [flex_x, flex_grad] = [&x, &grad].map(|x| x.clone().into_primitive().tensor());
        match kernels::gradients::quick_gelu(&flex_x, &flex_grad) {
            Some(found) => wrap(found),
            None => gradients::quick_gelu(x, grad),
        }
    }

    fn rms_norm_backward(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        grad: Tensor<Self, 2>,
        eps: f64,
    ) -> (Tensor<Self, 2>, Tensor<Self, 1>) {
        let [flex_x, flex_grad] = [&x, &grad].map(|x| x.clone().into_primitive().tensor());
        let flex_weight = weight.clone().into_primitive().tensor();
        match kernels::gradients::rms_norm(&flex_x, &flex_weight, &flex_grad, eps as f32) {
            Some((found, of_weight)) => (wrap(found), wrap(of_weight)),
            None => gradients::rms_norm(x, weight, grad, eps),
        }
    }

    fn layer_norm_backward(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        grad: Tensor<Self, 2>,
        eps: f64,
    ) -> (Tensor<Self, 2>, [Tensor<Self, 1>; 2]) {
        let [flex_x, flex_grad] = [&x, &grad].map(|x| x.clone().into_primitive().tensor());
        let flex_weight = weight.clone().into_primitive().tensor();
        match kernels::gradients::layer_norm(&flex_x, &flex_weight, &flex_grad, eps as f32) {
            Some((found, of_both)) => (wrap(found), of_both.map(wrap)),
            None => gradients::layer_norm(x, weight, grad, eps),
        }
    }

    /// bf16 where the run computes in bf16: half the bytes for every token of an answer.
    fn cache_dtype(activations: DType, bf16: bool) -> DType {
        if bf16 { DType::BF16 } else { activations }
    }

    /// One pass instead of six.
    fn apply_rope(x: Tensor<Self, 4>, cos: Tensor<Self, 4>, sin: Tensor<Self, 4>) -> Tensor<Self, 4> {
        let [flex_x, flex_cos, flex_sin] = [&x, &cos, &sin].map(|x| x.clone().into_primitive().tensor());
        match rotate::rotate(&flex_x, [&flex_cos, &flex_sin]) {
            Some(rotated) => wrap(rotated),
            None => reference_apply_rope(x, cos, sin),
        }
    }

    /// Flex's `slice_assign` copies the whole buffer first.
    fn write_positions(buffer: Tensor<Self, 4>, at: usize, new: Tensor<Self, 4>) -> Tensor<Self, 4> {
        let (buffer, new) = (buffer.into_primitive().tensor(), new.into_primitive().tensor());
        match cache::write_positions(buffer, at, &new) {
            Ok(written) => wrap(written),
            Err(buffer) => reference_write_positions(wrap(buffer), at, wrap(new)),
        }
    }

    /// The device is the host, which has f64, and a loop over slices beats a dozen tensor operations a step.
    fn greedy_dpp(vectors: Tensor<Self, 3>, budget: usize) -> Tensor<Self, 2, Int> {
        dpp::on_host(vectors, budget)
    }
}

/// A tensor of the cache as f32.
fn in_f32(x: &Tensor<Flex, 4>) -> FlexTensor {
    let x = if x.dtype() == DType::F32 { x.clone() } else { x.clone().cast(DType::F32) };
    x.into_primitive().tensor()
}

/// `mask` as Burn's attention takes it.
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

fn wrap<const D: usize>(tensor: FlexTensor) -> Tensor<Flex, D> {
    Tensor::from_primitive(TensorPrimitive::Float(tensor))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;
    use crate::ops::reference_attend;

    type Tensors = [Tensor<Flex, 4>; 4];

    /// Queries, keys, values and a gradient as they come out of a product: token by token, seen head by head.
    fn tensors(queries: usize, keys: usize) -> Tensors {
        let random = |tokens| {
            let plain = Tensor::<Flex, 4>::random([2, tokens, 3, 16], Distribution::Normal(0.0, 1.5), &device());
            plain.swap_dims(1, 2)
        };
        [random(queries), random(keys), random(keys), random(queries)]
    }

    fn check(found: Tensor<Flex, 4>, expected: Tensor<Flex, 4>, what: &str) {
        assert_eq!(found.dims(), expected.dims(), "{what}");
        let largest = expected.to_data().iter::<f32>().fold(1.0, |largest: f32, x| {
            assert!(x.is_finite(), "{what}: the reference is {x}");
            largest.max(x.abs())
        });
        let difference = crate::testing::difference(found, expected);
        assert!(difference < 1e-5 * largest, "{what}: {difference} of {largest}");
    }

    #[test]
    fn kernels_are_their_reference_bodies() {
        // One block of queries, several, a last one that is not whole; a cache in front of the new queries.
        for (queries, keys) in [(5, 5), (64, 64), (130, 130), (70, 100)] {
            for mask in [Mask::None, Mask::Causal, Mask::Turns { shared: keys - queries + 2, turn: 9 }] {
                let [q, k, v, grad] = tensors(queries, keys);
                let what = format!("{queries} queries, {keys} keys, {mask:?}");
                let expected = reference_attend(q.clone(), k.clone(), v.clone(), mask);
                check(Flex::attend(q.clone(), k.clone(), v.clone(), mask), expected, &what);
                let inputs = [q, k, v];
                let expected = gradients::attend(inputs.clone(), grad.clone(), mask);
                for (found, expected) in Flex::attend_backward(inputs, grad, mask).into_iter().zip(expected) {
                    check(found, expected, &format!("gradients of {what}"));
                }
            }
        }
    }

    #[test]
    fn steps_between_products_are_their_reference_bodies() {
        // Less than a chunk, and several.
        for rows in [3, 300] {
            let random = |shape: [usize; 2]| Tensor::<Flex, 2>::random(shape, Distribution::Normal(0.5, 4.0), &device());
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
    fn gradients_between_products_are_their_reference_bodies() {
        for rows in [3, 300] {
            let random = |shape: [usize; 2]| Tensor::<Flex, 2>::random(shape, Distribution::Normal(0.5, 2.0), &device());
            let [x, y, grad] = [(); 3].map(|()| random([rows, 200]));
            let weight: Tensor<Flex, 1> = random([1, 200]).squeeze_dim(0);
            let [wide_x, wide_y, wide_grad] = [&x, &y, &grad].map(|x| x.clone().unsqueeze::<3>());
            let inputs = [wide_x.clone(), wide_y];
            let expected = gradients::gate(inputs.clone(), wide_grad.clone());
            for (found, expected) in Flex::silu_mul_backward(inputs, wide_grad.clone()).into_iter().zip(expected) {
                check(found.unsqueeze(), expected.unsqueeze(), "gate");
            }
            let expected = gradients::quick_gelu(wide_x.clone(), wide_grad.clone());
            check(Flex::quick_gelu_backward(wide_x, wide_grad).unsqueeze(), expected.unsqueeze(), "quick_gelu");
            let (of_x, of_weight) = gradients::rms_norm(x.clone(), weight.clone(), grad.clone(), 1e-5);
            let found = Flex::rms_norm_backward(x.clone(), weight.clone(), grad.clone(), 1e-5);
            check(found.0.unsqueeze(), of_x.unsqueeze(), "rms_norm's x");
            check(found.1.unsqueeze(), of_weight.unsqueeze(), "rms_norm's weight");
            let (of_x, of_both) = gradients::layer_norm(x.clone(), weight.clone(), grad.clone(), 1e-5);
            let found = Flex::layer_norm_backward(x, weight, grad, 1e-5);
            check(found.0.unsqueeze(), of_x.unsqueeze(), "layer_norm's x");
            for (found, expected) in found.1.into_iter().zip(of_both) {
                check(found.unsqueeze(), expected.unsqueeze(), "layer_norm's weight or bias");
            }
        }
    }

    #[test]
    fn rotation_is_its_reference_body() {
        let [x, ..] = tensors(9, 9);
        let half = Tensor::<Flex, 4>::random([1, 1, 12, 8], Distribution::Default, &device());
        // A part of a longer table, as after a cached prompt.
        let table = Tensor::cat(vec![half.clone(), half], 3).narrow(2, 3, 9);
        let (cos, sin) = (table.clone().cos(), table.sin());
        check(Flex::apply_rope(x.clone(), cos.clone(), sin.clone()), reference_apply_rope(x, cos, sin), "rotation");
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
        let bad = Tensor::<Flex, 3>::from_floats([[[f32::NAN, f32::INFINITY]]], &device());
        let found: Vec<f32> = Flex::quick_gelu(bad).into_data().iter().collect();
        assert!(found[0].is_nan() && found[1] == f32::INFINITY, "{found:?}");
    }
}
