//! `staged bench fit`: whether the intervals of a fit hold what they promise, and how long it takes.

use crate::output;
use crate::pilot::LENGTHS;
use crate::progress::Counter;
use anyhow::Result;
use clap::Args;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use scaling::published::{CHINCHILLA_CORRECTED, KAPLAN_PARAMS, KAPLAN_STEPS, KAPLAN_TOKENS};
use scaling::{Fit, FitOptions, FittedLaw, LawForm, Observation, StepLaw, TokenLaw};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;

/// N of the shape whose loss pilot runs predict, and tokens of the longest of them for each of its parameters: what a fifth of its compute
/// at ten tokens per parameter leaves.
const PILOTED: f64 = 1e8;
const PILOT_TOKENS: f64 = 3.0;

/// Arguments of `staged bench fit`.
#[derive(Args)]
#[command(after_help = "Example: staged bench fit --repeats 200 --json")]
pub struct FitBench {
    /// Fits of each law to fresh noise
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    repeats: u64,
    /// Resamples of each fit
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(2..=1_000_000))]
    bootstraps: u64,
    /// Standard deviation of the noise in ln L
    #[arg(long, default_value_t = 0.002, value_parser = noise)]
    noise: f64,
    /// Sizes, and amounts for each size
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(3..=100))]
    grid: u64,
    /// Instead of the grid, the ends that staged pilot has: a quarter and a sixteenth of a shape's parameters, each at three lengths,
    /// for the loss of that shape
    #[arg(long, conflicts_with = "grid")]
    pilots: bool,
    /// Share of the noise's variance that the lengths of one size have in common, since they share their stable part
    #[arg(long, default_value_t = 0.5, value_parser = share, requires = "pilots")]
    shared: f64,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("must be from 0 to 1".into()),
    }
}

fn noise(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(noise) if (0.0..=1.0).contains(&noise) => Ok(noise),
        _ => Err("must be from 0 to 1".into()),
    }
}

#[derive(Serialize)]
struct Row {
    law: LawForm,
    /// The law that the points are of.
    truth: LawForm,
    points: usize,
    /// Share of the repeats in which each parameter's 95 % interval held the truth.
    coverage: BTreeMap<String, f64>,
    /// N and the amount of a loss beyond the data.
    beyond: [f64; 2],
    /// Share of the repeats in which the interval of that loss did.
    coverage_of_loss: f64,
    seconds_per_fit: f64,
}

impl FitBench {
    pub fn run(self) -> Result<()> {
        let steps = StepLaw { floor: 1.5, ..KAPLAN_STEPS };
        let (sum, kaplan) =
            (FittedLaw::Tokens(CHINCHILLA_CORRECTED), FittedLaw::Tokens(KAPLAN_TOKENS));
        let truths = if self.pilots {
            // Those of two sizes. The mixed form has no truth of its own, and is held against both.
            vec![
                (LawForm::FixedTokens, sum),
                (LawForm::KaplanTokens, kaplan),
                (LawForm::MixedTokens, sum),
                (LawForm::MixedTokens, kaplan),
            ]
        } else {
            vec![
                (LawForm::Tokens, sum),
                (LawForm::KaplanTokens, kaplan),
                (LawForm::Steps, FittedLaw::Steps(steps)),
                (LawForm::KaplanSteps, FittedLaw::Steps(KAPLAN_STEPS)),
                (LawForm::Params, FittedLaw::Power(KAPLAN_PARAMS)),
            ]
        };
        let mut counter = Counter::new("fitting", "laws");
        let total = truths.len() as u64 * self.repeats;
        let mut rows = Vec::new();
        for (form, truth) in truths {
            let done = rows.len() as u64 * self.repeats;
            rows.push(self.row(form, truth, |repeat| counter.reach(done + repeat, total))?);
        }
        counter.end();
        if self.json {
            return output::json(&rows);
        }
        for row in &rows {
            let parts: Vec<String> = row
                .coverage
                .iter()
                .map(|(name, share)| format!("{name} {:.1}, ", 100.0 * share))
                .collect();
            let parts = parts.concat();
            output::line(&format!(
                "{:<13} {} points of {}: {parts}loss at N = {:.0e} and {:.0e} tokens, steps or FLOPs {:.1} (% of {} intervals hold the \
                 truth); {:.3} s a fit",
                row.law.to_string(),
                row.points,
                row.truth,
                row.beyond[0],
                row.beyond[1],
                100.0 * row.coverage_of_loss,
                self.repeats,
                row.seconds_per_fit,
            ))?;
        }
        Ok(())
    }

