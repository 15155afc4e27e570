//! The law that a plan is made with, by name or from a file.

use anyhow::{Context, Result, anyhow, bail};
use measure::GptShape;
use scaling::plan::Operators;
use scaling::published::{
    AUTHORS_STEPS, CHINCHILLA, CHINCHILLA_CORRECTED, CHINCHILLA_RUNS, KAPLAN_CRITICAL_BATCH,
    KAPLAN_RUNS, KAPLAN_STEPS, PublishedRuns,
};
use scaling::{
    BatchPolicy, Fit, FittedLaw, FittedRecipe, GrownRun, LawForm, Pace, Quantity, StepLaw, SumLaw,
    Throughput, TokenLaw, TrainingCost,
};
use schedule::MOST_BATCH_TOKENS;
use serde::Serialize;
use serde_json::Value;
use std::path::Path;

/// The batch that a law in tokens says nothing about: GPT-2's.
const DEFAULT_BATCH: f64 = 524_288.0;

/// Paces after a growth that are believed: a model that grew does not learn twice as fast as one from scratch.
pub const MOST_PACE: f64 = 2.0;

/// Whether a plan can count on a pace.
pub fn is_pace(pace: f64) -> bool {
    pace > 0.0 && pace <= MOST_PACE
}
/// What stands for no progress at all.
const LEAST_PACE: f64 = 1e-3;

/// A factor beyond a law's data from which it is said.
const FAR: f64 = 2.0;

/// Whether something is a factor beyond data from which it is said.
pub fn is_far(factor: f64) -> bool {
    // What is exactly that far may come out a little farther.
    const ROUNDING: f64 = 1.0 + 1e-9;
    factor > FAR * ROUNDING
}

/// How a plan's batch is chosen, from its name.
pub fn batch(text: &str) -> Result<BatchPolicy, String> {
    let most = MOST_BATCH_TOKENS as f64;
    let told = text.parse().ok().filter(
        |policy| !matches!(policy, BatchPolicy::Fixed { batch_tokens } if *batch_tokens > most),
    );
    told.ok_or_else(|| {
        format!("must be a number of tokens up to {MOST_BATCH_TOKENS}, critical or critical-at-end")
    })
}

/// A law ready to plan with.
#[derive(Clone)]
pub struct PlanningLaw {
    pub name: String,
    pub equation: &'static str,
    law: Law,
    fit: Option<Fit>,
    published: Option<PublishedRuns>,
}

#[derive(Clone, Copy)]
enum Law {
    Tokens(TokenLaw),
    Steps(StepLaw),
}

impl PlanningLaw {
    pub fn open(name: &str) -> Result<Self> {
        let published = match name {
            "kaplan" => Some((Law::Steps(KAPLAN_STEPS), KAPLAN_RUNS)),
            "kaplan-authors" => Some((Law::Steps(AUTHORS_STEPS), KAPLAN_RUNS)),
            "chinchilla" => Some((Law::Tokens(CHINCHILLA), CHINCHILLA_RUNS)),
            "chinchilla-corrected" => Some((Law::Tokens(CHINCHILLA_CORRECTED), CHINCHILLA_RUNS)),
            _ => None,
        };
        if let Some((law, runs)) = published {
            let form = match law {
                Law::Tokens(_) => LawForm::Tokens,
                Law::Steps(_) => LawForm::KaplanSteps,
            };
            return Ok(Self {
                name: name.to_string(),
                equation: form.equation(),
                law,
                fit: None,
                published: Some(runs),
            });
        }
        let text = std::fs::read_to_string(name).with_context(|| {
            format!(
                "{name}: neither kaplan, kaplan-authors, chinchilla, chinchilla-corrected nor a file that can be \
                 read"
            )
        })?;
        let fit = fit_of(&text, name)?;
        if let Some(quantity) = flat_in(&fit) {
            bail!(
                "{name}: the law does not fall with {quantity}, so there is nothing to plan; fit it to more or longer runs"
            );
        }
        let law = in_tokens(&fit, fit.fitted(), name)?;
        Ok(Self {
            name: name.to_string(),
            equation: fit.law.equation(),
            law: Law::Tokens(law),
            fit: Some(fit),
            published: None,
        })
    }

