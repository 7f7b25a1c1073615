//! The attention that tokens receive, on the matrix unit: 32 queries of a head at a time, as [`super::attend`] scores them.

use super::{
    attend::{Lanes, fill_keys, fill_queries, lanes, score},
    line::Line,
    transpose::TILE,
    unit::{PAIR, Sums, TileConfig, is_there},
};
use crate::kernels::{
    columns::Columns,
    heads::{Head, Heads},
    turns::in_turn,
    vectors::exp,
};

/// The buffers of a thread for one head.
#[derive(Default)]
struct Scratch {
    keys: Vec<Line>,
    queries: Vec<Line>,
    scores: Vec<Sums>,
}

/// Adds up `softmax(q·kᵀ/√head_dim)` over the queries of each head, with `q` and `k` rounded to bf16: `[heads, keys]`, to `out`, which is 0 before. Returns
/// `None`, and writes nothing, where there is no matrix unit, or for a size that it is not made for.
pub(in crate::kernels) fn received([q, k]: [&Heads; 2], out: &mut [f32]) -> Option<()> {
    if q.shape[3] < PAIR || !is_there() {
        return None;
    }
    let keys = k.shape[2];
    assert!(q.shape == k.shape && out.len() == q.count() * keys);
    let columns = Columns(out.as_mut_ptr());
    in_turn(q.count(), |scratch, i| {
        let _config = TileConfig::configured();
        // SAFETY: the unit is there and configured, whoever has it has AVX-512, and a head's sums are one thread's.
        unsafe {
            one_head(scratch, [q.head(i), k.head(i)], std::slice::from_raw_parts_mut(columns.at(i * keys), keys))
        };
    });
    Some(())
}

/// # Safety
/// The unit must be there and configured for this thread.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn one_head(Scratch { keys, queries, scores }: &mut Scratch, [q, k]: [Head; 2], out: &mut [f32]) {
    fill_keys(keys, k, k.rows.next_multiple_of(PAIR));
    scores.resize(k.rows.div_ceil(PAIR), Sums::ZERO);
    let scale = (q.columns as f32).sqrt().recip();
    for from in (0..q.rows).step_by(PAIR) {
        let to = (from + PAIR).min(q.rows);
        fill_queries(queries, q, from..to);
        // SAFETY: by the caller.
        unsafe { score(scores, keys, queries) };
        for half in 0..2 {
            let there = to.saturating_sub(from + half * TILE).min(TILE);
            if there > 0 {
                add_up(scores, half, there, scale, out);
            }
        }
    }
}

/// Adds the softmax of the first `there` queries of a half to the sums of all keys.
#[target_feature(enable = "avx512f,avx512bw")]
fn add_up(scores: &mut [Sums], half: usize, there: usize, scale: f32, out: &mut [f32]) {
    let mut best: Lanes = [f32::NEG_INFINITY; TILE];
    let mut total: Lanes = [0.0; TILE];
    for key in 0..out.len() {
        let row = lanes(scores, key, half);
        for lane in 0..TILE {
            best[lane] = best[lane].max(row[lane]);
            // The product is not 0 for infinite scores and NaN, which `max` would hide.
            total[lane] += row[lane] * 0.0;
        }
    }
    for key in 0..out.len() {
        let row = lanes(scores, key, half);
        let to = &mut scores[key / PAIR].0[key % PAIR / TILE * 2 + half].0[key % TILE];
        for lane in 0..TILE {
            let power = exp((row[lane] - best[lane]).min(0.0) * scale);
            total[lane] += power;
            to[lane] = power.to_bits();
        }
    }
    let mut shares: Lanes = total.map(f32::recip);
    shares[there..].fill(0.0);
    for (key, sum) in out.iter_mut().enumerate() {
        let row = lanes(scores, key, half);
        let mut parts: Lanes = [0.0; TILE];
        for lane in 0..TILE {
            parts[lane] = row[lane] * shares[lane];
        }
        *sum += parts.iter().sum::<f32>();
    }
}
