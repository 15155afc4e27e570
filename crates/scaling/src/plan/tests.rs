mod advice;
mod pace;

use super::as_run::break_even_pace;
use super::*;
use crate::published::{AUTHORS_STEPS, CHINCHILLA_CORRECTED, KAPLAN_CRITICAL_BATCH};
use crate::{BatchPolicy, Pace, SumLaw, TokenLaw, TrainingCost};
use measure::GptShape;
use proptest::prelude::*;

fn family() -> Family {
    Family { d_head: 64, aspect: 64.0, n_vocab: 50257, context_len: 1024 }
}

fn chinchilla() -> TrainingCost {
    TrainingCost::tokens(CHINCHILLA_CORRECTED)
}

fn gpt2_large() -> GptShape {
    let first = family().shapes()[0];
    GptShape { n_layers: 36, d_model: 1280, n_heads: 20, d_ff: 5120, ..first }
}

/// A law of small models on text.
const SMALL: SumLaw = SumLaw {
    floor: 1.0,
    params_factor: 16.0,
    params_exponent: 0.35,
    data_factor: 1700.0,
    data_exponent: 0.56,
};

fn request(cost: TrainingCost, goal: Goal, last: FinalShape) -> Request {
    Request {
        cost,
        resampled: Vec::new(),
        goal,
        last,
        stages: 1..=4,
        operators: Operators::IN_PROPORTION,
        through: Vec::new(),
        grow_by: None,
    }
}

fn plan(request: &Request) -> Plan {
    Plan::new(request, |_, _| 524_288.0).unwrap()
}

#[test]
fn a_budget_is_spent_and_growing_lowers_the_loss() {
    let plan = plan(&request(chinchilla(), Goal::Budget(1e21), FinalShape::Best(family())));
    assert!((plan.compute / 1e21 - 1.0).abs() < 1e-6, "{:e}", plan.compute);
    let alone = plan.without_growth.clone().unwrap();
    assert!(plan.final_loss < alone.loss, "{} {}", plan.final_loss, alone.loss);
    // Besiroglu et al. 2024: the optimal size at 1e21 FLOPs is between 2e9 and 4e9.
    assert!((2e9..4e9).contains(&alone.n_params), "{:e}", alone.n_params);
    assert_eq!(plan.stages.len(), 4);
    assert!(plan.advice.grow);
    let spent: f64 = plan.stages.iter().map(|stage| 6.0 * stage.n_params * stage.tokens).sum();
    assert!((spent / plan.compute - 1.0).abs() < 1e-12);
    let curve = &plan.curve;
    assert!(curve.is_sorted_by(|a, b| a.compute < b.compute && a.loss >= b.loss));
    assert!((curve[curve.len() - 1].loss / plan.final_loss - 1.0).abs() < 1e-9);
}

/// At a pace at which nothing is won by growing the plan is the best single size, with whatever operators.
#[test]
fn a_plan_without_growth_is_the_best_single_size() {
    for operators in [Operators::IN_PROPORTION, Operators::WIDTH] {
        for budget in [1e18, 1e22] {
            let last = FinalShape::Best(family());
            let slow = chinchilla().with_pace(Pace::lasting(0.5));
            let request = Request { operators, ..request(slow, Goal::Budget(budget), last) };
            let plan = plan(&request);
            let alone = plan.without_growth.clone().unwrap();
            assert_eq!(plan.stages.len(), 1, "{budget:e}");
            assert_eq!(plan.stages[0].shape, alone.shape, "{budget:e}");
            assert!((plan.final_loss / alone.loss - 1.0).abs() < 1e-12, "{budget:e}");
        }
    }
}

#[test]
fn exact_flops_shrink_a_saving_that_6nd_overstates() {
    let goal = Goal::Stop(Stop::TokensPerParam(20.0));
    let of = |n_vocab: usize, context_len: usize| {
        let last = GptShape { n_vocab, context_len, ..gpt2_large() };
        let found = plan(&Request {
            stages: 2..=2,
            ..request(chinchilla(), goal, FinalShape::Given(last))
        });
        (found.saving, found.saving_exact())
    };
    // Where there is next to no head and no attention, the two agree.
    let (saving, exact) = of(50, 1);
    assert!((saving - exact).abs() < 1e-4, "{saving} {exact}");
    let (saving, exact) = of(50257, 1024);
    assert!(exact < saving - 0.005 && exact > 0.5 * saving, "{saving} {exact}");
}

