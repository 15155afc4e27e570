use crate::law::{self, Costs, MOST_PACE, PaceSource, PlanningLaw, is_pace};
use crate::progress::Waiting;
use crate::table::{Row, Table};
use crate::{figures, measured, output, plan_report, shapes};
use anyhow::{Context, Result, bail};
use clap::Args;
use corpus::{TokenFileInfo, Tokenizer, TokenizerChoice};
use measure::{Flops, PfDays};
use scaling::plan::{
    Family, FinalShape, Goal, Operators, Plan as StagedPlan, Request, Stop, WidthRule,
};
use scaling::{BatchPolicy, Pace, Throughput, TrainingCost};
use schedule::{DataSource, PlannedRun, PlannedStage, PredictedCurve, Prediction, Schedule};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// What a planned schedule is where the plan says nothing: mu-P at the base width and peak learning
/// rate of our own small runs, GPT-2's vocabulary in a token file.
const TEMPLATE: &str = include_str!("plan_template.toml");

/// Far beyond all compute that there is.
const MOST_BUDGET: f64 = 1e40;

const BYTES: usize = 256;
const GPT2_VOCABULARY: usize = 50_257;

/// Arguments of `staged plan`.
#[derive(Args)]
#[command(after_help = "Examples:\n  staged plan --budget 1e21 -o schedules/x.toml\n  \
    staged plan --shape gpt2-large --stop 1.1x --law kaplan-authors --operators depth\n  \
    staged plan --law runs/pilots/law.json --template recipe.toml --shape 4x64x4 --stop 10tpp --operators feed-forward,head-size --grow-by 0.35\n  \
    staged plan --curves runs/small runs/big\n\n\
    In the table, L start and L end are the losses at a stage's start and end; slope is d ln L / d ln C of its size from scratch at its end; ratio is its steps from \
    scratch over the next stage's, to that end loss; LR step is the step of the learning-rate schedule at which it starts; hidden LR is the \
    peak learning rate of its hidden matrices: under mu-P the schedule's, divided by width over base width.")]
