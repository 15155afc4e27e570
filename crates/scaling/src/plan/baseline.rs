//! Published rules for when to grow, under the same law, beside the optimum.

use super::shapes::{Operators, least_size};
use crate::published::{AUTHORS_GROWTH_SLOPES, stacking_tokens};
use crate::root::root;
use crate::{ScalingError, TrainingCost};
use measure::GptShape;
use serde::Serialize;

/// A saving below which its number says nothing: a rule, or a law, is far from where it holds.
pub const LEAST_SENSE: f64 = -10.0;

/// A rule and what it would save.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Baseline {
    /// The rule.
    pub rule: &'static str,
    /// Share of the from-scratch cost; negative where it costs more.
    pub saving: Option<f64>,
    /// What it does here, or why it does not apply.
    pub what: String,
}

impl Baseline {
    fn of(rule: &'static str, found: Result<(f64, String), ScalingError>) -> Self {
        match found {
            Ok((saving, _)) if saving < LEAST_SENSE => {
                let what = "costs more than 11 times as much".to_string();
                Self { rule, saving: None, what }
            }
            Ok((saving, what)) => Self { rule, saving: Some(saving), what },
            Err(error) => Self { rule, saving: None, what: format!("does not apply: {error}") },
        }
    }
}

/// How far the factor of a growth may be from that of a threshold, in ln.
const SAME_FACTOR: f64 = 0.01;

/// All rules for a chain of shapes and a final loss.
pub(crate) fn baselines(
    cost: &TrainingCost,
    shapes: &[GptShape],
    final_loss: f64,
) -> Vec<Baseline> {
    let last = shapes[shapes.len() - 1];
    let mut rules = Vec::new();
    if shapes.len() > 1 {
        let rule = "the authors' thresholds (Shen et al. 2022)";
        rules.push(Baseline::of(rule, authors(cost, shapes, final_loss)));
    }
    let n = last.n_params() as f64;
    rules.push(Baseline::of("stacking x4 (Du et al. 2024)", stacking(cost, n, final_loss)));
    rules.push(Baseline::of("grow at 80 % of a WSD run", eighty_percent(cost, &last, final_loss)));
    let continuous = cost.continuous_saving(least_size(shapes), n, final_loss).map(|saving| {
        (
            saving,
            "infinitely many growths that preserve the dynamics: no chain at a pace up to 1 saves more"
                .to_string(),
        )
    });
    rules.push(Baseline::of("continuous limit", continuous));
    rules
}

/// Growth where the learning curve's slope reaches the threshold for depth, width or both.
fn authors(
    cost: &TrainingCost,
    shapes: &[GptShape],
    final_loss: f64,
) -> Result<(f64, String), ScalingError> {
    let last = shapes[shapes.len() - 1].n_params() as f64;
    let (mut sizes, mut losses) = (Vec::new(), Vec::new());
    let mut before = f64::INFINITY;
    let mut slopes = Vec::new();
    let mut are_of_these_factors = true;
    for pair in shapes.windows(2) {
        let grew = Operators::between(&pair[0], &pair[1]);
        let kind = match (grew.width.is_some(), grew.depth) {
            _ if grew.heads || grew.head_size || grew.feed_forward => {
                return Err(ScalingError::NoSolution(
                    "a threshold for heads, their size or feed-forward units alone",
                ));
            }
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => 2,
        };
        let (factor, slope) = AUTHORS_GROWTH_SLOPES[kind];
        let (small, large) = (pair[0].n_params() as f64, pair[1].n_params() as f64);
        are_of_these_factors &= (large / small / factor).ln().abs() < SAME_FACTOR;
        let loss = cost.loss_at_slope(small, slope)?;
        if loss <= final_loss {
            return Err(ScalingError::NoSolution("these thresholds before the final loss"));
        }
        if loss >= before {
            return Err(ScalingError::NoSolution("these thresholds in this order"));
        }
        before = loss;
        sizes.push(small);
        losses.push(loss);
        slopes.push(slope.to_string());
    }
    sizes.push(last);
    let saving = cost.staged_saving(&sizes, &losses, final_loss)?;
    let given_for = if are_of_these_factors { "" } else { " (given for growths by two)" };
    Ok((saving, format!("the same shapes, grown at slopes {}{given_for}", slopes.join(", "))))
}

/// One growth to four times the parameters after the tokens that the stacking rule asks for.
fn stacking(
    cost: &TrainingCost,
    n_params: f64,
    final_loss: f64,
) -> Result<(f64, String), ScalingError> {
    let tokens = stacking_tokens(n_params, 6.0 * n_params * cost.tokens_at(n_params, final_loss)?);
    let small = n_params / 4.0;
    let from_scratch = cost.compute_at(n_params, final_loss)?;
    let before = tokens * cost.per_token(small);
    if before >= from_scratch {
        return Err(ScalingError::NoSolution("stacking within the cost from scratch"));
    }
    let loss = cost.loss_at_compute(small, before)?;
    if loss <= final_loss {
        return Err(ScalingError::NoSolution("a final loss below that of stacking"));
    }
    let saving = cost.staged_saving(&[small, n_params], &[loss], final_loss)?;
    Ok((saving, format!("from N / 4 after {tokens:.2e} tokens, if stacking preserved the loss")))
}

