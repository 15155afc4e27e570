use crate::published::CHINCHILLA_PARAMS_EXPONENT;
use crate::{FittedLaw, KaplanLaw, PowerLaw, StepLaw, SumLaw, TokenLaw};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Exponents beyond any that losses have; a power with one is 0 or no number.
const MOST_EXPONENT: f64 = 1e3;
const WITHIN_EXPONENTS: &str = "positive, and at most 1000";

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
    /// L(N, D) = E + A / N^0.3478 + B / D^b: the first, with the exponent a as published (Besiroglu et al. 2024). Few sizes do not
    /// tell it, and two not at all.
    FixedTokens,
    /// The mean of [`LawForm::KaplanTokens`] and [`LawForm::FixedTokens`], each fitted by itself. w, the weight of the former, is 1/2;
    /// resamples draw it evenly from 0 to 1, as the data of small models do not tell which is right for large ones.
    MixedTokens,
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
    /// A power with a given exponent: the quantity's place, and the exponent.
    Given(usize, f64),
}

impl LawForm {
    /// Every form.
    pub const ALL: [Self; 9] = [
        Self::Tokens,
        Self::KaplanTokens,
        Self::FixedTokens,
        Self::MixedTokens,
        Self::Steps,
        Self::KaplanSteps,
        Self::Params,
        Self::Data,
        Self::Compute,
    ];

    /// The forms that are fitted for it, each by itself.
    pub(crate) fn parts(self) -> Vec<Self> {
        match self {
            Self::MixedTokens => vec![Self::KaplanTokens, Self::FixedTokens],
            single => vec![single],
        }
    }

    /// Points that it takes at least: as many as a part has parameters.
    pub(crate) fn least_points(self) -> usize {
        self.parts().iter().map(|part| part.parameter_names().len()).fold(0, usize::max)
    }

