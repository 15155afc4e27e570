use crate::quadrature::integrate;
use crate::root::root;
use crate::steps::excess;
use crate::{BatchPolicy, CriticalBatch, ScalingError, StepLaw, Throughput, TokenLaw};

/// S / S_min at the critical batch (Kaplan et al. 2020, eq. 5.4 with B = B_crit).
const STEPS_OVER_STEPS_MIN: f64 = 2.0;

/// Steps between 1 and a pace that passes, among whose growth points the best are looked for.
const PACES: u32 = 8;

/// What training a model to a loss costs: a law, a batch policy where the law counts steps, and the
/// price of a token.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingCost {
    law: CostedLaw,
    /// Measured speed; 6 N FLOPs for a token without it.
    throughput: Option<Throughput>,
    pace: Pace,
    /// Loss below which no model grows, nats per token.
    pub(crate) least_growth_loss: f64,
}

/// How much progress a grown model makes for its compute, over that of one from scratch at the same loss. It is 1 where dynamics are
/// preserved, as the operators of Shen et al. 2022 are to do. What one above 1 has won is a lead, which was measured to be kept and not
/// to grow (docs/savings/dickens.md): it may last for some tokens only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// The pace.
    pub value: f64,
    /// Tokens after the first growth of a run for which it lasts if it is above 1, and is 1 from then on; infinite if it does to the end.
    pub over: f64,
}

impl Pace {
    /// To the end.
    pub fn lasting(value: f64) -> Self {
        Self { value, over: f64::INFINITY }
    }

    /// The tokens for which it lasts, where that is not to the end.
    pub fn passes_after(self) -> Option<f64> {
        (self.value > 1.0 && self.over.is_finite()).then_some(self.over)
    }
}

/// The growth that a stage begins with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GrownAt {
    /// Loss at it, nats per token.
    pub loss: f64,
    /// Tokens since the first growth of the run.
    pub tokens: f64,
}

impl GrownAt {
    /// The growth at the end of a stage of so many tokens, which began with another growth or from scratch.
    pub(crate) fn after(began: Option<Self>, tokens: f64, loss: f64) -> Self {
        Self { loss, tokens: began.map_or(0.0, |growth| growth.tokens + tokens) }
    }
}

/// How a stage began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageStart {
    /// Untrained.
    Scratch,
    /// By a growth.
    Growth,
}

