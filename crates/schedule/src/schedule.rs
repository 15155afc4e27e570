use crate::check::Checker;
use crate::file::{ScheduleFile, StageFile};
use crate::{
    AdamWSettings, Batch, CheckpointSettings, DataSource, EvaluationSettings, Growth, LearningRate,
    Machine, Prediction, Ramp, ScheduleError, TextData, Until,
};
use measure::{GptShape, Parametrization};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A checked schedule: a complete run.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub(crate) file: ScheduleFile,
    batch: Batch,
    stages: Vec<Stage>,
}

/// One stage: a shape, and when it ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    shape: GptShape,
    until: Until,
    growth: Growth,
}

impl Stage {
    /// The stage's shape for a vocabulary, which the data fixes.
    pub fn shape(&self, n_vocab: usize) -> GptShape {
        GptShape { n_vocab, ..self.shape }
    }

    /// The stage's limits: steps, tokens and compute of its own, not of those before it.
    pub fn until(&self) -> Until {
        self.until
    }

    /// How its model comes from the one before it; without meaning in the first stage.
    pub fn growth(&self) -> &Growth {
        &self.growth
    }
}

impl Schedule {
    /// Reads and checks a schedule file.
    ///
    /// # Errors
    /// An unreadable file, an unknown or missing key, or a value out of range; the message names
    /// the file, the key or line, and what would be right.
    pub fn read(path: &Path) -> Result<Self, ScheduleError> {
        let text = std::fs::read_to_string(path)
            .map_err(|cause| ScheduleError::Read { path: path.to_path_buf(), cause })?;
        Self::parse(&text, path)
    }

