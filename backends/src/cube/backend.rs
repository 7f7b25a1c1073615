//! [`VlmBackend`] for every GPU that CubeCL knows.

use burn::tensor::{DType, Tensor, ops::FloatTensor};
use burn_cubecl::{
    BoolElement, CubeBackend, CubeRuntime,
    kernel::matmul::{MatmulStrategy, matmul},
    tensor::CubeTensor,
};

use super::{gate, gelu, layer_norm, one_query, rms_norm, rotate, softmax, unwrap, wrap};
use crate::{
    Mask, VlmBackend,
    ops::{reference_attend, reference_linear},
    parts::by_heads,
};

/// The number of scores that are computed at once: 512 MiB. Some devices bind no more than 1 GiB as one buffer, and
/// LLaVA-NeXT's 2,928 tokens without pruning have 1.1 GB in 32 heads.
const SCORES: usize = 1 << 27;

/// The properties in which GPUs differ.
pub(crate) trait Gpu: CubeRuntime {
    /// Whether the GPU's matrix units round the inputs of f32 products to 11 bits.
    const ROUNDS: bool;

    /// The GPU's [`VlmBackend::activation_dtype`].
    fn activation_dtype(weights: DType) -> DType;

    /// The product `a · b` over the last two dimensions, of 16-bit numbers, rounded to `out`; `None` where no kernel is
    /// made for it.
    fn multiply(_a: &CubeTensor<Self>, _b: &CubeTensor<Self>, _out: DType) -> Option<CubeTensor<Self>> {
        None
    }
}

impl<R: Gpu, BT: BoolElement> VlmBackend for CubeBackend<R, f32, i32, BT> {
    fn activation_dtype(weights: DType) -> DType {
        R::activation_dtype(weights)
    }

    fn keeps_blocks() -> bool {
        false
    }

    /// Splits each factor into two parts that the matrix units hold exactly, where they would round.
    fn matmul_f32<const D: usize>(a: Tensor<Self, D>, b: Tensor<Self, D>) -> Tensor<Self, D> {
        if !R::ROUNDS || a.dtype() != DType::F32 {
            return library(a, b);
        }
        let ([a, rest_of_a], [b, rest_of_b]) = (halves(a), halves(b));
        let small = library(rest_of_a, b.clone()) + library(a.clone(), rest_of_b);
        small + library(a, b)
    }

    fn linear_rows(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let dtype = x.dtype;
        if dtype == DType::F32 || dtype != weight.dtype {
            return reference_linear::<Self>(x, weight);
        }
        unwrap(multiply(wrap::<Self, 2>(x), wrap(weight).transpose(), dtype))
    }

    /// Computes scores and softmax in f32, as the official code does. The softmax is rounded to 16 bits before it is
    /// multiplied with 16-bit values.
    fn attend(q: Tensor<Self, 4>, k: Tensor<Self, 4>, v: Tensor<Self, 4>, mask: Mask) -> Tensor<Self, 4> {
        mask.check([q.dims(), k.dims(), v.dims()]);
        let dtype = q.dtype();
        let [batch, heads, queries, head_dim] = q.dims();
        let kv_heads = k.dims()[1];
        if matches!(mask, Mask::Turns { .. }) {
            return reference_attend(q, k, v, mask);
        }
        if queries == 1 {
            let [q, k, v] = [&q, &k, &v].map(|x| unwrap(x.clone()));
            if let Some(found) = one_query(&q, &k, &v) {
                return wrap(found);
            }
        }
        let multiply = |a, b, out| if dtype == DType::F32 { Self::matmul_f32(a, b) } else { multiply(a, b, out) };
        // Query heads that share a key head are rows of one product.
        let q = if kv_heads == heads { q } else { q.reshape([batch, kv_heads, heads / kv_heads * queries, head_dim]) };
        let causal = (mask == Mask::Causal).then_some(queries);
        let attended = by_heads([q, k, v], SCORES, |[q, k, v]| {
            let scores = multiply(q, k.swap_dims(2, 3), DType::F32);
            let shares = softmax(unwrap(scores), (head_dim as f64).powf(-0.5), causal, dtype);
            multiply(wrap(shares), v, dtype)
        });
        if kv_heads == heads { attended } else { attended.reshape([batch, heads, queries, head_dim]) }
    }

