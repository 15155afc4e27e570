//! What a plan's numbers hang on, beside its law.

use crate::law::{PaceSource, is_far};
use crate::plan::Planned;
use crate::plan_report::{hidden_rate, percent, saving_exact, steps};
use measure::Flops;
use scaling::plan::{LEAST_SAVING, Operators, Stage};
use schedule::DecayShape;
use std::collections::BTreeSet;

/// What whole steps may add to or take from a plan's compute before it is said.
const MOST_ROUNDING: f64 = 0.03;

/// How far a loss under another batch may be off before it is said.
const MOST_OFF: f64 = 0.005;

/// How much later than the grown pilot run's a growth may come, in shares of the tokens from scratch, before it is said.
const LATER: f64 = 1.2;

/// How many times as large as the grown pilot run's a model may be before its pace above 1 is said to be another size's.
const LARGER: f64 = 2.0;

/// How many times as many tokens per parameter as the one in the grown pilot run a model that grows may have had before it is said.
const MORE_SETTLED: f64 = 1.5;

/// How many times as large a growth may be as that of the grown pilot run, in factors of N, before it is said. A choice: one such
/// plan was run, at nine times, and none in between.
const LARGER_LEAP: f64 = 2.0;

/// What the hidden matrices' learning rate adds up to between a growth inside the blocks and the decay of `wsd`, below which such
/// growths were measured not to make up for their slow beginning (docs/SAVINGS.md).
const ENOUGH_RATE: f64 = 2.2;

/// A warning, and in some words what about the saving it questions, if it does.
struct Warning {
    text: String,
    doubt: Option<&'static str>,
}

impl Warning {
    fn doubt(doubt: &'static str, text: String) -> Self {
        Self { text, doubt: Some(doubt) }
    }
}

impl From<String> for Warning {
    fn from(text: String) -> Self {
        Self { text, doubt: None }
    }
}

/// All that there is to warn of.
pub fn warnings(planned: &Planned) -> Vec<String> {
    found(planned).into_iter().map(|warning| warning.text).collect()
}

/// What there is against believing in the saving, in some words each.
pub fn doubts(planned: &Planned) -> Vec<&'static str> {
    found(planned).iter().filter_map(|warning| warning.doubt).collect()
}

fn found(planned: &Planned) -> Vec<Warning> {
    let exact = saving_exact(&planned.plan).filter(|exact| *exact < LEAST_SAVING);
    let exact = exact.map(|exact| {
        Warning::doubt(
            "with attention and output head counted less than 1 % is saved",
            format!(
                "with attention and output head counted, where small models save less than in 6 N D, the saving is {}; the advice is based on 6 N D",
                percent(exact)
            ),
        )
    });
    let later = planned.plan.cheaper_alone.as_ref().filter(|_| planned.plan.stages.len() > 1);
    let later = later.map(|alone| {
        alone.reason("this plan")
            + "; this is the best plan among growths that have a best moment"
            + if alone.has_end { ", and --grow-by SHARE plans a late growth" } else { "" }
    });
    let left_out = planned.plan.laws_left_out;
    let left_out = (left_out > 0).then(|| {
        format!("{left_out} of the resampled laws say nothing of this plan and are left out of its intervals")
    });
    let plain = |texts: Vec<String>| texts.into_iter().map(Warning::from).collect::<Vec<_>>();
    let of_law = [
        left_out.into_iter().collect(),
        later.into_iter().collect(),
        of_a_pace_without_growth(planned).into_iter().collect(),
        of_the_law(planned),
    ];
    let of_runs = [of_the_batch(planned), of_the_recipe(planned)];
    let mut found = plain(of_law.concat());
    found.extend(of_another_vocabulary(planned));
    found.extend(of_a_missing_pace(planned));
    found.extend(plain(of_runs.concat()));
    found.extend(exact);
    found.extend(plain(of_whole_steps(planned)));
    found.extend(of_the_steps_left(planned));
    found.extend(of_the_measured_pace(planned));
    found
}

/// What its fit warns of, and what lies beyond its data.
fn of_the_law(planned: &Planned) -> Vec<String> {
    let stages = &planned.plan.stages;
    let sizes: Vec<f64> = stages.iter().map(|stage| stage.n_params).collect();
    let tokens: f64 = stages.iter().map(|stage| stage.tokens).sum();
    let mut warnings = planned.law.extrapolation(&sizes, tokens);
    warnings.extend(of_the_speed(planned, &sizes));
    warnings.extend(planned.law.warnings().iter().map(|warning| format!("the law: {warning}")));
    warnings
}