/// 43 heads, the best of one size, divide by no smaller number of them: the last shape is chosen by the growths there are.
#[test]
fn a_free_last_shape_suits_the_operators_that_are_asked_for() {
    let whole_factors = Operators { width: Some(WidthRule::Integer), ..Operators::NONE };
    let feed_forward = Operators { feed_forward: true, ..Operators::NONE };
    for operators in [whole_factors, feed_forward] {
        let asked = |last| Request { operators, ..request(chinchilla(), Goal::Budget(1e21), last) };
        let found = plan(&asked(FinalShape::Best(family())));
        let alone = found.without_growth.clone().unwrap();
        assert!(found.final_loss < alone.loss, "{} {}", found.final_loss, alone.loss);
        for heads in 38..48 {
            let shape = family().shapes()[heads - 1];
            let given = plan(&asked(FinalShape::Given(shape)));
            assert!(found.final_loss < given.final_loss + 1e-6, "{operators} {shape}");
        }
    }
    let small = GptShape { n_layers: 8, d_model: 512, n_heads: 8, d_ff: 2048, ..gpt2_large() };
    let through =
        |last| Request { through: vec![small], ..request(chinchilla(), Goal::Budget(1e20), last) };
    let found = plan(&through(FinalShape::Best(family())));
    let given = plan(&through(FinalShape::Given(family().shapes()[25])));
    assert!(found.final_loss < given.final_loss + 1e-6, "{}", found.final_loss);
}

/// Shapes near those of a path are tried for a better one, also where every growth costs.
#[test]
fn a_plan_that_costs_is_the_cheapest_of_its_kind() {
    let last = gpt2_large();
    let n_last = last.n_params() as f64;
    for ratio in [0.7, 0.74, 0.78, 0.82, 0.86] {
        let cost = chinchilla().with_pace(Pace::lasting(ratio));
        let goal = Goal::Stop(Stop::TokensPerParam(20.0));
        let asked = request(cost.clone(), goal, FinalShape::Given(last));
        let found = plan(&Request { stages: 2..=2, ..asked });
        assert!(found.saving < 0.0);
        let best = Operators::IN_PROPORTION
            .sources(&last)
            .iter()
            .filter_map(|small| {
                cost.chain(&[small.n_params() as f64, n_last], found.final_loss).ok()
            })
            .map(|chain| chain.saving)
            .fold(f64::NEG_INFINITY, f64::max);
        // An odd shape must bring a thousandth to be taken.
        assert!(found.saving > best - 1e-3 * best.abs(), "{ratio}: {} {best}", found.saving);
    }
}

#[test]
fn the_plan_for_two_stages_is_the_best_pair_there_is() {
    let cost = chinchilla();
    let last = gpt2_large();
    let goal = Goal::Stop(Stop::ComputeOptimal);
    let two = Request { stages: 2..=2, ..request(cost.clone(), goal, FinalShape::Given(last)) };
    let found = plan(&two);
    let final_loss = cost.optimal_loss(last.n_params() as f64).unwrap();
    let best = Operators::IN_PROPORTION
        .sources(&last)
        .iter()
        .filter_map(|small| {
            cost.chain(&[small.n_params() as f64, last.n_params() as f64], final_loss).ok()
        })
        .map(|chain| chain.saving)
        .fold(0.0, f64::max);
    // Within a thousandth of it, for the sake of its proportions.
    let of_best = found.saving / best;
    assert!((0.999..1.000_001).contains(&of_best), "{} where {best} is possible", found.saving);
    let growth = found.stages[0].step_ratio.unwrap();
    let before = found.stages[0].tokens / growth;
    assert!((found.stages[1].tokens_before / before - 1.0).abs() < 1e-9);
}

#[test]
fn given_shapes_are_passed_through_as_the_chain_says() {
    let last = gpt2_large();
    let goal = Goal::Stop(Stop::ComputeOptimal);
    let shape = |n_layers, n_heads| GptShape {
        n_layers,
        d_model: 64 * n_heads,
        n_heads,
        d_ff: 256 * n_heads,
        ..last
    };
    let through = vec![shape(9, 10), shape(18, 20)];
    let base = request(chinchilla(), goal, FinalShape::Given(last));
    let found = plan(&Request { through: through.clone(), ..base.clone() });
    let sizes: Vec<f64> = found.stages.iter().map(|stage| stage.n_params).collect();
    assert_eq!(sizes[1], through[1].n_params() as f64);
    let chain = base.cost.chain(&sizes, found.final_loss).unwrap();
    assert!((found.saving / chain.saving - 1.0).abs() < 1e-9);
    let back = Request { through: vec![shape(18, 20), shape(9, 10)], ..base };
    let error = Plan::new(&back, |_, _| 524_288.0).unwrap_err().to_string();
    assert!(error.contains("each must grow into the next"), "{error}");
}

