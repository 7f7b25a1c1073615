//! Rotary position embedding in one pass.

use burn::tensor::DType;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::heads::{Heads, NewHeads, tensor};

/// The body of [`crate::VlmBackend::apply_rope`]; `None` if the tensors are laid out otherwise.
pub(crate) fn rotate(x: &FlexTensor, [cos, sin]: [&FlexTensor; 2]) -> Option<FlexTensor> {
    let x = Heads::of(x)?;
    let [_, _, tokens, head_dim] = x.shape;
    let table = |table: &'_ FlexTensor| {
        let from = table.layout().start_offset();
        let fits = table.layout().shape()[..] == [1, 1, tokens, head_dim];
        let usable = fits && table.dtype() == DType::F32 && table.layout().is_contiguous();
        usable.then(|| from..from + tokens * head_dim)
    };
    let (cos, sin) = (&cos.storage::<f32>()[table(cos)?], &sin.storage::<f32>()[table(sin)?]);
    let mut buffer = vec![0.0; x.shape.iter().product()];
    let out = NewHeads::of(&mut buffer, x.shape);
    let half = head_dim / 2;
    (0..x.count()).into_par_iter().for_each(|i| {
        // SAFETY: every number comes once.
        let (from, mut to) = (x.head(i), unsafe { out.head(i) });
        let tables = cos.chunks(head_dim).zip(sin.chunks(head_dim));
        for (token, (cos, sin)) in tables.enumerate() {
            let (first, second) = from.row(token).split_at(half);
            let (out_first, out_second) = to.row_mut(token).split_at_mut(half);
            for j in 0..half {
                out_first[j] = first[j] * cos[j] - second[j] * sin[j];
                out_second[j] = second[j] * cos[half + j] + first[j] * sin[half + j];
            }
        }
    });
    Some(tensor(buffer, x.shape))
}