/// Sizes whose speed was not measured nor that of one near them.
fn of_the_speed(planned: &Planned, sizes: &[f64]) -> Option<String> {
    let speed = planned.cost.throughput()?;
    let factors = sizes.iter().map(|n_params| (*n_params, speed.extrapolation(*n_params)));
    let (farthest, factor) = factors.max_by(|a, b| a.1.total_cmp(&b.1))?;
    is_far(factor).then(|| {
        format!("the speed at N = {farthest:.3e} is an extrapolation: a factor of {factor:.1} outside the sizes of --throughput")
    })
}

/// What grows between each stage and the next.
fn growths(planned: &Planned) -> impl Iterator<Item = Operators> {
    let between = |pair: &[Stage]| Operators::between(&pair[0].shape, &pair[1].shape);
    planned.plan.stages.windows(2).map(between)
}

/// A published law, whose losses are per token of its own vocabulary.
fn of_another_vocabulary(planned: &Planned) -> Option<Warning> {
    let here = planned.plan.stages[0].shape.n_vocab;
    let own = planned.law.other_vocabulary(here)?;
    Some(Warning::doubt(
        "the law is of another vocabulary",
        format!(
            "the law {} was fitted to a vocabulary of {own}, whose losses per token are not those of one of {here}: neither the final loss nor the \
             losses to grow at hold there; staged pilot fits a law to runs of your own",
            planned.law.name
        ),
    ))
}

fn of_a_missing_pace(planned: &Planned) -> Option<Warning> {
    let assumed = planned.pace_from == PaceSource::Assumed && planned.plan.stages.len() > 1;
    let widens = growths(planned).any(|grew| grew.width.is_some());
    let so_far = if widens {
        "; on text, with a decaying rate, growths in width had only 0.4 to 0.7 of the pace from scratch (docs/SAVINGS.md)"
    } else {
        ""
    };
    assumed.then(|| {
        Warning::doubt(
            "the pace is not measured",
            format!(
                "the pace after growth is not measured, so growth is assumed to preserve the dynamics{so_far}; staged pilot measures it if the rate \
                 decays, --pace sets it"
            ),
        )
    })
}

/// The pace that a growth was looked for at, where none was found.
fn of_a_pace_without_growth(planned: &Planned) -> Option<String> {
    let plan = &planned.plan;
    let asked = plan.stages.len() == 1 && plan.advice.reason.is_some();
    let of = match planned.pace_from {
        PaceSource::Assumed => return None,
        PaceSource::ByHand => String::new(),
        PaceSource::Measured => {
            let kind =
                planned.law.grew().map_or(String::new(), |grew| format!(" on a growth in {grew}"));
            format!(", measured{kind}")
        }
    };
    asked.then(|| {
        format!("growths were searched for at a pace of {:.2}{of}; --pace sets another", plan.pace)
    })
}

/// A batch other than that of the law's runs, or than the plan's.
fn of_the_batch(planned: &Planned) -> Vec<String> {
    let batches = [planned.plan.batch_tokens, planned.schedule.batch().tokens_at(1) as f64];
    let own = planned.law.batch_tokens();
    let other = own.and_then(|own| Some((own, batches.into_iter().find(|batch| *batch != own)?)));
    let of_another = other.map(|(own, other)| {
        format!(
            "the law was fitted with batches of {own:.0} tokens and does not cover batches of {other:.0}"
        )
    });
    of_another.into_iter().chain(of_growing_batches(planned)).collect()
}

/// What a law in steps has for the schedule's one batch, where the plan is one of batches that go with the loss.
fn of_growing_batches(planned: &Planned) -> Option<String> {
    let plan = &planned.plan;
    let policy = &planned.schedule.prediction()?.batch;
    let first = plan.stages.first().filter(|_| plan.stages.len() > 1)?;
    let cost =
        planned.law.at_one_batch(plan.batch_tokens).filter(|_| policy.starts_with("critical"))?;
    let loss = cost.loss_after(first.n_params, None, first.tokens).ok()?;
    let off = (loss / first.loss_end - 1.0).abs() > MOST_OFF;
    off.then(|| {
        format!(
            "the plan assumes batches that depend on the loss ({policy}), but the schedule has batches of {0:.0} tokens throughout: under the \
             law its first stage then ends at a loss of {loss:.4} instead of the planned {1:.4}; --batch {0:.0} plans for this batch",
            plan.batch_tokens, first.loss_end
        )
    })
}

