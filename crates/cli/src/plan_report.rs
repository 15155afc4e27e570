//! A plan as a table, as JSON and as the head of its schedule.

use crate::law::{PaceSource, fixed_batch};
use crate::output;
use crate::plan::Planned;
use crate::plan_warnings::{doubts, warnings};
use anyhow::Result;
use measure::{Flops, PfDays};
use scaling::TrainingCost;
use scaling::plan::{LEAST_SENSE, Plan};
use schedule::Schedule;
use serde_json::{Value, json};

/// The learning rate that hidden matrices get in a stage, at its highest.
pub fn hidden_rate(schedule: &Schedule, i: usize, d_model: usize) -> f64 {
    let end = schedule.stages()[..=i].iter().filter_map(|stage| stage.until().steps).sum();
    schedule.peak_at(end) / schedule.parametrization().width_ratio(d_model)
}

/// The plan with its law, learning rates and warnings.
pub fn json(planned: &Planned) -> Value {
    let mut value = serde_json::to_value(&planned.plan).unwrap_or_default();
    value["law"] = json!(planned.law.name);
    value["saving_exact"] = json!(saving_exact(&planned.plan));
    value["warnings"] = json!(warnings(planned));
    value["doubts"] = json!(doubts(planned));
    value["pace_from"] = json!(planned.pace_from);
    value["grown_run_saving"] = json!(grown_saving(planned));
    value["other_policies"] = json!(other_policies(planned));
    for (i, stage) in planned.plan.stages.iter().enumerate() {
        let (steps, resumed) = steps(&planned.schedule, i);
        value["stages"][i]["steps"] = json!(steps);
        value["stages"][i]["resumed_step"] = json!(resumed);
        value["stages"][i]["hidden_learning_rate"] =
            json!(hidden_rate(&planned.schedule, i, stage.shape.d_model));
    }
    value
}

