use crate::checkpoint::{NewestOf, check_data, check_no_runs_own, locate, tokenizer_along};
use crate::progress::Counter;
use crate::{output, train};
use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use corpus::Tokenizer;
use growth::GrowthOperator;
use measure::{GptShape, ShapeError};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schedule::{DepthMode, Growth, MomentRule, NamedPlacement, Placement, WidthMode};
use serde::Serialize;
use state::{Checkpoint, CheckpointStore, TOKENIZER_FILE, write_folder};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;
use trainer::{
    CHECK_SEQUENCES, EvaluationSet, GrowthCheck, RunFolder, check_growth, growth_seed, open_corpus,
    until_stopped,
};

/// Arguments of `staged grow`.
#[derive(Args)]
#[command(
    override_usage = "staged grow <CHECKPOINT> --out <DIR> [OPTIONS]",
    after_help = "Example: staged grow runs/small --width 2 --mode split -o grown\n\
    Example: staged grow runs/small --d-model 192 --depth 8 -o grown\n\n\
    Width modes are duplicate, split and fresh (the default); depth modes \
    are identity, copy_identity (the default) and copy. Width grows first. docs/GROWTH.md says what \
    each keeps. To train on after a growth, name what is written here in a schedule: model.start = \"grown\"."
)]
pub struct Grow {
    /// A checkpoint, or a run for its newest one
    checkpoint: PathBuf,
    /// Factor on width, heads and feed-forward units
    #[arg(long, value_name = "K", conflicts_with_all = ["d_model", "heads", "d_head", "d_ff"])]
    width: Option<usize>,
    /// Width afterwards [default: as before]
    #[arg(long, value_name = "N")]
    d_model: Option<usize>,
    /// Heads afterwards [default: in proportion to the width]
    #[arg(long, value_name = "N")]
    heads: Option<usize>,
    /// New width of a head [default: unchanged, or with --d-model the new width over the heads]
    #[arg(long, value_name = "N")]
    d_head: Option<usize>,
    /// Feed-forward units afterwards [default: in proportion to the width]
    #[arg(long, value_name = "N")]
    d_ff: Option<usize>,
    /// Blocks afterwards [default: as before]
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// How to make new weights: one mode for the width [default: fresh], one for the depth [default: copy_identity]; both as split,copy
    #[arg(long, value_enum, value_delimiter = ',')]
    mode: Vec<Mode>,
    /// Size of the differences between copies that split makes, relative to the matrix [default: 0.5]
    #[arg(long, value_name = "X")]
    split_strength: Option<f64>,
    /// Where new blocks go: interleave, stack, middle, or the source of each block, as 0,1,1,2
    #[arg(long, value_name = "RULE|LIST", default_value = "interleave")]
    placement: String,
    /// What happens to Adam's moments
    #[arg(long, value_enum, default_value = "mapped")]
    moments: MomentChoice,
    /// Seed of what is random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The grown checkpoint, a new folder
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Leave out the measurement of the loss before and after, which needs both models in memory
    #[arg(long)]
    no_check: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Mode {
    Duplicate,
    Split,
    Fresh,
    Identity,
    CopyIdentity,
    Copy,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum MomentChoice {
    /// They become those of the grown model
    Mapped,
    /// They start from zero
    Zero,
}

#[derive(Serialize)]
struct Report {
    operator: String,
    moments: MomentRule,
    loss_preserving: bool,
    from: GptShape,
    to: GptShape,
    n_params: u64,
    step: u64,
    /// Null with --no-check.
    loss_before: Option<f64>,
    loss_after: Option<f64>,
    max_abs_delta_logit: Option<f64>,
    /// What the loss was measured on.
    checked_on: Option<String>,
    /// Of growing and writing.
    seconds: f64,
    bytes_written: u64,
    checkpoint: PathBuf,
}

impl Grow {
    pub fn run(self) -> Result<()> {
        output::check_name("-o", &self.out)?;
        check_no_runs_own(&self.out)?;
        let growth = self.growth()?;
        let needs_moments = growth.moments != MomentRule::Zero;
        let newest: NewestOf = if needs_moments {
            CheckpointStore::newest_whole
        } else {
            CheckpointStore::newest_model
        };
        let (path, run) = locate(&self.checkpoint, newest)?;
        let from = if !needs_moments {
            Checkpoint::open_params(&path)?
        } else if Checkpoint::has_moments(&path) {
            Checkpoint::open(&path)?
        } else {
            bail!(
                "{}: no optimizer.safetensors, so there are no moments to map; --moments zero starts \
                 them from zero",
                path.display()
            );
        };
        let before = from.info().shape;
        let to = self.target(&before)?;
        to.check().map_err(|error| match (self.width, &error) {
            // The depth is its own option's.
            (Some(_), ShapeError::Size { dimension: "n_layers", .. }) | (None, _) => {
                in_words_of_the_command(&error)
            }
            (Some(factor), _) => anyhow!("--width {factor}: makes {error}"),
        })?;
        let parametrization = from.info().parametrization;
        // As in a run, so that a growth after a growth draws other numbers.
        let seed = growth_seed(self.seed, from.info().position.growths());
        let operator = GrowthOperator::new(before, to, parametrization, &growth, seed)
            .map_err(|error| in_words_of_the_command(&error))?;
        let batch = if self.no_check { None } else { Some(self.batch(&from, run.as_deref())?) };
        let tokenizer = tokenizer_along(run.as_deref(), &from);
        let tokenizer = tokenizer.as_ref().map(Tokenizer::to_json).transpose()?.flatten();
        let report = write_folder(&self.out, &mut |folder| -> Result<Report> {
            let began = Instant::now();
            let bytes_written = grow_into(folder, &operator, &from)?;
            let seconds = began.elapsed().as_secs_f64();
            let check = batch.as_ref().map(|(set, _)| check(&operator, &from, folder, set));
            let check = check.transpose()?;
            if let Some(json) = &tokenizer {
                output::write_file(&folder.join(TOKENIZER_FILE), json)?;
            }
            let report = Report {
                operator: operator.describe(),
                moments: growth.moments,
                loss_preserving: operator.is_loss_preserving(),
                from: before,
                to,
                n_params: to.n_params(),
                step: from.info().position.step,
                loss_before: check.as_ref().map(|check| check.loss_before),
                loss_after: check.as_ref().map(|check| check.loss_after),
                max_abs_delta_logit: check.map(|check| check.max_abs_delta_logit),
                checked_on: batch.as_ref().map(|(_, on)| on.clone()),
                seconds,
                bytes_written,
                checkpoint: self.out.clone(),
            };
            output::write_file(
                &folder.join("growth.json"),
                &serde_json::to_string_pretty(&report)?,
            )?;
            if train::stop_on_signals()?.load(Ordering::Relaxed) {
                bail!("stopped");
            }
            Ok(report)
        })?;
        if self.json { output::json(&report) } else { print(&report) }
    }

    fn growth(&self) -> Result<Growth> {
        let mut growth = Growth::default();
        let (mut width, mut depth) = (None, None);
        for mode in &self.mode {
            let twice = match mode {
                Mode::Duplicate => width.replace(WidthMode::Duplicate).is_some(),
                Mode::Split => width.replace(WidthMode::Split).is_some(),
                Mode::Fresh => width.replace(WidthMode::Fresh).is_some(),
                Mode::Identity => depth.replace(DepthMode::Identity).is_some(),
                Mode::CopyIdentity => depth.replace(DepthMode::CopyIdentity).is_some(),
                Mode::Copy => depth.replace(DepthMode::Copy).is_some(),
            };
            if twice {
                bail!(
                    "--mode: takes one of duplicate, split and fresh for the width, and one of \
                     identity, copy_identity and copy for the depth"
                );
            }
        }
        let widens = [self.width, self.d_model, self.heads, self.d_head, self.d_ff]
            .iter()
            .any(Option::is_some);
        if width.is_some() && !widens {
            bail!("--mode for the width needs --width, --d-model, --heads, --d-head or --d-ff");
        }
        if depth.is_some() && self.depth.is_none() {
            bail!("--mode for the depth needs --depth");
        }
        if !widens && self.depth.is_none() {
            bail!("nothing grows: add --width, --d-model, --heads, --d-head, --d-ff or --depth");
        }
        if self.split_strength.is_some() && width != Some(WidthMode::Split) {
            bail!("--split-strength needs --mode split");
        }
        if self.placement != "interleave" && self.depth.is_none() {
            bail!("--placement needs --depth");
        }
        growth.width = width.unwrap_or_default();
        growth.depth = depth.unwrap_or_default();
        growth.split_strength = self.split_strength.unwrap_or(growth.split_strength);
        growth.placement = match self.placement.as_str() {
            "interleave" => Placement::Named(NamedPlacement::Interleave),
            "stack" => Placement::Named(NamedPlacement::Stack),
            "middle" => Placement::Named(NamedPlacement::Middle),
            list => {
                let blocks: Result<Vec<usize>, _> = list.split(',').map(str::parse).collect();
                Placement::List(blocks.ok().with_context(|| {
                    format!(
                        "--placement {list}: must be interleave, stack, middle, or the source of each \
                         block, as 0,1,1,2"
                    )
                })?)
            }
        };
        growth.moments = match self.moments {
            MomentChoice::Mapped => MomentRule::Mapped,
            MomentChoice::Zero => MomentRule::Zero,
        };
        Ok(growth)
    }

    /// The shape asked for.
    fn target(&self, from: &GptShape) -> Result<GptShape> {
        let n_layers = self.depth.unwrap_or(from.n_layers);
        if let Some(factor) = self.width {
            if factor < 2 {
                bail!("--width {factor}: must be at least 2");
            }
            return Ok(GptShape {
                n_layers,
                d_model: from.d_model.saturating_mul(factor),
                n_heads: from.n_heads.saturating_mul(factor),
                d_ff: from.d_ff.saturating_mul(factor),
                ..*from
            });
        }
        let d_model = self.d_model.unwrap_or(from.d_model);
        let heads = from.n_heads.saturating_mul(d_model);
        let n_heads = match self.heads {
            Some(heads) => heads,
            None if heads.is_multiple_of(from.d_model) => heads / from.d_model,
            None if d_model < from.d_model => {
                bail!("--d-model {d_model}: must be at least {}, the width as it is", from.d_model)
            }
            None => bail!(
                "--d-model {d_model}: {} heads of {} do not grow in proportion to it; say --heads, as {} for \
                 larger heads",
                from.n_heads,
                from.d_head,
                from.n_heads
            ),
        };
        // Heads that shared the width share the new one.
        let shared = self.d_model.is_some() && from.d_attention() == from.d_model;
        let d_head = match (self.d_head, GptShape::gpt2(n_layers, d_model, n_heads).d_head) {
            (Some(size), _) => size,
            (None, size) if shared && size > 0 => size,
            _ => from.d_head,
        };
        let in_proportion = from.d_ff as f64 * d_model as f64 / from.d_model as f64;
        let d_ff = self.d_ff.unwrap_or(in_proportion.round() as usize);
        Ok(GptShape { n_layers, d_model, n_heads, d_head, d_ff, ..*from })
    }

    /// What the loss is measured on: held-out tokens of the run if the checkpoint is in one.
    fn batch(&self, from: &Checkpoint, run: Option<&Path>) -> Result<(EvaluationSet, String)> {
        let shape = from.info().shape;
        let (set, on) = if let Some(run) = run {
            let schedule = RunFolder::schedule_of(run)?;
            let corpus = open_corpus(&schedule, run).context(
                "the loss is checked on the run's held-out tokens; --no-check grows without",
            )?;
            check_data(from.info(), &corpus, run)?;
            let n = (CHECK_SEQUENCES * shape.context_len) as u64;
            let set = EvaluationSet::new(&corpus, n, shape.context_len);
            let on = format!("{} held-out tokens of the run", output::count(set.n_tokens()));
            (set, on)
        } else {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            let n = CHECK_SEQUENCES * shape.context_len + 1;
            let tokens: Vec<u32> =
                (0..n).map(|_| rng.random_range(0..shape.n_vocab as u32)).collect();
            let set = EvaluationSet::of_tokens(&tokens, n as u64, shape.context_len)?;
            (set, "random tokens, for the checkpoint is in no run".to_string())
        };
        Ok((set, on))
    }
}

/// Writes the grown checkpoint into a folder and shows how far it is; returns its bytes.
fn grow_into(folder: &Path, operator: &GrowthOperator, from: &Checkpoint) -> Result<u64> {
    let stop = train::stop_on_signals()?;
    let mut counter = Counter::new("growing", "bytes");
    let written = operator.grow_checkpoint(from, folder, &mut |done, total| {
        counter.reach(done, total);
        until_stopped(stop)
    });
    counter.end();
    Ok(written?)
}

/// Measures the loss before a growth and after it.
fn check(
    operator: &GrowthOperator,
    from: &Checkpoint,
    grown: &Path,
    set: &EvaluationSet,
) -> Result<GrowthCheck> {
    let after = Checkpoint::open_params(grown)?.load_params()?;
    Ok(check_growth(operator, &from.load_params()?, &after, set)?)
}

/// A refusal names keys of a schedule; here they are options.
fn in_words_of_the_command(refusal: &dyn std::fmt::Display) -> anyhow::Error {
    let pairs = [
        ("growth.width =", "--mode"),
        ("growth.split_strength =", "--split-strength"),
        ("growth.placement =", "--placement"),
        ("n_layers =", "--depth"),
        ("d_model =", "--d-model"),
        ("n_heads =", "--heads"),
        ("d_head =", "--d-head"),
        ("d_ff =", "--d-ff"),
        ("shape =", "the target"),
    ];
    let refusal = refusal.to_string();
    let pair = pairs.iter().find(|(key, _)| refusal.starts_with(key));
    let Some((key, option)) = pair else { return anyhow!(refusal) };
    anyhow!("{option}{}", &refusal[key.len()..])
}

fn print(report: &Report) -> Result<()> {
    output::line(&format!("{} -> {}: {}", report.from, report.to, report.operator))?;
    output::line(&format!(
        "{} parameters without embeddings, moments {}",
        output::count(report.n_params),
        if report.moments == MomentRule::Zero { "zero" } else { "mapped" },
    ))?;
    if let (Some(before), Some(after), Some(logit), Some(on)) = (
        report.loss_before,
        report.loss_after,
        report.max_abs_delta_logit,
        report.checked_on.as_ref(),
    ) {
        let kept = if report.loss_preserving { "" } else { " (this operator does not keep it)" };
        output::line(&format!(
            "loss {before:.6} -> {after:.6} nats per token{kept}, by {:.1e} of itself; largest change \
             of a logit {logit:.1e}; on {on}",
            (after / before - 1.0).abs(),
        ))?;
    }
    let bytes = report.bytes_written as f64;
    output::line(&format!(
        "{} bytes in {:.2} s, {:.0} MB/s",
        output::count(report.bytes_written),
        report.seconds,
        bytes / 1e6 / report.seconds.max(1e-9),
    ))?;
    output::line(&format!("checkpoint: {}", report.checkpoint.display()))
}
