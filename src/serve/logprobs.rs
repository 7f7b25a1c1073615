//! Log probabilities of an answer's tokens.

use secateur_backends::VlmBackend;

use super::api::TokenLogprob;
use crate::model::Model;

/// Tokens before the newest that decide how it is written: whether a space stands before it, or it ends a character.
const CONTEXT: usize = 8;

/// The log probability of the newest token of `ids`, which was chosen by `logits`, and of the `most` best tokens in its place.
pub(super) fn newest<B: VlmBackend>(model: &Model<B>, ids: &[u32], logits: &[f32], most: usize) -> TokenLogprob {
    let Some((&id, before)) = ids.split_last() else { return entry(model, &[], 0, 0.0) };
    let before = &before[before.len().saturating_sub(CONTEXT)..];
    let total = log_sum(logits);
    let of = |id: u32| logits.get(id as usize).map_or(f64::NEG_INFINITY, |&logit| f64::from(logit) - total) as f32;
    let best = best(logits, most).into_iter().map(|id| entry(model, before, id, of(id))).collect();
    TokenLogprob { top_logprobs: Some(best), ..entry(model, before, id, of(id)) }
}

fn entry<B: VlmBackend>(model: &Model<B>, before: &[u32], id: u32, logprob: f32) -> TokenLogprob {
    let tokenizer = model.tokenizer();
    let (start, whole) = (tokenizer.decode(before), tokenizer.decode(&[before, &[id]].concat()));
    let token = whole.strip_prefix(&start).map_or_else(|| tokenizer.decode(&[id]), str::to_owned);
    TokenLogprob { bytes: token.as_bytes().to_vec(), token, logprob, top_logprobs: None }
}

/// The logarithm of the sum of the exponentials.
fn log_sum(logits: &[f32]) -> f64 {
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    most + logits.iter().map(|&logit| (f64::from(logit) - most).exp()).sum::<f64>().ln()
}

/// The numbers of the largest logits, the largest first; of equals, the first.
fn best(logits: &[f32], most: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..).zip(logits).map(|(id, _)| id).collect();
    let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if most < ids.len() {
        ids.select_nth_unstable_by(most, by_logit);
        ids.truncate(most);
    }
    ids.sort_by(by_logit);
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first() {
        let logits = [0.5, 2.0, -1.0, 2.0];
        assert_eq!(best(&logits, 3), [1, 3, 0]);
        assert_eq!(best(&logits, 0), [0u32; 0]);
        assert_eq!(best(&logits, 9), [1, 3, 0, 2]);
        let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - log_sum(&logits)).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12);
    }
}
