//! Training on any backend: gradients of Secateur's operations. Built from Burn's own operations, every step would
//! write out a tensor and keep it, attention even the whole score matrix.

use burn::{
    backend::{
        Autodiff,
        autodiff::{
            NodeId,
            checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
            grads,
            ops::{Backward, Ops, OpsKind},
        },
    },
    tensor::{Int, Tensor, TensorPrimitive, ops::FloatTensor},
};

use super::Gradients;
use crate::{Mask, VlmBackend};

type Primitive<B> = <B as burn::tensor::backend::BackendTypes>::FloatTensorPrimitive;

/// The autodiff node of [`VlmBackend::attend`].
#[derive(Debug)]
struct Attend;

impl<B: Gradients> Backward<B, 3> for Attend {
    type State = ([Primitive<B>; 3], Mask);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut grads::Gradients, _: &mut Checkpointer) {
        let (inputs, mask) = ops.state;
        let grad = tensor::<B, 4>(grads.consume::<B>(&ops.node));
        let found = B::attend_backward(inputs.map(tensor), grad, mask).map(primitive);
        register::<B, _>(grads, ops.parents.map(|parent| parent.map(|node| node.id)), found);
    }
}

/// The autodiff node of [`VlmBackend::apply_rope`]: its gradient is the rotation backwards.
#[derive(Debug)]
struct Rotate;

impl<B: Gradients> Backward<B, 1> for Rotate {
    type State = [Primitive<B>; 2];

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut grads::Gradients, _: &mut Checkpointer) {
        let [cos, sin] = ops.state.map(tensor::<B, 4>);
        let grad = tensor(grads.consume::<B>(&ops.node));
        let found = [primitive(B::apply_rope(grad, cos, sin.neg()))];
        register::<B, _>(grads, ops.parents.map(|parent| parent.map(|node| node.id)), found);
    }
}

/// The autodiff node of [`VlmBackend::silu_mul`].
#[derive(Debug)]
struct Gate;

impl<B: Gradients> Backward<B, 2> for Gate {
    type State = [Primitive<B>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut grads::Gradients, _: &mut Checkpointer) {
        let grad = tensor(grads.consume::<B>(&ops.node));
        let found = B::silu_mul_backward(ops.state.map(tensor), grad).map(primitive);
        register::<B, _>(grads, ops.parents.map(|parent| parent.map(|node| node.id)), found);
    }
}

/// The autodiff node of [`VlmBackend::quick_gelu`].
#[derive(Debug)]
struct QuickGelu;

impl<B: Gradients> Backward<B, 1> for QuickGelu {
    type State = Primitive<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut grads::Gradients, _: &mut Checkpointer) {
        let grad = tensor(grads.consume::<B>(&ops.node));
        let found = [primitive(B::quick_gelu_backward(tensor(ops.state), grad))];
        register::<B, _>(grads, ops.parents.map(|parent| parent.map(|node| node.id)), found);
    }
}

/// The autodiff node of [`VlmBackend::rms_norm_rows`].
#[derive(Debug)]
struct RmsNorm;

impl<B: Gradients> Backward<B, 2> for RmsNorm {
    type State = ([Primitive<B>; 2], f64);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut grads::Gradients, _: &mut Checkpointer) {
        let ([x, weight], eps) = ops.state;
        let grad = tensor(grads.consume::<B>(&ops.node));
        let (of_x, of_weight) = B::rms_norm_backward(tensor(x), tensor(weight), grad, eps);
        let found = [primitive(of_x), primitive(of_weight)];
        register::<B, _>(grads, ops.parents.map(|parent| parent.map(|node| node.id)), found);
    }
}

/// The autodiff node of [`VlmBackend::layer_norm_rows`].
#[derive(Debug)]
struct LayerNorm;

impl<B: Gradients> Backward<B, 3> for LayerNorm {
    type State = ([Primitive<B>; 2], f64);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut grads::Gradients, _: &mut Checkpointer) {
        let ([x, weight], eps) = ops.state;
        let grad = tensor(grads.consume::<B>(&ops.node));
        let (of_x, [of_weight, of_bias]) = B::layer_norm_backward(tensor(x), tensor(weight), grad, eps);
        let found = [primitive(of_x), primitive(of_weight), primitive(of_bias)];
        register::<B, _>(grads, ops.parents.map(|parent| parent.map(|node| node.id)), found);
    }
}

