//! The course of a run: steps, compute and learning rate as pure functions of stage and step.

use crate::{MomentRule, SLOPE_EVALUATIONS, Schedule, Stage};
use measure::Flops;

impl Schedule {
    /// Steps that all stages make unless a target loss comes first: of each the least of its limits in
    /// steps, tokens and compute.
    pub fn n_steps(&self) -> u64 {
        self.n_steps_from(0, 0)
    }

    /// Steps made at the end of the last stage, where `stage` begins after `before` steps.
    pub fn n_steps_from(&self, stage: usize, before: u64) -> u64 {
        let mut total = before;
        for stage in &self.stages()[stage..] {
            total = total.saturating_add(self.stage_steps(stage, total));
        }
        total
    }

    /// Steps of the stage with this number, from 0, that begins after `before` steps, unless a target
    /// loss comes first.
    pub fn steps_of(&self, stage: usize, before: u64) -> u64 {
        self.stage_steps(&self.stages()[stage], before)
    }

    /// The learning rate of the update that makes `step` in a stage that begins after `before` steps.
    /// Each stage goes on where its growth resumes. Only the last one decays, at the end of the course
    /// that it resumes, and from its own start at the earliest. Where warm-up and re-warm-up meet, the
    /// lower one counts. Of a ramped batch all of it is multiplied by what [`Ramp::rate_exponent`](crate::Ramp::rate_exponent) says.
    pub fn learning_rate_at(&self, stage: usize, before: u64, step: u64) -> f64 {
        let (resumed, n_steps) = self.course_of(stage, before);
        let own = step.saturating_sub(before);
        let is_last = stage + 1 == self.stages().len();
        let rate = self.file.learning_rate;
        let decay = if is_last {
            rate.decay_at(resumed.saturating_add(own), n_steps, resumed)
        } else {
            1.0
        };
        let rewarmup = self.stages()[stage].growth().rewarmup_steps;
        let risen = if stage == 0 || rewarmup == 0 { 1.0 } else { own as f64 / rewarmup as f64 };
        rate.peak
            * rate.warmup_at(resumed.saturating_add(own)).min(risen)
            * decay
            * self.ramped(step)
    }

    /// What the rate of a step is of that of the full batch.
    fn ramped(&self, step: u64) -> f64 {
        let Some(ramp) = &self.file.batch.ramp else { return 1.0 };
        let share = self.batch().tokens_at(step) as f64 / self.batch().final_tokens() as f64;
        share.powf(ramp.rate_exponent)
    }

    /// Where on the learning rate's course a stage begins that begins after `before` steps, and where it ends.
    pub(crate) fn course_of(&self, stage: usize, before: u64) -> (u64, u64) {
        let resumed = self.stages()[stage].growth().resumed_step.unwrap_or(before);
        let resumed = if stage == 0 { 0 } else { resumed };
        (resumed, resumed.saturating_add(self.steps_of(stage, before)))
    }

    /// Whether a stage makes enough evaluations before its end for its slope to be judged: [`SLOPE_EVALUATIONS`] within the last
    /// factor of four of compute.
    pub fn judges_slope(&self, stage: usize) -> bool {
        let (before, compute) = self.most_before(stage);
        let stage = &self.stages()[stage];
        let every = self.evaluation().every_steps;
        let end = self.stage_steps(stage, before).saturating_add(before);
        let last = end.saturating_sub(1) / every * every;
        let first = last.saturating_sub((SLOPE_EVALUATIONS as u64 - 1).saturating_mul(every));
        let at = |step| compute + self.flops_between(stage, before, step);
        first > before && 4.0 * at(first) >= at(last)
    }

    /// Whether a stage is evaluated before its other ends come, so that its loss can end it.
    pub fn judges_loss(&self, stage: usize) -> bool {
        let (before, _) = self.most_before(stage);
        let end = self.stage_steps(&self.stages()[stage], before).saturating_add(before);
        let every = self.evaluation().every_steps;
        end.saturating_sub(1) / every * every > before
    }

    /// 6 N D of the steps of a stage from one to another, FLOPs.
    fn flops_between(&self, stage: &Stage, from: u64, to: u64) -> f64 {
        // As numbers that do not overflow: tokens of a file's limits may.
        let tokens =
            self.batch().tokens_through(to) as f64 - self.batch().tokens_through(from) as f64;
        stage.shape(1).flops_per_token().0 * tokens
    }

    /// Steps of the last stage, which begins after `before` steps, until its learning rate decays.
    pub fn steps_before_decay(&self, before: u64) -> u64 {
        let (resumed, n_steps) = self.course_of(self.stages().len() - 1, before);
        self.file.learning_rate.decay_start(n_steps).clamp(resumed, n_steps) - resumed
    }