    /// `repeating` is told the repeats that are done.
    fn row(&self, form: LawForm, truth: FittedLaw, mut repeating: impl FnMut(u64)) -> Result<Row> {
        let started = Instant::now();
        let far = if self.pilots { [PILOTED, 10.0 * PILOTED] } else { [3e10, 1e13] };
        let (mut held, mut held_loss) = (BTreeMap::new(), 0);
        let mut points = 0;
        for repeat in 0..self.repeats {
            repeating(repeat);
            let data = if self.pilots {
                self.pilot_ends(truth, repeat)?
            } else {
                self.observations(truth, repeat)?
            };
            points = data.len();
            let options = FitOptions { form, n_bootstraps: self.bootstraps as usize, seed: repeat };
            let fit = Fit::new(&data, options)?;
            for (name, value) in form.parameter_names().iter().zip(form.values_of(&truth)) {
                let one = fit.parameters[*name];
                let inside = one.low.zip(one.high).is_some_and(|(low, high)| {
                    low <= value * (1.0 + 1e-12) && value <= high * (1.0 + 1e-12)
                });
                *held.entry((*name).to_string()).or_insert(0) += u64::from(inside);
            }
            let mut losses: Vec<f64> = fit.resampled().map(|law| law.loss_at(&far)).collect();
            losses.sort_by(f64::total_cmp);
            let edge = losses.len() / 40;
            let due = truth.loss_at(&far);
            let ends = losses.get(edge).zip(losses.iter().rev().nth(edge));
            held_loss += u64::from(ends.is_some_and(|(low, high)| (*low..=*high).contains(&due)));
        }
        let share = |n: u64| n as f64 / self.repeats as f64;
        Ok(Row {
            law: form,
            truth: match truth {
                FittedLaw::Tokens(TokenLaw::Sum(_)) => LawForm::Tokens,
                FittedLaw::Tokens(TokenLaw::Kaplan(_)) => LawForm::KaplanTokens,
                _ => form,
            },
            points,
            coverage: held.into_iter().map(|(name, n)| (name, share(n))).collect(),
            beyond: far,
            coverage_of_loss: share(held_loss),
            seconds_per_fit: started.elapsed().as_secs_f64() / self.repeats as f64,
        })
    }

    /// Ends of runs as those of staged pilot: the runs of one size go the same way up to where their rates decay.
    fn pilot_ends(&self, truth: FittedLaw, seed: u64) -> Result<Vec<Observation>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let normal = Normal::new(0.0, self.noise)?;
        let (shared, own) = (self.shared.sqrt(), (1.0 - self.shared).sqrt());
        let mut data = Vec::new();
        for (run, n) in [PILOTED / 4.0, PILOTED / 16.0].into_iter().enumerate() {
            let in_common = shared * normal.sample(&mut rng);
            for length in LENGTHS {
                let tokens = PILOT_TOKENS * PILOTED * length;
                let noise = in_common + own * normal.sample(&mut rng);
                data.push(Observation {
                    n_params: Some(n),
                    tokens: Some(tokens),
                    loss: truth.loss_at(&[n, tokens]) * noise.exp(),
                    run,
                    ..Observation::default()
                });
            }
        }
        Ok(data)
    }

    fn observations(&self, truth: FittedLaw, seed: u64) -> Result<Vec<Observation>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let normal = Normal::new(0.0, self.noise)?;
        let last = (self.grid - 1) as f64;
        let mut data = Vec::new();
        for i in 0..self.grid {
            for j in 0..self.grid {
                let n = 1e7 * 300f64.powf(i as f64 / last);
                let amount = match truth {
                    FittedLaw::Tokens(_) => 1e9 * 300f64.powf(j as f64 / last),
                    FittedLaw::Steps(_) | FittedLaw::Power(_) => 2e3 * 100f64.powf(j as f64 / last),
                };
                let loss = truth.loss_at(&[n, amount]) * normal.sample(&mut rng).exp();
                let run = data.len();
                data.push(Observation {
                    n_params: Some(n),
                    tokens: Some(amount),
                    steps: Some(amount),
                    compute: None,
                    loss,
                    run,
                });
            }
        }
        Ok(data)
    }
}