    /// Parses and checks a schedule; `path` is for messages.
    ///
    /// # Errors
    /// As [`Schedule::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ScheduleError> {
        let file: ScheduleFile = toml::from_str(text).map_err(|error| ScheduleError::Syntax {
            path: path.to_path_buf(),
            message: error.to_string().trim_end().to_string(),
        })?;
        Self::check(file, path)
    }

    /// The schedule as TOML; parsing it gives this schedule again.
    ///
    /// # Panics
    /// Never: every checked schedule has a TOML form.
    #[allow(clippy::missing_panics_doc)]
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.file).expect("every checked schedule has a TOML form")
    }

    /// The same run on other text files.
    ///
    /// # Errors
    /// A schedule of tokens, whose tokenizer it does not know; a path that is not UTF-8, which TOML cannot hold.
    pub fn with_text(mut self, files: Vec<PathBuf>) -> Result<Self, ScheduleError> {
        let text = match self.file.data {
            DataSource::Text(text) => text,
            DataSource::Tokens(tokens) => {
                return Err(ScheduleError::Value {
                    path: PathBuf::from("--text"),
                    key: "data.file".to_string(),
                    value: tokens.file.display().to_string(),
                    expected: "the schedule names tokens, and text would need their tokenizer; write source = \"text\" and \
                               a tokenizer into its [data]"
                        .to_string(),
                });
            }
            DataSource::Synthetic(_) => TextData::default(),
        };
        self.file.data = DataSource::Text(TextData { files, ..text });
        Self::check(self.file, Path::new("--text"))
    }

    /// The last shape alone, from random weights, under the same file: the run that the stages are compared with. It ends where
    /// `from_scratch.until` says; otherwise at the compute that the plan predicts for it, or without a
    /// plan at the most that the stages may take.
    ///
    /// # Errors
    /// None that a checked schedule has.
    pub fn from_scratch(mut self) -> Result<Self, ScheduleError> {
        let alone = self.file.from_scratch.take().unwrap_or_default();
        let predicted = self.file.prediction.take().map(|found| found.compute_from_scratch);
        let compute = predicted.unwrap_or_else(|| self.most_compute());
        self.file.name.push_str("-from-scratch");
        self.file.model.start = None;
        if let Some(peak) = alone.peak {
            self.file.learning_rate.peak = peak;
        }
        self.file.stages.drain(..self.file.stages.len() - 1);
        for stage in &mut self.file.stages {
            stage.until =
                alone.until.unwrap_or(Until { compute: Some(compute), ..Until::default() });
            stage.growth = None;
        }
        Self::check(self.file, Path::new("--from-scratch"))
    }

    /// The same run with its last stage this many times as long, for the end that a run of another length has. The warm-up
    /// stays, and a prediction, which is of the given length, goes.
    ///
    /// # Errors
    /// A factor with which the stage has no step.
    pub fn with_length(mut self, factor: f64) -> Result<Self, ScheduleError> {
        self.file.prediction = None;
        if let Some(stage) = self.file.stages.last_mut() {
            let scaled = |n: u64| (n as f64 * factor).round() as u64;
            let until = &mut stage.until;
            until.steps = until.steps.map(scaled);
            until.tokens = until.tokens.map(scaled);
            until.compute = until.compute.map(|compute| compute * factor);
        }
        let _ = write!(self.file.name, "-x{factor}"); // A String takes everything.
        Self::check(self.file, Path::new("--length"))
    }

    /// 6 N D of all stages unless a loss or a slope comes first, FLOPs.
    pub fn most_compute(&self) -> f64 {
        let mut before = 0;
        let mut compute = 0.0;
        for stage in &self.stages {
            let end = before + self.stage_steps(stage, before);
            let tokens = self.batch.tokens_through(end) - self.batch.tokens_through(before);
            compute += stage.shape.flops_per_token().0 * tokens as f64;
            before = end;
        }
        compute
    }

    /// The same run on sequences of another length.
    ///
    /// # Errors
    /// A length that the batch is no multiple of.
    pub fn with_context_len(mut self, context_len: usize) -> Result<Self, ScheduleError> {
        self.file.model.context_len = context_len;
        Self::check(self.file, Path::new("--context"))
    }

    pub(crate) fn check(mut file: ScheduleFile, path: &Path) -> Result<Self, ScheduleError> {
        Checker { path }.check(&file)?;
        let shapes: Vec<GptShape> =
            file.stages.iter().map(|stage| stage_shape(&file, stage)).collect();
        // One stage is written in one way, so that files can be compared.
        for (stage, shape) in file.stages.iter_mut().zip(&shapes) {
            (stage.d_head, stage.d_ff) = shape.inside();
        }
        let batch = file.batch.course(file.model.context_len);
        let stages = file
            .stages
            .iter()
            .zip(shapes)
            .map(|(stage, shape)| Stage {
                shape,
                until: stage.until,
                growth: stage.growth.clone().unwrap_or_default(),
            })
            .collect();
        Ok(Self { file, batch, stages })
    }

    /// Name of the run.
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// Seed of initialisation and data order.
    pub fn seed(&self) -> u64 {
        self.file.seed
    }

    /// Where the tokens come from.
    pub fn data(&self) -> &DataSource {
        &self.file.data
    }

    /// Longest sequence, in tokens.
    pub fn context_len(&self) -> usize {
        self.file.model.context_len
    }

    /// The checkpoint whose parameters and moments the first stage begins with; random weights where there is none.
    pub fn start(&self) -> Option<&Path> {
        self.file.model.start.as_deref()
    }

    /// How initialisation and learning rates depend on the width.
    pub fn parametrization(&self) -> Parametrization {
        self.file.parametrization
    }

    /// The optimizer's constants.
    pub fn optimizer(&self) -> AdamWSettings {
        self.file.optimizer
    }

    /// The learning rate's course.
    pub fn learning_rate(&self) -> LearningRate {
        self.file.learning_rate
    }

    /// Tokens in each step.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// How the batch rises to the full one, where it does.
    pub fn ramp(&self) -> Option<Ramp> {
        self.file.batch.ramp
    }

    /// Whether the learning rate rises with the batch, so that it is nowhere at its peak before the full batch.
    pub fn rate_rises(&self) -> bool {
        self.file.batch.ramp.is_some_and(|ramp| ramp.rate_exponent > 0.0)
    }

    /// The highest rate that the batch of a step allows, at the base width: the peak, but where it rises with a ramp.
    pub fn peak_at(&self, step: u64) -> f64 {
        self.file.learning_rate.peak * self.ramped(step)
    }

    /// Sequences in one forward pass.
    pub fn micro_batch(&self) -> usize {
        self.file.batch.micro_batch
    }

    /// When and on how much the held-out loss is measured.
    pub fn evaluation(&self) -> EvaluationSettings {
        self.file.evaluation
    }

    /// When the state is saved.
    pub fn checkpoint(&self) -> CheckpointSettings {
        self.file.checkpoint
    }

    /// How the machine is used.
    pub fn machine(&self) -> Machine {
        self.file.machine
    }

    /// The stages, in order.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// What the plan expects, where the schedule was planned.
    pub fn prediction(&self) -> Option<&Prediction> {
        self.file.prediction.as_ref()
    }

    /// Steps that all stages make unless a target loss comes first: of each the least of its limits in
    /// steps, tokens and compute.
    pub fn n_steps(&self) -> u64 {
        self.n_steps_from(0, 0)
    }

    /// Steps made at the end of the last stage, where `stage` begins after `before` steps.
    pub fn n_steps_from(&self, stage: usize, before: u64) -> u64 {
        let mut total = before;
        for stage in &self.stages[stage..] {
            total = total.saturating_add(self.stage_steps(stage, total));
        }
        total
    }

    /// Steps of the stage with this number, from 0, that begins after `before` steps, unless a target
    /// loss comes first.
    pub fn steps_of(&self, stage: usize, before: u64) -> u64 {
        self.stage_steps(&self.stages[stage], before)
    }

    /// The learning rate of the update that makes `step` in a stage that begins after `before` steps.
    /// Each stage goes on where its growth resumes. Only the last one decays, at the end of the course
    /// that it resumes, and from its own start at the earliest. Where warm-up and re-warm-up meet, the
    /// lower one counts. Of a ramped batch all of it is multiplied by what [`Ramp::rate_exponent`] says.
    pub fn learning_rate_at(&self, stage: usize, before: u64, step: u64) -> f64 {
        let (resumed, n_steps) = self.course_of(stage, before);
        let own = step.saturating_sub(before);
        let is_last = stage + 1 == self.stages.len();
        let rate = self.file.learning_rate;
        let decay = if is_last {
            rate.decay_at(resumed.saturating_add(own), n_steps, resumed)
        } else {
            1.0
        };
        let rewarmup = self.stages[stage].growth.rewarmup_steps;
        let risen = if stage == 0 || rewarmup == 0 { 1.0 } else { own as f64 / rewarmup as f64 };
        rate.peak
            * rate.warmup_at(resumed.saturating_add(own)).min(risen)
            * decay
            * self.ramped(step)
    }

    /// What the rate of a step is of that of the full batch.
    fn ramped(&self, step: u64) -> f64 {
        let Some(ramp) = &self.file.batch.ramp else { return 1.0 };
        let share = self.batch.tokens_at(step) as f64 / self.batch.final_tokens() as f64;
        share.powf(ramp.rate_exponent)
    }

    /// Where on the learning rate's course a stage begins that begins after `before` steps, and where it ends.
    pub(crate) fn course_of(&self, stage: usize, before: u64) -> (u64, u64) {
        let resumed = self.stages[stage].growth.resumed_step.unwrap_or(before);
        let resumed = if stage == 0 { 0 } else { resumed };
        (resumed, resumed.saturating_add(self.steps_of(stage, before)))
    }

    /// Steps of a stage that begins after `before` steps.
    fn stage_steps(&self, stage: &Stage, before: u64) -> u64 {
        let seen = self.batch.tokens_through(before);
        let for_tokens = |tokens: u64| {
            self.batch.steps_for_tokens(seen.saturating_add(tokens)).saturating_sub(before)
        };
        let until = stage.until;
        let by_compute = until
            .compute
            .map(|flops| for_tokens((flops / stage.shape.flops_per_token().0).ceil() as u64));
        [until.steps, until.tokens.map(for_tokens), by_compute]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(0)
    }
}