impl StageStart {
    /// That of a stage by its number, from 0.
    pub fn of(stage: usize) -> Self {
        if stage == 0 { Self::Scratch } else { Self::Growth }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum CostedLaw {
    Tokens(TokenLaw),
    Steps { law: StepLaw, critical: CriticalBatch, policy: BatchPolicy },
}

impl TrainingCost {
    /// A law in tokens: C = 6 N D at any batch.
    pub fn tokens(law: TokenLaw) -> Self {
        Self::of(CostedLaw::Tokens(law))
    }

    /// A law in steps, how the batch that pays off depends on the loss, and the batch that is used.
    pub fn steps(law: StepLaw, critical: CriticalBatch, policy: BatchPolicy) -> Self {
        Self::of(CostedLaw::Steps { law, critical, policy })
    }

    fn of(law: CostedLaw) -> Self {
        Self { law, throughput: None, pace: Pace::lasting(1.0), least_growth_loss: 0.0 }
    }

    /// The measured speeds that costs are in seconds by, if they are.
    pub fn throughput(&self) -> Option<&Throughput> {
        self.throughput.as_ref()
    }

    /// The same in seconds at a measured speed: every amount of compute becomes one of time.
    #[must_use]
    pub fn in_seconds(mut self, throughput: Throughput) -> Self {
        self.throughput = Some(throughput);
        self
    }

    /// The same where grown models have this pace.
    #[must_use]
    pub fn with_pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// The pace of grown models.
    pub fn grown_pace(&self) -> Pace {
        self.pace
    }

    /// The costs at constant paces among whose growth points the best ones are looked for. Where a pace passes, marginal costs after
    /// one growth are at that pace if the run ends before it has, at 1 if after, and in between if just then.
    pub(crate) fn at_constant_paces(&self) -> Vec<Self> {
        if self.pace.passes_after().is_none() {
            return vec![self.clone()];
        }
        let at = |share: f64| self.clone().with_pace(Pace::lasting(self.pace.value.powf(share)));
        (0..=PACES).rev().map(|k| at(f64::from(k) / f64::from(PACES))).collect()
    }

    /// Tokens from scratch that tokens are worth which follow others since the first growth.
    pub(crate) fn progress(&self, since_growth: f64, tokens: f64) -> f64 {
        let pace = self.pace.value;
        let Some(over) = self.pace.passes_after() else { return pace * tokens };
        tokens + (pace - 1.0) * tokens.min((over - since_growth).max(0.0))
    }

    /// Tokens after others since the first growth that are worth some from scratch.
    fn tokens_for(&self, since_growth: f64, progress: f64) -> f64 {
        let pace = self.pace.value;
        let at_this_pace = progress / pace;
        let Some(over) = self.pace.passes_after() else { return at_this_pace };
        at_this_pace.max(progress - (pace - 1.0) * (over - since_growth).max(0.0))
    }

    /// Tokens of a stage to a loss, from a growth or from scratch.
    ///
    /// # Errors
    /// A loss that the size cannot reach.
    fn stage_tokens(
        &self,
        n_params: f64,
        grown: Option<GrownAt>,
        loss: f64,
    ) -> Result<f64, ScalingError> {
        let from_scratch = self.tokens_at(n_params, loss)?;
        let Some(grown) = grown else { return Ok(from_scratch) };
        let progress = from_scratch - self.tokens_at(n_params, grown.loss)?;
        Ok(self.tokens_for(grown.tokens, progress))
    }

    /// N and tokens of stages of these sizes that grow at these losses and end at a final one.
    ///
    /// # Errors
    /// A loss that a size cannot reach.
    pub(crate) fn staged(
        &self,
        sizes: &[f64],
        growth_losses: &[f64],
        final_loss: f64,
    ) -> Result<Vec<(f64, f64)>, ScalingError> {
        let mut found = Vec::new();
        let mut grown: Option<GrownAt> = None;
        for (n, end) in sizes.iter().zip(growth_losses.iter().chain([&final_loss])) {
            let tokens = self.stage_tokens(*n, grown, *end)?;
            grown = Some(GrownAt::after(grown, tokens, *end));
            found.push((*n, tokens));
        }
        Ok(found)
    }

    /// What stages of so many parameters and tokens cost.
    pub(crate) fn paid(&self, stages: &[(f64, f64)]) -> f64 {
        stages.iter().map(|(n, tokens)| self.per_token(*n) * tokens).sum()
    }

    /// What such stages save of the cost of the last size from scratch.
    ///
    /// # Errors
    /// A loss that a size cannot reach.
    pub(crate) fn staged_saving(
        &self,
        sizes: &[f64],
        growth_losses: &[f64],
        final_loss: f64,
    ) -> Result<f64, ScalingError> {
        let from_scratch = self.compute_at(sizes[sizes.len() - 1], final_loss)?;
        Ok(1.0 - self.paid(&self.staged(sizes, growth_losses, final_loss)?) / from_scratch)
    }

    /// The same where no model grows below the loss that one of a size has after these tokens from scratch, though the law has a
    /// better point there.
    ///
    /// # Errors
    /// No tokens at all.
    pub fn with_growths_by(mut self, n_params: f64, tokens: f64) -> Result<Self, ScalingError> {
        self.least_growth_loss = self.loss_after(n_params, None, tokens)?;
        Ok(self)
    }

    /// The pace of a stage over that of a model from scratch at the same loss.
    pub fn pace(&self, start: StageStart) -> f64 {
        match start {
            StageStart::Scratch => 1.0,
            StageStart::Growth => self.pace.value,
        }
    }

    /// Whether costs are seconds.
    pub fn is_in_seconds(&self) -> bool {
        self.throughput.is_some()
    }

    /// Cost of a token: 6 N FLOPs (Kaplan et al. 2020, section 2.1), or measured seconds.
    pub fn per_token(&self, n_params: f64) -> f64 {
        self.throughput.as_ref().map_or(6.0 * n_params, |measured| measured.seconds(n_params))
    }

    /// Loss after endless training.
    pub fn asymptote(&self, n_params: f64) -> f64 {
        match &self.law {
            CostedLaw::Steps { law, .. } => law.asymptote(n_params),
            CostedLaw::Tokens(law) => law.asymptote(n_params),
        }
    }

    /// Tokens from scratch to a loss.
    ///
    /// # Errors
    /// A loss at or below the asymptote.
    pub fn tokens_at(&self, n_params: f64, loss: f64) -> Result<f64, ScalingError> {
        match &self.law {
            CostedLaw::Tokens(law) => law.tokens_at(n_params, loss),
            CostedLaw::Steps { law, critical, policy } => {
                let steps_min = law.steps_min_at(n_params, loss)?;
                let b_crit = critical.tokens_at(loss);
                Ok(match policy {
                    BatchPolicy::Fixed { batch_tokens } => steps_min * (batch_tokens + b_crit),
                    BatchPolicy::CriticalAtEnd => STEPS_OVER_STEPS_MIN * steps_min * b_crit,
                    BatchPolicy::Critical => tokens_at_critical(law, critical, n_params, loss),
                })
            }
        }
    }

    /// C_N(L): compute from scratch to a loss, FLOPs.
    ///
    /// # Errors
    /// A loss at or below the asymptote.
    pub fn compute_at(&self, n_params: f64, loss: f64) -> Result<f64, ScalingError> {
        Ok(self.per_token(n_params) * self.tokens_at(n_params, loss)?)
    }

    /// d C / d L at a loss, FLOPs per nat; negative.
    ///
    /// # Errors
    /// A loss at or below the asymptote.
    pub fn marginal_compute(&self, n_params: f64, loss: f64) -> Result<f64, ScalingError> {
        Ok(self.per_token(n_params) * self.tokens_derivative(n_params, loss)?)
    }

    fn tokens_derivative(&self, n_params: f64, loss: f64) -> Result<f64, ScalingError> {
        match &self.law {
            CostedLaw::Tokens(law) => law.tokens_derivative(n_params, loss),
            CostedLaw::Steps { law, critical, policy } => {
                let steps = law.steps_min_at(n_params, loss)?;
                let steps_change = law.steps_min_derivative(n_params, loss)?;
                let (batch, batch_change) =
                    (critical.tokens_at(loss), critical.derivative_at(loss));
                Ok(match policy {
                    BatchPolicy::Fixed { batch_tokens } => {
                        steps_change * (batch_tokens + batch) + steps * batch_change
                    }
                    BatchPolicy::CriticalAtEnd => {
                        STEPS_OVER_STEPS_MIN * (steps_change * batch + steps * batch_change)
                    }
                    BatchPolicy::Critical => STEPS_OVER_STEPS_MIN * steps_change * batch,
                })
            }
        }
    }

    /// d ln L / d ln C of the learning curve at a loss; negative, and 0 at the asymptote.
    ///
    /// # Errors
    /// A loss at or below the asymptote.
    pub fn loss_slope(&self, n_params: f64, loss: f64) -> Result<f64, ScalingError> {
        let compute = self.compute_at(n_params, loss)?;
        Ok(compute / (loss * self.marginal_compute(n_params, loss)?))
    }

    /// Optimizer steps to a loss; tokens where the law has no steps.
    ///
    /// # Errors
    /// A loss at or below the asymptote.
    pub fn steps_at(&self, n_params: f64, loss: f64) -> Result<f64, ScalingError> {
        match &self.law {
            CostedLaw::Tokens(law) => law.tokens_at(n_params, loss),
            CostedLaw::Steps { law, critical, policy } => {
                let steps_min = law.steps_min_at(n_params, loss)?;
                Ok(match policy {
                    BatchPolicy::Fixed { batch_tokens } => {
                        steps_min * (1.0 + critical.tokens_at(loss) / batch_tokens)
                    }
                    BatchPolicy::CriticalAtEnd | BatchPolicy::Critical => {
                        STEPS_OVER_STEPS_MIN * steps_min
                    }
                })
            }
        }
    }

    /// Loss that a model reaches with an amount of compute: the inverse of
    /// [`TrainingCost::compute_at`].
    ///
    /// # Errors
    /// Compute that is not positive.
    pub fn loss_at_compute(&self, n_params: f64, compute: f64) -> Result<f64, ScalingError> {
        positive("compute", compute)?;
        if let CostedLaw::Tokens(law) = &self.law {
            return Ok(law.loss_at(n_params, compute / self.per_token(n_params)));
        }
        let target = compute.ln();
        self.root_in_excess("the loss at this compute", n_params, |loss| {
            self.compute_at(n_params, loss).map_or(f64::NAN, |found| found.ln() - target)
        })
    }

    /// Loss that a model reaches with tokens after a growth, or from scratch.
    ///
    /// # Errors
    /// A loss at or below the asymptote, or no tokens at all.
    pub fn loss_after(
        &self,
        n_params: f64,
        grown: Option<GrownAt>,
        tokens: f64,
    ) -> Result<f64, ScalingError> {
        let all = match grown {
            None => tokens,
            Some(growth) => {
                self.tokens_at(n_params, growth.loss)? + self.progress(growth.tokens, tokens)
            }
        };
        self.loss_at_compute(n_params, all * self.per_token(n_params))
    }

    /// Loss at which the learning curve of a size has a slope d ln L / d ln C.
    ///
    /// # Errors
    /// A slope that the curve never has.
    pub fn loss_at_slope(&self, n_params: f64, slope: f64) -> Result<f64, ScalingError> {
        self.root_in_excess("the loss at this slope", n_params, |loss| {
            self.loss_slope(n_params, loss).map_or(f64::NAN, |found| found - slope)
        })
    }

    /// Solves f(L) = 0 over L above the asymptote of a size, in ln(L - asymptote).
    pub(crate) fn root_in_excess(
        &self,
        name: &'static str,
        n_params: f64,
        f: impl Fn(f64) -> f64,
    ) -> Result<f64, ScalingError> {
        let asymptote = self.asymptote(n_params);
        let loss = |u: f64| asymptote + u.exp();
        let (least, most) = ((asymptote * 1e-10).ln(), (asymptote * 1e3).ln());
        root(name, least, most, |u| f(loss(u))).map(loss)
    }
}

/// 2 ∫ B_crit(L(S_min)) dS_min from S_min = 0 to where the loss is `loss`.
///
/// With x = (L - L_inf) / L_inf, t = x / (1 + x), p = 1 / a_B and q = 1 / a_S it is
/// 2 q S_c B* L_inf^-(p + q) ∫ t^(-q - 1) (1 - t)^(p + q - 1) dt from t to 1, taken in ln t.
///
/// The panels do to 1e-6 of it down to t = 1e-10 and for a_S from 0.05 on.
fn tokens_at_critical(law: &StepLaw, critical: &CriticalBatch, n_params: f64, loss: f64) -> f64 {
    const PANELS: u32 = 8;
    let asymptote = law.asymptote(n_params);
    let (p, q) = (1.0 / critical.exponent, 1.0 / law.steps.exponent);
    let t = (loss - asymptote) / loss;
    let integral = integrate(t.ln(), 0.0, PANELS, |v| {
        (-q * v).exp() * (-v.exp_m1()).max(0.0).powf(p + q - 1.0)
    });
    STEPS_OVER_STEPS_MIN
        * q
        * law.steps.scale
        * critical.scale
        * asymptote.powf(-(p + q))
        * integral
}

/// Errs unless a number is positive and finite.
pub(crate) fn positive(name: &'static str, value: f64) -> Result<(), ScalingError> {
    excess(value, 0.0, 0.0).map(drop).map_err(|_| ScalingError::NotPositive { name, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::published::{
        AUTHORS_STEPS, CHINCHILLA, CHINCHILLA_CORRECTED, KAPLAN_CRITICAL_BATCH, KAPLAN_STEPS,
        KAPLAN_TOKENS,
    };
    use crate::{KaplanLaw, PowerLaw, SumLaw};
    use proptest::prelude::*;

    fn token_laws() -> [TokenLaw; 8] {
        let (TokenLaw::Kaplan(kaplan), TokenLaw::Sum(sum)) = (KAPLAN_TOKENS, CHINCHILLA_CORRECTED)
        else {
            unreachable!()
        };
        let mixed = |weight| TokenLaw::Mixed { weight, kaplan, sum };
        // Fits of poor data have parts that do not fall with tokens.
        let flat_sum =
            TokenLaw::Mixed { weight: 0.5, kaplan, sum: SumLaw { data_factor: 0.0, ..sum } };
        let data = PowerLaw { scale: 0.0, ..kaplan.data };
        let flat_kaplan =
            TokenLaw::Mixed { weight: 0.5, kaplan: KaplanLaw { data, ..kaplan }, sum };
        [
            KAPLAN_TOKENS,
            CHINCHILLA,
            CHINCHILLA_CORRECTED,
            mixed(0.5),
            mixed(0.03),
            mixed(1.0),
            flat_sum,
            flat_kaplan,
        ]
    }

    fn all() -> Vec<TrainingCost> {
        let policies = [
            BatchPolicy::Fixed { batch_tokens: 524_288.0 },
            BatchPolicy::CriticalAtEnd,
            BatchPolicy::Critical,
        ];
        let steps =
            |law| policies.map(|policy| TrainingCost::steps(law, KAPLAN_CRITICAL_BATCH, policy));
        let tokens = token_laws().map(TrainingCost::tokens);
        [steps(AUTHORS_STEPS).to_vec(), steps(KAPLAN_STEPS).to_vec(), tokens.to_vec()].concat()
    }

    proptest! {
        #[test]
        fn marginal_compute_is_the_derivative_of_compute(
            ln_n in 13.0f64..24.0, above in 0.02f64..3.0,
        ) {
            for cost in all() {
                let n = ln_n.exp();
                let asymptote = cost.asymptote(n);
                let loss = asymptote * (1.0 + above);
                let h = 1e-5 * (loss - asymptote);
                let at = |loss| cost.compute_at(n, loss).unwrap();
                let slope = (at(loss + h) - at(loss - h)) / (2.0 * h);
                let found = cost.marginal_compute(n, loss).unwrap();
                prop_assert!((found / slope - 1.0).abs() < 1e-6, "{cost:?}: {found} for {slope}");
            }
        }

        #[test]
        fn loss_at_compute_is_the_inverse_of_compute(ln_n in 13.0f64..24.0, above in 0.02f64..3.0) {
            for cost in all() {
                let n = ln_n.exp();
                let loss = cost.asymptote(n) * (1.0 + above);
                let compute = cost.compute_at(n, loss).unwrap();
                let found = cost.loss_at_compute(n, compute).unwrap();
                prop_assert!((found / loss - 1.0).abs() < 1e-9, "{cost:?}: {found} for {loss}");
            }
        }
    }

    #[test]
    fn laws_are_inverted_exactly() {
        let (n, loss) = (1e8, 3.5);
        let steps = AUTHORS_STEPS.steps_min_at(n, loss).unwrap();
        assert!((AUTHORS_STEPS.loss_at(n, steps) - loss).abs() < 1e-12);
        for law in token_laws() {
            let tokens = law.tokens_at(n, loss).unwrap();
            assert!((law.loss_at(n, tokens) - loss).abs() < 1e-12);
        }
    }

    #[test]
    fn a_loss_below_the_asymptote_is_explained() {
        for cost in all() {
            let asymptote = cost.asymptote(1e8);
            for loss in [asymptote, 0.5 * asymptote, f64::NAN, f64::INFINITY] {
                let error = cost.compute_at(1e8, loss).unwrap_err().to_string();
                assert!(error.contains("stays above"), "{error}");
            }
        }
    }

    /// Hoffmann et al. 2022 and Besiroglu et al. 2024: tokens per parameter at 1e9 parameters.
    #[test]
    fn optimal_tokens_per_parameter_are_the_published_ones() {
        let ratio = |law: TokenLaw| law.optimal_tokens(1e9).unwrap() / 1e9;
        assert!((ratio(CHINCHILLA_CORRECTED) - 22.70).abs() < 0.01);
        assert!((ratio(CHINCHILLA) - 44.03).abs() < 0.01);
    }
}
