//! A plan, and what it is made of.

use super::baseline::Baseline;
use measure::GptShape;
use serde::Serialize;

/// One stage of a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    /// Its shape.
    #[serde(flatten)]
    pub shape: GptShape,
    /// N.
    pub n_params: f64,
    /// Tokens.
    pub tokens: f64,
    /// 6 N D, FLOPs.
    pub compute: f64,
    /// With attention and output head, FLOPs.
    pub compute_exact: f64,
    /// Measured time, where the plan is in seconds.
    pub seconds: Option<f64>,
    /// Loss at its start; `None` for an untrained model.
    pub loss_start: Option<f64>,
    /// Loss at its end.
    pub loss_end: f64,
    /// d ln L / d ln C at its end.
    pub growth_slope: f64,
    /// Its steps from scratch over the next stage's, to the loss at its end.
    pub step_ratio: Option<f64>,
    /// Its own tokens from scratch to the loss at its start.
    pub tokens_before: f64,
}

/// The plan without growth that reaches the same goal at its own best size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unstaged {
    /// Its shape.
    #[serde(flatten)]
    pub shape: GptShape,
    /// N.
    pub n_params: f64,
    /// Its cost, in FLOPs or seconds.
    pub cost: f64,
    /// Its final loss.
    pub loss: f64,
}

/// A smaller shape that alone reaches the final loss for less: each growth from it would come better still later, up to the end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheaperAlone {
    /// It.
    #[serde(flatten)]
    pub shape: GptShape,
    /// Share of the cost of what it was compared with that it takes less.
    pub less: f64,
    /// Whether the end was given, so that a latest moment can be: that of a budget is not known beforehand.
    #[serde(skip)]
    pub has_end: bool,
}

impl CheaperAlone {
    /// Why there is no best growth from it, with what it was compared with.
    pub fn reason(&self, than: &str) -> String {
        let less = match 100.0 * self.less {
            less if less < 1.0 => format!("{less:.2} %"),
            less if less > 99.0 => "more than 99 %".to_string(),
            less => format!("{less:.0} %"),
        };
        format!(
            "{} alone reaches that loss for {less} less than {than}, so a growth from it saves more the later it comes, right up to \
             the end",
            self.shape,
        )
    }

    /// The same where nothing grows into the last shape, and what to do then.
    pub(super) fn unless_bounded(&self, last: &GptShape) -> String {
        let reason = self.reason(&last.to_string());
        if !self.has_end {
            return reason;
        }
        format!("{reason}; if {last} is needed, --grow-by SHARE sets the latest growth")
    }
}

/// A point of the predicted curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CurveSample {
    /// Stage, from 0.
    pub stage: usize,
    /// Tokens so far, over all stages.
    pub tokens: f64,
    /// 6 N D so far, FLOPs.
    pub compute: f64,
    /// Loss, nats per token.
    pub loss: f64,
    /// Its 95 % interval over resampled laws.
    pub interval: Option<[f64; 2]>,
}

/// Whether to grow.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// Whether growing is advised.
    pub grow: bool,
    /// Why not; nothing where one stage was asked for.
    pub reason: Option<String>,
}

/// A staged run: its stages, what it reaches and what it saves.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Compute of all stages, FLOPs.
    pub compute: f64,
    /// Time of all stages, where the plan is in seconds.
    pub seconds: Option<f64>,
    /// Compute of the last shape from scratch to the same loss, FLOPs.
    pub compute_from_scratch: f64,
    /// Pace that was counted on after a growth, over that of a model from scratch at the same loss.
    pub pace: f64,
    /// Tokens after the first growth for which it was counted on, where it is above 1 and was measured over so many; 1 from then on.
    pub pace_over: Option<f64>,
    /// The pace, the same from the first growth to the end, at which these stages save nothing: 0 where the head start alone is worth
    /// more than all that they cost, so that they save something at any pace; none where there is no growth and where not even ten
    /// times the pace from scratch would do.
    pub break_even_pace: Option<f64>,
    /// What these stages save at a pace of 1, at the loss that they then end at; none where there is no growth, or where
    /// the law has no such loss.
    pub saving_at_pace_one: Option<f64>,
    /// Loss at the end.
    pub final_loss: f64,
    /// Its ratio to the last shape's loss after endless training.
    pub asymptote_multiple: f64,
    /// Share of the cost of the last shape from scratch that is saved.
    pub saving: f64,
    /// 95 % interval of the saving of these stages as they are, over resampled laws.
    pub saving_interval: Option<[f64; 2]>,
    /// Resampled laws that say nothing of these stages, as one whose loss does not depend on tokens; the intervals leave them out.
    pub laws_left_out: usize,
    /// Share of the cost of the cheapest single size to the same loss that is saved; less than
    /// `saving` where the last shape is not that size.
    pub saving_at_best_size: f64,
    /// N of the cheapest single size for the final loss.
    pub best_size: f64,
    /// Batch in tokens.
    pub batch_tokens: f64,
    /// The stages.
    pub stages: Vec<Stage>,
    /// The best plan without growth for the same goal, where the shape was free.
    pub without_growth: Option<Unstaged>,
    /// The smaller shape that alone takes least to the final loss, where that is less than the plan takes; none where the shape was
    /// free or a latest growth is given.
    pub cheaper_alone: Option<CheaperAlone>,
    /// Whether to grow.
    pub advice: Advice,
    /// Other rules.
    pub baselines: Vec<Baseline>,
    /// The predicted curve.
    pub curve: Vec<CurveSample>,
}

impl Plan {
    /// The saving of compute with attention's products and the output head counted on both sides, which 6 N D leaves out.
    pub fn saving_exact(&self) -> f64 {
        let staged: f64 = self.stages.iter().map(|stage| stage.compute_exact).sum();
        let exact_over_6nd = self.stages.last().map_or(1.0, |last| last.shape.exact_over_6n());
        1.0 - staged / (self.compute_from_scratch * exact_over_6nd)
    }
}