/// Other runs than the law's.
fn of_the_recipe(planned: &Planned) -> Vec<String> {
    let mut warnings = Vec::new();
    let decays = planned.schedule.learning_rate().decays();
    if let Some(of_ends) = planned.law.is_of_ends().filter(|of_ends| *of_ends != decays) {
        let runs = |decays| {
            if decays { "with a decaying learning rate" } else { "with a constant learning rate" }
        };
        warnings.push(format!(
            "the law was fitted to runs {}, but the schedule is one {}: their losses are not comparable (learning_rate.shape in the template)",
            runs(of_ends),
            runs(decays)
        ));
    }
    let shape = &planned.plan.stages[0].shape;
    if planned.assumes_gpt2 {
        warnings.push(format!(
            "attention and head are counted for a vocabulary of {} and a context of {}, GPT-2's by default: set those of the law's runs by --vocab and \
             --context, or by a --template",
            shape.n_vocab, shape.context_len
        ));
    }
    let Some(recipe) = planned.law.recipe() else { return warnings };
    let vocabulary = recipe.n_vocab.map(|n_vocab| ("vocabulary", n_vocab, shape.n_vocab));
    let context = ("context", recipe.context_len, shape.context_len);
    let others = vocabulary.into_iter().chain([context]).filter(|(_, own, other)| own != other);
    warnings.extend(others.map(|(what, own, other)| {
        format!("the law was fitted to runs with a {what} of {own} and does not cover {other}")
    }));
    warnings
}

/// What becomes of the plan in whole steps.
fn of_whole_steps(planned: &Planned) -> Vec<String> {
    let plan = &planned.plan;
    let batch = |k: usize| {
        let before: u64 = (0..k).map(|k| steps(&planned.schedule, k).0).sum();
        planned.schedule.batch().tokens_at(before + 1) as f64
    };
    let mut stages = plan.stages.iter().enumerate();
    let short = stages.find(|(k, stage)| stage.tokens < 0.5 * batch(*k)).map(|(k, stage)| {
        format!(
            "stage {} is planned for {:.2} steps of {:.0} tokens but takes a whole one: use smaller batches or fewer stages",
            k + 1,
            stage.tokens / batch(k),
            batch(k),
        )
    });
    let made = planned.schedule.most_compute();
    let rounded = (made / plan.compute - 1.0).abs() > MOST_ROUNDING;
    let rounded = rounded.then(|| {
        format!(
            "rounded to whole steps, the stages take {} in batches of {:.0} tokens, not the planned {}: use smaller batches",
            Flops(made),
            plan.batch_tokens,
            Flops(plan.compute)
        )
    });
    short.into_iter().chain(rounded).collect()
}

/// A growth that is later than the one whose pace was measured, or of another kind.
fn of_the_measured_pace(planned: &Planned) -> Vec<Warning> {
    let plan = &planned.plan;
    let counts = planned.pace_from == PaceSource::Measured && plan.stages.len() > 1;
    let Some(measured) = planned.law.grew().filter(|_| counts) else { return Vec::new() };
    let last = &plan.stages[plan.stages.len() - 1];
    let from_scratch = plan.compute_from_scratch / (6.0 * last.n_params);
    let share = last.tokens_before / from_scratch;
    let later = planned.law.growth_share().filter(|one| share > LATER * one).map(|measured| {
        Warning::doubt(
            "the growth comes later than the one whose pace was measured",
            format!(
                "the pace was measured after a growth at {} of the tokens from scratch, but the last growth here comes at {}: later growths \
                 had a lower pace (docs/SAVINGS.md); grow earlier (--grow-by) or measure a growth as late as this (staged pilot --grow-by)",
                percent(measured),
                percent(share)
            ),
        )
    });
    let grew = growths(planned).flat_map(|grew| grew.kinds());
    let other: BTreeSet<&str> = grew.filter(|kind| !measured.kinds().contains(kind)).collect();
    let other = (!other.is_empty()).then(|| {
        Warning::doubt(
            "the pace was measured on another kind of growth",
            format!(
                "the pace was measured on a growth in {measured} between pilot shapes and is assumed for {} too",
                Vec::from_iter(other).join(" and "),
            ),
        )
    });
    later
        .into_iter()
        .chain(of_settled_models(planned))
        .chain(of_a_larger_leap(planned))
        .chain(other)
        .chain(of_a_lead(planned))
        .collect()
}

