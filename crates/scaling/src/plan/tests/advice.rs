//! What is said beside a plan, and why there is none.

use super::*;

#[test]
fn one_stage_that_is_asked_for_is_no_advice_against_growing() {
    let goal = Goal::Stop(Stop::TokensPerParam(20.0));
    let asked = request(chinchilla(), goal, FinalShape::Given(gpt2_large()));
    let found = plan(&Request { stages: 1..=1, ..asked });
    assert_eq!(found.advice, Advice { grow: false, reason: None });
}

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
