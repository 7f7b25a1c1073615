//! The gradients of Secateur's own operations in plain tensor code, in f32. [`super::Gradients`] uses them where a
//! backend has no faster body, and faster bodies are tested against them.

use burn::tensor::{Tensor, activation, backend::Backend};

use crate::{Mask, VlmBackend};

/// The gradients of attention: with P the attention and dP = grad·vᵀ, the scores' gradient is P ∘ (dP − rowsum(P ∘ dP)).
pub(crate) fn attend<B: VlmBackend>([q, k, v]: [Tensor<B, 4>; 3], grad: Tensor<B, 4>, mask: Mask) -> [Tensor<B, 4>; 3] {
    let [_, heads, queries, head_dim] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    if heads != kv_heads {
        let group = heads / kv_heads;
        let [of_q, of_k, of_v] = attend([q, repeat(k, group), repeat(v, group)], grad, mask);
        return [of_q, together(of_k, group), together(of_v, group)];
    }
    let scale = (head_dim as f64).powf(-0.5);
    let mut scores = B::matmul_f32(q.clone(), k.clone().swap_dims(2, 3)) * scale;
    if let Some(hidden) = mask.hidden::<B>(queries, keys, &q.device()) {
        scores = scores.mask_fill(hidden.expand([q.dims()[0], q.dims()[1], queries, keys]), f32::NEG_INFINITY);
    }
    let attention = activation::softmax(scores, 3);
    let of_attention = B::matmul_f32(grad.clone(), v.swap_dims(2, 3));
    let mean = (attention.clone() * of_attention.clone()).sum_dim(3);
    let of_scores = attention.clone() * (of_attention - mean) * scale;
    [
        B::matmul_f32(of_scores.clone(), k),
        B::matmul_f32(of_scores.swap_dims(2, 3), q),
        B::matmul_f32(attention.swap_dims(2, 3), grad),
    ]
}

/// Repeats every head of `x` `[batch, kv_heads, tokens, head_dim]` for the `group` query heads that share it.
fn repeat<B: Backend>(x: Tensor<B, 4>, group: usize) -> Tensor<B, 4> {
    let [batch, heads, tokens, head_dim] = x.dims();
    let x = x.unsqueeze_dim::<5>(2).expand([batch, heads, group, tokens, head_dim]);
    x.reshape([batch, heads * group, tokens, head_dim])
}

/// Sums the gradients of the heads that [`repeat`] made of one.
fn together<B: Backend>(x: Tensor<B, 4>, group: usize) -> Tensor<B, 4> {
    let [batch, heads, tokens, head_dim] = x.dims();
    let x = x.reshape([batch, heads / group, group, tokens, head_dim]).sum_dim(2);
    x.reshape([batch, heads / group, tokens, head_dim])
}

/// The gradients of `silu(gate) · up`.
pub(crate) fn gate<B: Backend>([gate, up]: [Tensor<B, 3>; 2], grad: Tensor<B, 3>) -> [Tensor<B, 3>; 2] {
    let share = activation::sigmoid(gate.clone());
    let slope = share.clone() * (gate.clone() * (share.clone().neg() + 1.0) + 1.0);
    [grad.clone() * up * slope, grad * gate * share]
}

/// The gradient of `x · σ(1.702·x)`.
pub(crate) fn quick_gelu<B: Backend>(x: Tensor<B, 3>, grad: Tensor<B, 3>) -> Tensor<B, 3> {
    let share = activation::sigmoid(x.clone() * 1.702);
    grad * share.clone() * (x * 1.702 * (share.neg() + 1.0) + 1.0)
}

/// The gradients of an RMS norm, of the rows and of the weight.
pub(crate) fn rms_norm<B: Backend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    grad: Tensor<B, 2>,
    eps: f64,
) -> (Tensor<B, 2>, Tensor<B, 1>) {
    let scale = (x.clone().square().mean_dim(1) + eps).sqrt().recip();
    let unit = x * scale.clone();
    let of_weight = (grad.clone() * unit.clone()).sum_dim(0).squeeze_dim(0);
    let grad = grad * weight.unsqueeze();
    let along = (grad.clone() * unit.clone()).mean_dim(1);
    ((grad - unit * along) * scale, of_weight)
}

