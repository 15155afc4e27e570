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

#[test]
fn a_plan_counts_on_the_pace_after_growth() {
    let cost = chinchilla().with_pace(Pace::lasting(0.8));
    let goal = Goal::Stop(Stop::TokensPerParam(20.0));
    let asked = request(cost.clone(), goal, FinalShape::Given(gpt2_large()));
    let found = plan(&Request { stages: 2..=4, ..asked });
    let spent: f64 = found.stages.iter().map(|stage| stage.compute).sum();
    let scratch = found.compute_from_scratch;
    assert!((1.0 - spent / scratch - found.saving).abs() < 1e-9, "{found:?}");
    let end = found.curve[found.curve.len() - 1].loss;
    assert!((end / found.final_loss - 1.0).abs() < 1e-9, "{end} {}", found.final_loss);
    assert!(found.curve.is_sorted_by(|a, b| a.loss >= b.loss));
    let whole = plan(&request(chinchilla(), goal, FinalShape::Given(gpt2_large())));
    assert!(found.saving < whole.saving);
    // Two stages at a pace at which they cost more than from scratch are planned where they are asked for, and advised against.
    let slow =
        request(chinchilla().with_pace(Pace::lasting(0.6)), goal, FinalShape::Given(gpt2_large()));
    let asked =
        plan(&Request { stages: 2..=2, resampled: vec![slow.cost.clone(); 3], ..slow.clone() });
    assert!(asked.saving < 0.0 && !asked.advice.grow);
    assert!(asked.advice.reason.unwrap().contains("more than from scratch"));
    let free = plan(&slow);
    assert_eq!((free.stages.len(), free.saving), (1, 0.0));
}