    /// The name without its folder.
    pub fn short_name(&self) -> String {
        let name = Path::new(&self.name).file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Whether it says nothing of a batch.
    pub fn lacks_batch(&self) -> bool {
        matches!(self.law, Law::Tokens(_)) && self.batch_tokens().is_none()
    }

    /// The batch of the runs that it was fitted to, tokens.
    pub fn batch_tokens(&self) -> Option<f64> {
        self.fit.as_ref().and_then(|fit| fit.batch_tokens)
    }

    /// What training costs in batches of one size throughout, of a law in steps; `None` of one in tokens.
    pub fn at_one_batch(&self, batch_tokens: f64) -> Option<TrainingCost> {
        let Law::Steps(law) = self.law else { return None };
        let policy = BatchPolicy::Fixed { batch_tokens };
        Some(TrainingCost::steps(law, KAPLAN_CRITICAL_BATCH, policy))
    }

    /// What the runs were that it was fitted to, where its file tells.
    pub fn recipe(&self) -> Option<FittedRecipe> {
        self.fit.as_ref().and_then(|fit| fit.recipe)
    }

    /// The vocabulary of the runs of a published law, where it is far from one of so many tokens.
    pub fn other_vocabulary(&self, n_vocab: usize) -> Option<usize> {
        let own = self.published?.n_vocab;
        let ratio = n_vocab as f64 / own as f64;
        is_far(ratio.max(1.0 / ratio)).then_some(own)
    }

    /// Whether it is of a file, and no published one.
    pub fn is_fitted(&self) -> bool {
        self.fit.is_some()
    }

    /// Whether it is one of ends of runs whose learning rate decays, where its file tells.
    pub fn is_of_ends(&self) -> Option<bool> {
        let grown = self.grew().map(|_| true);
        self.recipe().and_then(|recipe| recipe.of_ends).or(grown)
    }

    /// What its fit warns of.
    pub fn warnings(&self) -> &[String] {
        self.fit.as_ref().map_or(&[], |fit| &fit.warnings)
    }

    /// 6 N D of the runs that it was fitted to, FLOPs.
    pub fn pilot_compute(&self) -> Option<f64> {
        self.fit.as_ref().and_then(|fit| fit.compute)
    }

    /// What training costs, the same under resampled laws, and the batch for a final loss. The pace after growths is the given one,
    /// else under each law that of the grown run beside its data, else 1.
    ///
    /// # Errors
    /// A batch that the law cannot have, or a grown run that tells no pace.
    pub fn cost(&self, batch: Option<BatchPolicy>, pace: Option<Pace>) -> Result<Costs> {
        let (pace, pace_from) = match pace {
            Some(pace) => (pace, PaceSource::ByHand),
            None => match self.measured_pace()? {
                Some(pace) => (pace, PaceSource::Measured),
                None => (Pace::lasting(1.0), PaceSource::Assumed),
            },
        };
        match self.law {
            Law::Tokens(law) => {
                let own = self.batch_tokens();
                let batch_tokens = match batch {
                    None => own.unwrap_or(DEFAULT_BATCH),
                    Some(BatchPolicy::Fixed { batch_tokens }) => batch_tokens,
                    Some(_) => bail!(
                        "--batch: {} is a law in tokens, which knows no critical batch: give a number of \
                         tokens",
                        self.name
                    ),
                };
                let resampled = match &self.fit {
                    Some(fit) => fit
                        .resampled()
                        .map(|law| {
                            let cost = TrainingCost::tokens(in_tokens(fit, law, &self.name)?);
                            let own = fit.grown.filter(|_| pace_from == PaceSource::Measured);
                            let pace = own.map_or(pace, |grown| resampled_pace(&grown, &cost));
                            Ok(cost.with_pace(pace))
                        })
                        .collect::<Result<_>>()?,
                    None => Vec::new(),
                };
                Ok(Costs {
                    cost: TrainingCost::tokens(law).with_pace(pace),
                    resampled,
                    policies: Vec::new(),
                    batch: BatchPolicy::Fixed { batch_tokens },
                    pace_from,
                })
            }
            Law::Steps(law) => {
                let batch = batch.unwrap_or(BatchPolicy::CriticalAtEnd);
                Ok(Costs {
                    cost: TrainingCost::steps(law, KAPLAN_CRITICAL_BATCH, batch).with_pace(pace),
                    resampled: Vec::new(),
                    policies: policies(law, pace),
                    batch,
                    pace_from,
                })
            }
        }
    }

    /// The pace of the grown run beside the law's data; `None` without one.
    ///
    /// # Errors
    /// A run that got nowhere, or ends below what the law can reach, or much better than any model from scratch.
    pub fn measured_pace(&self) -> Result<Option<Pace>> {
        let Some((grown, cost)) = self.grown() else { return Ok(None) };
        match grown.pace(&cost) {
            Ok(pace) if is_pace(pace) => Ok(Some(measured(pace, &grown))),
            found => {
                let found = found.map_or("below the law's asymptote".into(), |pace| {
                    format!("which makes a pace of {pace:.3}")
                });
                bail!(
                    "{}: its grown run ends at a loss of {:.4}, {found}: no pace follows from it, which must be above 0 and at most \
                     {MOST_PACE}; set one with --pace",
                    self.name,
                    grown.loss
                )
            }
        }
    }

    /// The grown run beside the data of a law in tokens, and what training costs under that law.
    fn grown(&self) -> Option<(GrownRun, TrainingCost)> {
        let (grown, Law::Tokens(law)) = (self.fit.as_ref()?.grown?, self.law) else { return None };
        Some((grown, TrainingCost::tokens(law)))
    }

    /// N of the grown run beside the law's data, after its growth.
    pub fn grown_size(&self) -> Option<f64> {
        self.grown().map(|(grown, _)| grown.large)
    }

    /// What grew in the grown run beside the law's data.
    pub fn grew(&self) -> Option<Operators> {
        self.grown().map(|(grown, _)| grown.grew)
    }

    /// By what factor N grew in the grown run beside the law's data.
    pub fn growth_factor(&self) -> Option<f64> {
        self.grown().map(|(grown, _)| grown.large / grown.small)
    }

    /// What the grown run saved at its size.
    pub fn grown_saving(&self) -> Option<f64> {
        let (grown, cost) = self.grown()?;
        grown.saving(&cost).ok()
    }

    /// When the grown run grew: the tokens that its larger size takes from scratch to that loss, over those of the longest run.
    pub fn growth_share(&self) -> Option<f64> {
        let (grown, cost) = self.grown()?;
        let resumed = grown.resumed_tokens(&cost).ok()?;
        let tokens =
            self.fit.as_ref()?.ranges.iter().find(|range| range.quantity == Quantity::Tokens)?;
        Some(resumed / tokens.greatest)
    }

    /// Tokens for each of its parameters that the model which grew in the grown run had learnt from.
    pub fn growth_tokens_per_param(&self) -> Option<f64> {
        self.grown().map(|(grown, _)| grown.tokens_small / grown.small)
    }

    /// By what factor a value lies beyond the data of the law.
    fn factor_beyond(&self, quantity: Quantity, value: f64) -> f64 {
        match (&self.fit, self.published) {
            (Some(fit), _) => fit.extrapolation(quantity, value),
            (None, Some(runs)) if quantity == Quantity::Params => {
                (value / runs.sizes.1).max(runs.sizes.0 / value)
            }
            (None, _) => 1.0,
        }
    }

    /// By what factor a size lies far beyond the data of the law.
    pub fn far_beyond(&self, n_params: f64) -> Option<f64> {
        Some(self.factor_beyond(Quantity::Params, n_params)).filter(|factor| is_far(*factor))
    }

    /// How far a plan goes beyond the data of its law.
    pub fn extrapolation(&self, sizes: &[f64], tokens: f64) -> Vec<String> {
        // A law in steps is fitted to runs of one batch.
        let batch = self.fit.as_ref().and_then(|fit| fit.batch_tokens);
        let steps = batch.map_or(1.0, |batch| tokens / batch);
        let ends = [sizes.first(), sizes.last().filter(|_| sizes.len() > 1)];
        let sizes = ends.into_iter().flatten().map(|n_params| (Quantity::Params, *n_params));
        sizes
            .chain([(Quantity::Tokens, tokens), (Quantity::Steps, steps)])
            .map(|(quantity, value)| (quantity, value, self.factor_beyond(quantity, value)))
            .filter(|(_, _, factor)| is_far(*factor))
            .map(|(quantity, value, factor)| {
                format!(
                    "{quantity} = {value:.3e} is a factor of {factor:.1} outside the data of {}: an extrapolation",
                    self.name
                )
            })
            .collect()
    }
}

/// Costs under a law and a batch.
pub struct Costs {
    pub cost: TrainingCost,
    pub resampled: Vec<TrainingCost>,
    /// The cost under every batch policy, for a law in steps.
    pub policies: Vec<(String, TrainingCost)>,
    pub batch: BatchPolicy,
    pub pace_from: PaceSource,
}

/// A measured pace lasts for as many tokens as the grown run that it is of had.
fn measured(pace: f64, grown: &GrownRun) -> Pace {
    Pace { value: pace, over: grown.tokens_large }
}

/// Where a plan's pace comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PaceSource {
    ByHand,
    /// The grown run beside the law's data.
    Measured,
    /// Nothing tells it: dynamics are taken to be preserved.
    Assumed,
}