pub struct Plan {
    /// Compute to spend, FLOPs
    #[arg(long, value_name = "FLOPS", group = "goal")]
    budget: Option<f64>,
    /// Compute to spend, PF-days of 8.64e19 FLOPs
    #[arg(long, value_name = "DAYS", group = "goal")]
    pf_days: Option<f64>,
    /// Time to spend, seconds at the speed of --throughput
    #[arg(long, group = "goal", requires = "throughput")]
    seconds: Option<f64>,
    /// Loss to reach for the least compute, nats per token
    #[arg(long, value_name = "LOSS", group = "goal")]
    target_loss: Option<f64>,
    /// Shape to end with: LAYERSxWIDTHxHEADS (with -hWIDTH of a head and -fWIDTH of the feed-forward layer where they
    /// are not GPT-2's, as 4x128x1-h32-f128), gpt2, gpt2-medium, gpt2-large or gpt2-xl
    #[arg(long)]
    shape: Option<String>,
    /// Final loss of the given shape: a multiple of its asymptote (1.1x), its loss after so many tokens per parameter from scratch
    /// (20tpp), its compute-optimal loss (optimal; the time-optimal one with --throughput), or nats per token [default: optimal]
    #[arg(
        long,
        value_name = "STOP",
        allow_hyphen_values = true,
        conflicts_with = "goal",
        requires = "shape"
    )]
    stop: Option<String>,
    /// kaplan, kaplan-authors, chinchilla, chinchilla-corrected, or a file of staged fit
    #[arg(long, default_value = "chinchilla-corrected")]
    law: String,
    /// Stages: a number, or from least to most as 1..4
    #[arg(long, default_value = "1..4", value_parser = stages)]
    stages: RangeInclusive<usize>,
    /// What may grow: width or width-integer (by whole factors), depth, and at constant width heads, head-size and feed-forward
    #[arg(long, value_delimiter = ',', default_value = "width,depth")]
    operators: Vec<String>,
    /// The shapes to pass through before the last one, instead of the best: as 4x64x2,4x128x4-f256
    #[arg(long, value_delimiter = ',', value_name = "SHAPES", conflicts_with_all = ["stages", "operators"])]
    through: Vec<String>,
    /// Batch: tokens, critical-at-end or critical (laws in steps) [default: critical-at-end for laws
    /// in steps, for others the law's own, else that of --template, else 524288]
    #[arg(long, value_parser = law::batch)]
    batch: Option<BatchPolicy>,
    /// Plan in seconds instead of FLOPs: a CSV with n_params (or n_layers, d_model) and
    /// tokens_per_second
    #[arg(long, value_name = "SPEED.csv")]
    throughput: Option<PathBuf>,
    /// How many tokens from scratch, from the same loss on, one token of a grown model is worth, over a whole stage: 1 if growth preserves
    /// the dynamics. It applies to the end [default: that of the law's pilot runs, if above 1 only for as many tokens as it was
    /// measured over; else 1]
    #[arg(long, value_name = "PACE", value_parser = pace)]
    pace: Option<f64>,
    /// Make the last growth no later than at the loss that the last shape has after this share (above 0, below 1) of its tokens from scratch, even if the law would:
    /// new parameters need time to learn before the rate decays. Where a smaller shape alone is cheapest to the end, growing later is always better,
    /// and only this option plans a growth from it. Needs --shape [default: the law's best point]
    #[arg(long, value_name = "SHARE", value_parser = grow_before, requires = "shape")]
    grow_by: Option<f64>,
    /// Find the growth points between measured curves instead, smallest model first
    #[arg(long, num_args = 2.., value_name = "CURVE", conflicts_with_all = ["goal", "shape", "stop", "law", "stages",
        "operators", "through", "batch", "throughput", "pace", "grow_by", "vocab", "context", "head_size", "aspect", "template", "out", "figure"])]
    curves: Vec<PathBuf>,
    /// Vocabulary, for exact FLOPs and the loss of an untrained model [default: the template's, where it says one, else that of the
    /// law's runs, else 50257]
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..=10_000_000))]
    vocab: Option<u64>,
    /// Positions in a sequence [default: that of the template, else of the law's runs, else 1024]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    context: Option<u64>,
    /// Width of a head, where the shape is free [default: 64]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1024), conflicts_with = "shape")]
    head_size: Option<u64>,
    /// d_model over n_layers, where the shape is free [default: 64]
    #[arg(long, conflicts_with = "shape")]
    aspect: Option<f64>,
    /// A schedule to take all settings from, except stages, batch size and what depends on the run's length: warm-up, evaluations and
    /// checkpoints
    #[arg(long, value_name = "SCHEDULE.toml")]
    template: Option<PathBuf>,
    /// Where to write the schedule [default: nowhere, the plan is only printed]
    #[arg(short, long, value_name = "SCHEDULE.toml")]
    out: Option<PathBuf>,
    /// Draw the learning curves and the growth points, as .svg or .png
    #[arg(long, value_name = "FIGURE")]
    figure: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The best plan under a law, as a schedule that is the template's but for stages and batch.
pub fn plan(
    request: &Request,
    template: Schedule,
    law: PlanningLaw,
    costs: &Costs,
) -> Result<Planned> {
    // A schedule's batch is of whole sequences.
    let context_len = template.context_len() as f64;
    let whole = |tokens: f64| (tokens / context_len).round().max(1.0) * context_len;
    let plan =
        StagedPlan::new(request, |n_params, loss| whole(costs.batch_tokens(n_params, loss)))?;
    let batch = match costs.batch {
        BatchPolicy::Fixed { .. } => BatchPolicy::Fixed { batch_tokens: plan.batch_tokens },
        other => other,
    };
    let schedule = schedule(template, &plan, &law, &batch.to_string(), request.grow_by)?;
    // Growths are as late as each policy has them.
    let policies = if request.grow_by.is_none() { costs.policies.clone() } else { Vec::new() };
    let pace_from = costs.pace_from;
    let mut planned = Planned {
        plan,
        schedule,
        law,
        cost: costs.cost.clone(),
        policies,
        pace_from,
        assumes_gpt2: false,
        lacks_template: false,
    };
    planned.schedule = planned.schedule.clone().with_advice(plan_report::advice(&planned));
    Ok(planned)
}

