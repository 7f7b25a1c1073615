//! Training on any backend: gradients around the same operations.

use burn::{
    backend::{
        Autodiff,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
    },
    tensor::{Tensor, TensorPrimitive},
};

use crate::{Mask, VlmBackend};

/// The attention's gradient as one operation: taken apart into Burn's own, every step writes out and keeps the whole
/// score matrix.
#[derive(Debug)]
struct Attend;

impl<B: VlmBackend> Backward<B, 3> for Attend {
    type State = ([B::FloatTensorPrimitive; 3], Mask);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (inputs, mask) = ops.state;
        let grad = tensor::<B>(grads.consume::<B>(&ops.node));
        let found = B::attend_backward(inputs.map(tensor::<B>), grad, mask);
        for (parent, found) in ops.parents.into_iter().zip(found) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, primitive(found));
            }
        }
    }
}

/// The gradient of a rotation is the rotation backwards.
#[derive(Debug)]
struct Rotate;

impl<B: VlmBackend> Backward<B, 1> for Rotate {
    type State = [B::FloatTensorPrimitive; 2];

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [cos, sin] = ops.state.map(tensor::<B>);
        let grad = tensor::<B>(grads.consume::<B>(&ops.node));
        if let [Some(parent)] = ops.parents {
            grads.register::<B>(parent.id, primitive(B::rotate(grad, cos, sin.neg())));
        }
    }
}

impl<B: VlmBackend> VlmBackend for Autodiff<B> {
    fn rotate(x: Tensor<Self, 4>, cos: Tensor<Self, 4>, sin: Tensor<Self, 4>) -> Tensor<Self, 4> {
        let [x, cos, sin] = [x, cos, sin].map(|x| x.into_primitive().tensor());
        let tables = [cos.primitive, sin.primitive];
        let [cos, sin] = tables.clone().map(tensor::<B>);
        let rotated = primitive(B::rotate(tensor(x.primitive), cos, sin));
        let rotated = match Backward::<B, 1>::prepare::<NoCheckpointing>(Rotate, [x.node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(tables, rotated),
            OpsKind::UnTracked(prep) => prep.finish(rotated),
        };
        Tensor::from_primitive(TensorPrimitive::Float(rotated))
    }

    fn attend(q: Tensor<Self, 4>, k: Tensor<Self, 4>, v: Tensor<Self, 4>, mask: Mask) -> Tensor<Self, 4> {
        let [q, k, v] = [q, k, v].map(|x| x.into_primitive().tensor());
        let inputs = [q.primitive, k.primitive, v.primitive];
        let [q_inner, k_inner, v_inner] = inputs.clone().map(tensor::<B>);
        let attended = primitive(B::attend(q_inner, k_inner, v_inner, mask));
        let prepared =
            Backward::<B, 3>::prepare::<NoCheckpointing>(Attend, [q.node, k.node, v.node]).compute_bound().stateful();
        let attended = match prepared {
            OpsKind::Tracked(prep) => prep.finish((inputs, mask), attended),
            OpsKind::UnTracked(prep) => prep.finish(attended),
        };
        Tensor::from_primitive(TensorPrimitive::Float(attended))
    }
}

fn tensor<B: VlmBackend>(primitive: B::FloatTensorPrimitive) -> Tensor<B, 4> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

fn primitive<B: VlmBackend>(tensor: Tensor<B, 4>) -> B::FloatTensorPrimitive {
    tensor.into_primitive().tensor()
}