/// The steps that a stage makes, and the one at which it goes on: those of the schedule, whose batch may rise.
pub fn steps(schedule: &Schedule, i: usize) -> (u64, u64) {
    let stage = &schedule.stages()[i];
    (stage.until().steps.unwrap_or(0), stage.growth().resumed_step.unwrap_or(0))
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

pub fn percent(share: f64) -> String {
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
pub fn saving_exact(plan: &Plan) -> Option<f64> {
    (plan.stages.len() > 1 && plan.seconds.is_none()).then(|| plan.saving_exact())
}

/// The pace that is counted on after growths.
fn pace(planned: &Planned) -> Option<String> {
    let from = match planned.pace_from {
        PaceSource::ByHand => "given by --pace",
        PaceSource::Measured => "measured in the law's grown pilot run",
        PaceSource::Assumed => "assumed, not measured",
    };
    let pace = planned.plan.pace;
    let over = planned.plan.pace_over.map_or(String::new(), |tokens| {
        format!("; assumed for {tokens:.2e} tokens after the first growth, as measured, then 1")
    });
    (planned.plan.stages.len() > 1).then(|| {
        format!("Pace {pace:.2} ({from}): learning speed of a grown model, relative to one from scratch at the same loss{over}")
    })
}

/// What hangs on the pace: at which one the stages save nothing, and what they save where growth preserves the dynamics.
fn hinge(plan: &Plan) -> Option<String> {
    let at_one = plan.saving_at_pace_one?;
    let even = plan.break_even_pace.map(|pace| match pace {
        0.0 => "These stages save something at any pace".to_string(),
        1.0.. => format!("These stages break even only at a lasting pace of {pace:.2}"),
        _ => format!("These stages break even at a pace of {pace:.2}: a lower one costs more than from scratch"),
    });
    let at_one = (plan.pace != 1.0).then(|| {
        if at_one < 0.0 {
            format!("at a pace of 1 they cost {} more than from scratch", percent(-at_one))
        } else {
            format!("at a pace of 1 they save {}", percent(at_one))
        }
    });
    let parts: Vec<String> = even.into_iter().chain(at_one).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Whether to grow, and what questions it.
pub fn advice(planned: &Planned) -> String {
    let advice = &planned.plan.advice;
    let doubts = doubts(planned);
    match &advice.reason {
        Some(reason) => format!("do not grow: {reason}"),
        None if advice.grow && doubts.is_empty() => "grow".to_string(),
        None if advice.grow => {
            format!("grow, but in doubt: {}", doubts.join("; "))
        }
        None => "none, since one stage was asked for".to_string(),
    }
}

/// What the run saved that the pace is of, where the plan grows as one did.
fn grown_saving(planned: &Planned) -> Option<f64> {
    let counts = planned.pace_from == PaceSource::Measured && planned.plan.stages.len() > 1;
    planned.law.grown_saving().filter(|_| counts)
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
    lines.extend(pace(planned));
    lines.extend(hinge(plan));
    lines.push(format!("Advice: {}", advice(planned)));
    if planned.lacks_template {
        lines.push(format!("To be trained: {LACKS_TEMPLATE}"));
    }
    format!("# {}\n\n", lines.join("\n# "))
}

/// What a schedule lacks that was planned without a recipe.
pub const LACKS_TEMPLATE: &str = "data, optimizer, learning rate and machine are placeholders; plan with --template RECIPE, or set them";

/// The table of stages, line by line.
pub fn stage_lines(planned: &Planned) -> Vec<String> {
    let plan = &planned.plan;
    let mut lines = vec![format!(
        "{:>5} {:>16} {:>10} {:>11} {:>10} {:>10} {:>7} {:>7} {:>8} {:>6} {:>11} {:>11}",
        "stage",
        "shape",
        "N",
        "steps",
        "tokens",
        "FLOPs",
        "L start",
        "L end",
        "slope",
        "ratio",
        "LR step",
        "hidden LR"
    )];
    for (i, stage) in plan.stages.iter().enumerate() {
        let shape = stage.shape.to_string();
        let start = stage.loss_start.map_or("-".into(), |loss| format!("{loss:.4}"));
        let (steps, resumed) = steps(&planned.schedule, i);
        let ratio = stage.step_ratio.map_or("-".into(), |ratio| format!("{ratio:.3}"));
        lines.push(format!(
            "{:>5} {shape:>16} {:>10.3e} {:>11} {:>10.3e} {:>10.3e} {start:>7} {:>7.4} {:>8.4} {ratio:>6} {:>11} \
             {:>11.2e}",
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

/// What is saved against the cheapest single size, unless that number says nothing.
fn against_best_size(saving: f64) -> String {
    if saving < LEAST_SENSE {
        return "costs more than 11 times as much as".to_string();
    }
    format!("{} against", percent(saving))
}

/// A loss as a multiple of the asymptote, if that is one that a run can come near to.
fn of_asymptote(multiple: f64) -> String {
    if multiple < 100.0 {
        format!(", {multiple:.3} times the asymptote of the last shape")
    } else {
        String::new()
    }
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
        "compute (6 N D) {}; {} including attention and output head",
        compute(plan.compute),
        Flops(exact)
    ))?;
    if let Some(seconds) = plan.seconds {
        output::line(&format!("time {} at the measured speed", output::duration(seconds)))?;
    }
    output::line(&format!(
        "{tokens:.3e} tokens in batches of {batches}; final loss {:.4} nats per token{}",
        plan.final_loss,
        of_asymptote(plan.asymptote_multiple)
    ))?;
    let unit = if plan.seconds.is_some() { "time" } else { "compute" };
    output::line(&format!(
        "saving: {} of the {unit} of {} from scratch to the same loss; {} the cheapest single size to that loss, N = {:.3e}{}",
        saving(plan),
        last.shape,
        against_best_size(plan.saving_at_best_size),
        plan.best_size,
        planned
            .law
            .far_beyond(plan.best_size)
            .map_or(String::new(), |factor| format!(", {factor:.0}x outside the law's data")),
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
    if let Some(hinge) = hinge(plan) {
        output::line(&hinge)?;
    }
    if let Some(saving) = grown_saving(planned) {
        output::line(&format!(
            "The grown pilot run itself saved {} of the compute of its own last shape from scratch, under the law",
            percent(saving)
        ))?;
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
    let own = planned.schedule.prediction().map_or("", |plan| plan.batch.as_str());
    let is_own = |name: &str| name == own || name == fixed_batch(own);
    for (name, saving) in other_policies(planned).into_iter().filter(|(name, _)| !is_own(name)) {
        let saving = saving
            .map_or("has no such chain".into(), |saving| format!("saves {}", percent(saving)));
        output::line(&format!("the same sizes and loss at a batch that is {name}: {saving}"))?;
    }
    output::line("saving of other growth rules under this law:")?;
    for rule in &plan.baselines {
        let saving = rule.saving.map_or("-".into(), percent);
        output::line(&format!("  {:<45} {saving:>9}  {}", rule.rule, rule.what))?;
    }
    for warning in warnings(planned) {
        output::note(&format!("warning: {warning}"));
    }
    output::line(&format!("advice: {}", advice(planned)))
}
