//! The pace after a growth.

use super::*;

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