/// One growth from a single layer after 80 % of the tokens of the whole run.
fn eighty_percent(
    cost: &TrainingCost,
    last: &GptShape,
    final_loss: f64,
) -> Result<(f64, String), ScalingError> {
    const SHARE: f64 = 0.8;
    let (small, large) = (last.n_params() as f64 / last.n_layers as f64, last.n_params() as f64);
    if last.n_layers < 2 {
        return Err(ScalingError::NoSolution("a growth from one layer to one layer"));
    }
    let needed = cost.tokens_at(large, final_loss)?;
    let small_loss =
        |tokens: f64| cost.loss_at_compute(small, SHARE * tokens * cost.per_token(small));
    let total = root("the length of an 80 % run", 1e-3 * needed, 10.0 * needed, |tokens| {
        let reached = small_loss(tokens).and_then(|loss| cost.tokens_at(large, loss));
        let after = cost.progress(0.0, (1.0 - SHARE) * tokens);
        reached.map_or(f64::NAN, |reached| needed - reached - after)
    })?;
    let spent =
        SHARE * total * cost.per_token(small) + (1.0 - SHARE) * total * cost.per_token(large);
    let saving = 1.0 - spent / cost.compute_at(large, final_loss)?;
    Ok((saving, format!("from one layer after {:.2e} of {total:.2e} tokens", SHARE * total)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::published::{AUTHORS_STEPS, CHINCHILLA_CORRECTED, KAPLAN_CRITICAL_BATCH};
    use crate::{BatchPolicy, TokenLaw};

    fn gpt(n_layers: usize, d_model: usize) -> GptShape {
        GptShape::gpt2(n_layers, d_model, d_model / 64)
    }

    fn of(rules: &[Baseline], rule: &str) -> f64 {
        let found = rules.iter().find(|found| found.rule.starts_with(rule));
        found.and_then(|found| found.saving).unwrap_or_else(|| panic!("{rule}: {rules:?}"))
    }

    /// The savings of the thresholds at the compute-optimal point are those of growth/tests.rs: width x2 here.
    #[test]
    fn the_authors_rule_saves_what_its_threshold_does() {
        let cost =
            TrainingCost::steps(AUTHORS_STEPS, KAPLAN_CRITICAL_BATCH, BatchPolicy::CriticalAtEnd);
        let (small, large) = (gpt(24, 768), gpt(24, 1536));
        let asymptote = cost.asymptote(large.n_params() as f64);
        let optimal = asymptote * (1.0 + 0.076 / 0.76);
        let rules = baselines(&cost, &[small, large], optimal);
        assert!((of(&rules, "the authors") - 0.077_691).abs() < 1e-5, "{rules:?}");
        assert!(of(&rules, "continuous") > 0.08, "{rules:?}");
    }

    /// Each by hand under L = E + A / N^a + B / D^b: tokens of the small model, what the large one takes to that loss, and the rest.
    #[test]
    fn stacking_and_the_80_percent_rule_cost_what_their_tokens_do() {
        let TokenLaw::Sum(law) = CHINCHILLA_CORRECTED else { unreachable!() };
        let asymptote = |n: f64| law.floor + law.params_factor * n.powf(-law.params_exponent);
        let loss =
            |n: f64, tokens: f64| asymptote(n) + law.data_factor * tokens.powf(-law.data_exponent);
        let tokens = |n: f64, loss: f64| {
            (law.data_factor / (loss - asymptote(n))).powf(1.0 / law.data_exponent)
        };
        let last = gpt(40, 5120);
        let n = last.n_params() as f64;
        let needed = 20.0 * n;
        let rules =
            baselines(&TrainingCost::tokens(CHINCHILLA_CORRECTED), &[last], loss(n, needed));
        assert!(!rules.iter().any(|found| found.rule.starts_with("the authors")), "{rules:?}");

        // Du et al. 2024: log10 d = 0.88 log10 N + 163.27 / log10 C - 5.74.
        let small = n / 4.0;
        let d = 10f64.powf(0.88 * n.log10() + 163.27 / (6.0 * n * needed).log10() - 5.74);
        let paid = small * d + n * (needed - tokens(n, loss(small, d)));
        assert!((of(&rules, "stacking") - (1.0 - paid / (n * needed))).abs() < 1e-9, "{rules:?}");

        // What the rule saves tells its length; 80 % of that with one layer, and the rest, must end at the loss.
        let saving = of(&rules, "grow at 80 %");
        let one = n / 40.0;
        let total = (1.0 - saving) * n * needed / (0.8 * one + 0.2 * n);
        let ends_after = tokens(n, loss(one, 0.8 * total)) + 0.2 * total;
        assert!((ends_after / needed - 1.0).abs() < 1e-6, "{ends_after} of {needed}: {rules:?}");
    }
}
