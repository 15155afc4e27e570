//! Golden numbers: computed with scipy (bounded Brent in ln(L - L_inf) to 1e-12) from the published
//! laws; the reference's own hand-found thresholds beside them.

use super::*;
use crate::GrownAt;
use crate::published::{
    AUTHORS_GROWTH_SLOPES, AUTHORS_STEPS, CHINCHILLA, CHINCHILLA_CORRECTED, KAPLAN_CRITICAL_BATCH,
};
use crate::{BatchPolicy, KaplanLaw, Pace, PowerLaw, TokenLaw};
use proptest::prelude::*;

const SIZES: [f64; 3] = [1e6, 1e8, 1e10];
/// N from which on the golden numbers' continuous limits count.
const ANY_SIZE: f64 = 1e-20;
/// N of the authors' GPT2-large, 24 layers of width 1536; that of Hugging Face's has 36 of 1280.
const AUTHORS_LARGE: f64 = 12.0 * 24.0 * 1536.0 * 1536.0;

fn authors(policy: BatchPolicy) -> TrainingCost {
    TrainingCost::steps(AUTHORS_STEPS, KAPLAN_CRITICAL_BATCH, policy)
}

/// The compute-optimal point of a step law: (1 + a_N / a_S) L_inf.
fn optimal_loss(cost: &TrainingCost, n: f64) -> f64 {
    cost.asymptote(n) * (1.0 + AUTHORS_STEPS.params.exponent / AUTHORS_STEPS.steps.exponent)
}

/// Saving in percent of a chain that ends at `last`, each size the next over its factor.
fn saving(cost: &TrainingCost, last: f64, factors: &[f64], final_loss: f64) -> f64 {
    let mut sizes = vec![last];
    for factor in factors.iter().rev() {
        sizes.insert(0, sizes[0] / factor);
    }
    100.0 * cost.chain(&sizes, final_loss).unwrap().saving
}

/// To the last digit that is printed: the third, of continuous limits the second.
fn assert_points(found: f64, golden: f64, what: &str) {
    let within = if what == "continuous" { 1e-2 } else { 1e-3 };
    assert!((found - golden).abs() < within, "{what}: {found:.4} % where {golden} % is due");
}

#[test]
fn the_authors_law_gives_the_golden_savings_slopes_and_step_ratios() {
    let cost = authors(BatchPolicy::CriticalAtEnd);
    for n in SIZES {
        let final_loss = optimal_loss(&cost, n);
        let slope = cost.loss_slope(n, final_loss).unwrap();
        assert!((slope + 0.0520).abs() < 1e-4, "{slope}");
        let rows = [
            (2.0, 6.616, -0.0598, 1.580),
            (4.0, 7.997, -0.0519, 2.493),
            (8.0, 7.268, -0.0444, 3.924),
        ];
        for (factor, percent, slope, step_ratio) in rows {
            assert_points(saving(&cost, n, &[factor], final_loss), percent, "one growth");
            let growth = cost.growth_point(StageStart::Scratch, n / factor, n).unwrap();
            assert!((growth.loss_slope - slope).abs() < 1e-4, "{growth:?}");
            assert!((growth.step_ratio - step_ratio).abs() < 1e-3, "{growth:?}");
        }
        for (factors, percent) in
            [(&[2.0; 2][..], 9.018), (&[4.0; 2][..], 9.051), (&[2.0; 4][..], 10.206)]
        {
            assert_points(saving(&cost, n, factors, final_loss), percent, "several growths");
        }
        let continuous = 100.0 * cost.continuous_saving(ANY_SIZE, n, final_loss).unwrap();
        assert_points(continuous, 10.83, "continuous");
    }
}

