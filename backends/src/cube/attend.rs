//! The softmax of attention, and attention of a single query.

use burn::tensor::{DType, Shape, TensorMetadata};
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{UNITS, cubes, in_rows, largest, room, row, sum};

/// The largest number of keys that [`one_query`] takes: with a query and the sums they fit the 16 KiB that every GPU
/// shares among the units of a cube.
const KEYS: usize = 3072;
/// The alignment of a row of softmax shares, in numbers: 16 bytes of 16-bit numbers.
const ALIGNED: usize = 8;

/// Computes `softmax(scores · scale)` in `dtype`, for `scores` `[batch, kv_heads, rows, keys]` in f32, whose rows are
/// the queries of one or several heads one after another. `causal` is the number of queries of a head: with it, a query
/// sees the keys up to its own, where the queries are the last of the keys' positions.
pub(crate) fn softmax<R: CubeRuntime>(
    scores: CubeTensor<R>,
    scale: f64,
    causal: Option<usize>,
    dtype: DType,
) -> CubeTensor<R> {
    let scores = in_rows(scores);
    let [batch, heads, queries, keys] = scores.shape().dims();
    // Rows begin where kernels can read several numbers at once.
    let mut out = room(&scores, Shape::new([batch, heads, queries, keys.next_multiple_of(ALIGNED)]), dtype);
    out.meta.shape[3] = keys;
    let client = scores.client.clone();
    let rows = batch * heads * queries;
    // A query that sees everything is like the last query of a causal head.
    let (period, hidden) = causal.map_or((1, 0), |queries| (queries, queries - 1));
    softmax_kernel::launch::<R>(
        &client,
        cubes(rows),
        CubeDim::new_1d(UNITS),
        scores.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        rows as u32,
        keys as u32,
        period as u32,
        hidden as u32,
        scale as f32,
        dtype.into(),
    );
    out
}

#[cube(launch)]
fn softmax_kernel<F: Float>(
    scores: &Tensor<f32>,
    out: &mut Tensor<F>,
    rows: u32,
    keys: u32,
    period: u32,
    hidden: u32,
    scale: f32,
    #[define(F)] _dtype: StorageType,
) {
    let row = row();
    if row >= rows as usize {
        terminate!();
    }
    let (start, to) = (row * scores.stride(2), row * out.stride(2));
    let seen = keys as usize + row % period as usize - hidden as usize;
    let mut shared = SharedMemory::<f32>::new(UNITS as usize);
    let mut i = UNIT_POS_X as usize;
    let mut highest = scores[start] * scale;
    while i < seen {
        highest = max(highest, scores[start + i] * scale);
        i += CUBE_DIM_X as usize;
    }
    highest = largest(highest, &mut shared);
    let mut shares = 0.0f32;
    i = UNIT_POS_X as usize;
    while i < seen {
        shares += (scores[start + i] * scale - highest).exp();
        i += CUBE_DIM_X as usize;
    }
    let total = sum(shares, &mut shared);
    i = UNIT_POS_X as usize;
    while i < keys as usize {
        let mut share = 0.0f32;
        if i < seen {
            share = (scores[start + i] * scale - highest).exp() / total;
        }
        out[to + i] = F::cast_from(share);
        i += CUBE_DIM_X as usize;
    }
}

/// Attention of one query for each head to all keys, `[batch, heads, 1, head_dim]`; keys and values `[batch, kv_heads,
/// tokens, head_dim]` may be views. `None` where there are too many keys, or heads wider than a cube.
pub(crate) fn one_query<R: CubeRuntime>(
    q: &CubeTensor<R>,
    k: &CubeTensor<R>,
    v: &CubeTensor<R>,
) -> Option<CubeTensor<R>> {
    let [batch, kv_heads, keys, head_dim] = k.shape().dims();
    let heads = q.shape()[1];
    if q.shape() != Shape::new([batch, heads, 1, head_dim]) || keys > KEYS || head_dim > UNITS as usize {
        return None;
    }
    let out = room(q, q.shape(), q.dtype);
    let client = q.client.clone();
    one_query_kernel::launch::<R>(
        &client,
        CubeCount::Static(heads as u32, batch as u32, 1),
        CubeDim::new_1d(UNITS),
        q.clone().into_tensor_arg(),
        k.clone().into_tensor_arg(),
        v.clone().into_tensor_arg(),
        out.clone().into_tensor_arg(),
        (head_dim as f32).powf(-0.5),
        (heads / kv_heads) as u32,
        KEYS as u32,
        q.dtype.into(),
    );
    Some(out)
}

#[cube(launch)]
fn one_query_kernel<F: Float>(
    q: &Tensor<F>,
    k: &Tensor<F>,
    v: &Tensor<F>,
    out: &mut Tensor<F>,
    scale: f32,
    group: u32,
    #[comptime] capacity: u32,
    #[define(F)] _dtype: StorageType,
) {
    let (head, batch, unit, units) =
        (CUBE_POS_X as usize, CUBE_POS_Y as usize, UNIT_POS_X as usize, CUBE_DIM_X as usize);
    let (keys, width) = (k.shape(2), k.shape(3));
    let mut shares = SharedMemory::<f32>::new(capacity as usize);
    let mut query = SharedMemory::<f32>::new(UNITS as usize);
    let mut shared = SharedMemory::<f32>::new(UNITS as usize);

    if unit < width {
        query[unit] = f32::cast_from(q[batch * q.stride(0) + head * q.stride(1) + unit * q.stride(3)]) * scale;
    }
    sync_cube();

    let shared_head = head / group as usize;
    let start = batch * k.stride(0) + shared_head * k.stride(1);
    let mut highest = f32::new(-3.0e38);
    let mut key = unit;
    while key < keys {
        let at = start + key * k.stride(2);
        let mut score = 0.0f32;
        for i in 0..width {
            score += query[i] * f32::cast_from(k[at + i * k.stride(3)]);
        }
        shares[key] = score;
        highest = max(highest, score);
        key += units;
    }
    highest = largest(highest, &mut shared);

    let mut own = 0.0f32;
    key = unit;
    while key < keys {
        let share = (shares[key] - highest).exp();
        shares[key] = share;
        own += share;
        key += units;
    }
    let total = sum(own, &mut shared);

    // The units share out a head's numbers, and, if there are more units than numbers, the keys.
    let groups = units / width;
    let (group, i) = (unit / width, unit % width);
    let start = batch * v.stride(0) + shared_head * v.stride(1) + i * v.stride(3);
    let mut found = 0.0f32;
    if group < groups {
        key = group;
        while key < keys {
            found += shares[key] * f32::cast_from(v[start + key * v.stride(2)]);
            key += groups;
        }
    }
    shared[unit] = found;
    sync_cube();
    if unit < width {
        let mut value = 0.0f32;
        for group in 0..groups {
            value += shared[group * width + unit];
        }
        out[batch * out.stride(0) + head * out.stride(1) + unit] = F::cast_from(value / total);
    }
}