/// A resampled law's own pace. No progress is the least there is, so that it stays in the interval, and a run that
/// ends below the law's asymptote the most.
fn resampled_pace(grown: &GrownRun, cost: &TrainingCost) -> Pace {
    let pace = grown.pace(cost).ok().filter(|pace| !pace.is_nan()).unwrap_or(MOST_PACE);
    measured(pace.clamp(LEAST_PACE, MOST_PACE), grown)
}

impl Costs {
    /// The same in seconds at a measured speed.
    pub fn in_seconds(self, speed: Throughput) -> Self {
        let timed = |cost: TrainingCost| cost.in_seconds(speed.clone());
        Self {
            cost: timed(self.cost),
            resampled: self.resampled.into_iter().map(timed).collect(),
            policies: self.policies.into_iter().map(|(name, cost)| (name, timed(cost))).collect(),
            ..self
        }
    }

    /// The batch in tokens for a final loss of the last shape.
    pub fn batch_tokens(&self, n_params: f64, final_loss: f64) -> f64 {
        match self.batch {
            BatchPolicy::Fixed { batch_tokens } => batch_tokens,
            BatchPolicy::CriticalAtEnd => KAPLAN_CRITICAL_BATCH.tokens_at(final_loss),
            // The mean over the steps: the schedule's batch is one number.
            BatchPolicy::Critical => {
                let tokens = self.cost.tokens_at(n_params, final_loss);
                let steps = self.cost.steps_at(n_params, final_loss);
                match (tokens, steps) {
                    (Ok(tokens), Ok(steps)) => tokens / steps,
                    _ => KAPLAN_CRITICAL_BATCH.tokens_at(final_loss),
                }
            }
        }
    }
}