/// A plan, the schedule that it makes, and what it was made with.
pub struct Planned {
    pub plan: StagedPlan,
    pub schedule: Schedule,
    pub law: PlanningLaw,
    /// What training costs.
    pub cost: TrainingCost,
    /// What training costs under every batch policy, where the law tells them apart.
    pub policies: Vec<(String, TrainingCost)>,
    pub pace_from: PaceSource,
    /// Whether vocabulary or context are GPT-2's, since nothing says those of the law's runs.
    pub assumes_gpt2: bool,
    /// Whether the schedule's data and recipe are the built-in template's.
    pub lacks_template: bool,
}

fn pace(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(pace) if is_pace(pace) => Ok(pace),
        _ => Err(format!("must be above 0 and at most {MOST_PACE}")),
    }
}

/// A share by which the last growth comes, and the last stage begins.
fn grow_before(text: &str) -> Result<f64, String> {
    let share = grow_by(text).ok().filter(|share| *share < 1.0);
    share.ok_or_else(|| "must be above 0 and below 1".into())
}

/// A share by which a pilot run grows.
pub fn grow_by(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("must be above 0 and at most 1".into()),
    }
}

fn stages(text: &str) -> Result<RangeInclusive<usize>, String> {
    const MOST: usize = 12;
    let number = |text: &str| text.parse::<usize>().ok();
    let range = match text.split_once("..") {
        Some((least, most)) => number(least).zip(number(most.trim_start_matches('='))),
        None => number(text).map(|n| (n, n)),
    };
    match range {
        Some((least, most)) if least >= 1 && least <= most && most <= MOST => Ok(least..=most),
        _ => {
            Err(format!("must be a number of stages, or from least to most as 1..4, up to {MOST}"))
        }
    }
}

impl Plan {
    pub fn run(self) -> Result<()> {
        if !self.curves.is_empty() {
            return measured::report(&self.curves, self.json);
        }
        self.check_targets()?;
        let waiting = Waiting::new("planning");
        let planned = self.planned();
        drop(waiting);
        let mut planned = planned?;
        // First what more can go wrong with.
        if let Some(figure) = &self.figure {
            figures::write(&figures::learning_curves(&planned.schedule)?, figure)?;
        }
        if let Some(out) = &self.out {
            if let Some(name) = out.file_stem().and_then(|stem| stem.to_str()) {
                // A file's name may have characters that no run has.
                if let Ok(named) = planned.schedule.clone().named(name) {
                    planned.schedule = named;
                }
            }
            let text = plan_report::comment(&planned) + &planned.schedule.to_toml();
            output::write_file(out, &text)?;
        }
        if self.json {
            output::json(&plan_report::json(&planned))?;
        } else {
            plan_report::print(&planned)?;
            if let Some(out) = &self.out {
                output::line(&format!("schedule: {}", out.display()))?;
            }
            if let Some(figure) = &self.figure {
                output::line(&format!("figure: {}", figure.display()))?;
            }
        }
        if self.out.is_some() && planned.lacks_template {
            output::note(&format!("note: to train it: {}", plan_report::LACKS_TEMPLATE));
        }
        Ok(())
    }

    /// Errs before anything is written where not all of it can be, or would take the place of what no plan wrote.
    fn check_targets(&self) -> Result<()> {
        if let Some(figure) = &self.figure {
            figures::check_target(figure)?;
        }
        let Some(out) = &self.out else { return Ok(()) };
        output::check_target(out)?;
        output::check_ending(out, "toml", "a schedule")?;
        if self.template.as_ref().is_some_and(|template| output::is_same_file(template, out)) {
            bail!("-o: {} is the template; choose another name", out.display());
        }
        let is_plan = |text: &str| {
            Schedule::parse(text, out).is_ok_and(|schedule| schedule.prediction().is_some())
        };
        output::check_replaced(out, is_plan, "no planned schedule")
    }

