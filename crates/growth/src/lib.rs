//! Growth operators: a training state to a larger one, tensor by tensor, with parameters, both
//! moments and the position in the schedule; in memory, or from checkpoint to checkpoint.
//! docs/GROWTH.md derives them.

mod error;
mod layout;
mod operator;
mod stream;
mod tensor;

#[cfg(test)]
mod tests;

pub use error::GrowthError;
pub use operator::GrowthOperator;
