//! A staged run as data: the file that a person or a planner writes, the checked value that runs,
//! and learning rate, batch and stage as pure functions of the step.

mod batch;
mod branch;
mod check;
mod course;
mod error;
mod file;
mod growth;
mod learning_rate;
mod planned;
mod schedule;
mod settings;
mod variants;

pub use batch::{Batch, Ramp};
pub use branch::Difference;
pub use check::{MOST_BATCH_TOKENS, MOST_EVALUATION_TOKENS};
pub use error::ScheduleError;
pub use growth::{
    BlockSource, DepthMode, Growth, GrowthPlan, GrowthRefusal, MomentRule, NamedPlacement,
    Placement, WidthMode, WidthPlan,
};
pub use learning_rate::{DecayShape, LearningRate};
pub use planned::{PlannedRun, PlannedStage, StageSpec};
pub use schedule::{Schedule, Stage};
pub use settings::{
    AdamWSettings, CheckpointSettings, DataSource, EvaluationSettings, FromScratch, Machine,
    PredictedCurve, Prediction, SLOPE_EVALUATIONS, SyntheticData, TextData, TokenData, Until,
};
