//! The training state as plain data: named host tensors with their roles, both moments, the
//! position in the schedule, and the checkpoint files that hold them.

mod checkpoint;
mod error;
mod export;
mod file;
mod import;
mod init;
mod param;
mod rule;
mod store;
mod training_state;

pub use checkpoint::{
    Checkpoint, CheckpointInfo, STATE_FILE, TensorGroup, TensorSink, write_checkpoint, write_folder,
};
pub use error::StateError;
pub use export::{ExportedTokenizer, TOKENIZER_FILE, export};
pub use import::{ImportedVocabulary, import};
pub use param::{ParamId, ParamRole, inventory};
pub use rule::UpdateRule;
pub use store::{CheckpointStore, Skipped};
pub use training_state::{
    Earlier, HostTensor, ModelConstants, Moments, Origin, Position, TrainingState,
};
