//! Rotary position embedding in one pass.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::heads::{Heads, NewHeads, tensor};

/// The body of [`crate::VlmBackend::apply_rope`]; `None` if the tensors are laid out otherwise.
pub(crate) fn rotate(x: &FlexTensor, [cos, sin]: [&FlexTensor; 2]) -> Option<FlexTensor> {
    let (x, cos, sin) = (Heads::<f32>::of(x)?, Heads::<f32>::of(cos)?, Heads::<f32>::of(sin)?);
    let [_, _, tokens, head_dim] = x.shape;
    (cos.shape == [1, 1, tokens, head_dim] && sin.shape == cos.shape).then_some(())?;
    let (cos, sin) = (cos.head(0), sin.head(0));
    let mut buffer = vec![0.0; x.shape.iter().product()];
    let out = NewHeads::of(&mut buffer, x.shape);
    let half = head_dim / 2;
    (0..x.count()).into_par_iter().for_each(|i| {
        // SAFETY: every number comes once.
        let (from, mut to) = (x.head(i), unsafe { out.head(i) });
        for token in 0..tokens {
            let (cos, sin) = (cos.row(token), sin.row(token));
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

#[cfg(test)]
mod tests {
    use burn::tensor::{Tensor, TensorPrimitive};

    use super::*;
    use crate::{
        kernels::heads::random,
        ops::reference_apply_rope,
        testing::{check, tensors},
    };

    /// The tables are parts of longer ones, as a decoder has them.
    #[test]
    fn it_is_the_reference_body() {
        let [x, ..] = tensors(9, 9);
        let half = random([1, 1, 12, 8]);
        let table = Tensor::cat(vec![half.clone(), half], 3);
        let [cos, sin] = [table.clone().cos(), table.sin()].map(|table| table.narrow(2, 2, 9));
        let inputs = [&x, &cos, &sin].map(|x| x.clone().into_primitive().tensor());
        let found = rotate(&inputs[0], [&inputs[1], &inputs[2]]).expect("the kernel takes a part of a table");
        let found = Tensor::from_primitive(TensorPrimitive::Float(found));
        check(found, reference_apply_rope(x, cos, sin), "rotation");
    }
}