/// The name of a policy of one batch, of so many tokens.
pub fn fixed_batch(tokens: &str) -> String {
    format!("fixed {tokens} tokens")
}

fn policies(law: StepLaw, pace: Pace) -> Vec<(String, TrainingCost)> {
    let policies = [
        ("critical-at-end".to_string(), BatchPolicy::CriticalAtEnd),
        ("critical".to_string(), BatchPolicy::Critical),
        (
            fixed_batch(&DEFAULT_BATCH.to_string()),
            BatchPolicy::Fixed { batch_tokens: DEFAULT_BATCH },
        ),
    ];
    let cost = |policy| TrainingCost::steps(law, KAPLAN_CRITICAL_BATCH, policy).with_pace(pace);
    policies.into_iter().map(|(name, policy)| (name, cost(policy))).collect()
}

/// What no parameters, tokens or FLOPs of pilot runs amount to.
const MOST_AMOUNT: f64 = 1e40;

/// A fitted law from what its file holds.
///
/// # Errors
/// No law, or one that lacks a parameter.
pub fn fit_of(text: &str, name: &str) -> Result<Fit> {
    let no_law = || format!("{name}: no law of staged fit");
    let value: Value = serde_json::from_str(text).with_context(no_law)?;
    if !value.is_object() {
        bail!(no_law());
    }
    if value.get("optima").is_some() {
        bail!("{name}: holds the best sizes of staged fit --isoflop, which are no law");
    }
    let fit: Fit = serde_json::from_value(value).with_context(no_law)?;
    let values = fit.values();
    if let Some((parameter, due)) = fit.law.fault(&values) {
        match fit.parameters.get(parameter).map(|one| one.value).filter(|value| value.is_finite()) {
            Some(value) => bail!("{name}: parameters.{parameter} = {value:?}: must be {due}"),
            None => bail!(
                "{name}: parameters.{parameter} is missing or no number: the form {} needs it",
                fit.law
            ),
        }
    }
    if let Some(batch) = fit.batch_tokens {
        let most = MOST_BATCH_TOKENS as f64;
        if !(1.0..=most).contains(&batch) {
            bail!("{name}: batch_tokens = {batch}: must be from 1 to {most}");
        }
    }
    if let Some(compute) = fit.compute.filter(|value| !(*value > 0.0 && *value < MOST_AMOUNT)) {
        bail!("{name}: compute = {compute}: must be positive and below {MOST_AMOUNT:e}");
    }
    if let Some(grown) = &fit.grown {
        for (key, value) in [
            ("small", grown.small),
            ("tokens_small", grown.tokens_small),
            ("large", grown.large),
            ("tokens_large", grown.tokens_large),
            ("loss", grown.loss),
        ] {
            if !(value > 0.0 && value < MOST_AMOUNT) {
                bail!("{name}: grown.{key} = {value}: must be positive and below {MOST_AMOUNT:e}");
            }
        }
        if grown.large <= grown.small {
            bail!(
                "{name}: grown.large = {}: must be above grown.small = {}",
                grown.large,
                grown.small
            );
        }
    }
    if let Some(recipe) = &fit.recipe {
        let n_vocab = recipe.n_vocab.unwrap_or(1);
        let shape =
            GptShape { n_vocab, context_len: recipe.context_len, ..GptShape::gpt2(1, 1, 1) };
        shape.check().map_err(|error| anyhow!("{name}: recipe.{error}"))?;
    }
    let is_law = |draw: &Vec<f64>| draw.len() == values.len() && fit.law.fault(draw).is_none();
    if !fit.draws.iter().all(is_law) {
        bail!(
            "{name}: draws: each must have {} finite numbers, one for each parameter of the form {}, with positive exponents and no negative one",
            values.len(),
            fit.law
        );
    }
    Ok(fit)
}

