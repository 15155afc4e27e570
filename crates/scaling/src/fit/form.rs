use crate::{FittedLaw, PowerLaw, StepLaw, TokenLaw};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a law is a function of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// N, non-embedding parameters.
    Params,
    /// D, tokens.
    Tokens,
    /// S, optimizer steps.
    Steps,
    /// C, FLOPs.
    Compute,
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Params => "n_params",
            Self::Tokens => "tokens",
            Self::Steps => "steps",
            Self::Compute => "compute",
        })
    }
}

/// A form of law that can be fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LawForm {
    /// L(N, D) = E + A / N^a + B / D^b (Hoffmann et al. 2022, eq. 2).
    Tokens,
    /// L(N, D) = [(N_c / N)^(a_N / a_D) + D_c / D]^a_D (Kaplan et al. 2020, eq. 1.5).
    KaplanTokens,
    /// L(N, S) = E + A / N^a + B / S^b.
    Steps,
    /// L(N, S) = (N_c / N)^a_N + (S_c / S)^a_S (Kaplan et al. 2020, eq. 1.6).
    KaplanSteps,
    /// L(N) = (N_c / N)^a_N (Kaplan et al. 2020, eq. 1.1).
    Params,
    /// L(D) = (D_c / D)^a_D (Kaplan et al. 2020, eq. 1.2).
    Data,
    /// L(C) = (C_c / C)^a_C (Kaplan et al. 2020, eq. 1.3).
    Compute,
}

/// One summand of a form: coefficient times quantity^-exponent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Term {
    /// The coefficient alone.
    Floor,
    /// A power with a fitted exponent: the quantity's place, and the exponent's.
    Power(usize, usize),
    /// One over the quantity.
    Inverse(usize),
}

impl LawForm {
    /// Every form.
    pub const ALL: [Self; 7] = [
        Self::Tokens,
        Self::KaplanTokens,
        Self::Steps,
        Self::KaplanSteps,
        Self::Params,
        Self::Data,
        Self::Compute,
    ];