    fn silu_mul(of: Tensor<Self, 3>, up: Tensor<Self, 3>) -> Tensor<Self, 3> {
        wrap(gate(unwrap(of), unwrap(up)))
    }

    fn quick_gelu(x: Tensor<Self, 3>) -> Tensor<Self, 3> {
        wrap(gelu(unwrap(x), true))
    }

    fn exact_gelu(x: Tensor<Self, 3>) -> Tensor<Self, 3> {
        wrap(gelu(unwrap(x), false))
    }

    fn rms_norm_rows(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f64) -> Tensor<Self, 2> {
        wrap(rms_norm(unwrap(x), unwrap(weight), eps))
    }

    fn layer_norm_rows(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        bias: Tensor<Self, 1>,
        eps: f64,
    ) -> Tensor<Self, 2> {
        wrap(layer_norm(unwrap(x), unwrap(weight), unwrap(bias), eps))
    }

    fn apply_rope(x: Tensor<Self, 4>, cos: Tensor<Self, 4>, sin: Tensor<Self, 4>) -> Tensor<Self, 4> {
        wrap(rotate(unwrap(x), unwrap(cos), unwrap(sin)))
    }
}

/// The product `a · b` of 16-bit numbers, rounded to `out`.
fn multiply<R: Gpu, BT: BoolElement, const D: usize>(
    a: Tensor<CubeBackend<R, f32, i32, BT>, D>,
    b: Tensor<CubeBackend<R, f32, i32, BT>, D>,
    out: DType,
) -> Tensor<CubeBackend<R, f32, i32, BT>, D> {
    let [of_a, of_b] = [&a, &b].map(|x| unwrap(x.clone()));
    match R::multiply(&of_a, &of_b, out) {
        Some(product) => wrap(product),
        // Matrix units keep at least the 11 bits of f32 that these numbers have.
        None => library(a.cast(DType::F32), b.cast(DType::F32)).cast(out),
    }
}

/// The product `a · b` by Burn.
///
/// Burn tries out kernels on wgpu. Some of them take an even number of stages, and check bounds only if the last stage
/// is not whole: with an odd number of whole stages they go on with the numbers of the next row. A stage is a power of
/// two of inputs, 64 at most; for one row or one output, it is what the units of a plane read at once. Where the number
/// of stages may be odd, the product goes by the kernel that is chosen without trials, which has no such stages.
fn library<R: Gpu, BT: BoolElement, const D: usize>(
    a: Tensor<CubeBackend<R, f32, i32, BT>, D>,
    b: Tensor<CubeBackend<R, f32, i32, BT>, D>,
) -> Tensor<CubeBackend<R, f32, i32, BT>, D> {
    const STAGE: usize = 64;
    /// The count of 32-bit numbers that a unit reads at once.
    const VECTOR: usize = 4;
    let [of_a, of_b] = [&a, &b].map(|x| unwrap(x.clone()));
    let [rows, inputs, outputs] = [a.dims()[D - 2], a.dims()[D - 1], b.dims()[D - 1]];
    let plane = of_a.client.properties().hardware.plane_size_max as usize;
    let stage = if rows == 1 || outputs == 1 { (VECTOR * plane).max(STAGE) } else { STAGE };
    if inputs % 2 == 1 || inputs.is_multiple_of(2 * stage) {
        return a.matmul(b);
    }
    match matmul(of_a, of_b, None, MatmulStrategy::Cube, a.dtype()) {
        Ok(product) => wrap(product),
        Err(_) => a.matmul(b),
    }
}

/// Splits `x` into a sum of two numbers that have at most 11 and 12 bits (Veltkamp's splitting).
fn halves<B: VlmBackend, const D: usize>(x: Tensor<B, D>) -> [Tensor<B, D>; 2] {
    let far = x.clone() * 8193.0;
    let high = far.clone() - (far - x.clone());
    [high.clone(), x - high]
}
