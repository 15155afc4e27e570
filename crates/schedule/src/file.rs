//! The schedule file as written: names and types, no checks.

use crate::{
    AdamWSettings, Batch, CheckpointSettings, DataSource, EvaluationSettings, FromScratch, Growth,
    LearningRate, Machine, Prediction, Ramp, Until,
};
use measure::{GptShape, Parametrization};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScheduleFile {
    pub version: u32,
    pub name: String,
    pub seed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pilot_compute: Option<f64>,
    pub data: DataSource,
    pub model: ModelFile,
    #[serde(default = "mup")]
    pub parametrization: Parametrization,
    pub optimizer: AdamWSettings,
    pub learning_rate: LearningRate,
    pub batch: BatchFile,
    pub evaluation: EvaluationSettings,
    pub checkpoint: CheckpointSettings,
    #[serde(default)]
    pub machine: Machine,
    pub stages: Vec<StageFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_scratch: Option<FromScratch>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction: Option<Prediction>,
}

impl ScheduleFile {
    /// Forgets what belongs to stages that others take the place of: how long the last of them is trained alone, and what was spent on
    /// planning them.
    pub fn forget_other_stages(&mut self) {
        let peak = self.from_scratch.and_then(|alone| alone.peak);
        self.from_scratch = peak.map(|peak| FromScratch { peak: Some(peak), until: None });
        self.pilot_compute = None;
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelFile {
    pub context_len: usize,
    #[serde(default = "yes")]
    pub tied_head: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchFile {
    pub tokens: u64,
    pub micro_batch: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Ramp>,
}

impl BatchFile {
    /// Tokens by step, in whole sequences of this length.
    pub fn course(&self, context_len: usize) -> Batch {
        let (from, steps) =
            self.ramp.as_ref().map_or((self.tokens, 0), |ramp| (ramp.from_tokens, ramp.steps));
        Batch::new(context_len, self.tokens, from, steps)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StageFile {
    pub n_layers: usize,
    pub d_model: usize,
    pub n_heads: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub d_head: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub d_ff: Option<usize>,
    pub until: Until,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth: Option<Growth>,
}

impl StageFile {
    /// A stage of so many steps.
    pub fn new(shape: &GptShape, steps: u64, growth: Option<Growth>) -> Self {
        let (d_head, d_ff) = shape.inside();
        Self {
            n_layers: shape.n_layers,
            d_model: shape.d_model,
            n_heads: shape.n_heads,
            d_head,
            d_ff,
            until: Until { steps: Some(steps), ..Until::default() },
            growth,
        }
    }
}

/// mu-P tuned at a width of 64, which suits the first models of a CPU.
fn mup() -> Parametrization {
    Parametrization::mup(64)
}

fn yes() -> bool {
    true
}