#[test]
#[allow(clippy::approx_constant)] // 2.718 is a step ratio
fn the_authors_thresholds_are_reproduced_as_a_baseline() {
    let cost = authors(BatchPolicy::CriticalAtEnd);
    let n = 1e8;
    let from_scratch = cost.compute_at(n, optimal_loss(&cost, n)).unwrap();
    // The slope's root to 1e-12 by an independent calculation (Python); from slopes met to three digits 6.560 %, 7.768 % and 4.374 %.
    let golden = [(6.5601, 1.6176), (7.7691, 2.7179), (4.3783, 6.2543)];
    for ((factor, slope), (percent, step_ratio)) in AUTHORS_GROWTH_SLOPES.into_iter().zip(golden) {
        let loss = cost.loss_at_slope(n / factor, slope).unwrap();
        let growth = cost.growth_at(StageStart::Scratch, n / factor, n, loss).unwrap();
        assert_points(100.0 * growth.spared / from_scratch, percent, "authors' threshold");
        assert!((growth.step_ratio - step_ratio).abs() < 1e-4, "{growth:?}");
    }
    // The notebook's step ratio for depth belongs to the threshold for width.
    let loss = cost.loss_at_slope(n / 2.0, -0.0475).unwrap();
    let growth = cost.growth_at(StageStart::Scratch, n / 2.0, n, loss).unwrap();
    assert!((growth.step_ratio - 1.831).abs() < 1e-3, "{growth:?}");
}

/// S = S_min (1 + B_crit / B) (Kaplan et al. 2020, eq. 5.4): the smaller the batch the more steps.
#[test]
fn steps_in_a_fixed_batch_go_by_the_critical_one() {
    for batch_tokens in [65_536.0, 524_288.0, 8_388_608.0] {
        let cost = authors(BatchPolicy::Fixed { batch_tokens });
        let loss = 1.2 * cost.asymptote(1e8);
        let steps_min = AUTHORS_STEPS.steps_min_at(1e8, loss).unwrap();
        let due = steps_min * (1.0 + KAPLAN_CRITICAL_BATCH.tokens_at(loss) / batch_tokens);
        assert!((cost.steps_at(1e8, loss).unwrap() / due - 1.0).abs() < 1e-12);
    }
}

/// Where a token takes less than in proportion to N longer, a small model spares less time than compute.
#[test]
fn a_growth_in_seconds_comes_where_seconds_are_least() {
    let TokenLaw::Sum(law) = CHINCHILLA_CORRECTED else { unreachable!() };
    let (small, large) = (2.5e7, 1e8);
    let speed = crate::Throughput::new(&[(1e6, 1e6), (1e10, 1e4)]).unwrap();
    let asymptote = |n: f64| law.floor + law.params_factor * n.powf(-law.params_exponent);
    let tokens =
        |n: f64, loss: f64| (law.data_factor / (loss - asymptote(n))).powf(1.0 / law.data_exponent);
    let spent = |loss: f64, price: &dyn Fn(f64) -> f64| {
        tokens(small, loss) * price(small) - tokens(large, loss) * price(large)
    };
    let best = |price: &dyn Fn(f64) -> f64| {
        let losses = (1..200_000).map(|i| asymptote(small) * (1.0 + 1e-5 * f64::from(i)));
        losses.min_by(|a, b| spent(*a, price).total_cmp(&spent(*b, price))).unwrap()
    };
    let flops = TrainingCost::tokens(CHINCHILLA_CORRECTED);
    let seconds = flops.clone().in_seconds(speed.clone());
    let by_flops = best(&|n| 6.0 * n);
    let by_seconds = best(&|n| speed.seconds(n));
    assert!(by_seconds / by_flops > 1.01, "{by_seconds} {by_flops}: no test");
    for (cost, due) in [(flops, by_flops), (seconds, by_seconds)] {
        let found = cost.growth_point(StageStart::Scratch, small, large).unwrap().loss;
        assert!((found / due - 1.0).abs() < 2e-5, "{found} for {due}");
    }
}

