//! Gradients on CPUs, by kernels that go over the numbers once.

use burn::tensor::Tensor;

use super::{Gradients, reference};
use crate::{
    Flex, Mask, VlmBackend,
    flex::wrap,
    kernels::{attention, gradients},
};

impl Gradients for Flex {
    fn attend_training(q: Tensor<Self, 4>, k: Tensor<Self, 4>, v: Tensor<Self, 4>, mask: Mask) -> Tensor<Self, 4> {
        mask.check([q.dims(), k.dims(), v.dims()]);
        let inputs = [&q, &k, &v].map(|x| x.clone().into_primitive().tensor());
        match attention::attend(inputs.each_ref(), mask) {
            Some(attended) => wrap(attended),
            None => Self::attend(q, k, v, mask),
        }
    }

    /// Computes a strip of the score matrix at a time, where plain operations write out the whole matrix several times.
    fn attend_backward(inputs: [Tensor<Self, 4>; 3], grad: Tensor<Self, 4>, mask: Mask) -> [Tensor<Self, 4>; 3] {
        mask.check(inputs.each_ref().map(Tensor::dims));
        let [q, k, v] = inputs.clone().map(|x| x.into_primitive().tensor());
        let flex_grad = grad.clone().into_primitive().tensor();
        match attention::attend_backward([&q, &k, &v], &flex_grad, mask) {
            Some(found) => found.map(wrap),
            None => reference::attend(inputs, grad, mask),
        }
    }

    fn silu_mul_backward(inputs: [Tensor<Self, 3>; 2], grad: Tensor<Self, 3>) -> [Tensor<Self, 3>; 2] {
        let [gate, up] = inputs.clone().map(|x| x.into_primitive().tensor());
        match gradients::gate([&gate, &up], &grad.clone().into_primitive().tensor()) {
            Some(found) => found.map(wrap),
            None => reference::gate(inputs, grad),
        }
    }

    fn quick_gelu_backward(x: Tensor<Self, 3>, grad: Tensor<Self, 3>) -> Tensor<Self, 3> {
        let [flex_x, flex_grad] = [&x, &grad].map(|x| x.clone().into_primitive().tensor());
        match gradients::quick_gelu(&flex_x, &flex_grad) {
            Some(found) => wrap(found),
            None => reference::quick_gelu(x, grad),
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
        match gradients::rms_norm(&flex_x, &flex_weight, &flex_grad, eps as f32) {
            Some((found, of_weight)) => (wrap(found), wrap(of_weight)),
            None => reference::rms_norm(x, weight, grad, eps),
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
        match gradients::layer_norm(&flex_x, &flex_weight, &flex_grad, eps as f32) {
            Some((found, of_both)) => (wrap(found), of_both.map(wrap)),
            None => reference::layer_norm(x, weight, grad, eps),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;
    use crate::testing::{check, tensors};

    #[test]
    fn the_gradient_of_attention_is_its_reference_body() {
        // The sizes cover one block of queries, several blocks, a last block that is not whole, and a cache before the
        // new queries.
        for (queries, keys) in [(5, 5), (64, 64), (130, 130), (70, 100)] {
            for mask in [Mask::None, Mask::Causal, Mask::Turns { shared: keys - queries + 2, turn: 9 }] {
                let [q, k, v, grad] = tensors(queries, keys);
                let inputs = [q, k, v];
                let expected = reference::attend(inputs.clone(), grad.clone(), mask);
                for (found, expected) in Flex::attend_backward(inputs, grad, mask).into_iter().zip(expected) {
                    check(found, expected, &format!("{queries} queries, {keys} keys, {mask:?}"));
                }
            }
        }
    }

    #[test]
    fn gradients_between_products_are_their_reference_bodies() {
        for rows in [3, 300] {
            let random = |shape: [usize; 2]| {
                Tensor::<Flex, 2>::random(shape, Distribution::Normal(0.5, 2.0), &Default::default())
            };
            let [x, y, grad] = [(); 3].map(|()| random([rows, 200]));
            let weight: Tensor<Flex, 1> = random([1, 200]).squeeze_dim(0);
            let [wide_x, wide_y, wide_grad] = [&x, &y, &grad].map(|x| x.clone().unsqueeze::<3>());
            let inputs = [wide_x.clone(), wide_y];
            let expected = reference::gate(inputs.clone(), wide_grad.clone());
            for (found, expected) in Flex::silu_mul_backward(inputs, wide_grad.clone()).into_iter().zip(expected) {
                check(found.unsqueeze(), expected.unsqueeze(), "gate");
            }
            let expected = reference::quick_gelu(wide_x.clone(), wide_grad.clone());
            check(Flex::quick_gelu_backward(wide_x, wide_grad).unsqueeze(), expected.unsqueeze(), "quick_gelu");
            let (of_x, of_weight) = reference::rms_norm(x.clone(), weight.clone(), grad.clone(), 1e-5);
            let found = Flex::rms_norm_backward(x.clone(), weight.clone(), grad.clone(), 1e-5);
            check(found.0.unsqueeze(), of_x.unsqueeze(), "rms_norm's x");
            check(found.1.unsqueeze(), of_weight.unsqueeze(), "rms_norm's weight");
            let (of_x, of_both) = reference::layer_norm(x.clone(), weight.clone(), grad.clone(), 1e-5);
            let found = Flex::layer_norm_backward(x, weight, grad, 1e-5);
            check(found.0.unsqueeze(), of_x.unsqueeze(), "layer_norm's x");
            for (found, expected) in found.1.into_iter().zip(of_both) {
                check(found.unsqueeze(), expected.unsqueeze(), "layer_norm's weight or bias");
            }
        }
    }
}
