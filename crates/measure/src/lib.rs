//! The field's quantities and records.
//!
//! Counts are plain integers whose name carries the unit (`n_params`, `n_tokens`, `step`); compute
//! has a type of its own, because FLOPs and PF-days are easily mixed up.

mod comparison;
mod compute;
mod curve;
mod parametrization;
mod precision;
mod shape;
mod smooth;
mod whole_file;

pub use comparison::{
    RunEnd, Saving, dynamics_ratio, least_saving_of_ends, saving_at, saving_of_ends,
    student_quantile,
};
pub use compute::{Flops, PfDays};
pub use curve::{CurveError, CurvePoint, CurveWriter, LearningCurve, MOST_STEPS};
pub use parametrization::Parametrization;
pub use precision::Precision;
pub use shape::{GptShape, ShapeError};
pub use smooth::{Slope, SmoothCurve, slope_at_end};
pub use whole_file::{led_to, sync_folder, write_whole};
