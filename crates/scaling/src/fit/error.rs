use super::form::{LawForm, Quantity};

/// Data that no law can be fitted to.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FitError {
    /// A number that must be positive and finite.
    #[error("point {point}: {name} = {value}: must be positive and finite")]
    NotPositive {
        /// What it is.
        name: String,
        /// Its value.
        value: f64,
        /// The point, from 1.
        point: usize,
    },
    /// A point without a quantity that the form needs.
    #[error("point {point}: no {quantity}, which the form {form} is a function of")]
    Missing {
        /// The quantity.
        quantity: Quantity,
        /// The form.
        form: LawForm,
        /// The point, from 1.
        point: usize,
    },
    /// A point of equal compute without its size or its compute.
    #[error("point {point}: no {quantity}, which optima of equal compute need")]
    Untold {
        /// The quantity.
        quantity: Quantity,
        /// The point, from 1.
        point: usize,
    },
    /// Fewer values of a quantity than its summand and the floor have parameters.
    #[error(
        "the points have {} of {quantity}: the form {form} needs at least {needed}{}",
        if *n_values == 1 { "one value".to_string() } else { format!("{n_values} values") },
        if *form == LawForm::Tokens && *quantity == Quantity::Params { "; fixed-tokens, whose exponent of N is given, two" } else { "" }
    )]
    TooFewValues {
        /// The quantity.
        quantity: Quantity,
        /// How many values it has.
        n_values: usize,
        /// How many it takes.
        needed: usize,
        /// The form.
        form: LawForm,
    },
    /// Fewer points than parameters.
    #[error("{n_points} points: the form {form} has {n_parameters} parameters")]
    TooFewPoints {
        /// Points given.
        n_points: usize,
        /// The form.
        form: LawForm,
        /// Its parameters.
        n_parameters: usize,
    },
    /// No start led to a finite objective.
    #[error("the form {0} could not be fitted to these points from any start")]
    NoFit(LawForm),
    /// The best parameters are beyond what numbers can hold, as where losses hardly depend on a quantity.
    #[error(
        "the best parameters of the form {0} overflow: these points do not determine them; add more sizes or longer runs"
    )]
    NotFinite(LawForm),
    /// Too few isoFLOP groups, or groups without a minimum inside.
    #[error(
        "{found} budgets have a minimum between their sizes: at least {needed} are needed, each with runs of four sizes or more whose compute is the same to 3 %"
    )]
    TooFewBudgets {
        /// Budgets with a minimum.
        found: usize,
        /// Budgets needed.
        needed: usize,
    },
}