    /// Steps of a stage that begins after `before` steps.
    pub(crate) fn stage_steps(&self, stage: &Stage, before: u64) -> u64 {
        let seen = self.batch().tokens_through(before);
        let for_tokens = |tokens: u64| {
            self.batch().steps_for_tokens(seen.saturating_add(tokens)).saturating_sub(before)
        };
        let until = stage.until();
        // Compute that a law gave is that of whole tokens up to rounding, for which no step is made.
        let tokens_of = |flops: f64| flops * (1.0 - 1e-12) / stage.shape(1).flops_per_token().0;
        let by_compute =
            until.compute.map(|flops| for_tokens((tokens_of(flops).ceil() as u64).max(1)));
        [until.steps, until.tokens.map(for_tokens), by_compute]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(0)
    }

    /// 6 N D of all stages unless a loss or a slope comes first, FLOPs: of their steps, and of the batches from which growths estimate
    /// moments anew.
    pub fn most_compute(&self) -> f64 {
        self.most_before(self.stages().len()).1
    }

    /// Steps and 6 N D in FLOPs of all stages before this one, as [`Schedule::most_compute`] counts them.
    fn most_before(&self, stage: usize) -> (u64, f64) {
        let mut before = 0u64;
        let mut compute = 0.0;
        for (i, stage) in self.stages()[..stage].iter().enumerate() {
            let end = before.saturating_add(self.stage_steps(stage, before));
            let reestimated = match stage.growth().moments {
                MomentRule::Reestimated(batches) if i > 0 => u64::from(batches),
                _ => 0,
            };
            compute += self.flops_between(stage, before, end)
                + self.flops_between(stage, before, before.saturating_add(reestimated));
            before = end;
        }
        (before, compute)
    }

    /// Whether the last stage may end before its learning rate has decayed: at a loss or a slope.
    pub fn ends_undecayed(&self) -> bool {
        let last = self.stages().last().map(Stage::until);
        let may_end = last.is_some_and(|until| until.loss.is_some() || until.slope.is_some());
        self.learning_rate().decays() && may_end
    }

    /// How the schedule departs from the plan that its prediction is of: its stages' compute where their steps, shapes or batch were changed.
    pub fn departed_from_plan(&self) -> Option<String> {
        const ROUNDING: f64 = 0.05;
        let planned = self.prediction()?.compute;
        let open = |stage: &Stage| stage.until().loss.is_some() || stage.until().slope.is_some();
        let made = self.most_compute();
        // Stages are of whole steps.
        let step =
            |stage: &Stage| stage.shape(1).flops_per_token().0 * self.batch().final_tokens() as f64;
        let steps: f64 = self.stages().iter().map(step).sum();
        let is_other = (made - planned).abs() > ROUNDING * planned + steps;
        (is_other && !self.stages().iter().any(open)).then(|| {
            format!(
                "the prediction is that of a run of {}, and these stages take {}: their steps, shapes or batch were changed after the plan",
                Flops(planned),
                Flops(made)
            )
        })
    }

    /// Whether the learning rate rises with the batch, so that it is nowhere at its peak before the full batch.
    pub fn rate_rises(&self) -> bool {
        self.file.batch.ramp.is_some_and(|ramp| ramp.rate_exponent > 0.0)
    }

    /// Whether the learning rate comes to its peak in a stage that begins after `before` steps: in the first step behind warm-up and
    /// re-warm-up, if at all.
    pub fn comes_to_peak(&self, stage: usize, before: u64) -> bool {
        let (resumed, _) = self.course_of(stage, before);
        let warmup = self.file.learning_rate.warmup_steps.saturating_sub(resumed);
        let rewarmup = if stage == 0 { 0 } else { self.stages()[stage].growth().rewarmup_steps };
        let own = warmup.max(rewarmup).max(1);
        let step = before.saturating_add(own);
        own <= self.steps_of(stage, before)
            && self.learning_rate_at(stage, before, step) >= self.peak_at(step)
    }

    /// The highest rate that the batch of a step allows, at the base width: the peak, but where it rises with a ramp.
    pub fn peak_at(&self, step: u64) -> f64 {
        self.file.learning_rate.peak * self.ramped(step)
    }
}

#[cfg(test)]
mod tests {
    use crate::Schedule;
    use crate::schedule::tests::{GOOD, parse, second};

    #[test]
    fn the_first_limit_ends_the_stage() {
        let limits = "{ steps = 1200, tokens = 40961, compute = 1e30, loss = 1.5 }";
        let schedule = parse(&GOOD.replace("{ steps = 1200 }", limits)).unwrap();
        assert_eq!(schedule.n_steps(), 11);
        let limits = format!("{{ compute = {:e} }}", 6.0 * 786_432.0 * 4096.0 * 10.0);
        let schedule = parse(&GOOD.replace("{ steps = 1200 }", &limits)).unwrap();
        assert_eq!(schedule.n_steps(), 10);
        // One unit in the last place more, as a law gives it, is no further step.
        let ten_a_parameter = 37_108_517_437_440.016;
        let limits = format!("{{ compute = {ten_a_parameter:?} }}");
        let schedule = parse(&GOOD.replace("{ steps = 1200 }", &limits)).unwrap();
        assert_eq!(schedule.n_steps(), 1920);
    }

