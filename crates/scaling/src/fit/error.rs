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
    /// All points have the same value of a quantity.
    #[error("every point has {quantity} = {value:e}: the form {form} needs at least two values")]
    OneValue {
        /// The quantity.
        quantity: Quantity,
        /// Its only value.
        value: f64,
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
    #[error("the form {0} fits these points from no start")]
    NoFit(LawForm),
    /// The best parameters are beyond all numbers.
    #[error(
        "the best parameters of the form {0} are not finite: these points do not fix them; more sizes or longer runs would"
    )]
    NotFinite(LawForm),
    /// Too few isoFLOP groups, or groups without a minimum inside.
    #[error("{found} budgets have a minimum between their sizes: at least {needed} are needed")]
    TooFewBudgets {
        /// Budgets with a minimum.
        found: usize,
        /// Budgets needed.
        needed: usize,
    },
}
