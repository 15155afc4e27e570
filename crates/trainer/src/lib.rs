//! Executes a schedule: step, evaluate, save, resume. Prints nothing; what happens is told to an
//! observer and written to the run's folder.

mod adamw;
mod bench;
mod branch;
mod data;
mod error;
mod evaluate;
mod event;
mod folder;
mod gradients;
mod growth;
mod learner;
mod memory;
mod run;
mod start;
mod trial;

pub use adamw::{AdamW, gradient_norm};
pub use bench::{StepBench, StepReport};
pub use branch::Branch;
pub use data::{
    TextTokens, open_corpus, prepare_text, run_tokenizer, text_cleaning, text_to_tokens,
    until_stopped,
};
pub use error::TrainError;
pub use evaluate::{EvaluationSet, mean_loss};
pub use event::{Event, Outcome, RunSummary};
pub use folder::RunFolder;
pub use growth::{CHECK_SEQUENCES, GrowthCheck, GrowthReport, check_growth, growth_seed};
pub use learner::{Learner, Step};
pub use run::{RunOptions, TENSOR_LIBRARY, train};
pub use start::Start;
pub use trial::{Trial, TrialPoint};