/// The gradients of a layer norm, of the rows, of the weight and of the bias.
pub(crate) fn layer_norm<B: Backend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    grad: Tensor<B, 2>,
    eps: f64,
) -> (Tensor<B, 2>, [Tensor<B, 1>; 2]) {
    let x = x.clone() - x.mean_dim(1);
    let scale = (x.clone().square().mean_dim(1) + eps).sqrt().recip();
    let unit = x * scale.clone();
    let of_weight = (grad.clone() * unit.clone()).sum_dim(0).squeeze_dim(0);
    let of_bias = grad.clone().sum_dim(0).squeeze_dim(0);
    let grad = grad * weight.unsqueeze();
    let along = (grad.clone() * unit.clone()).mean_dim(1);
    ((grad.clone() - grad.mean_dim(1) - unit * along) * scale, [of_weight, of_bias])
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::{Flex, train::Gradients};

    const ROWS: usize = 3;
    const WIDTH: usize = 5;
    const QUERIES: usize = 3;
    const KEYS: usize = 4;
    const EPS: f64 = 1e-5;

    /// A list of numbers from −1.5 to 1.5.
    fn numbers(count: usize, seed: usize) -> Vec<f64> {
        (0..count).map(|i| ((i * 37 + seed * 11) % 61) as f64 / 20.0 - 1.5).collect()
    }

    fn tensor<const D: usize>(numbers: &[f64], shape: [usize; D]) -> Tensor<Flex, D> {
        let numbers: Vec<f32> = numbers.iter().map(|x| *x as f32).collect();
        Tensor::from_data(TensorData::new(numbers, shape), &Default::default())
    }

    /// Compares a gradient with the change of `forward`, weighted with `grad`, when each number of `x` changes.
    fn check<const D: usize>(
        what: &str,
        found: Tensor<Flex, D>,
        x: &[f64],
        grad: &[f64],
        forward: impl Fn(&[f64]) -> Vec<f64>,
    ) {
        const STEP: f64 = 1e-4;
        let total = |x: &[f64]| -> f64 { forward(x).iter().zip(grad).map(|(y, grad)| y * grad).sum() };
        let found: Vec<f64> = found.into_data().iter().collect();
        assert_eq!((found.len(), forward(x).len()), (x.len(), grad.len()), "{what}");
        for (i, found) in found.into_iter().enumerate() {
            let moved = |by: f64| {
                let mut x = x.to_vec();
                x[i] += by;
                total(&x)
            };
            let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{what} {i}: {found} for {expected}");
        }
    }

    fn sigmoid(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    /// A norm of the rows of `x`, with or without means taken away.
    fn norm(x: &[f64], weight: &[f64], bias: &[f64], centred: bool) -> Vec<f64> {
        let rows = x.chunks(WIDTH).flat_map(|row| {
            let mean = if centred { row.iter().sum::<f64>() / WIDTH as f64 } else { 0.0 };
            let square = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / WIDTH as f64;
            let scale = (square + EPS).sqrt().recip();
            row.iter().zip(weight).zip(bias).map(move |((x, weight), bias)| (x - mean) * scale * weight + bias)
        });
        rows.collect()
    }

    #[test]
    fn gradients_are_what_small_steps_change() {
        let count = ROWS * WIDTH;
        let (x, y, grad) = (numbers(count, 1), numbers(count, 2), numbers(count, 3));
        let (weight, bias, none) = (numbers(WIDTH, 4), numbers(WIDTH, 5), [0.0; WIDTH]);
        let (deep, flat) = ([1, ROWS, WIDTH], [ROWS, WIDTH]);

        let gated = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * sigmoid(*x) * y).collect();
        let [of_gate, of_up] = gate([tensor(&x, deep), tensor(&y, deep)], tensor(&grad, deep));
        check("gate", of_gate, &x, &grad, |x| gated(x, &y));
        check("up", of_up, &y, &grad, |y| gated(&x, y));

        let found = quick_gelu(tensor(&x, deep), tensor(&grad, deep));
        check("quick_gelu", found, &x, &grad, |x| x.iter().map(|x| x * sigmoid(1.702 * x)).collect());

        let (of_x, of_weight) = rms_norm(tensor(&x, flat), tensor(&weight, [WIDTH]), tensor(&grad, flat), EPS);
        check("rms_norm's x", of_x, &x, &grad, |x| norm(x, &weight, &none, false));
        check("rms_norm's weight", of_weight, &weight, &grad, |weight| norm(&x, weight, &none, false));

        let (of_x, [of_weight, of_bias]) =
            layer_norm(tensor(&x, flat), tensor(&weight, [WIDTH]), tensor(&grad, flat), EPS);
        check("layer_norm's x", of_x, &x, &grad, |x| norm(x, &weight, &bias, true));
        check("layer_norm's weight", of_weight, &weight, &grad, |weight| norm(&x, weight, &bias, true));
        check("layer_norm's bias", of_bias, &bias, &grad, |bias| norm(&x, &weight, bias, true));
    }

    /// Attention of 4 query heads to 2 heads of keys, in loops: `q` `[4, QUERIES, WIDTH]`, `k` and `v` `[2, KEYS, WIDTH]`.
    fn grouped(q: &[f64], k: &[f64], v: &[f64], mask: Mask) -> Vec<f64> {
        let row = |x: &[f64], head: usize, rows: usize, at: usize| x[(head * rows + at) * WIDTH..][..WIDTH].to_vec();
        let mut out = Vec::new();
        for (head, query) in (0..4).flat_map(|head| (0..QUERIES).map(move |query| (head, query))) {
            let own = row(q, head, QUERIES, query);
            let seen = if mask == Mask::Causal { KEYS - QUERIES + query + 1 } else { KEYS };
            let score = |key| {
                let both = own.iter().zip(row(k, head / 2, KEYS, key));
                (both.map(|(a, b)| a * b).sum::<f64>() / (WIDTH as f64).sqrt()).exp()
            };
            let shares: Vec<f64> = (0..seen).map(score).collect();
            let total: f64 = shares.iter().sum();
            let mean =
                |i: usize| (0..seen).map(|key| shares[key] * row(v, head / 2, KEYS, key)[i]).sum::<f64>() / total;
            out.extend((0..WIDTH).map(mean));
        }
        out
    }

    /// The heads that share a key head add to its gradient.
    #[test]
    fn gradients_of_grouped_attention_are_what_small_steps_change() {
        let (of_q, of_kv) = ([1, 4, QUERIES, WIDTH], [1, 2, KEYS, WIDTH]);
        let count = |shape: [usize; 4]| shape.iter().product::<usize>();
        let (q, k, v) = (numbers(count(of_q), 1), numbers(count(of_kv), 2), numbers(count(of_kv), 3));
        let grad = numbers(count(of_q), 4);
        for mask in [Mask::None, Mask::Causal] {
            let inputs = [tensor(&q, of_q), tensor(&k, of_kv), tensor(&v, of_kv)];
            let bodies = [
                ("reference", attend(inputs.clone(), tensor(&grad, of_q), mask)),
                ("flex", Flex::attend_backward(inputs, tensor(&grad, of_q), mask)),
            ];
            for (body, [found_q, found_k, found_v]) in bodies {
                check(&format!("{body}, q, {mask:?}"), found_q, &q, &grad, |q| grouped(q, &k, &v, mask));
                check(&format!("{body}, k, {mask:?}"), found_k, &k, &grad, |k| grouped(&q, k, &v, mask));
                check(&format!("{body}, v, {mask:?}"), found_v, &v, &grad, |v| grouped(&q, &k, v, mask));
            }
        }
    }
}