    /// What the law is a function of.
    pub fn quantities(self) -> &'static [Quantity] {
        match self {
            Self::Tokens | Self::KaplanTokens => &[Quantity::Params, Quantity::Tokens],
            Self::Steps | Self::KaplanSteps => &[Quantity::Params, Quantity::Steps],
            Self::Params => &[Quantity::Params],
            Self::Data => &[Quantity::Tokens],
            Self::Compute => &[Quantity::Compute],
        }
    }

    /// Names of the published parameters, the order in which values are given.
    pub fn parameter_names(self) -> &'static [&'static str] {
        match self {
            Self::Tokens | Self::Steps => &["E", "A", "B", "a", "b"],
            Self::KaplanTokens => &["N_c", "D_c", "a_N", "a_D"],
            Self::KaplanSteps => &["N_c", "S_c", "a_N", "a_S"],
            Self::Params => &["N_c", "a_N"],
            Self::Data => &["D_c", "a_D"],
            Self::Compute => &["C_c", "a_C"],
        }
    }

    /// The equation, as a person writes it.
    pub fn equation(self) -> &'static str {
        match self {
            Self::Tokens => "L(N, D) = E + A / N^a + B / D^b",
            Self::KaplanTokens => "L(N, D) = [(N_c / N)^(a_N / a_D) + D_c / D]^a_D",
            Self::Steps => "L(N, S) = E + A / N^a + B / S^b",
            Self::KaplanSteps => "L(N, S) = (N_c / N)^a_N + (S_c / S)^a_S",
            Self::Params => "L(N) = (N_c / N)^a_N",
            Self::Data => "L(D) = (D_c / D)^a_D",
            Self::Compute => "L(C) = (C_c / C)^a_C",
        }
    }

    /// The summands, each with a non-negative coefficient that enters linearly.
    pub(crate) fn terms(self) -> &'static [Term] {
        match self {
            Self::Tokens | Self::Steps => &[Term::Floor, Term::Power(0, 0), Term::Power(1, 1)],
            Self::KaplanTokens => &[Term::Power(0, 0), Term::Inverse(1)],
            Self::KaplanSteps => &[Term::Power(0, 0), Term::Power(1, 1)],
            Self::Params | Self::Data | Self::Compute => &[Term::Power(0, 0)],
        }
    }

    /// Whether the sum of the terms is raised to a fitted power, the last of the exponents.
    pub(crate) fn has_outer_power(self) -> bool {
        self == Self::KaplanTokens
    }

    /// Fitted exponents, an outer power included.
    pub(crate) fn n_exponents(self) -> usize {
        let in_terms = self.terms().iter().filter(|term| matches!(term, Term::Power(..))).count();
        in_terms + usize::from(self.has_outer_power())
    }

    /// Exponents that the search starts from, one axis for each.
    pub(crate) fn starts(self) -> Vec<Vec<f64>> {
        const TERM: [f64; 5] = [0.1, 0.25, 0.4, 0.6, 0.9];
        const POWER: [f64; 5] = [0.03, 0.06, 0.1, 0.2, 0.4];
        let last: &[f64] = if self.has_outer_power() { &POWER } else { &TERM };
        if self.n_exponents() == 1 {
            return TERM.iter().map(|exponent| vec![*exponent]).collect();
        }
        TERM.iter().flat_map(|first| last.iter().map(|second| vec![*first, *second])).collect()
    }

    /// The published parameters: from the coefficients of the terms, in ln, and the exponents.
    pub(crate) fn published(self, ln_coefficients: &[f64], exponents: &[f64]) -> Vec<f64> {
        let scale = |k: usize, exponent: f64| (ln_coefficients[k] / exponent).exp();
        match self {
            Self::Tokens | Self::Steps => {
                let mut values: Vec<f64> = ln_coefficients.iter().map(|x| x.exp()).collect();
                values.extend(exponents);
                values
            }
            Self::KaplanTokens => {
                let (inner, power) = (exponents[0], exponents[1]);
                vec![scale(0, inner), ln_coefficients[1].exp(), inner * power, power]
            }
            Self::KaplanSteps => {
                let [a, b] = [exponents[0], exponents[1]];
                vec![scale(0, a), scale(1, b), a, b]
            }
            Self::Params | Self::Data | Self::Compute => {
                vec![scale(0, exponents[0]), exponents[0]]
            }
        }
    }

    /// The published parameters of a law of this form, in the order of [`LawForm::parameter_names`];
    /// empty for a law of another form.
    pub fn values_of(self, law: &FittedLaw) -> Vec<f64> {
        let factor = |law: &PowerLaw| law.scale.powf(law.exponent);
        match (self, law) {
            (
                Self::Tokens,
                FittedLaw::Tokens(TokenLaw::Sum {
                    floor,
                    params_factor,
                    params_exponent,
                    data_factor,
                    data_exponent,
                }),
            ) => vec![*floor, *params_factor, *data_factor, *params_exponent, *data_exponent],
            (Self::KaplanTokens, FittedLaw::Tokens(TokenLaw::Kaplan { params, data })) => {
                vec![params.scale, data.scale, params.exponent, data.exponent]
            }
            (Self::Steps, FittedLaw::Steps(StepLaw { floor, params, steps })) => {
                vec![*floor, factor(params), factor(steps), params.exponent, steps.exponent]
            }
            (Self::KaplanSteps, FittedLaw::Steps(StepLaw { params, steps, .. })) => {
                vec![params.scale, steps.scale, params.exponent, steps.exponent]
            }
            (Self::Params | Self::Data | Self::Compute, FittedLaw::Power(law)) => {
                vec![law.scale, law.exponent]
            }
            _ => Vec::new(),
        }
    }

    /// The law that published parameters make, in the order of [`LawForm::parameter_names`].
    pub fn law(self, values: &[f64]) -> FittedLaw {
        let power = |scale: usize, exponent: usize| PowerLaw {
            scale: values[scale],
            exponent: values[exponent],
        };
        match self {
            Self::Tokens => FittedLaw::Tokens(TokenLaw::Sum {
                floor: values[0],
                params_factor: values[1],
                params_exponent: values[3],
                data_factor: values[2],
                data_exponent: values[4],
            }),
            Self::KaplanTokens => {
                FittedLaw::Tokens(TokenLaw::Kaplan { params: power(0, 2), data: power(1, 3) })
            }
            Self::Steps => FittedLaw::Steps(StepLaw {
                floor: values[0],
                params: factor_as_power_law(values[1], values[3]),
                steps: factor_as_power_law(values[2], values[4]),
            }),
            Self::KaplanSteps => {
                FittedLaw::Steps(StepLaw { floor: 0.0, params: power(0, 2), steps: power(1, 3) })
            }
            Self::Params | Self::Data | Self::Compute => FittedLaw::Power(power(0, 1)),
        }
    }
}

/// A / x^a as (scale / x)^a.
fn factor_as_power_law(factor: f64, exponent: f64) -> PowerLaw {
    PowerLaw { scale: factor.powf(1.0 / exponent), exponent }
}

impl fmt::Display for LawForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tokens => "tokens",
            Self::KaplanTokens => "kaplan-tokens",
            Self::Steps => "steps",
            Self::KaplanSteps => "kaplan-steps",
            Self::Params => "params",
            Self::Data => "data",
            Self::Compute => "compute",
        })
    }
}
