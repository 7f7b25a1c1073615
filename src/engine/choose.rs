//! The choice of the next token.

use std::collections::HashSet;

use rand::{Rng, SeedableRng, rngs::StdRng};

/// The rule that chooses the next token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// The best token; of equals, the first.
    Greedy,
    /// A token drawn from the softmax at `temperature`, among the best that together have `top_p` of it.
    Random {
        /// The temperature, above 0; higher is flatter.
        temperature: f32,
        /// The share of the softmax that is drawn from, in (0, 1]; 1 leaves nothing out.
        top_p: f32,
        /// The seed of the random numbers; equal seeds give equal answers.
        seed: u64,
    },
}

impl Sampling {
    /// The rule for a temperature, which is the best token at a temperature of 0.
    pub fn new(temperature: f32, top_p: f32, seed: u64) -> Self {
        if temperature == 0.0 { Self::Greedy } else { Self::Random { temperature, top_p, seed } }
    }
}

/// Chooses token after token of one answer.
#[derive(Debug)]
pub(super) struct Chooser {
    sampling: Sampling,
    random: StdRng,
    /// The factor by which tokens become less likely that were there before.
    penalty: f32,
    /// Those tokens, where the factor is not 1.
    seen: HashSet<u32>,
}

impl Chooser {
    /// A chooser with the random numbers of a seed and a `draw`; each `draw` of a seed has its own.
    pub(super) fn new(sampling: Sampling, draw: u64) -> Self {
        let seed = if let Sampling::Random { seed, .. } = sampling { seed } else { 0 };
        Self { sampling, random: StdRng::seed_from_u64(seed ^ draw), penalty: 1.0, seen: HashSet::new() }
    }

    /// Makes the tokens `seen`, and all that are chosen, less likely by a factor.
    pub(super) fn with_penalty(self, penalty: f32, seen: &[u32]) -> Self {
        Self { penalty, seen: seen.iter().copied().collect(), ..self }
    }

    pub(super) fn choose(&mut self, logits: &[f32]) -> u32 {
        if self.penalty == 1.0 {
            return self.choose_from(logits);
        }
        let mut logits = logits.to_vec();
        for &id in &self.seen {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = if *logit < 0.0 { *logit * self.penalty } else { *logit / self.penalty };
            }
        }
        let id = self.choose_from(&logits);
        self.seen.insert(id);
        id
    }

    fn choose_from(&mut self, logits: &[f32]) -> u32 {
        match self.sampling {
            Sampling::Greedy => argmax(logits),
            Sampling::Random { temperature, top_p, .. } => self.draw(logits, temperature, top_p),
        }
    }

    fn draw(&mut self, logits: &[f32], temperature: f32, top_p: f32) -> u32 {
        let best = logits[argmax(logits) as usize];
        let mut chances: Vec<(u32, f64)> =
            (0..).zip(logits).map(|(id, &l)| (id, f64::from((l - best) / temperature).exp())).collect();
        chances.sort_by(|a, b| b.1.total_cmp(&a.1));
        let total: f64 = chances.iter().map(|(_, chance)| chance).sum();
        // The nucleus: the fewest best tokens that reach top_p, the one that crosses it included.
        let mut reached = 0.0;
        let nucleus = chances.iter().take_while(|(_, chance)| {
            let before = reached;
            reached += chance / total;
            before < f64::from(top_p)
        });
        let nucleus: Vec<_> = nucleus.copied().collect();
        let mut left = self.random.random::<f64>() * nucleus.iter().map(|(_, chance)| chance).sum::<f64>();
        for &(id, chance) in &nucleus {
            left -= chance;
            if left < 0.0 {
                return id;
            }
        }
        nucleus[0].0
    }
}

fn argmax(values: &[f32]) -> u32 {
    let best = (0u32..).zip(values).max_by(|(i, a), (j, b)| (*a + 0.0).total_cmp(&(*b + 0.0)).then(j.cmp(i)));
    best.map_or(0, |(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_takes_the_first_of_equals() {
        assert_eq!(argmax(&[0.5, 2.0, 2.0, -1.0]), 1);
    }

    /// Checks transformers' rule: a logit below 0 is multiplied, another one divided, once however often a token was there.
    #[test]
    fn what_was_there_becomes_less_likely() {
        let mut chooser = Chooser::new(Sampling::Greedy, 0).with_penalty(2.0, &[0, 0, 9]);
        // 3 / 2 is below 2, which is then halved to 1, below 1.5.
        let choices: Vec<u32> = (0..3).map(|_| chooser.choose(&[3.0, 2.0, -1.0])).collect();
        assert_eq!(choices, [1, 0, 0]);
        let mut chooser = Chooser::new(Sampling::Greedy, 0).with_penalty(2.0, &[0]);
        assert_eq!(chooser.choose(&[-1.0, -1.5]), 1);
    }

    #[test]
    fn a_seed_decides_the_draw() {
        let logits = [0.0, 1.0, 0.5, 0.2];
        let draws = |seed, draw| {
            let mut chooser = Chooser::new(Sampling::Random { temperature: 1.0, top_p: 1.0, seed }, draw);
            (0..20).map(|_| chooser.choose(&logits)).collect::<Vec<_>>()
        };
        assert_eq!(draws(1, 7), draws(1, 7));
        assert_ne!(draws(1, 7), draws(2, 7));
        assert_ne!(draws(1, 7), draws(1, 8));
    }

    #[test]
    fn the_nucleus_leaves_out_the_tail() {
        // Chances 0.64, 0.24, 0.09, 0.03: the first two are the fewest that reach 0.7.
        let logits = [4.0, 3.0, 2.0, 1.0];
        let mut chooser = Chooser::new(Sampling::Random { temperature: 1.0, top_p: 0.7, seed: 7 }, 0);
        let draws: Vec<u32> = (0..200).map(|_| chooser.choose(&logits)).collect();
        assert!(draws.contains(&0) && draws.contains(&1));
        assert!(draws.iter().all(|&id| id < 2));
    }
}
