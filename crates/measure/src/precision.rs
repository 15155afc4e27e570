use serde::{Deserialize, Serialize};

/// Number format of the forward and backward pass; parameters and moments are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// bfloat16 between the norms (matrix products, attention, GELU), on CUDA.
    Bf16,
}
