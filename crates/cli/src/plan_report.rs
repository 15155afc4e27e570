//! A plan as a table, as JSON and as the head of its schedule.

use crate::law::PaceSource;
use crate::output;
use crate::plan::Planned;
use anyhow::Result;
use measure::{Flops, PfDays};
use scaling::TrainingCost;
use scaling::plan::{LEAST_SAVING, Operators, Plan};
use schedule::Schedule;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What whole steps may add to or take from a plan's compute before it is said.
const MOST_ROUNDING: f64 = 0.03;

/// How far a loss under another batch may be off before it is said.
const MOST_OFF: f64 = 0.005;

/// How much later than the grown pilot run's a growth may come, in shares of the tokens from scratch, before it is said.
const LATER: f64 = 1.2;

/// The learning rate that hidden matrices get in a stage, at its highest.
fn hidden_rate(schedule: &Schedule, i: usize, d_model: usize) -> f64 {
    let end = schedule.stages()[..=i].iter().filter_map(|stage| stage.until().steps).sum();
    schedule.peak_at(end) / schedule.parametrization().width_ratio(d_model)
}

/// The plan with its law, learning rates and warnings.
pub fn json(planned: &Planned) -> Value {
    let mut value = serde_json::to_value(&planned.plan).unwrap_or_default();
    value["law"] = json!(planned.law.name);
    value["saving_exact"] = json!(saving_exact(&planned.plan));
    value["warnings"] = json!(warnings(planned));
    value["pace_from"] = json!(planned.pace_from);
    value["other_policies"] = json!(other_policies(planned));
    for (i, stage) in planned.plan.stages.iter().enumerate() {
        let (steps, resumed) = steps(&planned.schedule, i);
        value["stages"][i]["steps"] = json!(steps);
        value["stages"][i]["resumed_step"] = json!(resumed);
        value["stages"][i]["learning_rate"] =
            json!(hidden_rate(&planned.schedule, i, stage.shape.d_model));
    }
    value
}

/// The steps that a stage makes, and the one at which it goes on: those of the schedule, whose batch may rise.
fn steps(schedule: &Schedule, i: usize) -> (u64, u64) {
    let stage = &schedule.stages()[i];
    (stage.until().steps.unwrap_or(0), stage.growth().resumed_step.unwrap_or(0))
}