    /// What the law is a function of.
    pub fn quantities(self) -> &'static [Quantity] {
        match self {
            Self::Tokens | Self::KaplanTokens | Self::FixedTokens | Self::MixedTokens => {
                &[Quantity::Params, Quantity::Tokens]
            }
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
            Self::FixedTokens => &["E", "A", "B", "b"],
            Self::MixedTokens => &["N_c", "D_c", "a_N", "a_D", "E", "A", "B", "b", "w"],
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
            Self::FixedTokens => "L(N, D) = E + A / N^0.3478 + B / D^b",
            Self::MixedTokens => {
                "L(N, D) = w [(N_c / N)^(a_N / a_D) + D_c / D]^a_D + (1 - w) [E + A / N^0.3478 + B / D^b]"
            }
            Self::Steps => "L(N, S) = E + A / N^a + B / S^b",
            Self::KaplanSteps => "L(N, S) = (N_c / N)^a_N + (S_c / S)^a_S",
            Self::Params => "L(N) = (N_c / N)^a_N",
            Self::Data => "L(D) = (D_c / D)^a_D",
            Self::Compute => "L(C) = (C_c / C)^a_C",
        }
    }

    /// Its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::KaplanTokens => "kaplan-tokens",
            Self::FixedTokens => "fixed-tokens",
            Self::MixedTokens => "mixed-tokens",
            Self::Steps => "steps",
            Self::KaplanSteps => "kaplan-steps",
            Self::Params => "params",
            Self::Data => "data",
            Self::Compute => "compute",
        }
    }

    /// The summands of a single form, each with a non-negative coefficient that enters linearly; of a mean none.
    pub(crate) fn terms(self) -> &'static [Term] {
        match self {
            Self::Tokens | Self::Steps => &[Term::Floor, Term::Power(0, 0), Term::Power(1, 1)],
            Self::KaplanTokens => &[Term::Power(0, 0), Term::Given(1, 1.0)],
            Self::FixedTokens => {
                &[Term::Floor, Term::Given(0, CHINCHILLA_PARAMS_EXPONENT), Term::Power(1, 0)]
            }
            Self::MixedTokens => &[],
            Self::KaplanSteps => &[Term::Power(0, 0), Term::Power(1, 1)],
            Self::Params | Self::Data | Self::Compute => &[Term::Power(0, 0)],
        }
    }

    /// Values that a quantity, by its place, must have at least for the points to fix the form: as many as its summand and the floor
    /// have parameters.
    pub(crate) fn least_values(self, quantity: usize) -> usize {
        let least = |form: Self| {
            let terms = form.terms();
            let is_fitted =
                |term: &Term| matches!(term, Term::Power(place, _) if *place == quantity);
            2 + usize::from(terms.contains(&Term::Floor) && terms.iter().any(is_fitted))
        };
        self.parts().into_iter().map(least).fold(2, usize::max)
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

    /// The published parameters that an exponent, by its place, is needed for.
    pub(crate) fn of_exponent(self, place: usize) -> &'static [&'static str] {
        match (self, place) {
            (Self::Tokens | Self::Steps, 0) => &["a", "A"],
            (Self::Tokens | Self::Steps | Self::FixedTokens, _) => &["b", "B"],
            (Self::KaplanTokens | Self::KaplanSteps, 0) => &["a_N", "N_c"],
            (Self::KaplanTokens, _) => &["a_N", "N_c", "a_D", "D_c"],
            (Self::KaplanSteps, _) => &["a_S", "S_c"],
            (Self::Params | Self::Data | Self::Compute, _) => self.parameter_names(),
            (Self::MixedTokens, _) => &[],
        }
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
            Self::Tokens | Self::FixedTokens | Self::Steps => {
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
            Self::MixedTokens => Vec::new(),
        }
    }

    /// The published parameters of a law of this form, in the order of [`LawForm::parameter_names`];
    /// empty for a law of another form.
    pub fn values_of(self, law: &FittedLaw) -> Vec<f64> {
        let factor = |law: &PowerLaw| law.scale.powf(law.exponent);
        match (self, law) {
            (Self::Tokens, FittedLaw::Tokens(TokenLaw::Sum(law))) => vec![
                law.floor,
                law.params_factor,
                law.data_factor,
                law.params_exponent,
                law.data_exponent,
            ],
            (Self::FixedTokens, FittedLaw::Tokens(TokenLaw::Sum(law))) => {
                vec![law.floor, law.params_factor, law.data_factor, law.data_exponent]
            }
            (Self::KaplanTokens, FittedLaw::Tokens(TokenLaw::Kaplan(law))) => {
                vec![law.params.scale, law.data.scale, law.params.exponent, law.data.exponent]
            }
            (Self::MixedTokens, FittedLaw::Tokens(TokenLaw::Mixed { weight, kaplan, sum })) => {
                let parts = [TokenLaw::Kaplan(*kaplan), TokenLaw::Sum(*sum)];
                let values = self.parts().into_iter().zip(parts);
                let values: Vec<_> =
                    values.map(|(part, law)| part.values_of(&FittedLaw::Tokens(law))).collect();
                joined(&values, *weight)
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

    /// The first of as many published parameters that no law has, by name, and what it must be: a finite number, an exponent positive
    /// and no endless one, a factor or scale not negative, a weight from 0 to 1. A factor at 0 is a fit of data that do not depend on its quantity.
    pub fn fault(self, values: &[f64]) -> Option<(&'static str, &'static str)> {
        let fault = |(name, value): (&&'static str, &f64)| {
            let (fits, due) = match name.as_bytes()[0] {
                b'w' => ((0.0..=1.0).contains(value), "from 0 to 1"),
                b'a' | b'b' => (*value > 0.0 && *value <= MOST_EXPONENT, WITHIN_EXPONENTS),
                _ => (*value >= 0.0, "positive"),
            };
            (!(fits && value.is_finite())).then_some((*name, due))
        };
        let found = self.parameter_names().iter().zip(values).find_map(fault);
        // A / S^a is held as (scale / S)^a.
        let has_scale = |factor: usize, exponent: usize| {
            values[factor] == 0.0
                || (f64::MIN_POSITIVE..f64::MAX)
                    .contains(&factor_as_power_law(values[factor], values[exponent]).scale)
        };
        let steep = "large enough for its factor, as a law that hardly depends on a quantity has none to tell";
        found.or_else(|| match self {
            Self::Steps if !has_scale(1, 3) => Some(("a", steep)),
            Self::Steps if !has_scale(2, 4) => Some(("b", steep)),
            _ => None,
        })
    }

    /// The law that published parameters make, in the order of [`LawForm::parameter_names`].
    pub fn law(self, values: &[f64]) -> FittedLaw {
        let power = |scale: usize, exponent: usize| PowerLaw {
            scale: values[scale],
            exponent: values[exponent],
        };
        let kaplan = || KaplanLaw { params: power(0, 2), data: power(1, 3) };
        let sum = |first: usize, params_exponent: f64, data_exponent: f64| SumLaw {
            floor: values[first],
            params_factor: values[first + 1],
            params_exponent,
            data_factor: values[first + 2],
            data_exponent,
        };
        match self {
            Self::Tokens => FittedLaw::Tokens(TokenLaw::Sum(sum(0, values[3], values[4]))),
            Self::KaplanTokens => FittedLaw::Tokens(TokenLaw::Kaplan(kaplan())),
            Self::FixedTokens => {
                FittedLaw::Tokens(TokenLaw::Sum(sum(0, CHINCHILLA_PARAMS_EXPONENT, values[3])))
            }
            Self::MixedTokens => FittedLaw::Tokens(TokenLaw::Mixed {
                weight: values[8],
                kaplan: kaplan(),
                sum: sum(4, CHINCHILLA_PARAMS_EXPONENT, values[7]),
            }),
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

/// The parameters of a form from those of its parts, and the weight of the first part where there are several.
pub(crate) fn joined(parts: &[Vec<f64>], weight: f64) -> Vec<f64> {
    let mut values = parts.concat();
    if parts.len() > 1 {
        values.push(weight);
    }
    values
}

/// A / x^a as (scale / x)^a.
fn factor_as_power_law(factor: f64, exponent: f64) -> PowerLaw {
    PowerLaw { scale: factor.powf(1.0 / exponent), exponent }
}

impl fmt::Display for LawForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