/// A quantity with which a law does not fall, from its data on to far beyond.
fn flat_in(fit: &Fit) -> Option<Quantity> {
    const FAR_BEYOND: f64 = 1e6;
    const LEAST_FALL: f64 = 1e-9;
    let quantities = fit.law.quantities();
    // What a file without its ranges is asked at.
    let range = |quantity: Quantity| {
        let told = fit.ranges.iter().find(|range| range.quantity == quantity);
        told.map_or((1e6, 1e9), |range| (range.least, range.greatest))
    };
    let least: Vec<f64> = quantities.iter().map(|quantity| range(*quantity).0).collect();
    let falls = |i: usize| fit.fall(&least, i, FAR_BEYOND * range(quantities[i]).1) > LEAST_FALL;
    (0..quantities.len()).find(|i| !falls(*i)).map(|i| quantities[i])
}

/// A fitted law in N and D. A law in the steps of runs with one batch B is one in tokens, D = B S.
fn in_tokens(fit: &Fit, law: FittedLaw, name: &str) -> Result<TokenLaw> {
    match law {
        FittedLaw::Tokens(law) => Ok(law),
        FittedLaw::Steps(law) => {
            let batch = fit.batch_tokens.with_context(|| {
                format!(
                    "{name}: a law in steps of runs without one common batch: fit --form tokens"
                )
            })?;
            Ok(TokenLaw::Sum(SumLaw {
                floor: law.floor,
                params_factor: law.params.scale.powf(law.params.exponent),
                params_exponent: law.params.exponent,
                data_factor: (law.steps.scale * batch).powf(law.steps.exponent),
                data_exponent: law.steps.exponent,
            }))
        }
        FittedLaw::Power(_) => {
            bail!("{name}: a law in one quantity; a plan needs one in N and tokens or steps")
        }
    }
}