#[test]
fn the_cheapest_size_is_that_of_a_fine_grid() {
    let cost = TrainingCost::tokens(CHINCHILLA_CORRECTED);
    for loss in [3.2, 2.6, 2.2] {
        let (size, least) = cost.cheapest_at(1e5, 1e9, loss).unwrap();
        let sizes = (0..40_000).map(|i| 1e5 * (1e-3 * f64::from(i)).exp());
        let costs = sizes.filter_map(|n| Some((n, cost.compute_at(n, loss).ok()?)));
        let (grid_size, grid_least) = costs.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        assert!((least / grid_least - 1.0).abs() < 1e-6, "{loss}: {least} for {grid_least}");
        assert!((size / grid_size - 1.0).abs() < 5e-3, "{loss}: {size} for {grid_size}");
    }
}

#[test]
fn the_critical_batch_integrated_gives_the_golden_savings() {
    let cost = authors(BatchPolicy::Critical);
    for n in SIZES {
        let same = optimal_loss(&cost, n);
        let own = cost.loss_at_slope(n, -0.0520).unwrap();
        assert!((own / cost.asymptote(n) - 1.1225).abs() < 2e-4, "{own}");
        let rows = [(2.0, 3.519, 5.324), (4.0, 4.247, 6.426), (8.0, 3.851, 5.826)];
        for (factor, at_same, at_own) in rows {
            assert_points(saving(&cost, n, &[factor], same), at_same, "the same loss");
            assert_points(saving(&cost, n, &[factor], own), at_own, "its own slope");
        }
        for (loss, percent) in [(same, 5.76), (own, 8.72)] {
            assert_points(
                100.0 * cost.continuous_saving(ANY_SIZE, n, loss).unwrap(),
                percent,
                "continuous",
            );
        }
    }
}

#[test]
fn a_fixed_batch_gives_the_golden_savings() {
    let rows = [
        (524_288.0, 1.15, &[2.0][..], 14.513),
        (524_288.0, 1.10, &[2.0][..], 7.242),
        (524_288.0, 1.05, &[2.0][..], 2.437),
        (524_288.0, 1.15, &[4.0][..], 18.353),
        (524_288.0, 1.10, &[4.0][..], 9.158),
        (524_288.0, 1.05, &[4.0][..], 3.081),
        (524_288.0, 1.15, &[8.0][..], 17.627),
        (524_288.0, 1.10, &[8.0][..], 8.796),
        (524_288.0, 1.05, &[8.0][..], 2.959),
        (524_288.0, 1.15, &[4.0, 4.0][..], 21.276),
        (524_288.0, 1.10, &[4.0, 4.0][..], 10.617),
        (524_288.0, 1.05, &[4.0, 4.0][..], 3.572),
        (2_097_152.0, 1.15, &[4.0][..], 20.424),
        (2_097_152.0, 1.05, &[4.0][..], 3.918),
        (2_097_152.0, 1.15, &[8.0][..], 20.726),
        (2_097_152.0, 1.05, &[8.0][..], 3.976),
        (2_097_152.0, 1.15, &[4.0, 4.0][..], 24.273),
        (2_097_152.0, 1.05, &[4.0, 4.0][..], 4.657),
    ];
    for (batch_tokens, stop, factors, percent) in rows {
        let cost = authors(BatchPolicy::Fixed { batch_tokens });
        let final_loss = stop * cost.asymptote(AUTHORS_LARGE);
        let found = saving(&cost, AUTHORS_LARGE, factors, final_loss);
        assert_points(found, percent, &format!("B {batch_tokens}, stop {stop}, {factors:?}"));
    }
    let continuous = [
        (524_288.0, 1.15, 24.87),
        (524_288.0, 1.10, 12.41),
        (524_288.0, 1.05, 4.18),
        (2_097_152.0, 1.15, 27.71),
        (2_097_152.0, 1.05, 5.32),
    ];
    for (batch_tokens, stop, percent) in continuous {
        let cost = authors(BatchPolicy::Fixed { batch_tokens });
        let final_loss = stop * cost.asymptote(AUTHORS_LARGE);
        let found = 100.0 * cost.continuous_saving(ANY_SIZE, AUTHORS_LARGE, final_loss).unwrap();
        assert_points(found, percent, "continuous");
    }
}