/// Hands gradients to the parents that want them.
fn register<B: Gradients, const N: usize>(
    grads: &mut grads::Gradients,
    parents: [Option<NodeId>; N],
    found: [Primitive<B>; N],
) {
    for (parent, found) in parents.into_iter().zip(found) {
        if let Some(parent) = parent {
            grads.register::<B>(parent, found);
        }
    }
}

/// Puts an operation with its result into the graph.
macro_rules! tracked {
    ($operation:expr, $parents:expr, $state:expr, $result:expr) => {
        match $operation.prepare::<NoCheckpointing>($parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => tensor(prep.finish($state, $result)),
            OpsKind::UnTracked(prep) => tensor(prep.finish($result)),
        }
    };
}

impl<B: Gradients> VlmBackend for Autodiff<B> {
    /// The choice of items, through which no gradient goes.
    fn greedy_dpp(vectors: Tensor<Self, 3>, budget: usize) -> Tensor<Self, 2, Int> {
        Tensor::from_inner(B::greedy_dpp(vectors.inner(), budget))
    }

    fn attend(q: Tensor<Self, 4>, k: Tensor<Self, 4>, v: Tensor<Self, 4>, mask: Mask) -> Tensor<Self, 4> {
        let [q, k, v] = [q, k, v].map(primitive);
        let inputs = [q.primitive, k.primitive, v.primitive];
        let [q_inner, k_inner, v_inner] = inputs.clone().map(tensor::<B, 4>);
        let attended = primitive(B::attend_training(q_inner, k_inner, v_inner, mask));
        tracked!(Attend, [q.node, k.node, v.node], (inputs, mask), attended)
    }

    fn apply_rope(x: Tensor<Self, 4>, cos: Tensor<Self, 4>, sin: Tensor<Self, 4>) -> Tensor<Self, 4> {
        let [x, cos, sin] = [x, cos, sin].map(primitive);
        let tables = [cos.primitive, sin.primitive];
        let [cos, sin] = tables.clone().map(tensor::<B, 4>);
        let rotated = primitive(B::apply_rope(tensor(x.primitive), cos, sin));
        tracked!(Rotate, [x.node], tables, rotated)
    }

    fn silu_mul(gate: Tensor<Self, 3>, up: Tensor<Self, 3>) -> Tensor<Self, 3> {
        let [gate, up] = [gate, up].map(primitive);
        let inputs = [gate.primitive, up.primitive];
        let [gate_inner, up_inner] = inputs.clone().map(tensor::<B, 3>);
        let gated = primitive(B::silu_mul(gate_inner, up_inner));
        tracked!(Gate, [gate.node, up.node], inputs, gated)
    }

    fn quick_gelu(x: Tensor<Self, 3>) -> Tensor<Self, 3> {
        let x = primitive(x);
        let found = primitive(B::quick_gelu(tensor(x.primitive.clone())));
        tracked!(QuickGelu, [x.node], x.primitive, found)
    }

    fn rms_norm_rows(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f64) -> Tensor<Self, 2> {
        let (x, weight) = (primitive(x), primitive(weight));
        let inputs = [x.primitive, weight.primitive];
        let [x_inner, weight_inner] = inputs.clone();
        let found = primitive(B::rms_norm_rows(tensor(x_inner), tensor(weight_inner), eps));
        tracked!(RmsNorm, [x.node, weight.node], (inputs, eps), found)
    }

    fn layer_norm_rows(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        bias: Tensor<Self, 1>,
        eps: f64,
    ) -> Tensor<Self, 2> {
        let (x, weight, bias) = (primitive(x), primitive(weight), primitive(bias));
        let inputs = [x.primitive, weight.primitive];
        let [x_inner, weight_inner] = inputs.clone();
        let found = B::layer_norm_rows(tensor(x_inner), tensor(weight_inner), tensor(bias.primitive), eps);
        tracked!(LayerNorm, [x.node, weight.node, bias.node], (inputs, eps), primitive(found))
    }
}

fn tensor<B: VlmBackend, const D: usize>(primitive: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

fn primitive<B: VlmBackend, const D: usize>(tensor: Tensor<B, D>) -> FloatTensor<B> {
    tensor.into_primitive().tensor()
}