/// What the plan's numbers hang on, beside its law.
pub fn warnings(planned: &Planned) -> Vec<String> {
    let plan = &planned.plan;
    let sizes: Vec<f64> = plan.stages.iter().map(|stage| stage.n_params).collect();
    let tokens: f64 = plan.stages.iter().map(|stage| stage.tokens).sum();
    let mut warnings = planned.law.extrapolation(&sizes, tokens);
    warnings.extend(planned.law.warnings().iter().map(|warning| format!("the law: {warning}")));
    let pairs = || plan.stages.windows(2);
    let widens =
        pairs().any(|pair| Operators::between(&pair[0].shape, &pair[1].shape).width.is_some());
    if planned.pace_from == PaceSource::Assumed && plan.stages.len() > 1 {
        let so_far = if widens {
            "; growths in width had 0.45 to 0.7 of the pace from scratch on a text, where the rate decays (docs/SAVINGS.md)"
        } else {
            ""
        };
        warnings.push(format!(
            "no pace after a growth is measured, so dynamics count as preserved{so_far}; staged pilot measures it where the rate decays, \
             --pace gives it"
        ));
    }
    let first_batch = planned.schedule.batch().tokens_at(1) as f64;
    let batches = [plan.batch_tokens, first_batch];
    if let Some(own) = planned.law.batch_tokens()
        && let Some(other) = batches.into_iter().find(|batch| *batch != own)
    {
        warnings.push(format!(
            "the law is of batches of {own:.0} tokens, and says nothing of batches of {other:.0}"
        ));
    }
    warnings.extend(of_other_batches(planned));
    let decays = planned.schedule.learning_rate().decays();
    if let Some(of_ends) = planned.law.is_of_ends().filter(|of_ends| *of_ends != decays) {
        let runs = |decays| {
            if decays { "whose learning rate decays" } else { "at a constant learning rate" }
        };
        warnings.push(format!(
            "the law is of runs {}, and the schedule is one {}: their losses are not comparable (learning_rate.shape of the template)",
            runs(of_ends),
            runs(decays)
        ));
    }
    if let Some(recipe) = planned.law.recipe() {
        let shape = &plan.stages[0].shape;
        let vocabulary = recipe.n_vocab.map(|n_vocab| ("vocabulary", n_vocab, shape.n_vocab));
        let context = ("context", recipe.context_len, shape.context_len);
        for (what, own, other) in vocabulary.into_iter().chain([context]) {
            if own != other {
                warnings.push(format!(
                    "the law is of runs with a {what} of {own}, and says nothing of one of {other}"
                ));
            }
        }
    }
    if let Some(exact) = saving_exact(plan).filter(|exact| *exact < LEAST_SAVING) {
        warnings.push(format!(
            "with attention and output head counted, of which a small model spares less than of 6 N D, the saving is {}; the advice goes by 6 N D",
            percent(exact)
        ));
    }
    let made = planned.schedule.most_compute();
    let mut start = 0;
    for (k, stage) in plan.stages.iter().enumerate() {
        let batch = planned.schedule.batch().tokens_at(start + 1) as f64;
        if stage.tokens < 0.5 * batch {
            warnings.push(format!(
                "stage {} is planned for {:.2} steps of {batch:.0} tokens, and makes one: take smaller batches or fewer stages",
                k + 1,
                stage.tokens / batch,
            ));
            break;
        }
        start += steps(&planned.schedule, k).0;
    }
    if (made / plan.compute - 1.0).abs() > MOST_ROUNDING {
        warnings.push(format!(
            "stages of whole steps take {} in batches of {:.0} tokens, where {} are planned: take smaller batches",
            Flops(made),
            plan.batch_tokens,
            Flops(plan.compute)
        ));
    }
    let Some(measured) = planned.law.grew().filter(|_| planned.pace_from == PaceSource::Measured)
    else {
        return warnings;
    };
    let last = &plan.stages[plan.stages.len() - 1];
    let from_scratch = plan.compute_from_scratch / (6.0 * last.n_params);
    let share = last.tokens_before / from_scratch;
    if let Some(measured) = planned.law.growth_share().filter(|one| share > LATER * one) {
        warnings.push(format!(
            "the pace was measured after a growth at {} of the tokens from scratch, and the last growth here comes at {}: late ones were \
             measured to be slower (docs/SAVINGS.md); grow earlier (--grow-by) or measure it as late (staged pilot --grow-by)",
            percent(measured),
            percent(share)
        ));
    }
    let grew = pairs().flat_map(|pair| Operators::between(&pair[0].shape, &pair[1].shape).kinds());
    let other: BTreeSet<&str> = grew.filter(|kind| !measured.kinds().contains(kind)).collect();
    if !other.is_empty() {
        warnings.push(format!(
            "the pace was measured on a growth of the kind {measured} between pilot shapes, and is taken for {} too",
            Vec::from_iter(other).join(" and "),
        ));
    }
    warnings
}

/// What a law in steps has for the schedule's one batch, where the plan is one of batches that go with the loss.
fn of_other_batches(planned: &Planned) -> Option<String> {
    let plan = &planned.plan;
    let policy = &planned.schedule.prediction()?.batch;
    let first = plan.stages.first().filter(|_| plan.stages.len() > 1)?;
    let cost =
        planned.law.at_one_batch(plan.batch_tokens).filter(|_| policy.starts_with("critical"))?;
    let loss = cost.loss_after(first.n_params, None, first.tokens).ok()?;
    let off = (loss / first.loss_end - 1.0).abs() > MOST_OFF;
    off.then(|| {
        format!(
            "the plan is one of batches that go with the loss ({policy}), and the schedule has batches of {0:.0} tokens throughout: under the \
             law its first stage ends at a loss of {loss:.4} so, where {1:.4} is planned; --batch {0:.0} plans for such batches",
            plan.batch_tokens, first.loss_end
        )
    })
}