#[test]
fn chinchilla_gives_the_golden_savings() {
    let golden: [(TokenLaw, [f64; 5]); 2] = [
        (CHINCHILLA_CORRECTED, [4.022, 4.075, 3.090, 5.062, 5.86]),
        (CHINCHILLA, [2.903, 2.664, 1.820, 3.529, 4.09]),
    ];
    for (law, [by_2, by_4, by_8, by_2_2, continuous]) in golden {
        let (cost, n) = (TrainingCost::tokens(law), 1e9);
        let final_loss = law.loss_at(n, law.optimal_tokens(n).unwrap());
        let rows =
            [(&[2.0][..], by_2), (&[4.0][..], by_4), (&[8.0][..], by_8), (&[2.0; 2][..], by_2_2)];
        for (factors, percent) in rows {
            assert_points(saving(&cost, n, factors, final_loss), percent, &format!("{factors:?}"));
        }
        let found = 100.0 * cost.continuous_saving(ANY_SIZE, n, final_loss).unwrap();
        assert_points(found, continuous, "continuous");
    }
}

#[test]
fn a_slower_pace_after_growth_saves_less_and_grows_later() {
    let whole = TrainingCost::tokens(CHINCHILLA_CORRECTED);
    let sizes = [6.25e7, 2.5e8, 1e9];
    let final_loss = CHINCHILLA_CORRECTED.loss_at(1e9, 10e9);
    let chains: Vec<Chain> = [1.0, 0.9, 0.8]
        .map(|ratio| {
            whole.clone().with_pace(Pace::lasting(ratio)).chain(&sizes, final_loss).unwrap()
        })
        .to_vec();
    for pair in chains.windows(2) {
        assert!(pair[1].saving < pair[0].saving, "{pair:?}");
        assert!(pair[1].growths[0].loss < pair[0].growths[0].loss, "{pair:?}");
        // Both sides of a later growth go at the pace of a grown model.
        assert_eq!(pair[1].growths[1].loss, pair[0].growths[1].loss);
    }
    // Stage by stage: what each costs at its pace.
    let ratio = 0.8;
    let [first, second] = [chains[2].growths[0].loss, chains[2].growths[1].loss];
    let at = |n: f64, loss: f64| whole.compute_at(n, loss).unwrap();
    let paid = at(sizes[0], first)
        + (at(sizes[1], second) - at(sizes[1], first)) / ratio
        + (at(sizes[2], final_loss) - at(sizes[2], second)) / ratio;
    assert!((1.0 - paid / at(1e9, final_loss) - chains[2].saving).abs() < 1e-12);
}

/// Where the loss after endless training is next to nothing, most losses that a run passes are beyond any multiple of it.
#[test]
fn the_continuous_limit_counts_every_loss_however_low_the_asymptote() {
    let params = PowerLaw { scale: 1e6, exponent: 0.5 };
    let law =
        TokenLaw::Kaplan(KaplanLaw { params, data: PowerLaw { scale: 1.8e13, exponent: 0.103 } });
    let cost = TrainingCost::tokens(law);
    for tokens_per_param in [0.1, 1.0] {
        let final_loss = law.loss_at(1e13, tokens_per_param * 1e13);
        let staged =
            |factor: f64| cost.staged_saving(&[1e12, 1e13], &[factor * final_loss], final_loss);
        let chain = [1.02, 1.1, 1.3, 2.0].map(|factor| staged(factor).unwrap());
        let chain = chain.into_iter().fold(0.0, f64::max);
        assert!(chain > 0.0);
        let limit = cost.continuous_saving(1e11, 1e13, final_loss).unwrap();
        assert!(limit > chain && limit < 1.0, "{limit} {chain}");
    }
}