#[test]
fn a_budget_is_spent_at_any_pace() {
    let with = |ratio, stages, last| {
        let cost = chinchilla().with_pace(Pace::lasting(ratio));
        plan(&Request { stages, ..request(cost, Goal::Budget(1e21), last) })
    };
    for ratio in [0.8, 0.97, 1.1] {
        let found = with(ratio, 2..=4, FinalShape::Given(gpt2_large()));
        assert!((found.compute / 1e21 - 1.0).abs() < 1e-6, "{ratio}: {:e}", found.compute);
        let end = found.curve[found.curve.len() - 1].loss;
        assert!((end / found.final_loss - 1.0).abs() < 1e-9, "{ratio}: {end}");
        assert!((1.0 - found.compute / found.compute_from_scratch - found.saving).abs() < 1e-6);
    }
    // Half of the last stage is made when a pace above 1 has passed.
    let lasting = with(1.1, 2..=2, FinalShape::Given(gpt2_large()));
    let over = 0.5 * lasting.stages[1].tokens;
    let cost = chinchilla().with_pace(Pace { value: 1.1, over });
    let asked = request(cost, Goal::Budget(1e21), FinalShape::Given(gpt2_large()));
    let found = plan(&Request { stages: 2..=2, ..asked });
    let preserved = with(1.0, 2..=2, FinalShape::Given(gpt2_large()));
    assert!((found.compute / 1e21 - 1.0).abs() < 1e-6, "{:e}", found.compute);
    assert!(found.final_loss > lasting.final_loss && found.final_loss < preserved.final_loss);
    assert_eq!((found.pace, found.pace_over), (1.1, Some(over)));
    assert_eq!(lasting.pace_over, None);
    let end = found.curve[found.curve.len() - 1].loss;
    assert!((end / found.final_loss - 1.0).abs() < 1e-9, "{end}");
    // A free last shape is the best for as many stages as are asked for, also where none would be better.
    let slow = with(0.85, 2..=2, FinalShape::Best(family()));
    assert!((slow.compute / 1e21 - 1.0).abs() < 1e-6);
    let alone = slow.without_growth.clone().unwrap();
    assert!(slow.final_loss > alone.loss, "{} {}", slow.final_loss, alone.loss);
    let advice = slow.advice.clone();
    assert!(!advice.grow && advice.reason.unwrap().contains("alone ends at a loss of"));
    let there = with(0.85, 2..=2, FinalShape::Given(alone.shape));
    assert!(slow.final_loss < there.final_loss - 1e-3, "{} {}", slow.final_loss, there.final_loss);
    assert_eq!(with(0.85, 1..=2, FinalShape::Best(family())).stages.len(), 1);
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

#[test]
fn one_stage_that_is_asked_for_is_no_advice_against_growing() {
    let goal = Goal::Stop(Stop::TokensPerParam(20.0));
    let asked = request(chinchilla(), goal, FinalShape::Given(gpt2_large()));
    let found = plan(&Request { stages: 1..=1, ..asked });
    assert_eq!(found.advice, Advice { grow: false, reason: None });
}

/// With one growth, what is saved is the head start less the small model's compute and what a pace below 1 loses of the last stage.
#[test]
fn a_plan_breaks_even_at_the_pace_that_loses_the_head_start() {
    let goal = Goal::Stop(Stop::TokensPerParam(20.0));
    for pace in [0.95, 1.0] {
        let cost = chinchilla().with_pace(Pace::lasting(pace));
        let asked = request(cost.clone(), goal, FinalShape::Given(gpt2_large()));
        let found = plan(&Request { stages: 2..=2, ..asked });
        let [small, large] = &found.stages[..] else { panic!("{found:?}") };
        let head_start = cost.tokens_at(large.n_params, small.loss_end).unwrap();
        let gained = head_start - small.tokens * small.n_params / large.n_params;
        let due = 1.0 - gained / large.tokens;
        let break_even = found.break_even_pace.unwrap();
        assert!((break_even / due - 1.0).abs() < 1e-9, "{break_even} {due}");
        let due = gained / (head_start + large.tokens);
        let at_one = found.saving_at_pace_one.unwrap();
        assert!((at_one / due - 1.0).abs() < 1e-9, "{at_one} {due}");
        assert!(pace < 1.0 || (at_one / found.saving - 1.0).abs() < 1e-9);
    }
    let alone = request(chinchilla(), goal, FinalShape::Given(gpt2_large()));
    let alone = plan(&Request { stages: 1..=1, ..alone });
    assert_eq!((alone.break_even_pace, alone.saving_at_pace_one), (None, None));
    // A head start that is worth more than both stages cost, and a small model kept for too long.
    let (n, of) = (7e8, |stages: &[_]| break_even_pace(&chinchilla(), stages));
    assert_eq!(of(&[(0.1 * n, 1e9), (n, 1e6)]), Some(0.0));
    assert_eq!(of(&[(0.9 * n, 1e12), (n, 1e9)]), None);
}

/// Seconds at a speed of so many FLOPs are FLOPs in other units.
#[test]
fn the_pace_is_the_same_in_seconds() {
    const SPEED: f64 = 1e14;
    let sizes = [1e6, 1e10].map(|n| (n, SPEED / (6.0 * n)));
    let speed = crate::Throughput::new(&sizes).unwrap();
    let flops = chinchilla().with_pace(Pace::lasting(0.9));
    let plans =
        [(flops.clone(), 1e21), (flops.in_seconds(speed), 1e21 / SPEED)].map(|(cost, budget)| {
            let goal = Goal::Budget(budget);
            let asked = request(cost, goal, FinalShape::Given(gpt2_large()));
            plan(&Request { stages: 2..=2, ..asked })
        });
    assert!((plans[0].saving - plans[1].saving).abs() < 1e-6, "{plans:?}");
    assert!((plans[1].seconds.unwrap() * SPEED / 1e21 - 1.0).abs() < 1e-6);
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

/// A law of small models on text.
const SMALL: SumLaw = SumLaw {
    floor: 1.0,
    params_factor: 16.0,
    params_exponent: 0.35,
    data_factor: 1700.0,
    data_exponent: 0.56,
};

/// Where a smaller shape has a best growth in a number of stages that was not asked for, it has one.
#[test]
fn a_shape_that_has_a_best_growth_is_not_said_to_have_none() {
    let last = GptShape { n_layers: 8, d_model: 128, n_heads: 4, d_ff: 512, ..gpt2_large() };
    let n_last = last.n_params() as f64;
    let mut cheapest_has_one = 0;
    for pace in [0.5, 0.6, 0.7, 0.8] {
        for multiple in [1.01, 1.03, 1.06, 1.1] {
            let goal = Goal::Stop(Stop::AsymptoteMultiple(multiple));
            let cost = TrainingCost::tokens(TokenLaw::Sum(SMALL)).with_pace(Pace::lasting(pace));
            let base = request(cost.clone(), goal, FinalShape::Given(last));
            let request = Request { stages: 4..=4, ..base };
            let Ok(found) = Plan::new(&request, |_, _| 1e4) else { continue };
            let paid: f64 = found.stages.iter().map(|stage| stage.compute).sum();
            let has_best = |shape: &GptShape| {
                let n_params = shape.n_params() as f64;
                let point = cost.growth_point(crate::StageStart::Scratch, n_params, n_last);
                point.is_ok_and(|point| point.loss > found.final_loss)
            };
            let alone =
                |shape: &GptShape| cost.compute_at(shape.n_params() as f64, found.final_loss);
            let sources = request.operators.sources(&last);
            let cheaper = sources.iter().filter(|shape| alone(shape).is_ok_and(|cost| cost < paid));
            let cheapest = cheaper.min_by(|a, b| alone(a).unwrap().total_cmp(&alone(b).unwrap()));
            cheapest_has_one += usize::from(cheapest.is_some_and(has_best));
            if let Some(named) = found.cheaper_alone {
                assert!(!has_best(&named.shape), "{pace} {multiple} {named:?}");
            }
        }
    }
    assert!(cheapest_has_one > 0, "no case tells");
}

/// At a high pace a growth by little is the better the sooner it comes.
#[test]
fn a_growth_without_a_best_moment_says_so() {
    let last = gpt2_large();
    let near = GptShape { n_layers: 30, ..last };
    let cost = chinchilla().with_pace(Pace::lasting(1.9));
    let goal = Goal::Stop(Stop::ComputeOptimal);
    let request = Request { through: vec![near], ..request(cost, goal, FinalShape::Given(last)) };
    let message = Plan::new(&request, |_, _| 1e6).unwrap_err().to_string();
    assert!(message.contains("there is no best loss at which"), "{message}");
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

/// Where size hardly counts, every growth would come better later.
#[test]
fn a_smaller_model_that_is_cheaper_to_the_end_is_named() {
    let TokenLaw::Sum(law) = CHINCHILLA_CORRECTED else { unreachable!() };
    let flat = TrainingCost::tokens(TokenLaw::Sum(SumLaw { params_factor: 1e-3, ..law }));
    let stop = Goal::Stop(Stop::TokensPerParam(20.0));
    let base = request(flat.clone(), stop, FinalShape::Given(gpt2_large()));
    let found = plan(&base);
    let reason = found.advice.reason.unwrap();
    assert!(found.stages.len() == 1 && reason.contains("alone reaches that loss for"), "{reason}");
    let smallest = base.operators.sources(&gpt2_large())[0];
    assert!(reason.starts_with(&smallest.to_string()), "{reason}");
    let growing = Plan::new(&Request { stages: 2..=4, ..base.clone() }, |_, _| 1e6);
    let message = growing.unwrap_err().to_string();
    assert!(message.contains(&format!("useful stages: {reason}")), "{message}");
    let by = plan(&Request { grow_by: Some(0.8), stages: 1..=2, ..base.clone() });
    assert!(by.advice.grow && by.saving > 0.7, "{}", by.saving);
    let nothing = plan(&Request { operators: Operators::NONE, ..base });
    assert_eq!(nothing.advice.reason.unwrap(), "no growth spares compute here");
}

/// The authors' thresholds by what grows: depth, width or both (the golden savings of growth/tests.rs).
#[test]
fn each_kind_of_growth_has_its_threshold_beside_the_plan() {
    let cost =
        TrainingCost::steps(AUTHORS_STEPS, KAPLAN_CRITICAL_BATCH, BatchPolicy::CriticalAtEnd);
    let last = GptShape::gpt2(24, 768, 12);
    let exponents = AUTHORS_STEPS.params.exponent / AUTHORS_STEPS.steps.exponent;
    let loss = cost.asymptote(last.n_params() as f64) * (1.0 + exponents);
    for (n_layers, d_model, slope, percent) in
        [(12, 768, "-0.0575", 6.5601), (24, 384, "-0.0475", 7.7691), (12, 384, "-0.03", 4.3783)]
    {
        let first = GptShape::gpt2(n_layers, d_model, d_model / 64);
        let rules = baseline::baselines(&cost, &[first, last], loss);
        let rule = rules.iter().find(|rule| rule.rule.contains("thresholds")).unwrap();
        assert_eq!(rule.what, format!("the same shapes, grown at slopes {slope}"));
        let saving = 100.0 * rule.saving.unwrap();
        assert!((saving - percent).abs() < 1e-3, "{first}: {saving} for {percent}");
    }
}

/// What speaks against a growth that saves something: too little, or a single size that does better.
#[test]
fn a_growth_that_hardly_saves_is_advised_against() {
    let goal = Goal::Stop(Stop::TokensPerParam(20.0));
    let at = |pace: f64| {
        let cost = chinchilla().with_pace(Pace::lasting(pace));
        plan(&Request { stages: 2..=2, ..request(cost, goal, FinalShape::Given(gpt2_large())) })
    };
    let hardly = at(0.945);
    assert!(hardly.saving > 0.0 && hardly.saving < 0.01, "{}", hardly.saving);
    assert!(!hardly.advice.grow);
    assert!(hardly.advice.reason.unwrap().contains("is below 1 %"));
    for (pace, which) in [(0.9, "28x1792x28 alone"), (0.92, "a single size of N = 1.060e9")] {
        let slow = chinchilla().with_pace(Pace::lasting(pace));
        let free = request(slow, Goal::Loss(2.5), FinalShape::Best(family()));
        let beaten = plan(&Request { stages: 2..=2, ..free });
        assert!(beaten.saving > 0.01 && !beaten.advice.grow, "{}", beaten.saving);
        assert_eq!(beaten.advice.reason.unwrap(), format!("{which} reaches that loss for less"));
    }
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

#[test]
fn intervals_come_from_resampled_laws_and_decide_the_advice() {
    let goal = Goal::Stop(Stop::ComputeOptimal);
    let with = |spread: f64| {
        let resampled = (0..100)
            .map(|i| {
                let up = spread * (f64::from(i) / 99.0 - 0.5);
                let TokenLaw::Sum(law) = CHINCHILLA_CORRECTED else { unreachable!() };
                TrainingCost::tokens(TokenLaw::Sum(SumLaw {
                    params_factor: law.params_factor * (1.0 + 2.0 * up),
                    data_exponent: law.data_exponent + 0.01 * up,
                    ..law
                }))
            })
            .collect();
        let base = request(chinchilla(), goal, FinalShape::Given(gpt2_large()));
        plan(&Request { resampled, stages: 2..=2, ..base })
    };
    let sure = with(0.1);
    let [low, high] = sure.saving_interval.unwrap();
    assert!(low <= sure.saving && sure.saving <= high && low > 0.0, "{low} {high}");
    assert!(sure.advice.grow);
    let unsure = with(1.9);
    assert!(unsure.saving_interval.unwrap()[0] <= 0.0 && unsure.saving > 0.01, "{unsure:?}");
    assert!(!unsure.advice.grow);
    assert!(unsure.advice.reason.unwrap().contains("includes zero"));
}

/// Data that do not depend on tokens have a law that never comes to a loss.
#[test]
fn resampled_laws_that_say_nothing_are_counted() {
    let TokenLaw::Sum(law) = CHINCHILLA_CORRECTED else { unreachable!() };
    let cost =
        |data_factor: f64| TrainingCost::tokens(TokenLaw::Sum(SumLaw { data_factor, ..law }));
    let with = |resampled: &[TrainingCost]| {
        let goal = Goal::Stop(Stop::ComputeOptimal);
        let base = request(chinchilla(), goal, FinalShape::Given(gpt2_large()));
        plan(&Request { resampled: resampled.to_vec(), stages: 2..=2, ..base })
    };
    let good = [cost(0.9 * law.data_factor), cost(1.1 * law.data_factor)];
    let (all, part) = (with(&good), with(&[good.as_slice(), &[cost(0.0)]].concat()));
    assert_eq!((all.laws_left_out, part.laws_left_out), (0, 1));
    assert!(all.saving_interval.is_some() && all.saving_interval == part.saving_interval);
    assert_eq!(all.curve, part.curve);
}

#[test]
fn what_cannot_be_planned_is_explained() {
    let message = |request: &Request| Plan::new(request, |_, _| 1e6).unwrap_err().to_string();
    let free = |goal| request(chinchilla(), goal, FinalShape::Best(family()));
    assert!(message(&free(Goal::Budget(1e9))).contains("too small"));
    assert!(message(&free(Goal::Budget(-1.0))).contains("budget = -1: must be positive"));
    assert!(message(&free(Goal::Budget(f64::NAN))).contains("budget = NaN: must be positive"));
    assert!(message(&free(Goal::Loss(1.0))).contains("stays above"));
    assert!(message(&free(Goal::Stop(Stop::ComputeOptimal))).contains("name the shape"));
    let fixed = |goal| request(chinchilla(), goal, FinalShape::Given(gpt2_large()));
    assert!(message(&fixed(Goal::Loss(1.0))).contains("stays above"));
    assert!(message(&fixed(Goal::Stop(Stop::AsymptoteMultiple(0.9)))).contains("stays above"));
    let mut none = fixed(Goal::Stop(Stop::ComputeOptimal));
    (none.stages, none.operators) = (2..=2, Operators::NONE);
    assert!(message(&none).contains("no chain of no growths"));
    none.stages = 0..=2;
    assert!(message(&none).contains("stages 0..2"));
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
