//! Products with weights as in checkpoint files, `[out, in]`: floats, or blocks of a few bits.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use burn::{
    module::{Module, Param, ParamId},
    tensor::{Tensor, backend::Backend},
};
use secateur_backends::{
    Blocks, Rounding, VlmBackend,
    operations::{add_bias, linear, linear_biased, linear_blocks},
};

/// A parameter that takes no memory until a checkpoint fills it (zeros, should anyone read it before).
pub(in crate::model) fn unfilled<B: Backend, const D: usize>(
    shape: [usize; D],
    device: &B::Device,
) -> Param<Tensor<B, D>> {
    let init = move |device: &B::Device, _grad: bool| Tensor::zeros(shape, device);
    Param::uninitialized(ParamId::new(), init, device.clone(), false, shape.into())
}

/// A layer's place for a weight in blocks. While it is empty, the layer's parameter is its weight.
pub(in crate::model) type Slot = Arc<OnceLock<Blocks>>;

/// The places for weights in blocks in the layers of networks, by the ids of the parameters that they take the place of.
#[derive(Debug, Default)]
pub struct Slots(RefCell<HashMap<ParamId, Slot>>);

impl Slots {
    fn add(&self, id: ParamId) -> Slot {
        self.0.borrow_mut().entry(id).or_default().clone()
    }

    /// Whether the layer of the parameter `id` can have a weight in blocks.
    pub(in crate::model) fn has(&self, id: ParamId) -> bool {
        self.0.borrow().contains_key(&id)
    }

    /// Gives the layer of the parameter `id` a weight in blocks; returns whether it can have one.
    pub(in crate::model) fn fill(&self, id: ParamId, blocks: Blocks) -> bool {
        self.0.borrow().get(&id).is_some_and(|slot| slot.set(blocks).is_ok())
    }
}

/// The number of bytes of a matrix in blocks, or else in floats.
pub(in crate::model) fn bytes<B: Backend>(blocks: Option<&Blocks>, weight: &Param<Tensor<B, 2>>) -> u64 {
    let bytes = match blocks {
        Some(blocks) => blocks.bytes(),
        None => weight.lazy_shape().num_elements() * weight.val().dtype().size(),
    };
    bytes as u64
}

/// The settings that networks are built with.
#[derive(Debug)]
pub struct Build<'a, B: Backend> {
    /// The device of the weights.
    pub device: &'a B::Device,
    /// Whether products, and attention between them, may round their inputs to bf16 where that is faster.
    pub bf16: bool,
    /// Whether products with weights in blocks may round their inputs to 8 bits where that is faster.
    pub int8: bool,
    /// The places for weights in blocks.
    pub slots: Option<&'a Slots>,
}

impl<B: Backend> Clone for Build<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for Build<'_, B> {}

impl<'a, B: VlmBackend> Build<'a, B> {
    /// Settings for products whose inputs are not rounded.
    pub fn exact(device: &'a B::Device) -> Self {
        Self { device, bf16: false, int8: false, slots: None }
    }

    /// An unfilled product.
    pub fn linear(self, inputs: usize, outputs: usize, bias: bool) -> Linear<B> {
        let weight = unfilled([outputs, inputs], self.device);
        Linear {
            blocks: self.slot(&weight),
            weight,
            bias: bias.then(|| unfilled([outputs], self.device)),
            bf16: self.bf16,
            rounding: self.rounding(),
        }
    }

    /// A place for the blocks of the matrix `weight`, where there are such places.
    pub(in crate::model) fn slot(self, weight: &Param<Tensor<B, 2>>) -> Option<Slot> {
        self.slots.map(|slots| slots.add(weight.id))
    }

    /// The rounding of inputs that is permitted in products with weights in blocks.
    pub(in crate::model) fn rounding(self) -> Rounding {
        match self {
            Self { int8: true, .. } => Rounding::Int8,
            Self { bf16: true, .. } => Rounding::Bf16,
            _ => Rounding::None,
        }
    }
}

/// A linear layer, `x · weightᵀ + bias`, the weight in the checkpoint's dtype, the result in that of `x`.
#[derive(Module, Debug)]
pub struct Linear<B: Backend> {
    /// The weight, `[out, in]`.
    pub weight: Param<Tensor<B, 2>>,
    /// The bias, `[out]`.
    pub bias: Option<Param<Tensor<B, 1>>>,
    /// The weight, where it is in blocks.
    #[module(skip)]
    blocks: Option<Slot>,
    /// Whether the layer's inputs may be rounded to bf16.
    bf16: bool,
    /// The rounding of the layer's inputs that is permitted where the weight is in blocks.
    #[module(skip)]
    rounding: Rounding,
}

impl<B: VlmBackend> Linear<B> {
    /// The number of the weight's bytes.
    pub fn bytes(&self) -> u64 {
        bytes(self.blocks(), &self.weight)
    }

    /// Whether inputs may be rounded to bf16, here and in what lies between such products.
    pub fn is_bf16(&self) -> bool {
        self.bf16
    }

    /// The weight, where it is in blocks.
    pub(in crate::model) fn blocks(&self) -> Option<&Blocks> {
        self.blocks.as_ref()?.get()
    }

    /// Computes `x · weightᵀ + bias`.
    ///
    /// # Shapes
    /// - `x`: `[…, in]`
    /// - result: `[…, out]`
    pub fn forward<const D: usize>(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        let mut shape = x.dims();
        let inputs = shape[D - 1];
        let rows = x.reshape([-1, inputs as i32]);
        let y = match (self.blocks(), &self.bias) {
            (Some(blocks), None) => linear_blocks(rows, blocks, self.rounding),
            (Some(blocks), Some(bias)) => add_bias(linear_blocks(rows, blocks, self.rounding), bias.val()),
            (None, None) => linear(rows, self.weight.val(), self.bf16),
            (None, Some(bias)) => linear_biased(rows, self.weight.val(), bias.val(), self.bf16),
        };
        shape[D - 1] = y.dims()[1];
        y.reshape(shape)
    }
}
