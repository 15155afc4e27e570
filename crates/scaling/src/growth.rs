//! When to grow.
//!
//! A staged run N_1 < ... < N_k that grows at losses L_1 > ... and ends at L_k saves, against the
//! last size from scratch, sum over i < k of C_{N_{i+1}}(L_i) - C_{N_i}(L_i), over C_{N_k}(L_k). So
//! each growth point is a problem of its own in one dimension. Where a grown model has R times the pace of one
//! from scratch, each of its stages costs [C_{N_i}(L_i) - C_{N_i}(L_{i-1})] / R, and growth points move accordingly. Where a pace
//! above 1 lasts for T_0 tokens after the first growth only, a stage after it that is worth D tokens from scratch takes
//! max(D / R, D - (R - 1) T_0), and growth points are the best of those at constant paces from 1 to R.

use crate::cost::positive;
use crate::plan::Operators;
use crate::quadrature::integrate;
use crate::root::{least_minimum, minimum};
use crate::{ScalingError, StageStart, TrainingCost};
use serde::{Deserialize, Serialize};

/// The best moment to grow one size into another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GrowthPoint {
    /// Loss at which to grow, nats per token.
    pub loss: f64,
    /// Compute that growing there spares, FLOPs, against the larger size at a grown model's pace, if that is constant.
    pub spared: f64,
    /// d ln L / d ln C of the smaller model there.
    pub loss_slope: f64,
    /// Steps of the smaller model from scratch over those of the larger to the same loss.
    pub step_ratio: f64,
}

/// A staged run under a law: its sizes, its growth points and what it saves.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    /// N of each stage.
    pub sizes: Vec<f64>,
    /// Between each stage and the next.
    pub growths: Vec<GrowthPoint>,
    /// Compute of the last size from scratch to the final loss, FLOPs.
    pub from_scratch: f64,
    /// Share of it that the chain spares.
    pub saving: f64,
}

/// The end of a run that grew once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrownRun {
    /// N before the growth.
    pub small: f64,
    /// Tokens before it.
    pub tokens_small: f64,
    /// N after it.
    pub large: f64,
    /// Tokens after it.
    pub tokens_large: f64,
    /// Loss at the end, nats per token.
    pub loss: f64,
    /// What grew.
    #[serde(default = "width")]
    pub grew: Operators,
}

/// What grew in the runs that do not say it.
fn width() -> Operators {
    Operators::WIDTH
}

impl GrownRun {
    /// The pace under a law: the tokens from scratch that the progress after the growth is worth, over those it took.
    ///
    /// # Errors
    /// A final loss at or below the larger size's asymptote.
    pub fn pace(&self, cost: &TrainingCost) -> Result<f64, ScalingError> {
        let progress = cost.tokens_at(self.large, self.loss)? - self.resumed_tokens(cost)?;
        Ok(progress / self.tokens_large)
    }

    /// What it saved of the larger size's compute from scratch to its end under a law.
    ///
    /// # Errors
    /// A final loss at or below the larger size's asymptote.
    pub fn saving(&self, cost: &TrainingCost) -> Result<f64, ScalingError> {
        let spent = self.tokens_small * self.small + self.tokens_large * self.large;
        Ok(1.0 - spent / (self.large * cost.tokens_at(self.large, self.loss)?))
    }

    /// The tokens from scratch after which the larger size has the loss of the growth under a law.
    ///
    /// # Errors
    /// A loss that the larger size cannot have.
    pub fn resumed_tokens(&self, cost: &TrainingCost) -> Result<f64, ScalingError> {
        cost.tokens_at(self.large, cost.loss_after(self.small, None, self.tokens_small)?)
    }
}

