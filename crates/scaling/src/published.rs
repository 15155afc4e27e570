//! Every published constant, with its source. Where a source contradicts itself both are named, and
//! the one used is said.

use crate::{CriticalBatch, KaplanLaw, PowerLaw, StepLaw, SumLaw, TokenLaw};

/// L(N), Kaplan et al. 2020, eq. 1.1 and table 5.
pub const KAPLAN_PARAMS: PowerLaw = PowerLaw { scale: 8.8e13, exponent: 0.076 };

/// L(D), Kaplan et al. 2020, eq. 1.2 and table 5.
pub const KAPLAN_DATA: PowerLaw = PowerLaw { scale: 5.4e13, exponent: 0.095 };

/// L(C_min), Kaplan et al. 2020, eq. 1.3 and table 5, C in PF-days of the cheapest batch; figure 13 has a scale of 2.3e8 with the same
/// exponent.
pub const KAPLAN_COMPUTE: PowerLaw = PowerLaw { scale: 3.1e8, exponent: 0.050 };

/// L(N, D), Kaplan et al. 2020, eq. 1.5 and table 2.
pub const KAPLAN_TOKENS: TokenLaw = TokenLaw::Kaplan(KaplanLaw {
    params: PowerLaw { scale: 6.4e13, exponent: 0.076 },
    data: PowerLaw { scale: 1.8e13, exponent: 0.103 },
});

/// L(N, S_min), Kaplan et al. 2020, eq. 1.6 and table 3.
pub const KAPLAN_STEPS: StepLaw = StepLaw {
    floor: 0.0,
    params: PowerLaw { scale: 6.5e13, exponent: 0.077 },
    steps: PowerLaw { scale: 2.1e3, exponent: 0.76 },
};

/// L(N, S_min) as the staged-training authors plan with it: the constants of L(N) in the first term
/// (allenai/staged-training, `remove_oracle.ipynb`), and S = 2 S_min.
pub const AUTHORS_STEPS: StepLaw =
    StepLaw { floor: 0.0, params: KAPLAN_PARAMS, steps: PowerLaw { scale: 2.1e3, exponent: 0.76 } };

/// B_crit(L) in tokens, Kaplan et al. 2020, eq. 5.3.
pub const KAPLAN_CRITICAL_BATCH: CriticalBatch = CriticalBatch { scale: 2.1e8, exponent: 0.21 };

/// L(N, D), Hoffmann et al. 2022, approach 3.
pub const CHINCHILLA: TokenLaw = TokenLaw::Sum(SumLaw {
    floor: 1.69,
    params_factor: 406.4,
    params_exponent: 0.34,
    data_factor: 410.7,
    data_exponent: 0.28,
});

/// The same law fitted again, Besiroglu et al. 2024.
pub const CHINCHILLA_CORRECTED: TokenLaw = TokenLaw::Sum(SumLaw {
    floor: 1.8172,
    params_factor: 482.01,
    params_exponent: CHINCHILLA_PARAMS_EXPONENT,
    data_factor: 2085.43,
    data_exponent: 0.3658,
});

/// a of L(N, D), Besiroglu et al. 2024.
pub const CHINCHILLA_PARAMS_EXPONENT: f64 = 0.3478;

/// The runs that a published law was fitted to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PublishedRuns {
    /// Tokens in their vocabulary.
    pub n_vocab: usize,
    /// Least and greatest N.
    pub sizes: (f64, f64),
}

/// Those of Kaplan et al. 2020, sections 2 and 3: GPT-2's vocabulary, N without embeddings.
pub const KAPLAN_RUNS: PublishedRuns = PublishedRuns { n_vocab: 50_257, sizes: (768.0, 1.5e9) };

/// Those of Hoffmann et al. 2022: 70 M to 16 B parameters (abstract), of which the embeddings, 512 wide or so, are some 16 M in the smallest
/// and next to nothing in the largest, and the vocabulary of Gopher.
pub const CHINCHILLA_RUNS: PublishedRuns = PublishedRuns { n_vocab: 32_000, sizes: (5e7, 1.6e10) };

/// Compute-optimal parameters at a compute of C_min in PF-days, Kaplan et al. 2020, figure 14.
pub fn kaplan_optimal_params(compute_min_pf_days: f64) -> f64 {
    1.3e9 * compute_min_pf_days.powf(0.73)
}

/// Learning rate of the staged-training reference for a size (`cheatsheet.txt`), with log10; the
/// paper's ln would make it three to five times lower.
pub fn authors_learning_rate(n_params: f64) -> f64 {
    0.003_239 - 0.000_139_5 * n_params.log10()
}

/// Slopes d log10 L / d log10 C at which the staged-training authors grow depth, width or both by
/// two: `remove_oracle.ipynb`.
pub const AUTHORS_GROWTH_SLOPES: [(f64, f64); 3] = [(2.0, -0.0575), (4.0, -0.0475), (8.0, -0.03)];

/// Tokens before one growth to four times the parameters, N and C being those of the large model:
/// log10 d = 0.88 log10 N + 163.27 / log10 C - 5.74 (Du et al. 2024, arXiv 2405.15319).
pub fn stacking_tokens(n_params: f64, compute: f64) -> f64 {
    10f64.powf(0.88 * n_params.log10() + 163.27 / compute.log10() - 5.74)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each law at one point, from its equation and constants by an independent calculation (Python).
    #[test]
    fn every_law_has_the_published_constants() {
        let (n, tokens, steps) = (1e9, 1e10, 1e5);
        let found = [
            (KAPLAN_PARAMS.loss_at(n), 2.375_640_295_134_524_6),
            (KAPLAN_DATA.loss_at(tokens), 2.262_441_753_819_713_2),
            (KAPLAN_COMPUTE.loss_at(1.0), 2.658_080_226_245_523_6),
            (KAPLAN_TOKENS.loss_at(n, tokens), 2.419_651_819_169_177_4),
            (KAPLAN_STEPS.loss_at(n, steps), 2.400_513_661_427_009),
            (AUTHORS_STEPS.loss_at(n, steps), 2.428_714_887_097_414),
            (CHINCHILLA.loss_at(n, tokens), 2.694_875_237_101_929_8),
            (CHINCHILLA_CORRECTED.loss_at(n, tokens), 2.632_702_727_285_907),
            (KAPLAN_CRITICAL_BATCH.tokens_at(3.0), 1_122_569.710_747_445_4),
            (stacking_tokens(n, 1e21), 9_010_770_006.265_453),
        ];
        for (i, (found, due)) in found.into_iter().enumerate() {
            assert!((found / due - 1.0).abs() < 1e-12, "row {i}: {found} for {due}");
        }
    }

    /// The number that the reference prints for GPT-2 small.
    #[test]
    fn the_authors_learning_rate_is_reproduced() {
        let rate = authors_learning_rate(84_934_656.0);
        assert!((rate / 0.002_132_892_651_963_921 - 1.0).abs() < 1e-12, "{rate}");
    }

    /// Kaplan et al. 2020, figure 14: the optimal size at 1 PF-day is 1.3e9, and grows with C^0.73.
    #[test]
    fn the_optimal_size_is_the_published_one() {
        assert_eq!(kaplan_optimal_params(1.0), 1.3e9);
        let tenfold = kaplan_optimal_params(10.0) / 1.3e9;
        assert!((tenfold.log10() - 0.73).abs() < 1e-12, "{tenfold}");
    }
}
