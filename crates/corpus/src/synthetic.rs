//! The synthetic language: a source of unlimited text whose entropy rate is known exactly.
//!
//! A word follows from the two before it: with probability [`ORDER_TWO_SHARE`] it is drawn from the
//! successors of the pair, otherwise from the successors of the last word alone. Every context has
//! [`N_SUCCESSORS`] successors, picked once and for all from Zipf's law over the words, with
//! probabilities that follow Zipf's law too. So words and pairs are distributed with a heavy tail,
//! there is always a rarer pair left to learn, and both data and parameters buy loss as a power.

use crate::permutation::mix;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Successors of a context.
const N_SUCCESSORS: usize = 16;
/// Zipf exponent of the words that successors are picked from.
const WORD_EXPONENT: f64 = 1.1;
/// Zipf exponent of a context's successor probabilities.
const SUCCESSOR_EXPONENT: f64 = 1.2;
/// Probability that a word follows from the pair before it and not from the last word alone.
const ORDER_TWO_SHARE: f64 = 0.3;
/// Largest change of any pair's probability at which the stationary distribution is taken.
const STATIONARY_TOLERANCE: f64 = 1e-15;
/// Share of the chain that stays where it is in a power iteration, so that even a periodic
/// language converges; the stationary distribution is the same.
const LAZINESS: f64 = 0.1;

/// A language: its successor tables and its exact stationary distribution.
pub struct SyntheticLanguage {
    n_words: usize,
    seed: u64,
    /// `[n_words + n_words^2][N_SUCCESSORS]`: single words first, then pairs.
    successors: Vec<[u16; N_SUCCESSORS]>,
    successor_probability: [f64; N_SUCCESSORS],
    /// Stationary probability of each pair (u, v), at `u * n_words + v`.
    stationary: Vec<f64>,
    /// Running sums of `stationary`.
    cumulative: Vec<f64>,
}

impl SyntheticLanguage {
    /// The language of `n_words` words that a seed fixes.
    pub fn new(n_words: usize, seed: u64) -> Self {
        let words = running_sums(&zipf(n_words, WORD_EXPONENT));
        let n_contexts = n_words + n_words * n_words;
        let pick = |context: usize, rank: usize| {
            let hash = mix(mix(seed) ^ (context * N_SUCCESSORS + rank) as u64);
            let uniform = (hash >> 11) as f64 / (1u64 << 53) as f64;
            index_of(&words, uniform) as u16
        };
        let successors = (0..n_contexts)
            .map(|context| std::array::from_fn(|rank| pick(context, rank)))
            .collect();
        let mut successor_probability = [0.0; N_SUCCESSORS];
        successor_probability.copy_from_slice(&zipf(N_SUCCESSORS, SUCCESSOR_EXPONENT));
        let mut language = Self {
            n_words,
            seed,
            successors,
            successor_probability,
            stationary: Vec::new(),
            cumulative: Vec::new(),
        };
        language.stationary = language.stationary_distribution();
        language.cumulative = running_sums(&language.stationary);
        language
    }

    /// Words of the language.
    pub fn n_words(&self) -> usize {
        self.n_words
    }

    /// Seed of the language.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// H: the entropy of a word given the two before it, in nats; no model's loss is below it.
    ///
    /// The sum over pairs of the stationary probability times the entropy of what follows.
    pub fn entropy_rate(&self) -> f64 {
        let mut next = vec![0.0; self.n_words];
        (0..self.n_words * self.n_words)
            .map(|pair| {
                self.add_successors(pair, 1.0, &mut next);
                let words = self.contexts(pair).into_iter().flat_map(|(c, _)| self.successors[c]);
                self.stationary[pair] * take_entropy(&mut next, words.map(usize::from))
            })
            .sum()
    }

