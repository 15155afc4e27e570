use serde::{Deserialize, Serialize};

/// How initialisation, learning rates and the output head depend on the width.
///
/// Under `Mup` one tuned learning rate serves every width (Yang et al. 2022, arXiv 2203.03466,
/// table 8, in the form with an explicit output multiplier).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Parametrization {
    /// Maximal update parametrization, relative to a base width.
    Mup {
        /// Width at which every multiplier is as written here.
        base_width: usize,
        /// Standard deviation of both embeddings and of an untied head.
        #[serde(default = "mup::embedding_std")]
        embedding_std: f64,
        /// Standard deviation of a hidden matrix times the square root of its fan-in.
        #[serde(default = "mup::hidden_gain")]
        hidden_gain: f64,
        /// Factor on the logits at the base width.
        #[serde(default = "mup::output_multiplier")]
        output_multiplier: f64,
    },
    /// GPT-2's: one standard deviation and one learning rate at every width.
    Standard {
        /// Standard deviation of both embeddings and of an untied head.
        #[serde(default = "standard::std")]
        embedding_std: f64,
        /// Standard deviation of a hidden matrix.
        #[serde(default = "standard::std")]
        hidden_std: f64,
        /// Factor on the logits.
        #[serde(default = "standard::output_multiplier")]
        output_multiplier: f64,
    },
}

impl Parametrization {
    /// The default at a base width: `embedding_std` 0.05, `hidden_gain` 0.5, multiplier 2.
    pub fn mup(base_width: usize) -> Self {
        Self::Mup {
            base_width,
            embedding_std: mup::embedding_std(),
            hidden_gain: mup::hidden_gain(),
            output_multiplier: mup::output_multiplier(),
        }
    }

    /// GPT-2's own numbers: 0.02 everywhere, multiplier 1 (Radford et al. 2019).
    pub fn standard() -> Self {
        Self::Standard {
            embedding_std: standard::std(),
            hidden_std: standard::std(),
            output_multiplier: standard::output_multiplier(),
        }
    }

    /// `d_model` over the base width under mu-P; 1 otherwise.
    pub fn width_ratio(&self, d_model: usize) -> f64 {
        match self {
            Self::Mup { base_width, .. } => d_model as f64 / *base_width as f64,
            Self::Standard { .. } => 1.0,
        }
    }

    /// The factor on the logits of a model of this width.
    pub fn output_multiplier(&self, d_model: usize) -> f64 {
        match self {
            Self::Mup { output_multiplier, .. } => output_multiplier / self.width_ratio(d_model),
            Self::Standard { output_multiplier, .. } => *output_multiplier,
        }
    }

    /// Standard deviation of both embeddings and of an untied head.
    pub fn embedding_std(&self) -> f64 {
        match self {
            Self::Mup { embedding_std, .. } | Self::Standard { embedding_std, .. } => {
                *embedding_std
            }
        }
    }

    /// Standard deviation of a hidden matrix that reads `fan_in` inputs.
    pub fn hidden_std(&self, fan_in: usize) -> f64 {
        match self {
            Self::Mup { hidden_gain, .. } => hidden_gain / (fan_in as f64).sqrt(),
            Self::Standard { hidden_std, .. } => *hidden_std,
        }
    }

    /// What the initialisation of a matrix that writes to the residual stream is divided by: the
    /// square root of the number of blocks under mu-P, of the number of such matrices under
    /// GPT-2's rule (two in a block).
    pub fn residual_divisor(&self, n_layers: usize) -> f64 {
        match self {
            Self::Mup { .. } => (n_layers as f64).sqrt(),
            Self::Standard { .. } => (2.0 * n_layers as f64).sqrt(),
        }
    }
}

/// Defaults under mu-P, chosen for byte-level models of base width 64.
mod mup {
    pub fn embedding_std() -> f64 {
        0.05
    }
    pub fn hidden_gain() -> f64 {
        0.5
    }
    pub fn output_multiplier() -> f64 {
        2.0
    }
}

/// GPT-2's defaults.
mod standard {
    pub fn std() -> f64 {
        0.02
    }
    pub fn output_multiplier() -> f64 {
        1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mup_halves_the_logits_factor_when_the_width_doubles() {
        let mup = Parametrization::mup(64);
        assert_eq!(mup.output_multiplier(64), 2.0);
        assert_eq!(mup.output_multiplier(128), 1.0);
        assert_eq!(mup.hidden_std(256) * 2.0, mup.hidden_std(64));
    }

    #[test]
    fn standard_ignores_the_width() {
        let standard = Parametrization::standard();
        assert_eq!(standard.output_multiplier(64), standard.output_multiplier(4096));
        assert_eq!(standard.hidden_std(64), standard.hidden_std(4096));
        assert_eq!(standard.width_ratio(4096), 1.0);
    }
}