#[test]
fn nothing_grows_above_the_loss_of_an_untrained_model() {
    let goal = Goal::Stop(Stop::ComputeOptimal);
    let stages = |n_vocab: usize| {
        let last = FinalShape::Given(GptShape { n_vocab, ..gpt2_large() });
        plan(&request(chinchilla(), goal, last)).stages.len()
    };
    // It ends at 2.60 and grows above ln 14.
    assert!(stages(50_257) > 1);
    assert_eq!(stages(14), 1);
}

#[test]
fn more_stages_never_save_less_and_the_limit_saves_most() {
    let cost =
        TrainingCost::steps(AUTHORS_STEPS, KAPLAN_CRITICAL_BATCH, BatchPolicy::CriticalAtEnd);
    let goal = Goal::Stop(Stop::AsymptoteMultiple(1.1));
    let savings: Vec<f64> = (1..=4)
        .map(|n| {
            let request = Request {
                through: Vec::new(),
                stages: n..=n,
                ..request(cost.clone(), goal, FinalShape::Given(gpt2_large()))
            };
            plan(&request).saving
        })
        .collect();
    assert_eq!(savings[0], 0.0);
    assert!(savings.is_sorted_by(|a, b| a < b), "{savings:?}");
    // The golden numbers of two sizes and of the limit, between which these must lie.
    assert!(savings[1] > 0.0799 && savings[3] < 0.1083, "{savings:?}");
}

/// A lead that passes is used up by the first growths, so that fewer stages may save more.
#[test]
fn stages_that_may_be_fewer_never_save_less_than_those_that_may_not() {
    let last = GptShape { n_layers: 4, d_model: 128, n_heads: 4, d_ff: 512, ..gpt2_large() };
    for (pace, over) in [(1.1, 3e6), (1.28, 8e6), (1.16, 1e6)] {
        let cost = TrainingCost::tokens(TokenLaw::Sum(SMALL)).with_pace(Pace { value: pace, over });
        for goal in [Goal::Stop(Stop::ComputeOptimal), Goal::Stop(Stop::AsymptoteMultiple(1.15))] {
            let base = request(cost.clone(), goal, FinalShape::Given(last));
            let savings: Vec<f64> =
                (1..=4).map(|n| plan(&Request { stages: n..=n, ..base.clone() }).saving).collect();
            let most = savings.iter().copied().fold(0.0, f64::max);
            assert!((plan(&base).saving - most).abs() < 1e-9, "{pace} {over}: {savings:?}");
        }
    }
}

/// Speeds that fall and rise with the size make several sizes cheaper than their neighbours.
#[test]
fn the_cheapest_size_in_seconds_is_the_least_of_all() {
    let speeds = [
        (24_576.0, 6e4),
        (98_304.0, 4e4),
        (196_608.0, 3e4),
        (294_912.0, 9e3),
        (442_368.0, 2e4),
        (589_824.0, 6e3),
        (786_432.0, 1.2e4),
    ];
    let cost = chinchilla().in_seconds(crate::Throughput::new(&speeds).unwrap());
    let (n, loss) = (786_432.0, 4.5);
    let (_, cheapest) = cost.cheapest_at(24_576.0, n, loss).unwrap();
    let scan = (0..=20_000).map(|k| 24_576.0 * (n / 24_576.0f64).powf(f64::from(k) / 20_000.0));
    let least = scan.filter_map(|n| cost.compute_at(n, loss).ok()).fold(f64::INFINITY, f64::min);
    assert!(cheapest <= least * (1.0 + 1e-6), "{cheapest} {least}");
}

#[test]
fn operators_are_kept_to() {
    let goal = Goal::Stop(Stop::AsymptoteMultiple(1.1));
    for (width, depth, feed_forward) in
        [(None, true, false), (Some(WidthRule::Integer), false, false), (None, false, true)]
    {
        let operators = Operators { width, depth, feed_forward, ..Operators::NONE };
        let request =
            Request { operators, ..request(chinchilla(), goal, FinalShape::Given(gpt2_large())) };
        let found = plan(&request);
        assert!(found.stages.len() > 1);
        for pair in found.stages.windows(2) {
            let (small, large) = (pair[0].shape, pair[1].shape);
            assert_eq!(small.d_model == large.d_model, width.is_none());
            assert_eq!(small.n_layers < large.n_layers, depth);
            assert!(large.d_model.is_multiple_of(small.d_model));
            assert_eq!(small.n_heads < large.n_heads, width.is_some());
            assert_eq!(small.d_ff * large.n_heads < large.d_ff * small.n_heads, feed_forward);
        }
    }
}