    fn planned(&self) -> Result<Planned> {
        let template = match &self.template {
            Some(path) => Schedule::read(path)?,
            None => Schedule::parse(TEMPLATE, Path::new("the built-in template"))?,
        };
        let law = PlanningLaw::open(&self.law).context("--law")?;
        // What the law's runs were counts where nothing else is said.
        let of_law = law.recipe().filter(|_| self.template.is_none());
        let context_len = self.context.map(|context_len| context_len as usize);
        let template = match context_len.or(of_law.map(|recipe| recipe.context_len)) {
            Some(context_len) => {
                let batch = template.batch().final_tokens();
                // The built-in template's batch only stands for the plan's.
                let batch = match self.template {
                    Some(_) => batch,
                    None => batch.next_multiple_of(context_len as u64),
                };
                template.with_sequences(context_len, batch)?
            }
            None => template,
        };
        let mut costs = law.cost(
            self.batch.or_else(|| self.batch_of(&template, &law)),
            self.pace.map(Pace::lasting),
        )?;
        if let Some(path) = &self.throughput {
            costs = costs.in_seconds(throughput(path)?);
        }
        let context_len = template.context_len();
        if let Some(BatchPolicy::Fixed { batch_tokens }) = self.batch
            && batch_tokens % context_len as f64 != 0.0
        {
            bail!(
                "--batch {batch_tokens}: must be a multiple of the context length, {context_len}"
            );
        }
        let of_template = match (self.vocab, &self.template) {
            (Some(vocab), _) => Some(vocab as usize),
            (None, Some(path)) => {
                vocabulary(&template).with_context(|| path.display().to_string())?
            }
            (None, None) => None,
        };
        let told = of_template.or(law.recipe().and_then(|recipe| recipe.n_vocab));
        let n_vocab = told.unwrap_or(GPT2_VOCABULARY);
        let is_told = told.is_some()
            && (self.context.is_some() || law.recipe().is_some() || self.template.is_some());
        let assumes_gpt2 = law.is_fitted() && !is_told;
        let last = self.last(n_vocab, context_len)?;
        let request = Request {
            cost: costs.cost.clone(),
            resampled: costs.resampled.clone(),
            goal: self.goal()?,
            last,
            stages: self.stages.clone(),
            operators: operators("--operators", &self.operators)?,
            through: self
                .through
                .iter()
                .map(|text| shapes::shape("--through", text, n_vocab, context_len))
                .collect::<Result<_>>()?,
            grow_by: self.grow_by,
        };
        let lacks_template = self.template.is_none();
        let planned =
            plan(&request, template, law, &costs).map_err(|error| self.of_its_stop(error))?;
        Ok(Planned { assumes_gpt2, lacks_template, ..planned })
    }

    /// What the law has no answer to, with the end that was asked for.
    fn of_its_stop(&self, error: anyhow::Error) -> anyhow::Error {
        use scaling::plan::PlanError;
        let cause = error.downcast_ref::<PlanError>();
        let of_the_end = matches!(cause, Some(PlanError::Law(_) | PlanError::TooLong { .. }));
        let Some(shape) = self.shape.as_ref().filter(|_| of_the_end) else { return error };
        let optimal = if self.throughput.is_some() { "time-optimal" } else { "compute-optimal" };
        let stop = self.stop.as_ref().map_or_else(
            || format!("to its {optimal} loss, where no --stop is given"),
            |stop| format!("--stop {stop}"),
        );
        error.context(format!("--shape {shape} {stop}"))
    }

