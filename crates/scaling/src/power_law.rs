/// L(x) = (scale / x)^exponent, in one resource: parameters, tokens or compute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PowerLaw {
    /// Resource at which the loss is 1.
    pub scale: f64,
    /// Exponent, positive.
    pub exponent: f64,
}

impl PowerLaw {
    /// Loss at an amount of the resource.
    pub fn loss_at(&self, x: f64) -> f64 {
        (self.exponent * (self.scale.ln() - x.ln())).exp()
    }

    /// Amount of the resource at a loss.
    pub fn amount_at(&self, loss: f64) -> f64 {
        (self.scale.ln() - loss.ln() / self.exponent).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn amount_is_the_inverse_and_the_exponent_the_slope(
            ln_scale in 1.0f64..60.0, exponent in 0.01f64..2.0, ln_x in 1.0f64..60.0,
        ) {
            let law = PowerLaw { scale: ln_scale.exp(), exponent };
            let x = ln_x.exp();
            prop_assert!((law.amount_at(law.loss_at(x)).ln() - ln_x).abs() < 1e-9);
            let rise = law.loss_at(x * 1.001).ln() - law.loss_at(x / 1.001).ln();
            prop_assert!((rise / (2.0 * 1.001f64.ln()) + exponent).abs() < 1e-6);
        }
    }
}
