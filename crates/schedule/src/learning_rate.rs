use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// How the learning rate goes on after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecayShape {
    /// Stays at the peak.
    Constant,
    /// Falls in a straight line from the end of the warm-up to the last step.
    Linear,
    /// Falls along half a cosine from the end of the warm-up to the last step.
    Cosine,
    /// Warm-up, stable, decay: stays at the peak and falls in a straight line at the end.
    Wsd,
}

/// The learning rate as a pure function of the step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearningRate {
    /// What follows the warm-up.
    pub shape: DecayShape,
    /// Highest learning rate, at the base width under mu-P.
    pub peak: f64,
    /// Steps over which the rate rises in a straight line from 0 to the peak.
    #[serde(default)]
    pub warmup_steps: u64,
    /// Rate at the last step over the peak (`linear`, `cosine`, `wsd`).
    #[serde(default)]
    pub final_fraction: f64,
    /// Share of all steps that the final decay takes (`wsd`).
    #[serde(default = "default_decay_fraction")]
    pub decay_fraction: f64,
}

pub(crate) fn default_decay_fraction() -> f64 {
    0.2
}

impl LearningRate {
    /// Whether the rate falls before the end of a run, so that no loss but the last tells what the run has learnt.
    pub fn decays(&self) -> bool {
        self.decaying_share() > 0.0 && self.final_fraction < 1.0
    }

    /// Share of a run's steps whose rate depends on the run's length: the decay's, or all.
    pub fn decaying_share(&self) -> f64 {
        match self.shape {
            DecayShape::Constant => 0.0,
            DecayShape::Linear | DecayShape::Cosine => 1.0,
            DecayShape::Wsd => self.decay_fraction,
        }
    }

    /// The share of the peak that the warm-up allows at `step`.
    pub(crate) fn warmup_at(&self, step: u64) -> f64 {
        if self.warmup_steps == 0 {
            return 1.0;
        }
        (step as f64 / self.warmup_steps as f64).min(1.0)
    }

    /// The last step before the decay of a run of `n_steps`.
    pub(crate) fn decay_start(&self, n_steps: u64) -> u64 {
        match self.shape {
            DecayShape::Constant => n_steps,
            DecayShape::Linear | DecayShape::Cosine => self.warmup_steps,
            DecayShape::Wsd => {
                // The last step at least, where there is a decay.
                let least = self.decay_fraction.ceil();
                let decay = (self.decay_fraction * n_steps as f64).round().max(least);
                n_steps.saturating_sub(decay as u64)
            }
        }
    }

    /// The share of the peak that the decay leaves at `step`, when it begins at `earliest` or later.
    pub(crate) fn decay_at(&self, step: u64, n_steps: u64, earliest: u64) -> f64 {
        if self.shape == DecayShape::Constant {
            return 1.0;
        }
        let start = self.decay_start(n_steps).max(earliest);
        if step <= start || n_steps <= start {
            return 1.0;
        }
        let done = ((step - start) as f64 / (n_steps - start) as f64).min(1.0);
        let left = if self.shape == DecayShape::Cosine {
            f64::midpoint(1.0, (PI * done).cos())
        } else {
            1.0 - done
        };
        self.final_fraction + (1.0 - self.final_fraction) * left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Schedule;
    use crate::schedule::tests::{GOOD, parse};
    use proptest::prelude::*;
    use std::path::Path;

    fn rate(shape: DecayShape) -> LearningRate {
        LearningRate {
            shape,
            peak: 0.01,
            warmup_steps: 10,
            final_fraction: 0.1,
            decay_fraction: 0.2,
        }
    }

    /// The rate of the update that makes `step` (the first is 1) in a run of `n_steps`.
    fn at(rate: LearningRate, step: u64, n_steps: u64) -> f64 {
        let mut schedule = parse(GOOD).unwrap();
        // A rate that never decays has no end of its own.
        let final_fraction = if rate.decays() { rate.final_fraction } else { 0.0 };
        schedule.file.learning_rate = LearningRate { final_fraction, ..rate };
        schedule.file.stages[0].until.steps = Some(n_steps);
        let schedule = Schedule::check(schedule.file, Path::new("test")).unwrap();
        schedule.learning_rate_at(0, 0, step)
    }

    #[test]
    fn the_warmup_is_a_straight_line_that_ends_at_the_peak() {
        for shape in [DecayShape::Constant, DecayShape::Cosine, DecayShape::Wsd] {
            assert_eq!(at(rate(shape), 5, 100), 0.005);
            assert_eq!(at(rate(shape), 10, 100), 0.01);
        }
    }

    #[test]
    fn a_decay_of_less_than_half_a_step_is_one_of_the_last_step() {
        let short = LearningRate { decay_fraction: 0.004, ..rate(DecayShape::Wsd) };
        assert_eq!([99, 100].map(|step| at(short, step, 100)), [0.01, 0.001]);
        let none = LearningRate { decay_fraction: 0.0, ..short };
        assert!(!none.decays());
        assert_eq!(at(none, 100, 100), 0.01);
    }

    #[test]
    fn each_shape_ends_at_its_final_fraction() {
        for shape in [DecayShape::Linear, DecayShape::Cosine, DecayShape::Wsd] {
            assert!((at(rate(shape), 100, 100) - 0.001).abs() < 1e-15);
        }
        assert_eq!(at(rate(DecayShape::Constant), 100, 100), 0.01);
    }

    #[test]
    fn wsd_is_stable_until_the_last_fifth() {
        assert_eq!(at(rate(DecayShape::Wsd), 80, 100), 0.01);
        assert!((at(rate(DecayShape::Wsd), 90, 100) - 0.0055).abs() < 1e-15);
    }

    #[test]
    fn cosine_is_half_way_down_in_the_middle() {
        assert!((at(rate(DecayShape::Cosine), 55, 100) - 0.0055).abs() < 1e-15);
    }

    proptest! {
        #[test]
        fn the_rate_stays_between_zero_and_the_peak_and_falls_after_the_warmup(
            n_steps in 11u64..5000, a in 10u64..5000, b in 10u64..5000,
        ) {
            let (early, late) = (a.min(b).min(n_steps), a.max(b).min(n_steps));
            for shape in [DecayShape::Constant, DecayShape::Linear, DecayShape::Cosine, DecayShape::Wsd] {
                let (first, second) = (at(rate(shape), early, n_steps), at(rate(shape), late, n_steps));
                prop_assert!(second <= first && first <= 0.01 && second >= 0.001 - 1e-15);
            }
        }
    }
}
