//! A layer of the decoder, for the rows of one or several sequences.

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};
use secateur_backends::{VlmBackend, operations::silu_mul};

use super::{
    super::rope::RopeRows,
    attention::Attention,
    chunk::{Chunk, Wanted},
    probe::Probe,
};
use crate::{
    model::{Linear, RmsNorm},
    sequence::select,
};

/// A layer's attention and MLP, each behind a norm and added to what came in.
#[derive(Module, Debug)]
pub(super) struct Layer<B: Backend> {
    pub(super) input_layernorm: RmsNorm<B>,
    pub(super) self_attn: Attention<B>,
    pub(super) post_attention_layernorm: RmsNorm<B>,
    pub(super) mlp: Mlp<B>,
}

#[derive(Module, Debug)]
pub(super) struct Mlp<B: Backend> {
    pub(super) gate_proj: Linear<B>,
    pub(super) up_proj: Linear<B>,
    pub(super) down_proj: Linear<B>,
}

/// A pass on its way through the layers.
pub(super) struct Pass<'p, 'c, B: VlmBackend> {
    pub(super) chunks: &'p mut [Chunk<'c, B>],
    /// The rotary rows of each chunk.
    pub(super) ropes: Vec<RopeRows<B>>,
    /// The number of rows of each chunk that go on.
    pub(super) rows: Vec<usize>,
    pub(super) probe: &'p mut dyn Probe<B>,
}

impl<B: VlmBackend> Layer<B> {
    /// Runs `x` `[batch, rows of all chunks, hidden]` through layer number `index`: `[batch, rows, hidden]`, or, with `wanted`, the states of those
    /// rows alone, `[1, wanted, hidden]`.
    pub(super) fn forward(
        &self,
        x: Tensor<B, 3>,
        index: usize,
        pass: &mut Pass<B>,
        wanted: Option<&Wanted>,
    ) -> Tensor<B, 3> {
        let normed = self.input_layernorm.forward(x.clone());
        pass.probe.result(index, "input_layernorm.", &normed);
        let queries = match wanted.and_then(|wanted| wanted.queries.as_ref()) {
            Some(rows) => pick_rows(&normed, rows),
            None => normed.clone(),
        };
        let attention = &self.self_attn;
        let products = [
            ("self_attn.q_proj.", attention.q_proj.forward(queries)),
            ("self_attn.k_proj.", attention.k_proj.forward(normed.clone())),
            ("self_attn.v_proj.", attention.v_proj.forward(normed)),
        ];
        products.iter().for_each(|(part, product)| pass.probe.result(index, part, product));
        let attended = self.attend(products.map(|(_, product)| product), index, pass, wanted);
        pass.probe.result(index, "self_attn.", &attended);
        let (x, attended) = match wanted {
            Some(wanted) => (pick(x, wanted.rows.as_ref()), pick(attended, wanted.picked.as_ref())),
            None => (x, attended),
        };
        let x = x + attention.o_proj.forward(attended);
        pass.probe.result(index, "self_attn.o_proj.", &x);
        let normed = self.post_attention_layernorm.forward(x.clone());
        pass.probe.result(index, "post_attention_layernorm.", &normed);
        let (gate, up) = (self.mlp.gate_proj.forward(normed.clone()), self.mlp.up_proj.forward(normed));
        pass.probe.result(index, "mlp.gate_proj.", &gate);
        pass.probe.result(index, "mlp.up_proj.", &up);
        let x = x + self.mlp.down_proj.forward(silu_mul(gate, up));
        pass.probe.result(index, "mlp.down_proj.", &x);
        x
    }

    /// Attention of every chunk by itself, so that none needs padding: `[batch, rows with a query, heads · head_dim]`.
    fn attend(
        &self,
        [q, k, v]: [Tensor<B, 3>; 3],
        index: usize,
        pass: &mut Pass<B>,
        wanted: Option<&Wanted>,
    ) -> Tensor<B, 3> {
        let (mut attended, mut row, mut query) = (Vec::new(), 0, 0);
        for i in 0..pass.chunks.len() {
            let (rows, rope) = (pass.rows[i], &pass.ropes[i]);
            let first = wanted.map_or(0, |wanted| wanted.first[i]);
            let own = narrow(&q, query, rows - first);
            let q = self.self_attn.queries(own, &if first > 0 { rope.tail(first) } else { rope.clone() });
            let [k, v] = self.self_attn.keys_values([&k, &v].map(|x| narrow(x, row, rows)), rope);
            let (before, rest) = pass.chunks.split_at_mut(i);
            let chunk = &mut rest[0];
            let keys_values = match &mut chunk.cache {
                Some(cache) => {
                    if let (1.., Some(before)) = (chunk.shared, before.last().and_then(|chunk| chunk.cache.as_deref()))
                    {
                        cache.take_over(index, before, chunk.shared);
                    }
                    cache.append(index, k, v)
                }
                None => [k, v],
            };
            pass.probe.attention(index, &q, &keys_values[0]);
            attended.push(self.self_attn.attend(q, keys_values, chunk.mask));
            row += rows;
            query += rows - first;
        }
        if attended.len() == 1 { attended.swap_remove(0) } else { Tensor::cat(attended, 1) }
    }
}

/// Rows `from..from + count` of every sequence.
fn narrow<B: Backend>(x: &Tensor<B, 3>, from: usize, count: usize) -> Tensor<B, 3> {
    if count == x.dims()[1] { x.clone() } else { x.clone().narrow(1, from, count) }
}

/// Picks the rows numbered `rows`, ascending, from every sequence of a batch.
fn pick_rows<B: Backend>(x: &Tensor<B, 3>, rows: &[usize]) -> Tensor<B, 3> {
    let (first, last) = (rows[0], rows[rows.len() - 1]);
    if last - first + 1 == rows.len() {
        return narrow(x, first, rows.len());
    }
    select(x.clone().squeeze_dim(0), rows.to_vec()).unsqueeze()
}

/// Picks rows counted through all sequences of a batch, `[1, rows, width]`; without `rows`, returns `x` as it is.
fn pick<B: Backend>(x: Tensor<B, 3>, rows: Option<&Vec<usize>>) -> Tensor<B, 3> {
    match rows {
        Some(rows) => select(x.flatten::<2>(0, 1), rows.clone()).unsqueeze(),
        None => x,
    }
}
