//! Keys and values of ended requests, for prompts that begin like those of these requests.

use secateur_backends::VlmBackend;

use crate::model::{KvCache, RowKey};

/// A prompt that was read, and its keys and values.
pub(super) struct Prefix<B: VlmBackend> {
    /// The key of each row of the prompt.
    pub(super) keys: Vec<RowKey>,
    pub(super) cache: KvCache<B>,
}

/// A cache of prompts with their keys and values, in the order in which they ended.
pub(super) struct PrefixCache<B: VlmBackend> {
    entries: Vec<Prefix<B>>,
    budget: usize,
}

/// Largest number of prompts that are kept, and compared with a new one.
const MOST: usize = 8;

impl<B: VlmBackend> PrefixCache<B> {
    pub(super) fn new(budget: usize) -> Self {
        Self { entries: Vec::new(), budget }
    }

    /// Keeps a prompt, and makes room for it; the newest stays, however large it is.
    pub(super) fn keep(&mut self, prefix: Prefix<B>) {
        if self.budget == 0 {
            return;
        }
        // A prompt that is the beginning of the new one adds nothing to it.
        self.entries.retain(|old| in_common(&old.keys, &prefix.keys) < old.keys.len());
        self.entries.push(prefix);
        while self.entries.len() > 1 && (self.bytes() > self.budget || self.entries.len() > MOST) {
            self.entries.remove(0);
        }
    }

    /// The keys and values that have most in common with a prompt, and the number of rows in common.
    pub(super) fn longest(&self, keys: &[RowKey]) -> Option<(&KvCache<B>, usize)> {
        let counts = self.entries.iter().map(|entry| (&entry.cache, shared(&entry.keys, keys)));
        counts.max_by_key(|&(_, count)| count).filter(|&(_, count)| count > 0)
    }

    fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.cache.bytes()).sum()
    }
}

/// The number of rows at the beginning of `next` that equal those of `before`; the last row of `next` is left out, since it gives the logits.
pub(super) fn shared(before: &[RowKey], next: &[RowKey]) -> usize {
    in_common(before, &next[..next.len().saturating_sub(1)])
}

fn in_common(a: &[RowKey], b: &[RowKey]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