/// Two stages at a pace that passes, against growths at many losses.
#[test]
fn a_passing_pace_is_a_lead_that_is_kept() {
    let whole = TrainingCost::tokens(CHINCHILLA_CORRECTED);
    let (small, large) = (2.5e8, 1e9);
    let final_loss = CHINCHILLA_CORRECTED.loss_at(large, 20e9);
    let saving = |cost: &TrainingCost| cost.chain(&[small, large], final_loss).unwrap().saving;
    let at = |pace| saving(&whole.clone().with_pace(Pace::lasting(pace)));
    let (whole_saving, lasting) = (at(1.0), at(1.15));
    let mut before = whole_saving;
    for over in [1e8, 1e9, 3e9, 6e9, 1e10, 1.5e10, 1.6e10] {
        let cost = whole.clone().with_pace(Pace { value: 1.15, over });
        let found = saving(&cost);
        assert!(found >= before && found <= lasting + 1e-12, "{over:e}: {found} after {before}");
        before = found;
        let paid = |loss: f64| {
            let progress =
                whole.tokens_at(large, final_loss).unwrap() - whole.tokens_at(large, loss).unwrap();
            let tokens =
                if progress < 1.15 * over { progress / 1.15 } else { progress - 0.15 * over };
            6.0 * (small * whole.tokens_at(small, loss).unwrap() + large * tokens)
        };
        let asymptote = whole.asymptote(small);
        let losses = (0..4000).map(|i| asymptote + (-3.0 + 0.001 * f64::from(i)).exp());
        let least =
            losses.filter(|loss| *loss > final_loss).map(paid).fold(f64::INFINITY, f64::min);
        let best = 1.0 - least / whole.compute_at(large, final_loss).unwrap();
        assert!((best - found).abs() < 2e-4, "{over:e}: {found} for {best}");
    }
    assert!((before / lasting - 1.0).abs() < 1e-9, "{before} {lasting}");
    // A pace up to 1 does not pass.
    let slow = whole.clone().with_pace(Pace::lasting(0.9));
    assert_eq!(saving(&slow.clone().with_pace(Pace { value: 0.9, over: 1e8 })), saving(&slow));
    // It passes over all stages after the first growth: 1e9 tokens of the second one, or of it and the third.
    let cost = whole.clone().with_pace(Pace { value: 1.2, over: 1e9 });
    let sizes = [6.25e7, small, large];
    for ends in [[3.4, 2.9], [3.4, 3.2]] {
        let staged = cost.staged(&sizes, &ends, final_loss).unwrap();
        let tokens: Vec<f64> = staged.into_iter().map(|stage| stage.1).collect();
        let at = |n: f64, loss: f64| whole.tokens_at(n, loss).unwrap();
        let worth =
            at(small, ends[1]) - at(small, ends[0]) + at(large, final_loss) - at(large, ends[1]);
        assert!((worth - tokens[1] - tokens[2] - 0.2e9).abs() < 1.0, "{tokens:?}");
    }
    let [late, early] =
        [[3.4, 2.9], [3.4, 3.2]].map(|ends| cost.staged(&sizes, &ends, final_loss).unwrap()[1].1);
    assert!(late > 1e9 && early < 1e9, "{late:e} {early:e}");
    // Tokens and what they are worth, before it has passed and after.
    let cost = whole.with_pace(Pace { value: 1.2, over: 1e9 });
    for (tokens, worth) in [(5e8, 6e8), (1e9, 1.2e9), (3e9, 3.2e9)] {
        let loss =
            cost.loss_after(large, Some(GrownAt { loss: 3.0, tokens: 0.0 }), tokens).unwrap();
        let found = cost.tokens_at(large, loss).unwrap() - cost.tokens_at(large, 3.0).unwrap();
        assert!((found / worth - 1.0).abs() < 1e-9, "{tokens:e}: {found:e}");
        let back = cost.staged(&[small, large], &[3.0], loss).unwrap()[1].1;
        assert!((back / tokens - 1.0).abs() < 1e-9, "{tokens:e}: {back:e}");
    }
}