    /// Of a first stage twelve evaluations are needed before its end, of which ten lie within a factor of four of compute.
    #[test]
    fn a_slope_is_judged_from_ten_evaluations_near_the_end_on() {
        let judges = |text: &str, stage, steps: u64| {
            let text = text.replace(
                "until = { steps = 7 }",
                &format!("until = {{ steps = {steps}, slope = -0.1 }}"),
            );
            parse(&text).unwrap().judges_slope(stage)
        };
        let losses = |steps: u64| {
            let text = GOOD.replace("{ steps = 1200 }", &format!("{{ steps = {steps} }}"));
            parse(&text).unwrap().judges_loss(0)
        };
        assert!(!losses(7) && !losses(50) && losses(51));
        let alone = GOOD.replace("{ steps = 1200 }", "{ steps = 7 }");
        assert!(!judges(&alone, 0, 7) && !judges(&alone, 0, 600) && judges(&alone, 0, 601));
        let grown = second("n_layers = 6;d_model = 256;n_heads = 8;until = { steps = 7 };");
        assert!(!judges(&grown, 1, 7) && !judges(&grown, 1, 500) && judges(&grown, 1, 501));
    }

    #[test]
    fn the_learning_rate_goes_on_through_a_growth_and_decays_in_the_last_stage_alone() {
        for shape in ["wsd", "cosine", "linear"] {
            let text = second(
                "n_layers = 6;d_model = 256;n_heads = 8;until = { steps = 100 };\
                 growth = { resumed_step = 900, rewarmup_steps = 10 };",
            );
            let schedule = parse(&text.replace("constant", shape)).unwrap();
            let rate = |stage, step| {
                schedule.learning_rate_at(stage, if stage == 0 { 0 } else { 1200 }, step)
            };
            assert_eq!(rate(0, 50), 0.004);
            assert_eq!((rate(0, 100), rate(0, 1200)), (0.008, 0.008));
            assert!(rate(1, 1201) < 0.00081, "{shape}");
            // The decay over 200 of 1,000 steps begins with the stage, not before it.
            assert!(rate(1, 1210) > 0.007, "{shape}: {}", rate(1, 1210));
            assert!(rate(1, 1300) < 1e-6, "{shape}");
        }
    }

    /// Of warm-up and re-warm-up the lower one counts, and no more than the peak.
    #[test]
    fn the_rate_rises_again_after_a_growth_up_to_the_peak() {
        let stage = "n_layers = 6;d_model = 256;n_heads = 8;until = { steps = 200 };\
                     growth = { resumed_step = 50, rewarmup_steps = 10 };";
        let schedule = parse(&second(stage)).unwrap();
        for (step, due) in [(1205, 0.5), (1209, 0.59), (1220, 0.7), (1300, 1.0), (1390, 1.0)] {
            let rate = schedule.learning_rate_at(1, 1200, step);
            assert!((rate - 0.008 * due).abs() < 1e-12, "{step}: {rate}");
        }
    }

    #[test]
    fn the_learning_rate_follows_a_ramped_batch_as_its_exponent_says() {
        let stage = "n_layers = 6;d_model = 256;n_heads = 8;until = { steps = 100 };growth = { resumed_step = 900 };";
        let plain = parse(&second(stage).replace("constant", "wsd")).unwrap();
        let ramped = |more: &str| {
            let ramp =
                format!("micro_batch = 32\n[batch.ramp]\nfrom_tokens = 1024\nsteps = 1500{more}");
            let text = second(stage).replace("constant", "wsd");
            parse(&text.replace("micro_batch = 32", &ramp)).unwrap()
        };
        let (none, root) = (ramped(""), ramped("\nrate_exponent = 0.5"));
        assert!(!none.rate_rises() && root.rate_rises());
        // In the warm-up, at the peak, and in the decay of the second stage, which resumes at another step than it begins.
        for (stage, step) in [(0, 1), (0, 50), (0, 700), (1, 1201), (1, 1250), (1, 1299)] {
            let before = if stage == 0 { 0 } else { 1200 };
            let rate = |schedule: &Schedule| schedule.learning_rate_at(stage, before, step);
            let share = root.batch().tokens_at(step) as f64 / 4096.0;
            assert!(share < 0.95 && rate(&plain) > 0.0);
            assert_eq!(rate(&none), rate(&plain));
            assert_eq!(rate(&root), rate(&plain) * share.sqrt());
            assert_eq!(rate(&ramped("\nrate_exponent = 1")), rate(&plain) * share);
            assert_eq!(root.peak_at(step), 0.008 * share.sqrt());
        }
        assert_eq!(root.peak_at(1501), 0.008);
        let ramp =
            "micro_batch = 32\n[batch.ramp]\nfrom_tokens = 1024\nsteps = 6\nrate_exponent = 2";
        let error = parse(&GOOD.replace("micro_batch = 32", ramp)).unwrap_err().to_string();
        assert!(error.contains("batch.ramp.rate_exponent = 2: must be between 0 and 1"), "{error}");
    }
}