impl TrainingCost {
    /// What growing at a loss spares where the smaller size began so, and what is told of the point: not necessarily the
    /// best one.
    ///
    /// # Errors
    /// A loss at or below the smaller size's asymptote.
    pub fn growth_at(
        &self,
        start: StageStart,
        small: f64,
        large: f64,
        loss: f64,
    ) -> Result<GrowthPoint, ScalingError> {
        Ok(GrowthPoint {
            loss,
            spared: self.compute_at(large, loss)? / self.pace(StageStart::Growth)
                - self.compute_at(small, loss)? / self.pace(start),
            loss_slope: self.loss_slope(small, loss)?,
            step_ratio: self.steps_at(small, loss)? / self.steps_at(large, loss)?,
        })
    }

    /// The best loss at which to grow `small`, that began so, into `large`: both have the same marginal compute, unless that
    /// is below the least loss of a growth.
    ///
    /// # Errors
    /// Sizes that do not grow, or no such loss.
    pub fn growth_point(
        &self,
        start: StageStart,
        small: f64,
        large: f64,
    ) -> Result<GrowthPoint, ScalingError> {
        check_sizes(&[small, large])?;
        let ln_paces = self.pace(StageStart::Growth).ln() - self.pace(start).ln();
        let ln_marginal = |n: f64, loss: f64| {
            self.marginal_compute(n, loss).map_or(f64::NAN, |found| (-found).ln())
        };
        let loss = self.root_in_excess("the growth point", small, |loss| {
            ln_marginal(small, loss) - ln_marginal(large, loss) + ln_paces
        })?;
        self.growth_at(start, small, large, loss.max(self.least_growth_loss))
    }

    /// A chain of sizes, each growth at its best loss, to a final loss.
    ///
    /// # Errors
    /// Sizes that do not grow, a final loss that the last size cannot reach, or growths whose best
    /// losses are not in order above the final loss, so that a stage would have nothing to do.
    pub fn chain(&self, sizes: &[f64], final_loss: f64) -> Result<Chain, ScalingError> {
        let chains = self.at_constant_paces().into_iter().map(|cost| {
            let growths = cost.growths(sizes, final_loss)?;
            self.along(sizes, growths, final_loss)
        });
        least(chains, |chain| -chain.saving)
    }

    /// The best growths between sizes at a constant pace.
    fn growths(&self, sizes: &[f64], final_loss: f64) -> Result<Vec<GrowthPoint>, ScalingError> {
        check_sizes(sizes)?;
        let growths = sizes
            .windows(2)
            .enumerate()
            .map(|(i, pair)| self.growth_point(StageStart::of(i), pair[0], pair[1]))
            .collect::<Result<Vec<_>, _>>()?;
        let losses: Vec<f64> =
            growths.iter().map(|growth| growth.loss).chain([final_loss]).collect();
        if losses.windows(2).any(|pair| pair[0] <= pair[1]) {
            return Err(ScalingError::NoSolution("growth losses in the order of these sizes"));
        }
        Ok(growths)
    }

    /// The chain of these sizes and growths.
    fn along(
        &self,
        sizes: &[f64],
        growths: Vec<GrowthPoint>,
        final_loss: f64,
    ) -> Result<Chain, ScalingError> {
        let from_scratch = self.compute_at(sizes[sizes.len() - 1], final_loss)?;
        let losses: Vec<f64> = growths.iter().map(|growth| growth.loss).collect();
        let saving = self.staged_saving(sizes, &losses, final_loss)?;
        Ok(Chain { sizes: sizes.to_vec(), growths, from_scratch, saving })
    }

    /// What growths spare in all against the last size from scratch: the sum over them, less what the pace of a grown model
    /// makes of the last size's compute to the final loss.
    pub(crate) fn net_spared(&self, by_growths: f64, from_scratch: f64) -> f64 {
        by_growths - (1.0 / self.pace(StageStart::Growth) - 1.0) * from_scratch
    }

    /// ln N of the smallest model of two and those between them that can fall below a loss.
    fn smallest_ln_size_below(&self, loss: f64, ln_least: f64, ln_largest: f64) -> f64 {
        let (mut cannot, mut can) = (ln_least, ln_largest);
        if self.asymptote(cannot.exp()) < loss {
            return cannot;
        }
        while can - cannot > 1e-12 * ln_largest.abs() {
            let middle = f64::midpoint(cannot, can);
            *(if self.asymptote(middle.exp()) < loss { &mut can } else { &mut cannot }) = middle;
        }
        can
    }