/// The shape with a vocabulary of one, until the data says how large it is; its sizes are not checked.
pub(crate) fn stage_shape(file: &ScheduleFile, stage: &StageFile) -> GptShape {
    let StageFile { n_layers, d_model, n_heads, d_head, d_ff, .. } = *stage;
    let plain = GptShape {
        context_len: file.model.context_len,
        tied_head: file.model.tied_head,
        ..GptShape::gpt2(n_layers, d_model, n_heads)
    };
    plain.with_inside(d_head, d_ff)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) const GOOD: &str = r#"
version = 1
name = "test"
seed = 1

[data]
source = "text"
files = ["a.txt"]
strip_cr = true

[model]
context_len = 128

[parametrization]
kind = "mup"
base_width = 64

[optimizer]
beta1 = 0.9
beta2 = 0.98
eps = 1e-9
weight_decay = 0.1
clip_norm = 1.0

[learning_rate]
shape = "constant"
peak = 0.008
warmup_steps = 100

[batch]
tokens = 4096
micro_batch = 32

[evaluation]
every_steps = 50
tokens = 49152

[checkpoint]
every_steps = 200
keep = 2

[[stages]]
n_layers = 4
d_model = 128
n_heads = 4
until = { steps = 1200 }
"#;

    pub(crate) fn parse(text: &str) -> Result<Schedule, ScheduleError> {
        Schedule::parse(text, Path::new("x.toml"))
    }

    #[test]
    fn a_good_file_is_read_with_its_defaults() {
        let schedule = parse(GOOD).unwrap();
        assert_eq!(schedule.parametrization(), Parametrization::mup(64));
        assert_eq!(schedule.stages()[0].shape(256).d_ff, 512);
        assert_eq!(schedule.n_steps(), 1200);
    }

    #[test]
    fn writing_and_reading_is_identity() {
        let schedule = parse(GOOD).unwrap();
        let again = parse(&schedule.to_toml()).unwrap();
        let in_full = GOOD.replace("n_heads = 4\n", "n_heads = 4\nd_head = 32\nd_ff = 512\n");
        assert_eq!(parse(&in_full).unwrap(), schedule);
        let thin = parse(&GOOD.replace("n_heads = 4\n", "n_heads = 3\nd_head = 32\nd_ff = 128\n"));
        assert_eq!(thin.unwrap().stages()[0].shape(256).to_string(), "4x128x3-h32-f128");
        assert_eq!(again, schedule);
        assert_eq!(again.to_toml(), schedule.to_toml());
    }

    #[test]
    fn the_first_limit_ends_the_stage() {
        let limits = "{ steps = 1200, tokens = 40961, compute = 1e30, loss = 1.5 }";
        let schedule = parse(&GOOD.replace("{ steps = 1200 }", limits)).unwrap();
        assert_eq!(schedule.n_steps(), 11);
        let limits = format!("{{ compute = {:e} }}", 6.0 * 786_432.0 * 4096.0 * 10.0);
        let schedule = parse(&GOOD.replace("{ steps = 1200 }", &limits)).unwrap();
        assert_eq!(schedule.n_steps(), 10);
    }

    #[test]
    fn each_bad_value_is_named_with_what_would_be_right() {
        let cases = [
            ("n_heads = 4", "n_heads = 3", "stages[0].n_heads = 3: must divide d_model = 128"),
            ("tokens = 4096", "tokens = 4000", "batch.tokens = 4000: must be a positive multiple"),
            ("keep = 2", "keep = 0", "checkpoint.keep = 0: must be at least 1"),
            ("peak = 0.008", "peak = -1.0", "learning_rate.peak = -1: must be positive"),
            ("peak = 0.008", "peak = nan", "learning_rate.peak = NaN: must be positive"),
            ("beta2 = 0.98", "beta2 = 1.0", "optimizer.beta2 = 1: must be at least 0 and below 1"),
            ("seed = 1", "seed = 1\nsede = 2", "unknown field `sede`"),
            ("strip_cr = true", "strip_rc = true", "unknown field `strip_rc`"),
            ("source = \"text\"", "source = \"txt\"", "unknown variant `txt`"),
            ("base_width = 64", "", "base_width"),
            ("tokens = 49152", "tokens = 9000000000", "must be at most 134217728"),
            ("eps = 1e-9", "eps = 1e-46", "optimizer.eps = "),
            ("d_model = 128", "d_model = 10000000", "d_model = 10000000: must be from 1 to 100000"),
            ("n_layers = 4", "n_layers = 0", "stages[0].n_layers = 0: must be from 1"),
            ("base_width = 64", "base_width = 64\nhidden_std = 1.0", "hidden_std"),
            ("{ steps = 1200 }", "{ loss = 1.5 }", "stages[0].until = { loss }: needs steps"),
            ("{ steps = 1200 }", "{ slope = -0.05 }", "stages[0].until = { slope }: needs steps"),
            ("{ steps = 1200 }", "{ steps = 9, slope = 0.1 }", "slope = 0.1: must be negative"),
            (
                "until = { steps = 1200 }",
                "until = { steps = 1200 }\ngrowth = {}",
                "grows from nothing",
            ),
            ("version = 1", "version = 2", "version = 2: this version reads version 1"),
            ("name = \"test\"", "name = \"../x\"", "name = \"../x\": must be letters"),
            ("d_model = 128", "d_model = \"wide\"", "invalid type: string \"wide\""),
        ];
        for (good, bad, message) in cases {
            let error = parse(&GOOD.replacen(good, bad, 1)).unwrap_err().to_string();
            assert!(error.contains(message), "{bad}: {error}");
            assert!(error.starts_with("x.toml: "), "{error}");
        }
    }

    pub(crate) fn second(stage: &str) -> String {
        let stage = stage.replace(';', "\n");
        GOOD.replace("{ steps = 1200 }", "{ steps = 1200 }\n\n[[stages]]\n") + &stage
    }

    #[test]
    fn a_predicted_curve_has_points_of_every_stage_in_order() {
        let grown = second("n_layers = 6;d_model = 256;n_heads = 8;until = { tokens = 40960 };");
        let found = |stage: &str, compute: &str| {
            let text = format!(
                "{grown}\n[prediction]\nlaw = \"x\"\nbatch = \"1\"\nfinal_loss = 2\ncompute = 3e9\n\
                 compute_from_scratch = 3e9\nsaving = 0\n[prediction.curve]\nstage = {stage}\n\
                 tokens = [1, 2, 3, 4]\ncompute = {compute}\nloss = [5, 4, 3, 2]\n"
            );
            parse(&text).err().map(|error| error.to_string()).unwrap_or_default()
        };
        let rising = "[1, 2, 3, 4]";
        assert_eq!(found("[0, 0, 1, 1]", rising), "");
        let cases = [
            ("[0, 0, 1, 1]", "[1, 2, 2, 4]", "prediction.curve.compute[2] = 2: must be above"),
            ("[0, 1, 0, 1]", rising, "prediction.curve.stage[2] = 0: must not be below"),
            (
                "[0, 0, 0, 1]",
                rising,
                "prediction.curve.stage = 1: must have at least two points of",
            ),
            ("[0, 0, 0, 2]", rising, "prediction.curve.stage[3] = 2: must be a stage, from 0 to 1"),
        ];
        for (stage, compute, message) in cases {
            let found = found(stage, compute);
            assert!(found.contains(message), "{found}");
        }
    }

    #[test]
    fn stages_grow_and_their_steps_add_up() {
        let text = second("n_layers = 6;d_model = 256;n_heads = 8;until = { tokens = 40960 };");
        let schedule = parse(&text).unwrap();
        assert_eq!(schedule.n_steps(), 1210);
        assert_eq!(*schedule.stages()[1].growth(), Growth::default());
        let full = "growth = { width = \"split\", split_strength = 0.2, depth = \"copy\", \
             placement = [0, 1, 1, 2, 3, 3], moments = { reestimated = 8 }, resumed_step = 400 };";
        let text = text + &full.replace(';', "\n");
        let schedule = parse(&text).unwrap();
        assert_eq!(schedule.stages()[1].growth().resumed_step, Some(400));
        assert_eq!(parse(&schedule.to_toml()).unwrap(), schedule);
    }

    #[test]
    fn the_last_shape_alone_costs_what_the_file_says() {
        let text = second("n_layers = 6;d_model = 256;n_heads = 8;until = { tokens = 40960 };");
        let whole = parse(&text).unwrap();
        let alone = whole.clone().from_scratch().unwrap();
        assert_eq!((alone.name(), alone.stages().len()), ("test-from-scratch", 1));
        let (small, large) = (12 * 4 * 128 * 128, 12 * 6 * 256 * 256);
        let compute = 6.0 * 4096.0 * f64::from(1200 * small + 10 * large);
        assert_eq!(whole.most_compute(), compute);
        assert_eq!(alone.most_compute(), 6.0 * 4096.0 * f64::from(large * (10 + 1200 / 6)));
        let own = "[from_scratch]\npeak = 0.004\nuntil = { steps = 7, loss = 1.5 }\n";
        let alone = parse(&(text + own)).unwrap().from_scratch().unwrap();
        assert_eq!((alone.n_steps(), alone.learning_rate().peak), (7, 0.004));
        let longer = alone.clone().with_length(1.5).unwrap();
        assert_eq!((longer.name(), longer.n_steps()), ("test-from-scratch-x1.5", 11));
        assert!(alone.clone().with_length(-1.0).is_err());
        assert_eq!(alone.stages()[0].until().loss, Some(1.5));
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

    #[test]
    fn stages_that_do_not_grow_are_explained() {
        let cases = [
            (
                "n_layers = 4;d_model = 64;n_heads = 2;",
                "stages[1].d_model = 64: must be at least 128",
            ),
            (
                "n_layers = 3;d_model = 128;n_heads = 4;",
                "stages[1].n_layers = 3: must be at least 4",
            ),
            ("n_layers = 4;d_model = 128;n_heads = 4;", "must be larger than the model before"),
            (
                "n_layers = 4;d_model = 256;n_heads = 16;",
                "stages[1].d_head = 16: must be at least 32",
            ),
            (
                "n_layers = 4;d_model = 192;n_heads = 6;growth = { width = \"split\" };",
                "stages[1].growth.width = split: needs d_model, n_heads and d_ff to grow by one",
            ),
            (
                "n_layers = 4;d_model = 256;n_heads = 8;growth = { width = \"wide\" };",
                "unknown variant `wide`",
            ),
        ];
        for (stage, message) in cases {
            let text = second(&(stage.to_string() + "until = { steps = 10 };"));
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(message), "{stage}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,80}", at in 0usize..600) {
            let mut broken = GOOD.to_string();
            let at = at.min(broken.len());
            broken.insert_str(at, &text);
            let _ = parse(&broken);
        }
    }
}
