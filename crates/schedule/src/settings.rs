//! The parts of a schedule that pass from the file to the run as they are.

use measure::Precision;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where the tokens come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "lowercase")]
pub enum DataSource {
    /// The synthetic language: unlimited, generated while training, with a known entropy rate.
    Synthetic(SyntheticData),
    /// Text files, turned into tokens at the start of the run.
    Text(TextData),
    /// A token file, prepared beforehand.
    Tokens(TokenData),
}

/// Which synthetic language.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyntheticData {
    /// Words of the language, its vocabulary.
    pub n_words: usize,
    /// Seed of the language itself; the run's seed only picks the sample.
    pub language_seed: u64,
}

/// Text files and how they become tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextData {
    /// Files, in order; relative to the current directory. The command line may name them instead.
    #[serde(default)]
    pub files: Vec<PathBuf>,
    /// `bytes`, `bpe:SIZE`, `gpt2:FOLDER` or the path of a tokenizer.json.
    #[serde(default = "bytes")]
    pub tokenizer: String,
    /// Whether carriage returns are dropped.
    #[serde(default)]
    pub strip_cr: bool,
    /// Whether what is not UTF-8 becomes U+FFFD; otherwise it is an error. Bytes take any text.
    #[serde(default)]
    pub lossy: bool,
    /// Share of the tokens, at the end, that is held out.
    #[serde(default = "validation_fraction")]
    pub validation_fraction: f64,
}

impl DataSource {
    /// Share of the tokens, at the end, that is held out; a language has as many as are asked for.
    pub fn validation_fraction(&self) -> Option<f64> {
        match self {
            Self::Text(text) => Some(text.validation_fraction),
            Self::Tokens(tokens) => Some(tokens.validation_fraction),
            Self::Synthetic(_) => None,
        }
    }
}

/// A token file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenData {
    /// The file; relative to the current directory.
    pub file: PathBuf,
    /// Share of the tokens, at the end, that is held out.
    #[serde(default = "validation_fraction")]
    pub validation_fraction: f64,
}

/// AdamW (Loshchilov and Hutter 2019, algorithm 2), with the gradient clipped by its global norm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWSettings {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment, at the base width under mu-P.
    pub eps: f64,
    /// Decoupled weight decay of the hidden matrices, at the base width under mu-P.
    pub weight_decay: f64,
    /// Largest norm of the whole gradient.
    pub clip_norm: f64,
}

/// When and on how much the held-out loss is measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationSettings {
    /// Steps from one evaluation to the next; the last step is always evaluated.
    pub every_steps: u64,
    /// Tokens of the fixed evaluation set, rounded down to whole sequences.
    pub tokens: u64,
}

/// When the state is saved.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointSettings {
    /// Steps from one checkpoint to the next; the last step is always saved, and so is the last before a `wsd` rate decays,
    /// which is kept.
    pub every_steps: u64,
    /// Newest checkpoints that are kept.
    pub keep: usize,
}

/// How the machine is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Number format of the forward and backward pass.
    #[serde(default)]
    pub precision: Precision,
    /// Threads on the CPU; all cores when it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Whether activations are made again in the backward pass, for less memory and more time; on the CPU
    /// results do not change.
    #[serde(default)]
    pub recompute: bool,
}

/// Evaluations from which the slope that ends a stage is judged at the least: with fewer, noise decides.
pub const SLOPE_EVALUATIONS: usize = 10;

/// When a stage ends: at the first of its limits that is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Until {
    /// Optimizer steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Tokens, rounded up to a whole step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// 6 N D in FLOPs, rounded up to a whole step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<f64>,
    /// Held-out loss in nats per token; needs steps, tokens or compute beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// d ln L / d ln C of the held-out loss over the run's compute, from below: the stage ends when its curve has become as flat as
    /// this by two standard errors, over its last factor of four of compute and ten evaluations at least. Needs steps, tokens or
    /// compute beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slope: Option<f64>,
}

/// How the last shape is trained alone, for comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FromScratch {
    /// Its own peak learning rate; `learning_rate.peak` when it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<f64>,
    /// When it ends: at the compute that the plan predicts for it, or without a plan at the most that the
    /// stages may take, when it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Until>,
}

/// What a plan expects of its schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prediction {
    /// The law that it was made with.
    pub law: String,
    /// The batch that it was made for: tokens, or the policy.
    pub batch: String,
    /// Held-out loss at the end, nats per token.
    pub final_loss: f64,
    /// 6 N D of all stages, FLOPs.
    pub compute: f64,
    /// 6 N D of the last shape from scratch to the same loss, FLOPs.
    pub compute_from_scratch: f64,
    /// Share of it that is saved.
    pub saving: f64,
    /// 95 % interval of the saving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saving_interval: Option<[f64; 2]>,
    /// Pace that was counted on after growths, over that of a model from scratch at the same loss; 1 when it is absent.
    #[serde(default, alias = "dynamics_ratio", skip_serializing_if = "Option::is_none")]
    pub pace: Option<f64>,
    /// Tokens after the first growth for which a pace above 1 was counted on, and 1 from then on; absent where it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace_over: Option<f64>,
    /// Share of the last shape's tokens from scratch by which the last growth was to come; absent where the law says when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grow_by: Option<f64>,
    /// Whether the growths were chosen by measured seconds; by 6 N D when it is absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_seconds: bool,
    /// Whether the plan advised to grow, and what it doubted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// 6 N D of the runs that the law was fitted to, FLOPs; absent for a published law.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pilot_compute: Option<f64>,
    /// The predicted curve.
    pub curve: PredictedCurve,
}

/// A predicted curve, column by column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictedCurve {
    /// Stage of each point, from 0.
    pub stage: Vec<usize>,
    /// Tokens so far.
    pub tokens: Vec<f64>,
    /// 6 N D so far, FLOPs.
    pub compute: Vec<f64>,
    /// Held-out loss, nats per token.
    pub loss: Vec<f64>,
    /// Lower end of its 95 % interval; empty for a published law, which has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub low: Vec<f64>,
    /// Upper end of its 95 % interval.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub high: Vec<f64>,
}

impl Default for TextData {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            tokenizer: bytes(),
            strip_cr: false,
            lossy: false,
            validation_fraction: validation_fraction(),
        }
    }
}

fn bytes() -> String {
    "bytes".to_string()
}

fn validation_fraction() -> f64 {
    0.05
}
