use serde::{Deserialize, Serialize};
use std::fmt;

/// FLOPs in one PF-day: 10^15 a second over 24 hours (Kaplan et al. 2020, section 1.3).
const FLOPS_PER_PF_DAY: f64 = 8.64e19;

/// An amount of compute in floating-point operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Flops(pub f64);

/// An amount of compute in PF-days, 8.64e19 FLOPs each.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PfDays(pub f64);

impl From<PfDays> for Flops {
    fn from(days: PfDays) -> Self {
        Self(days.0 * FLOPS_PER_PF_DAY)
    }
}

impl From<Flops> for PfDays {
    fn from(flops: Flops) -> Self {
        Self(flops.0 / FLOPS_PER_PF_DAY)
    }
}

impl fmt::Display for Flops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3e} FLOPs", self.0)
    }
}

impl fmt::Display for PfDays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3e} PF-days", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pf_day_is_8_64e19_flops() {
        assert_eq!(Flops::from(PfDays(1.0)).0, 8.64e19);
        assert_eq!(PfDays::from(Flops(8.64e19)).0, 1.0);
    }
}