/// What the same sizes save to the same multiple of the asymptote under other batch policies.
fn other_policies(planned: &Planned) -> Vec<(String, Option<f64>)> {
    let plan = &planned.plan;
    let sizes: Vec<f64> = plan.stages.iter().map(|stage| stage.n_params).collect();
    if sizes.len() < 2 {
        return Vec::new();
    }
    let saving =
        |cost: &TrainingCost| cost.chain(&sizes, plan.final_loss).ok().map(|chain| chain.saving);
    planned.policies.iter().map(|(name, cost)| (name.clone(), saving(cost))).collect()
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn compute(flops: f64) -> String {
    format!("{} ({})", Flops(flops), PfDays::from(Flops(flops)))
}

fn saving(plan: &Plan) -> String {
    if plan.stages.len() == 1 {
        return percent(plan.saving);
    }
    let interval =
        plan.saving_interval.map_or("no interval: the law has none".into(), |[low, high]| {
            format!("95 % interval {} to {}", percent(low), percent(high))
        });
    format!("{} ({interval})", percent(plan.saving))
}

/// The saving in exact FLOPs, of a plan that grows and is in FLOPs.
fn saving_exact(plan: &Plan) -> Option<f64> {
    (plan.stages.len() > 1 && plan.seconds.is_none()).then(|| plan.saving_exact())
}

/// The pace that is counted on after growths.
fn pace(planned: &Planned) -> Option<String> {
    let from = match planned.pace_from {
        PaceSource::ByHand => "by hand",
        PaceSource::Measured => "of the law's grown run",
        PaceSource::Assumed => "not measured",
    };
    let pace = planned.plan.pace;
    (planned.plan.stages.len() > 1).then(|| {
        format!("Pace {pace:.2}, {from}: of a grown model, over that of one from scratch at the same loss")
    })
}

/// The first lines of a planned schedule.
pub fn comment(planned: &Planned) -> String {
    let plan = &planned.plan;
    let what = if plan.seconds.is_some() { "Saving of time" } else { "Saving" };
    let mut lines = vec![
        format!("Planned under {}: {}", planned.law.name, planned.law.equation),
        format!("Cost: {}", compute(plan.compute)),
        format!("Predicted: loss {:.4} nats per token at the end", plan.final_loss),
        format!("{what} against the last shape from scratch: {}", saving(plan)),
    ];
    if let Some(pace) = pace(planned) {
        lines.push(pace);
    }
    if let Some(reason) = &plan.advice.reason {
        lines.push(format!("Advice: do not grow: {reason}"));
    }
    format!("# {}\n\n", lines.join("\n# "))
}

/// The table of stages, line by line.
pub fn stage_lines(planned: &Planned) -> Vec<String> {
    let plan = &planned.plan;
    let mut lines = vec![format!(
        "{:>5} {:>16} {:>10} {:>11} {:>10} {:>10} {:>7} {:>7} {:>8} {:>6} {:>11} {:>9}",
        "stage",
        "shape",
        "N",
        "steps",
        "tokens",
        "FLOPs",
        "from",
        "to loss",
        "slope",
        "ratio",
        "from step",
        "rate"
    )];
    for (i, stage) in plan.stages.iter().enumerate() {
        let shape = stage.shape.to_string();
        let start = stage.loss_start.map_or("-".into(), |loss| format!("{loss:.4}"));
        let (steps, resumed) = steps(&planned.schedule, i);
        let ratio = stage.step_ratio.map_or("-".into(), |ratio| format!("{ratio:.3}"));
        lines.push(format!(
            "{:>5} {shape:>16} {:>10.3e} {:>11} {:>10.3e} {:>10.3e} {start:>7} {:>7.4} {:>8.4} {ratio:>6} {:>11} \
             {:>9.2e}",
            i + 1,
            stage.n_params,
            output::count(steps),
            stage.tokens,
            stage.compute,
            stage.loss_end,
            stage.growth_slope,
            output::count(resumed),
            hidden_rate(&planned.schedule, i, stage.shape.d_model),
        ));
    }
    lines
}

/// The whole plan.
pub fn print(planned: &Planned) -> Result<()> {
    output::line(&format!("{}: {}", planned.law.name, planned.law.equation))?;
    for line in stage_lines(planned) {
        output::line(&line)?;
    }
    summary(planned)
}

fn summary(planned: &Planned) -> Result<()> {
    let plan = &planned.plan;
    let exact: f64 = plan.stages.iter().map(|stage| stage.compute_exact).sum();
    let tokens: f64 = plan.stages.iter().map(|stage| stage.tokens).sum();
    let last = &plan.stages[plan.stages.len() - 1];
    let batch = planned.schedule.batch();
    let (first, end) = (batch.tokens_at(1), batch.tokens_at(planned.schedule.n_steps()));
    let batches = if first == end { end.to_string() } else { format!("{first} to {end}") };
    output::line(&format!(
        "compute 6 N D {}; {} with attention and output head",
        compute(plan.compute),
        Flops(exact)
    ))?;
    if let Some(seconds) = plan.seconds {
        output::line(&format!("time {} at the measured speed", output::duration(seconds)))?;
    }
    output::line(&format!(
        "{tokens:.3e} tokens in batches of {batches}; final loss {:.4} nats per token, {:.3} times the asymptote of the \
         last shape",
        plan.final_loss, plan.asymptote_multiple
    ))?;
    let unit = if plan.seconds.is_some() { "time" } else { "compute" };
    output::line(&format!(
        "saving: {} of the {unit} of {} from scratch to the same loss; {} against the cheapest single size for \
         it, N = {:.3e}{}",
        saving(plan),
        last.shape,
        percent(plan.saving_at_best_size),
        plan.best_size,
        planned
            .law
            .far_beyond(plan.best_size)
            .map_or(String::new(), |factor| format!(", {factor:.0} times beyond the law's data")),
    ))?;
    if let Some(exact) = saving_exact(plan) {
        output::line(&format!(
            "saving with attention and output head counted on both sides: {} of the compute of {} from scratch",
            percent(exact),
            last.shape
        ))?;
    }
    if let Some(pace) = pace(planned) {
        output::line(&pace)?;
    }
    if let Some(alone) = &plan.without_growth {
        let cost = if plan.seconds.is_some() {
            output::duration(alone.cost)
        } else {
            Flops(alone.cost).to_string()
        };
        output::line(&format!(
            "without growth: {} with N = {:.3e} is best, loss {:.4}, {unit} {cost}",
            alone.shape, alone.n_params, alone.loss
        ))?;
    }
    for (name, saving) in other_policies(planned) {
        let saving = saving
            .map_or("has no such chain".into(), |saving| format!("saves {}", percent(saving)));
        output::line(&format!("the same sizes and loss at a batch that is {name}: {saving}"))?;
    }
    output::line("other rules under this law:")?;
    for rule in &plan.baselines {
        // Far below there is no such saving, but a law that does not reach so far.
        let saving = rule.saving.filter(|saving| *saving > -10.0).map_or("-".into(), percent);
        output::line(&format!("  {:<45} {saving:>9}  {}", rule.rule, rule.what))?;
    }
    for warning in warnings(planned) {
        output::note(&format!("warning: {warning}"));
    }
    match &plan.advice.reason {
        Some(reason) => output::line(&format!("advice: do not grow: {reason}")),
        None if plan.advice.grow && planned.pace_from == PaceSource::Assumed => output::line(
            "advice: grow, where a growth preserves the dynamics: its pace is not measured",
        ),
        None if plan.advice.grow => output::line("advice: grow"),
        None => output::line("no advice: one stage was asked for"),
    }
}