/// A growth inside the blocks with too few steps at the full rate after it.
fn of_the_steps_left(planned: &Planned) -> Option<Warning> {
    let (schedule, last) = (&planned.schedule, planned.plan.stages.last()?);
    let grew = growths(planned).last()?;
    let inside = grew.width.is_none() && !grew.depth;
    let rate = schedule.learning_rate();
    if !(inside && rate.shape == DecayShape::Wsd && rate.decays()) {
        return None;
    }
    let i = planned.plan.stages.len() - 1;
    let left = schedule.steps_before_decay((0..i).map(|k| steps(schedule, k).0).sum());
    let hidden = hidden_rate(schedule, i, last.shape.d_model);
    let sum = left as f64 * hidden;
    (sum < ENOUGH_RATE).then(|| {
        Warning::doubt(
            "few steps are left between growth and decay",
            format!(
                "{left} steps are left between the last growth and the decay, at a hidden LR of {hidden:.2e}: a product of {sum:.1}; growths inside the \
                 blocks with less than {ENOUGH_RATE} had 0.6 to 1.0 of the pace from scratch, whatever their pilot run showed \
                 (docs/SAVINGS.md); plan for more tokens, or grow earlier (--grow-by)"
            ),
        )
    })
}

/// A pace above 1 that was measured in a smaller model.
fn of_a_lead(planned: &Planned) -> Option<Warning> {
    let (pace, size) = (planned.plan.pace, planned.law.grown_size()?);
    let last = planned.plan.stages.last()?.n_params;
    (pace > 1.0 && last > LARGER * size).then(|| {
        Warning::doubt(
            "the pace, above 1, is that of a smaller model",
            format!(
                "the pace of {pace:.2} was measured at N = {size:.3e} and is assumed at {last:.3e}: paces above 1 were as high at four times \
                 the size only at 0.8 M parameters in batches of 1,024 tokens, and 0.5 to 1.0 in all other cases, and a pilot shape with fewer \
                 heads than the last one is behind from scratch, which raises its pace (docs/SAVINGS.md); --pace 1 plans without that lead"
            ),
        )
    })
}

/// Growths to many more times the parameters than in the one that was measured.
fn of_a_larger_leap(planned: &Planned) -> Option<Warning> {
    let measured = planned.law.growth_factor()?;
    let factors = planned.plan.stages.windows(2).map(|pair| pair[1].n_params / pair[0].n_params);
    let most = factors.max_by(f64::total_cmp).filter(|most| *most > LARGER_LEAP * measured)?;
    Some(Warning::doubt(
        "the pace is that of a much smaller growth",
        format!(
            "the pace was measured on a growth to {measured:.1} times the parameters and is assumed for one to {most:.1} times: the one such plan \
             that was run had 0.6 to 0.75 of the pace (docs/savings/h200.md); --through plans a smaller step"
        ),
    ))
}

/// Growths of models that have had many more tokens per parameter than the one whose growth was measured.
fn of_settled_models(planned: &Planned) -> Option<Warning> {
    let measured = planned.law.growth_tokens_per_param()?;
    let stages = &planned.plan.stages;
    let (_, before_growth) = stages.split_last()?;
    let mut tokens = 0.0;
    let per_param = before_growth.iter().map(|stage| {
        tokens += stage.tokens;
        tokens / stage.n_params
    });
    let (into, most) = (2..)
        .zip(per_param)
        .max_by(|a: &(usize, f64), b| a.1.total_cmp(&b.1))
        .filter(|(_, most)| *most > MORE_SETTLED * measured)?;
    Some(Warning::doubt(
        "the growing model has had more tokens per parameter than the one whose pace was measured",
        format!(
            "the pace was measured on a model that grew after {measured:.1} tokens per parameter, but the growth into stage {into} is of \
             one after {most:.1}: models trained for longer had a lower pace after growth (docs/SAVINGS.md); grow earlier (--grow-by) or \
             measure it in longer pilot runs (staged pilot --share)"
        ),
    ))
}