    /// The entropy of a word given only the one before it, in nats.
    pub fn entropy_given_one_word(&self) -> f64 {
        let mut next = vec![0.0; self.n_words];
        (0..self.n_words)
            .map(|v| {
                let pairs = (0..self.n_words).map(|u| u * self.n_words + v);
                let p: f64 = pairs.clone().map(|pair| self.stationary[pair]).sum();
                if p == 0.0 {
                    return 0.0;
                }
                pairs.for_each(|pair| {
                    self.add_successors(pair, self.stationary[pair] / p, &mut next);
                });
                p * take_entropy(&mut next, 0..self.n_words)
            })
            .sum()
    }

    /// The least mean loss over windows of `context_len` predictions, in nats per word: the first
    /// prediction of a window has one word of context, every other has at least two.
    pub fn loss_floor(&self, context_len: usize) -> f64 {
        let n = context_len as f64;
        (self.entropy_given_one_word() + (n - 1.0) * self.entropy_rate()) / n
    }

    /// The seed of the held-out sequences, which no run may have.
    pub fn held_out_seed(&self) -> u64 {
        !self.seed
    }

    /// `len` words that begin with a pair in its stationary distribution: a pure function of
    /// (seed, stream).
    pub fn sample(&self, seed: u64, stream: u64, len: usize) -> Vec<u32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        let first = index_of(&self.cumulative, rng.random());
        let (mut u, mut v) = (first / self.n_words, first % self.n_words);
        let mut words = Vec::with_capacity(len + 1);
        words.extend([u as u32, v as u32]);
        let ranks = running_sums(&self.successor_probability);
        while words.len() < len {
            let context = if rng.random::<f64>() < ORDER_TWO_SHARE {
                self.n_words + u * self.n_words + v
            } else {
                v
            };
            let rank = index_of(&ranks, rng.random());
            (u, v) = (v, usize::from(self.successors[context][rank]));
            words.push(v as u32);
        }
        words.truncate(len);
        words
    }

    /// The contexts that a pair is part of, and how often the next word follows from each.
    fn contexts(&self, pair: usize) -> [(usize, f64); 2] {
        [(self.n_words + pair, ORDER_TWO_SHARE), (pair % self.n_words, 1.0 - ORDER_TWO_SHARE)]
    }

    /// Adds `weight` times the distribution of the word after a pair.
    fn add_successors(&self, pair: usize, weight: f64, next: &mut [f64]) {
        for (context, share) in self.contexts(pair) {
            for (word, p) in self.successors[context].iter().zip(self.successor_probability) {
                next[usize::from(*word)] += weight * share * p;
            }
        }
    }

    /// Power iteration over pairs, from the uniform distribution.
    fn stationary_distribution(&self) -> Vec<f64> {
        let n_pairs = self.n_words * self.n_words;
        let mut now = vec![1.0 / n_pairs as f64; n_pairs];
        loop {
            let mut next = vec![0.0; n_pairs];
            for (pair, p) in now.iter().enumerate().filter(|(_, p)| **p > 0.0) {
                let v = pair % self.n_words;
                let row = &mut next[v * self.n_words..(v + 1) * self.n_words];
                self.add_successors(pair, *p, row);
            }
            let total: f64 = next.iter().sum();
            for (p, before) in next.iter_mut().zip(&now) {
                *p = LAZINESS * before + (1.0 - LAZINESS) * *p / total;
            }
            let change = now.iter().zip(&next).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            now = next;
            if change < STATIONARY_TOLERANCE {
                return now;
            }
        }
    }
}