#[test]
fn a_growth_comes_by_the_share_that_is_asked_for() {
    let goal = Goal::Stop(Stop::ComputeOptimal);
    let base = request(chinchilla(), goal, FinalShape::Given(gpt2_large()));
    let by = |grow_by| plan(&Request { grow_by, stages: 2..=2, ..base.clone() });
    let (free, late, early) = (by(None), by(Some(0.999)), by(Some(0.1)));
    assert_eq!(free.stages, late.stages);
    let n = early.stages[1].n_params;
    let from_scratch = chinchilla().tokens_at(n, early.final_loss).unwrap();
    // Dynamics are preserved, so what is left to learn takes as many tokens.
    assert!((early.stages[1].tokens / from_scratch - 0.9).abs() < 1e-9, "{:?}", early.stages);
    assert!(free.stages[1].tokens / from_scratch < 0.9);
    assert!(0.0 < early.saving && early.saving < free.saving);
    for share in [0.0, 1.0, f64::NAN] {
        let request = Request { grow_by: Some(share), ..base.clone() };
        let refused = Plan::new(&request, |_, _| 1e6).unwrap_err().to_string();
        assert!(refused.contains("must be above 0 and below 1"), "{refused}");
    }
    let budget = Request { goal: Goal::Budget(1e20), grow_by: Some(0.5), ..base };
    assert_eq!(Plan::new(&budget, |_, _| 1e6), Err(PlanError::GrowByWithoutEnd));
}

/// The predicted curve goes through all that the stages take, within its band.
#[test]
fn the_predicted_curve_ends_where_the_stages_do() {
    let goal = Goal::Stop(Stop::TokensPerParam(20.0));
    let TokenLaw::Sum(law) = CHINCHILLA_CORRECTED else { unreachable!() };
    let resampled = [0.97, 0.99, 1.01, 1.03].map(|factor| {
        TrainingCost::tokens(TokenLaw::Sum(SumLaw { data_factor: factor * law.data_factor, ..law }))
    });
    let base = request(chinchilla(), goal, FinalShape::Given(gpt2_large()));
    let found = plan(&Request { stages: 3..=3, resampled: resampled.to_vec(), ..base });
    let last = found.curve.last().unwrap();
    let tokens: f64 = found.stages.iter().map(|stage| stage.tokens).sum();
    assert!((last.tokens / tokens - 1.0).abs() < 1e-9, "{} for {tokens}", last.tokens);
    assert!((last.compute / found.compute - 1.0).abs() < 1e-9);
    assert!(found.curve.is_sorted_by(|a, b| a.tokens < b.tokens && a.compute < b.compute));
    for point in &found.curve {
        let [low, high] = point.interval.unwrap();
        assert!(low < point.loss && point.loss < high, "{point:?}");
    }
}

#[test]
fn a_target_loss_is_met_for_less() {
    let plan = plan(&request(chinchilla(), Goal::Loss(2.5), FinalShape::Best(family())));
    assert!((plan.final_loss - 2.5).abs() < 1e-9);
    assert!(plan.compute < plan.without_growth.unwrap().cost);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    /// Tokens counted in thousands give the same plan.
    #[test]
    fn plans_are_invariant_under_units(ln_c in 44.0f64..52.0) {
        let TokenLaw::Sum(law) = CHINCHILLA_CORRECTED else { unreachable!() };
        let thousands = TrainingCost::tokens(TokenLaw::Sum(SumLaw {
            data_factor: law.data_factor * 1e3f64.powf(-law.data_exponent),
            ..law
        }));
        let budget = ln_c.exp();
        let one = plan(&request(chinchilla(), Goal::Budget(budget), FinalShape::Best(family())));
        let other =
            plan(&request(thousands, Goal::Budget(budget / 1e3), FinalShape::Best(family())));
        prop_assert!((one.saving - other.saving).abs() < 1e-9);
        prop_assert_eq!(one.stages.len(), other.stages.len());
        for (a, b) in one.stages.iter().zip(&other.stages) {
            prop_assert_eq!(a.shape, b.shape);
            prop_assert!((a.tokens / (1e3 * b.tokens) - 1.0).abs() < 1e-6);
        }
    }
}
