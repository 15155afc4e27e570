use crate::{Branch, GrowthReport, Start};
use measure::{CurvePoint, Flops, GptShape};
use serde::Serialize;
use std::path::PathBuf;

/// What happens in a run, in the order in which it happens.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A vocabulary is being made of the text.
    LearningVocabulary {
        /// Bytes of text read; once all are, pairs of tokens are merged.
        read: u64,
        /// Bytes of text in all.
        total: u64,
    },
    /// Text is being turned into tokens.
    Preparing {
        /// Bytes of text done.
        done: u64,
        /// Bytes of text in all.
        total: u64,
    },
    /// A BPE that is trained on the text has fewer tokens than were asked for.
    SmallVocabulary {
        /// Tokens asked for.
        wanted: usize,
        /// Tokens that it has.
        found: usize,
    },
    /// The tokenizer leaves text out that its vocabulary does not have.
    TextLeftOut {
        /// Its name.
        tokenizer: String,
    },
    /// Everything is ready for the first step.
    Started {
        /// Program and tensor library.
        versions: String,
        /// The command that asked for the run.
        command: String,
        /// The processor, where its name is known.
        machine: Option<String>,
        /// Device.
        device: String,
        /// Threads on the CPU.
        threads: usize,
        /// Shape of the model.
        shape: GptShape,
        /// N, non-embedding weights.
        n_params: u64,
        /// All parameters.
        n_params_total: u64,
        /// 6 N.
        flops_per_token: Flops,
        /// The same with attention's products and the head.
        flops_per_token_exact: Flops,
        /// Steps made before, when the run is resumed.
        first_step: u64,
        /// Steps that the run makes at most.
        n_steps: u64,
        /// Tokens that the run sees at most.
        n_tokens: u64,
        /// How often the run sees its training tokens at most; `None` where they have no end.
        epochs: Option<f64>,
        /// Stages of the run.
        n_stages: usize,
        /// Vocabulary of the data.
        vocabulary: String,
        /// Least loss that any model can reach, where it is known, nats per token.
        loss_floor: Option<f64>,
    },
    /// The run begins as another one did.
    Branched(Branch),
    /// The run begins with a model that is there.
    StartedWith(Start),
    /// A checkpoint is broken and passed over.
    Skipped {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The state comes from another machine setting, so the curve may differ in the last bits.
    MachineChanged {
        /// Device and threads before.
        before: String,
        /// Device and threads now.
        now: String,
    },
    /// The corpus holds fewer held-out tokens than the schedule wants a loss over.
    FewHeldOut {
        /// Tokens of `evaluation.tokens`, in whole sequences.
        wanted: u64,
        /// Tokens that the loss is measured over.
        held_out: u64,
    },
    /// A step is made.
    Step {
        /// Its row in metrics.csv.
        #[serde(flatten)]
        point: CurvePoint,
        /// Steps that the run makes at most.
        n_steps: u64,
        /// Compute that the run's steps take at most.
        total_flops: Flops,
    },
    /// A stage is over and the model has grown into the next one.
    Grown(Box<GrowthReport>),
    /// A checkpoint is on disk.
    Saved {
        /// Steps made.
        step: u64,
        /// The checkpoint.
        path: PathBuf,
        /// Time it took.
        seconds: f64,
    },
    /// The run is over.
    Ended(RunSummary),
}

impl Event {
    /// Whether it only tells how far something is.
    pub fn is_progress(&self) -> bool {
        matches!(
            self,
            Event::LearningVocabulary { .. } | Event::Preparing { .. } | Event::Step { .. }
        )
    }
}

/// Why a run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All steps are made.
    Finished,
    /// The loss or the slope that ends the last stage is reached.
    TargetReached,
    /// The run was asked to stop; its state is saved.
    Interrupted,
}

/// The end of a run in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct RunSummary {
    /// Why it is over.
    pub outcome: Outcome,
    /// Steps made.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// 6 N D, FLOPs.
    pub compute_flops: f64,
    /// Loss of the last batch, nats per token.
    pub train_loss: Option<f64>,
    /// Newest held-out loss, nats per token.
    pub val_loss: Option<f64>,
    /// Least loss that any model can reach, where it is known, nats per token.
    pub loss_floor: Option<f64>,
    /// Newest checkpoint.
    pub checkpoint: PathBuf,
    /// Tokens over the time of the steps, in this process.
    pub tokens_per_second: f64,
    /// Share of the steps' time that went into fetching data, in this process.
    pub data_share: f64,
    /// Wall-clock time of the whole run.
    pub wall_seconds: f64,
}
