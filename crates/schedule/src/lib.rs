//! A staged run as data: the file that a person or a planner writes, the checked value that runs,
//! and learning rate, batch and stage as pure functions of the step.

mod batch;
mod check;
mod error;
mod file;
mod learning_rate;
mod settings;

pub use batch::Batch;
pub use check::{Schedule, Stage};
pub use error::ScheduleError;
pub use learning_rate::{DecayShape, LearningRate};
pub use settings::{
    AdamWSettings, CheckpointSettings, DataSource, EvaluationSettings, Machine, SyntheticData,
    TextData, TokenData, Until,
};