    /// The batch of a template that was given, where the law has none.
    fn batch_of(&self, template: &Schedule, law: &PlanningLaw) -> Option<BatchPolicy> {
        let batch_tokens = template.batch().final_tokens() as f64;
        (self.template.is_some() && law.lacks_batch())
            .then_some(BatchPolicy::Fixed { batch_tokens })
    }

    fn goal(&self) -> Result<Goal> {
        for (option, value) in
            [("--budget", self.budget), ("--pf-days", self.pf_days), ("--seconds", self.seconds)]
        {
            if let Some(value) = value.filter(|value| !(*value > 0.0 && *value <= MOST_BUDGET)) {
                bail!("{option} {value:e}: must be positive and at most {MOST_BUDGET:e}");
            }
        }
        if let Some(loss) = self.target_loss.filter(|loss| !(*loss > 0.0 && loss.is_finite())) {
            bail!("--target-loss {loss}: must be positive and finite");
        }
        let goal = match (self.budget, self.pf_days, self.seconds, self.target_loss) {
            (Some(flops), ..) => Goal::Budget(flops),
            (_, Some(days), ..) => Goal::Budget(Flops::from(PfDays(days)).0),
            (_, _, Some(seconds), _) => Goal::Budget(seconds),
            (.., Some(loss)) => Goal::Loss(loss),
            _ if self.shape.is_some() => Goal::Stop(self.stop()?),
            _ => bail!(
                "what is to be reached? Give --budget, --pf-days, --seconds (with --throughput), --target-loss or --shape; --curves takes \
                  measured curves instead of a law"
            ),
        };
        if self.throughput.is_some() && (self.budget.is_some() || self.pf_days.is_some()) {
            bail!("--throughput plans in seconds: give --seconds instead of an amount of compute");
        }
        Ok(goal)
    }

    fn stop(&self) -> Result<Stop> {
        let Some(text) = self.stop.as_deref() else { return Ok(Stop::ComputeOptimal) };
        if text == "optimal" {
            return Ok(Stop::ComputeOptimal);
        }
        let number = |digits: &str| {
            let found =
                digits.parse::<f64>().ok().filter(|found| *found > 0.0 && found.is_finite());
            found.with_context(|| {
                format!("--stop {text}: must be a multiple as 1.1x, tokens per parameter as 20tpp, optimal, or a loss")
            })
        };
        if let Some(ratio) = text.strip_suffix("tpp") {
            return number(ratio).map(Stop::TokensPerParam);
        }
        match text.strip_suffix('x') {
            Some(multiple) => {
                let multiple = number(multiple)?;
                if multiple <= 1.0 {
                    bail!("--stop {text}: a multiple of the asymptote must be above 1");
                }
                Ok(Stop::AsymptoteMultiple(multiple))
            }
            None => number(text).map(Stop::Loss),
        }
    }

    fn last(&self, n_vocab: usize, context_len: usize) -> Result<FinalShape> {
        let aspect = self.aspect.unwrap_or(64.0);
        if !(1.0..=10_000.0).contains(&aspect) {
            bail!("--aspect {aspect}: must be from 1 to 10000");
        }
        Ok(match &self.shape {
            Some(text) => FinalShape::Given(shapes::shape("--shape", text, n_vocab, context_len)?),
            None => FinalShape::Best(Family {
                d_head: self.head_size.unwrap_or(64) as usize,
                aspect,
                n_vocab,
                context_len,
            }),
        })
    }
}

/// Growths by their names, as an option of the command line gives them.
pub fn operators(option: &str, names: &[String]) -> Result<Operators> {
    let mut operators = Operators::NONE;
    for name in names {
        match name.as_str() {
            "width" => operators.width = Some(WidthRule::Any),
            "width-integer" => operators.width = Some(WidthRule::Integer),
            "depth" => operators.depth = true,
            "heads" => operators.heads = true,
            "head-size" => operators.head_size = true,
            "feed-forward" => operators.feed_forward = true,
            other => bail!(
                "{option} {other}: must be width, width-integer, depth, heads, head-size or feed-forward"
            ),
        }
    }
    Ok(operators)
}

