//! Gradients of the steps between products, each in one pass on the calling thread: training has a thread for every
//! part of its images. All are `None` if a tensor is not f32 or not contiguous.

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};

use super::{
    elementwise::{numbers, sigmoid},
    vectors::{on_vectors, sum},
};

/// The gradients of `silu(gate) · up`, of `gate` and of `up`.
pub(crate) fn gate([gate, up]: [&FlexTensor; 2], grad: &FlexTensor) -> Option<[FlexTensor; 2]> {
    let (gates, ups, grads) = (numbers(gate)?, numbers(up)?, numbers(grad)?);
    assert!(gates.len() == ups.len() && gates.len() == grads.len(), "gate, up and gradient are of different sizes");
    let (mut of_gate, mut of_up) = (vec![0.0f32; gates.len()], vec![0.0f32; gates.len()]);
    on_vectors!({
        let inputs = gates.iter().zip(ups).zip(grads);
        for ((of_gate, of_up), ((gate, up), grad)) in of_gate.iter_mut().zip(&mut of_up).zip(inputs) {
            let share = sigmoid(*gate);
            *of_gate = grad * up * share * (1.0 + gate * (1.0 - share));
            *of_up = grad * gate * share;
        }
    });
    Some([of_gate, of_up].map(|found| like(gate, found)))
}

/// The gradient of `x · σ(1.702·x)`.
pub(crate) fn quick_gelu(x: &FlexTensor, grad: &FlexTensor) -> Option<FlexTensor> {
    let (numbers, grads) = (numbers(x)?, self::numbers(grad)?);
    assert_eq!(numbers.len(), grads.len(), "x and gradient are of different sizes");
    let mut found = vec![0.0f32; numbers.len()];
    on_vectors!({
        for ((found, x), grad) in found.iter_mut().zip(numbers).zip(grads) {
            let share = sigmoid(1.702 * x);
            *found = grad * share * (1.0 + 1.702 * x * (1.0 - share));
        }
    });
    Some(like(x, found))
}

/// The gradients of an RMS norm, of the rows and of the weight.
pub(crate) fn rms_norm(
    x: &FlexTensor,
    weight: &FlexTensor,
    grad: &FlexTensor,
    eps: f32,
) -> Option<(FlexTensor, FlexTensor)> {
    let (found, [of_weight, _]) = norm::<false>(x, weight, grad, eps)?;
    Some((found, like(weight, of_weight)))
}

/// The gradients of a layer norm, of the rows, of the weight and of the bias.
pub(crate) fn layer_norm(
    x: &FlexTensor,
    weight: &FlexTensor,
    grad: &FlexTensor,
    eps: f32,
) -> Option<(FlexTensor, [FlexTensor; 2])> {
    let (found, of_both) = norm::<true>(x, weight, grad, eps)?;
    Some((found, of_both.map(|found| like(weight, found))))
}

/// The gradients of either norm; `CENTRED` takes away means.
fn norm<const CENTRED: bool>(
    x: &FlexTensor,
    weight: &FlexTensor,
    grad: &FlexTensor,
    eps: f32,
) -> Option<(FlexTensor, [Vec<f32>; 2])> {
    let (numbers, weight, grads) = (numbers(x)?, self::numbers(weight)?, self::numbers(grad)?);
    let width = weight.len();
    assert!(numbers.len() == grads.len() && numbers.len().is_multiple_of(width), "x is of another size");
    let mut found = vec![0.0f32; numbers.len()];
    let (mut of_weight, mut of_bias) = (vec![0.0f32; width], vec![0.0f32; width]);
    let mut unit = vec![0.0f32; width];
    on_vectors!({
        let rows = numbers.chunks_exact(width).zip(grads.chunks_exact(width));
        for (found, (x, grad)) in found.chunks_exact_mut(width).zip(rows) {
            let mean = if CENTRED { sum(x, x, |x, _| x) / width as f32 } else { 0.0 };
            let scale = (sum(x, x, |x, _| (x - mean) * (x - mean)) / width as f32 + eps).sqrt().recip();
            unit.iter_mut().zip(x).for_each(|(unit, x)| *unit = (x - mean) * scale);
            for ((of_weight, of_bias), (grad, unit)) in
                of_weight.iter_mut().zip(&mut of_bias).zip(grad.iter().zip(&unit))
            {
                *of_weight += grad * unit;
                *of_bias += grad;
            }
            // First the gradient of the unit rows, then without the part that only changes mean or length.
            found.iter_mut().zip(grad).zip(weight).for_each(|((found, grad), weight)| *found = grad * weight);
            let across = if CENTRED { sum(found, found, |x, _| x) / width as f32 } else { 0.0 };
            let along = sum(found, &unit, |x, unit| x * unit) / width as f32;
            found.iter_mut().zip(&unit).for_each(|(found, unit)| *found = (*found - across - unit * along) * scale);
        }
    });
    Some((like(x, found), [of_weight, of_bias]))
}

/// A tensor of `numbers` in the shape of another.
fn like(tensor: &FlexTensor, numbers: Vec<f32>) -> FlexTensor {
    let shape: Shape = tensor.layout().shape().clone();
    FlexTensor::new(Bytes::from_elems(numbers), Layout::contiguous(shape), DType::F32)
}