#[test]
fn bad_chains_are_explained() {
    let cost = authors(BatchPolicy::CriticalAtEnd);
    let message = |sizes: &[f64], loss| cost.chain(sizes, loss).unwrap_err().to_string();
    assert!(message(&[2e6, 1e6], 4.0).contains("each must be larger"));
    assert!(message(&[], 4.0).contains("each must be larger"));
    assert!(message(&[1e6, f64::NAN], 4.0).contains("n_params = NaN: must be positive"));
    assert!(message(&[1e6], 1.0).contains("stays above"));
    assert!(message(&[1e6, 2e6], 9.0).contains("no solution"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_other_loss_spares_more_than_the_growth_point(
        ln_n in 13.0f64..24.0, factor in 2.0f64..16.0, policy in 0usize..3, away in -0.5f64..0.5,
        ratio in 0.75f64..1.1,
    ) {
        let policy = [
            BatchPolicy::Fixed { batch_tokens: 524_288.0 },
            BatchPolicy::CriticalAtEnd,
            BatchPolicy::Critical,
        ][policy];
        let (cost, n) = (authors(policy).with_pace(Pace::lasting(ratio)), ln_n.exp());
        let best = cost.growth_point(StageStart::Scratch, n / factor, n).unwrap();
        let asymptote = cost.asymptote(n / factor);
        let other = asymptote + (best.loss - asymptote) * away.exp();
        let spared = cost.growth_at(StageStart::Scratch, n / factor, n, other).unwrap().spared;
        prop_assert!(spared <= best.spared * (1.0 + 1e-9), "{spared:e} {best:?}");
    }

    #[test]
    fn a_grown_run_tells_the_pace_that_it_was_made_with(
        ln_n in 13.0f64..24.0, ratio in 0.2f64..1.5, per_param in 2.0f64..50.0, after in 0.2f64..3.0,
    ) {
        let (small, large) = (ln_n.exp(), 4.0 * ln_n.exp());
        let law = TrainingCost::tokens(CHINCHILLA_CORRECTED);
        let tokens_small = per_param * small;
        let grown_at = CHINCHILLA_CORRECTED.loss_at(small, tokens_small);
        let tokens_large = after * law.tokens_at(large, grown_at).unwrap();
        let cost = law.clone().with_pace(Pace::lasting(ratio));
        let growth = GrownAt { loss: grown_at, tokens: 0.0 };
        let loss = cost.loss_after(large, Some(growth), tokens_large).unwrap();
        let grew = Operators::WIDTH;
        let run = GrownRun { small, tokens_small, large, tokens_large, loss, grew };
        let found = run.pace(&law).unwrap();
        prop_assert!((found / ratio - 1.0).abs() < 1e-8, "{found} {ratio}");
        // Its saving is that of the two stages at this pace.
        let from_scratch = law.compute_at(large, loss).unwrap();
        let growth = cost.growth_at(StageStart::Scratch, small, large, grown_at).unwrap();
        let due = cost.net_spared(growth.spared, from_scratch) / from_scratch;
        let found = run.saving(&law).unwrap();
        prop_assert!((found - due).abs() < 1e-8, "{found} {due}");
    }

    #[test]
    fn more_stages_save_more_and_the_continuous_limit_most(ln_n in 13.0f64..24.0) {
        let (cost, n) = (authors(BatchPolicy::CriticalAtEnd), ln_n.exp());
        let loss = optimal_loss(&cost, n);
        let savings = [
            saving(&cost, n, &[4.0], loss),
            saving(&cost, n, &[2.0, 2.0], loss),
            saving(&cost, n, &[2.0, 2.0, 2.0], loss),
            100.0 * cost.continuous_saving(ANY_SIZE, n, loss).unwrap(),
        ];
        prop_assert!(savings.windows(2).all(|pair| pair[0] < pair[1]), "{savings:?}");
    }
}