/// Tokens in the vocabulary of a schedule's data, where the schedule, its tokenizer.json or the record of its token file tells.
pub fn vocabulary(schedule: &Schedule) -> Result<Option<usize>> {
    Ok(match schedule.data() {
        DataSource::Synthetic(language) => Some(language.n_words),
        DataSource::Text(text) => match text.tokenizer.parse()? {
            TokenizerChoice::Bytes => Some(BYTES),
            TokenizerChoice::Bpe(size) => Some(size),
            TokenizerChoice::Gpt2(_) => Some(GPT2_VOCABULARY),
            TokenizerChoice::File(path) if path.exists() => {
                Some(Tokenizer::from_file(&path)?.n_vocab())
            }
            TokenizerChoice::File(_) => None,
        },
        DataSource::Tokens(tokens) => TokenFileInfo::of(&tokens.file)?.map(|info| info.n_vocab),
    })
}

/// The schedule that runs a plan.
fn schedule(
    template: Schedule,
    plan: &StagedPlan,
    law: &PlanningLaw,
    batch: &str,
    grow_by: Option<f64>,
) -> Result<Schedule> {
    let stage = |stage: &scaling::plan::Stage| PlannedStage {
        shape: stage.shape,
        tokens: stage.tokens,
        tokens_before: stage.tokens_before,
    };
    let curve = &plan.curve;
    let in_seconds = plan.seconds.is_some();
    let prediction = Prediction {
        law: law.name.clone(),
        batch: batch.to_string(),
        final_loss: plan.final_loss,
        compute: plan.compute,
        compute_from_scratch: plan.compute_from_scratch,
        // A run's saving is measured in compute, whatever was planned in.
        saving: if in_seconds {
            1.0 - plan.compute / plan.compute_from_scratch
        } else {
            plan.saving
        },
        saving_interval: plan.saving_interval.filter(|_| !in_seconds),
        pace: (plan.pace != 1.0).then_some(plan.pace),
        pace_over: plan.pace_over,
        grow_by,
        in_seconds,
        advice: None,
        pilot_compute: law.pilot_compute(),
        curve: PredictedCurve {
            stage: curve.iter().map(|point| point.stage).collect(),
            tokens: curve.iter().map(|point| point.tokens).collect(),
            compute: curve.iter().map(|point| point.compute).collect(),
            loss: curve.iter().map(|point| point.loss).collect(),
            low: curve.iter().filter_map(|point| Some(point.interval?[0])).collect(),
            high: curve.iter().filter_map(|point| Some(point.interval?[1])).collect(),
        },
    };
    let last = &plan.stages[plan.stages.len() - 1];
    let name = format!("plan-{}", last.shape);
    Ok(template.with_plan(PlannedRun {
        name,
        batch_tokens: plan.batch_tokens,
        stages: plan.stages.iter().map(stage).collect(),
        prediction,
    })?)
}

/// A table of measured speeds.
fn throughput(path: &Path) -> Result<Throughput> {
    let table = Table::read(path)?;
    let speed = table.column("tokens_per_second")?;
    let size: Box<dyn Fn(Row<'_>) -> Result<f64>> =
        match (table.find("n_params")?, table.find("n_layers")?, table.find("d_model")?) {
            (Some(n_params), ..) => Box::new(move |row| row.positive(n_params)),
            (None, Some(layers), Some(width)) => {
                Box::new(move |row| Ok(12.0 * row.positive(layers)? * row.positive(width)?.powi(2)))
            }
            _ => bail!(
                "{}: neither a column n_params nor columns n_layers and d_model; it has {}",
                table.name,
                table.columns()
            ),
        };
    let pairs = table.rows().map(|row| Ok((size(row)?, row.positive(speed)?)));
    let pairs = pairs.collect::<Result<Vec<_>>>()?;
    if pairs.is_empty() {
        bail!("{}: no rows", table.name);
    }
    Throughput::new(&pairs).with_context(|| table.name.clone())
}