/// Probabilities proportional to rank^-exponent.
fn zipf(n: usize, exponent: f64) -> Vec<f64> {
    let weights: Vec<f64> = (1..=n).map(|rank| (rank as f64).powf(-exponent)).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

fn running_sums(probabilities: &[f64]) -> Vec<f64> {
    let add = |sum: &mut f64, p: &f64| {
        *sum += p;
        Some(*sum)
    };
    probabilities.iter().scan(0.0, add).collect()
}

/// The outcome that a uniform number picks.
fn index_of(cumulative: &[f64], uniform: f64) -> usize {
    cumulative.partition_point(|sum| *sum <= uniform).min(cumulative.len() - 1)
}

/// The entropy in nats of a distribution that is zero outside `words`; leaves zeros behind.
fn take_entropy(distribution: &mut [f64], words: impl Iterator<Item = usize>) -> f64 {
    let mut entropy = 0.0;
    for word in words {
        let p = std::mem::take(&mut distribution[word]);
        if p > 0.0 {
            entropy -= p * p.ln();
        }
    }
    entropy
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn the_entropy_rate_is_that_of_a_long_sample() {
        // Few words, so that every context is seen often; the plug-in estimate is corrected by
        // Miller and Madow's (outcomes - 1) / 2n for each context.
        let language = SyntheticLanguage::new(12, 3);
        let sample = language.sample(1, 0, 4_000_000);
        let estimate = |order: usize| {
            let mut counts: HashMap<&[u32], HashMap<u32, f64>> = HashMap::new();
            for window in sample.windows(order + 1) {
                let next = counts.entry(&window[..order]).or_default();
                *next.entry(window[order]).or_default() += 1.0;
            }
            let total = (sample.len() - order) as f64;
            counts
                .values()
                .map(|next| {
                    let n: f64 = next.values().sum();
                    let plug_in: f64 = next.values().map(|c| -c / n * (c / n).ln()).sum();
                    n / total * plug_in + (next.len() as f64 - 1.0) / (2.0 * total)
                })
                .sum::<f64>()
        };
        assert!((estimate(2) - language.entropy_rate()).abs() < 2e-3);
        assert!((estimate(1) - language.entropy_given_one_word()).abs() < 2e-3);
    }

    #[test]
    fn more_context_never_costs() {
        let language = SyntheticLanguage::new(64, 1);
        assert!(language.entropy_rate() < language.entropy_given_one_word());
        assert!(language.loss_floor(1) > language.loss_floor(128));
        assert!(language.loss_floor(128) > language.entropy_rate());
    }

    #[test]
    fn the_distribution_is_stationary_and_sums_to_one() {
        let language = SyntheticLanguage::new(40, 9);
        let n = language.n_words;
        let total: f64 = language.stationary.iter().sum();
        assert!((total - 1.0).abs() < 1e-12);
        for word in 0..n {
            let before: f64 = (0..n).map(|u| language.stationary[u * n + word]).sum();
            let after: f64 = (0..n).map(|v| language.stationary[word * n + v]).sum();
            assert!((before - after).abs() < 1e-13);
        }
    }

    #[test]
    fn samples_are_pure_functions_of_seed_and_stream() {
        let language = SyntheticLanguage::new(50, 1);
        assert_eq!(language.sample(1, 5, 100), language.sample(1, 5, 100));
        assert_ne!(language.sample(1, 5, 100), language.sample(1, 6, 100));
        assert_ne!(language.sample(1, 5, 100), language.sample(2, 5, 100));
        assert_eq!(language.sample(1, 5, 100)[..1], language.sample(1, 5, 1));
    }

    /// What a counting learner that has seen D words cannot know yet: the probability that the next
    /// pair is new. Under a heavy tail it falls as a power of D, a straight line in log-log.
    #[test]
    fn unseen_pairs_become_rarer_as_a_power_of_the_data() {
        let language = SyntheticLanguage::new(512, 1);
        let unseen = |n_words: f64| {
            language.stationary.iter().map(|p| p * (n_words * (-p).ln_1p()).exp()).sum::<f64>()
        };
        let decades = [1e3, 1e4, 1e5, 1e6];
        let slopes = decades.map(|d| (unseen(10.0 * d) / unseen(d)).log10());
        assert!(slopes.iter().all(|slope| (-0.9..-0.2).contains(slope)), "{slopes:?}");
    }
}
