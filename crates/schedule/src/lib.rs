//! A staged run as data: the file that a person or a planner writes, the checked value that runs,
//! and learning rate, batch and stage as pure functions of the step.

mod batch;
mod check;
mod error;
mod file;
mod learning_rate;
mod planned;
mod schedule;
mod settings;

pub use batch::Batch;
pub use error::ScheduleError;
pub use learning_rate::{DecayShape, LearningRate};
pub use planned::{PlannedRun, PlannedStage};
pub use schedule::{Schedule, Stage};
pub use settings::{
    AdamWSettings, CheckpointSettings, DataSource, DepthMode, EvaluationSettings, Growth, Machine,
    MomentRule, PredictedCurve, Prediction, SyntheticData, TextData, TokenData, Until, WidthMode,
};