    /// ln N of the least of what depends on it: costs in FLOPs have one minimum, those in seconds one for each bend of the measured speeds.
    fn least_in_ln_size(
        &self,
        least: f64,
        largest: f64,
        of: impl Fn(f64) -> f64,
    ) -> Result<f64, ScalingError> {
        let search = "the cheapest size";
        if self.is_in_seconds() {
            least_minimum(search, least, largest, of)
        } else {
            minimum(search, least, largest, of)
        }
    }

    /// The size that reaches a loss for the least cost, from `n_least` to a million times `n_params`, and that cost.
    ///
    /// # Errors
    /// A loss that none of these sizes reaches.
    pub fn cheapest_at(
        &self,
        n_least: f64,
        n_params: f64,
        loss: f64,
    ) -> Result<(f64, f64), ScalingError> {
        let largest = (1e6 * n_params).ln();
        let smallest = self.smallest_ln_size_below(loss, n_least.ln(), largest);
        let ln_cost = |ln_n: f64| {
            self.compute_at(ln_n.exp(), loss).map_or(f64::MAX, |cost| cost.ln().min(f64::MAX))
        };
        let best = self.least_in_ln_size(smallest, largest, ln_cost)?.exp();
        Ok((best, self.compute_at(best, loss)?))
    }

    /// The saving of endlessly many growths from `n_least` up to `n_params`, each infinitely small, dynamics preserved: at
    /// every loss the size trains that pays least for it. No chain of stages saves more.
    ///
    /// # Errors
    /// A final loss that the size cannot reach.
    pub fn continuous_saving(
        &self,
        n_least: f64,
        n_params: f64,
        final_loss: f64,
    ) -> Result<f64, ScalingError> {
        let from_scratch = self.compute_at(n_params, final_loss)?;
        let asymptote = self.asymptote(n_params);
        let marginal = |n: f64, loss: f64| -> f64 {
            self.marginal_compute(n, loss).map_or(f64::INFINITY, |found| -found)
        };
        // What is spared is the excess of the large size's marginal compute over the cheapest one's.
        let spared_at = |u: f64| {
            let loss = asymptote + u.exp();
            let large = n_params.ln();
            let smallest = self.smallest_ln_size_below(loss, n_least.ln(), large);
            let cheapest = self.least_in_ln_size(smallest, large, |ln_n| {
                marginal(ln_n.exp(), loss).ln().min(f64::MAX)
            });
            let least = cheapest.map_or(f64::NAN, |ln_n| marginal(ln_n.exp(), loss));
            (marginal(n_params, loss) - least).max(0.0) * u.exp()
        };
        let (from, to) = ((final_loss - asymptote).ln(), (1e3 * final_loss).ln());
        // Many, for it has a kink where growing begins to spare something.
        Ok(integrate(from, to, 60, spared_at) / from_scratch)
    }
}

/// Of what was found the one with the least merit; the first error where nothing was.
pub(crate) fn least<T, E>(
    mut found: impl Iterator<Item = Result<T, E>>,
    merit: impl Fn(&T) -> f64,
) -> Result<T, E>
where
    E: From<ScalingError>,
{
    let first =
        found.next().unwrap_or_else(|| Err(ScalingError::NoSolution("growth points").into()));
    found.fold(first, |best, next| match (&best, &next) {
        (Err(_), Ok(_)) => next,
        (Ok(one), Ok(other)) if merit(other) < merit(one) => next,
        _ => best,
    })
}

fn check_sizes(sizes: &[f64]) -> Result<(), ScalingError> {
    sizes.iter().try_for_each(|n| positive("n_params", *n))?;
    if sizes.is_empty() || sizes.windows(2).any(|pair| pair[1] <= pair[0]) {
        return Err(ScalingError::NotGrowing(sizes.to_vec()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
