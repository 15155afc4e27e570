//! What a plan's numbers hang on, beside its law.

use crate::law::PaceSource;
use crate::plan::Planned;
use crate::plan_report::{percent, saving_exact, steps};
use measure::Flops;
use scaling::plan::{LEAST_SAVING, Operators, Stage};
use std::collections::BTreeSet;

/// What whole steps may add to or take from a plan's compute before it is said.
const MOST_ROUNDING: f64 = 0.03;

/// How far a loss under another batch may be off before it is said.
const MOST_OFF: f64 = 0.005;

/// How many times as many tokens before a growth as the measured one had, or as few after it, are so many that it is said.
const OTHER_TOKENS: f64 = 1.5;

/// All that there is to warn of.
pub fn warnings(planned: &Planned) -> Vec<String> {
    let exact = saving_exact(&planned.plan).filter(|exact| *exact < LEAST_SAVING);
    let exact = exact.map(|exact| {
        format!(
            "with attention and output head counted, of which a small model spares less than of 6 N D, the saving is {}; the advice goes by 6 N D",
            percent(exact)
        )
    });
    let found = [
        of_the_law(planned),
        of_a_missing_pace(planned).into_iter().collect(),
        of_the_batch(planned),
        of_the_recipe(planned),
        exact.into_iter().collect(),
        of_whole_steps(planned),
        of_the_measured_pace(planned),
    ];
    found.concat()
}

/// What its fit warns of, and what lies beyond its data.
fn of_the_law(planned: &Planned) -> Vec<String> {
    let stages = &planned.plan.stages;
    let sizes: Vec<f64> = stages.iter().map(|stage| stage.n_params).collect();
    let tokens: f64 = stages.iter().map(|stage| stage.tokens).sum();
    let mut warnings = planned.law.extrapolation(&sizes, tokens);
    warnings.extend(planned.law.warnings().iter().map(|warning| format!("the law: {warning}")));
    warnings
}

/// What grows between each stage and the next.
fn growths(planned: &Planned) -> impl Iterator<Item = Operators> {
    let between = |pair: &[Stage]| Operators::between(&pair[0].shape, &pair[1].shape);
    planned.plan.stages.windows(2).map(between)
}

fn of_a_missing_pace(planned: &Planned) -> Option<String> {
    let assumed = planned.pace_from == PaceSource::Assumed && planned.plan.stages.len() > 1;
    let widens = growths(planned).any(|grew| grew.width.is_some());
    let so_far = if widens {
        "; growths in width had 0.4 to 0.7 of the pace from scratch on a text, where the rate decays (docs/savings/dickens.md)"
    } else {
        ""
    };
    assumed.then(|| {
        format!(
            "no pace after a growth is measured, so dynamics count as preserved{so_far}; staged pilot measures it where the rate decays, \
             --pace gives it"
        )
    })
}

/// A batch other than that of the law's runs, or than the plan's.
fn of_the_batch(planned: &Planned) -> Vec<String> {
    let batches = [planned.plan.batch_tokens, planned.schedule.batch().tokens_at(1) as f64];
    let own = planned.law.batch_tokens();
    let other = own.and_then(|own| Some((own, batches.into_iter().find(|batch| *batch != own)?)));
    let of_another = other.map(|(own, other)| {
        format!(
            "the law is of batches of {own:.0} tokens, and says nothing of batches of {other:.0}"
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
            "the plan is one of batches that go with the loss ({policy}), and the schedule has batches of {0:.0} tokens throughout: under the \
             law its first stage ends at a loss of {loss:.4} so, where {1:.4} is planned; --batch {0:.0} plans for such batches",
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
            if decays { "whose learning rate decays" } else { "at a constant learning rate" }
        };
        warnings.push(format!(
            "the law is of runs {}, and the schedule is one {}: their losses are not comparable (learning_rate.shape of the template)",
            runs(of_ends),
            runs(decays)
        ));
    }
    let shape = &planned.plan.stages[0].shape;
    if planned.assumes_gpt2 {
        warnings.push(format!(
            "attention and head are counted for {} tokens in the vocabulary and {} positions, GPT-2's where nothing is said: --vocab and \
             --context, or a --template, say what the law's runs had",
            shape.n_vocab, shape.context_len
        ));
    }
    let Some(recipe) = planned.law.recipe() else { return warnings };
    let vocabulary = recipe.n_vocab.map(|n_vocab| ("vocabulary", n_vocab, shape.n_vocab));
    let context = ("context", recipe.context_len, shape.context_len);
    let others = vocabulary.into_iter().chain([context]).filter(|(_, own, other)| own != other);
    warnings.extend(others.map(|(what, own, other)| {
        format!("the law is of runs with a {what} of {own}, and says nothing of one of {other}")
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
            "stage {} is planned for {:.2} steps of {:.0} tokens, and makes one: take smaller batches or fewer stages",
            k + 1,
            stage.tokens / batch(k),
            batch(k),
        )
    });
    let made = planned.schedule.most_compute();
    let rounded = (made / plan.compute - 1.0).abs() > MOST_ROUNDING;
    let rounded = rounded.then(|| {
        format!(
            "stages of whole steps take {} in batches of {:.0} tokens, where {} are planned: take smaller batches",
            Flops(made),
            plan.batch_tokens,
            Flops(plan.compute)
        )
    });
    short.into_iter().chain(rounded).collect()
}

/// A growth that is later or nearer to the end than the one whose pace was measured, or of another kind.
fn of_the_measured_pace(planned: &Planned) -> Vec<String> {
    let measured = planned.law.grew().filter(|_| planned.pace_from == PaceSource::Measured);
    let Some(measured) = measured else { return Vec::new() };
    let grew = growths(planned).flat_map(|grew| grew.kinds());
    let other: BTreeSet<&str> = grew.filter(|kind| !measured.kinds().contains(kind)).collect();
    let other = (!other.is_empty()).then(|| {
        format!(
            "the pace was measured on a growth of the kind {measured} between pilot shapes, and is taken for {} too",
            Vec::from_iter(other).join(" and "),
        )
    });
    of_other_tokens(planned).into_iter().chain(other).collect()
}

/// A last growth after many more tokens than the one whose pace was measured, or with many fewer to follow.
fn of_other_tokens(planned: &Planned) -> Vec<String> {
    let (Some([before, after]), Some((last, earlier))) =
        (planned.law.growth_tokens(), planned.plan.stages.split_last())
    else {
        return Vec::new();
    };
    if earlier.is_empty() {
        return Vec::new();
    }
    let had: f64 = earlier.iter().map(|stage| stage.tokens).sum();
    let remedy =
        "were measured to be slower (docs/savings/); measure this one (staged pilot --rehearse)";
    let late = (had > OTHER_TOKENS * before).then(|| {
        format!(
            "the pace was measured after a growth at {before:.2e} tokens, and the last growth here comes at {had:.2e}: late ones {remedy}, or grow \
             earlier (--grow-by)"
        )
    });
    let short = (OTHER_TOKENS * last.tokens < after).then(|| {
        format!(
            "the pace was measured over {after:.2e} tokens, and {:.2e} follow the last growth here: growths with little time before the rate decays {remedy}",
            last.tokens
        )
    });
    late.into_iter().chain(short).collect()
}
