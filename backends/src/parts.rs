//! Attention of a few heads at a time, where the scores of all of them would not fit into one buffer of a GPU.

use burn::tensor::{Tensor, backend::Backend};

/// Calls `attend` on a few heads at a time, and joins the results. Queries, keys and values are `[batch, heads, tokens,
/// head_dim]`. There are at most `most` scores at once, but at least one head.
pub(crate) fn by_heads<B: Backend>(
    inputs: [Tensor<B, 4>; 3],
    most: usize,
    attend: impl Fn([Tensor<B, 4>; 3]) -> Tensor<B, 4>,
) -> Tensor<B, 4> {
    let [batch, heads, queries, _] = inputs[0].dims();
    let of_a_head = batch * queries * inputs[1].dims()[2];
    let together = (most / of_a_head.max(1)).clamp(1, heads.max(1));
    if together >= heads {
        return attend(inputs);
    }
    let parts = (0..heads).step_by(together).map(|head| {
        let count = together.min(heads - head);
        attend(inputs.each_ref().map(|x| x.clone().narrow(1, head, count)))
    });
    Tensor::cat(parts.collect(), 1)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use std::cell::RefCell;

    use burn::tensor::Distribution;

    use super::*;
    use crate::{Flex, Mask, ops::reference_attend};

    #[test]
    fn parts_are_the_whole() {
        let random = |tokens| Tensor::<Flex, 4>::random([2, 5, tokens, 8], Distribution::Default, &Default::default());
        let inputs = [random(3), random(7), random(7)];
        let [q, k, v] = inputs.clone();
        let whole = reference_attend(q, k, v, Mask::Causal).into_data();
        // A head has 42 scores.
        for (most, expected) in [(0, vec![1; 5]), (41, vec![1; 5]), (85, vec![2, 2, 1]), (210, vec![5]), (999, vec![5])]
        {
            let heads = RefCell::new(Vec::new());
            let found = by_heads(inputs.clone(), most, |[q, k, v]| {
                heads.borrow_mut().push(q.dims()[1]);
                reference_attend(q, k, v, Mask::Causal)
            });
            assert!(whole.iter::<f32>().all(f32::is_finite));
            found.into_data().assert_approx_eq::<f32>(&whole, burn::tensor::Tolerance::absolute(1e-6));
            assert_eq!(heads.into_inner(), expected, "{most}");
        }
    }
}
