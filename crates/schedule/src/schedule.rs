use crate::check::Checker;
use crate::file::{ScheduleFile, StageFile};
use crate::{
    AdamWSettings, Batch, CheckpointSettings, DataSource, EvaluationSettings, Growth, LearningRate,
    Machine, Prediction, Ramp, ScheduleError, Until,
};
use measure::{GptShape, MOST_STEPS, Parametrization};
use serde::de::DeserializeOwned;
use std::io::{Error, ErrorKind};
use std::path::Path;

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
        let refused = |cause| ScheduleError::Read { path: path.to_path_buf(), cause };
        if path.is_dir() {
            let cause = ErrorKind::IsADirectory;
            return Err(refused(Error::new(cause, "is a folder; name a schedule, a .toml file")));
        }
        let text = std::fs::read_to_string(path).map_err(refused)?;
        Self::parse(&text, path)
    }

    /// Parses and checks a schedule; `path` is for messages.
    ///
    /// # Errors
    /// As [`Schedule::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ScheduleError> {
        let file: ScheduleFile = toml::from_str(text).map_err(|error| {
            let mut message = error.to_string().trim_end().to_string();
            // Of a table whose kind is one of its keys the parser tells the table's line alone.
            let key = key_at_fault::<DataSource>(text, "data", "source")
                .or_else(|| key_at_fault::<Parametrization>(text, "parametrization", "kind"));
            if let Some(key) = key.filter(|key| !message.contains(&format!("`{key}`"))) {
                message = format!("{message} ({key})");
            }
            ScheduleError::Syntax { path: path.to_path_buf(), message }
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

    pub(crate) fn check(mut file: ScheduleFile, path: &Path) -> Result<Self, ScheduleError> {
        Checker { path }.check(&file)?;
        let shapes: Vec<GptShape> =
            file.stages.iter().map(|stage| stage_shape(&file, stage)).collect();
        // One stage is written in one way, so that files can be compared.
        for (i, (stage, shape)) in file.stages.iter_mut().zip(&shapes).enumerate() {
            (stage.d_head, stage.d_ff) = shape.inside();
            if i > 0 {
                stage.growth.get_or_insert_default();
            }
        }
        let batch = file.batch.course(file.model.context_len);
        let stages: Vec<Stage> = file
            .stages
            .iter()
            .zip(shapes)
            .map(|(stage, shape)| Stage {
                shape,
                until: stage.until,
                growth: stage.growth.clone().unwrap_or_default(),
            })
            .collect();
        let schedule = Self { file, batch, stages };
        for (k, stage) in schedule.stages.iter().enumerate() {
            schedule.check_length(stage, &format!("stages[{k}].until"), path)?;
        }
        let alone = schedule.file.from_scratch.and_then(|alone| alone.until);
        if let (Some(until), Some(last)) = (alone, schedule.stages.last()) {
            let alone = Stage { until, ..last.clone() };
            schedule.check_length(&alone, "from_scratch.until", path)?;
        }
        Ok(schedule)
    }

    /// Errs where a stage is longer than any run.
    fn check_length(&self, stage: &Stage, key: &str, path: &Path) -> Result<(), ScheduleError> {
        // So few that tokens of some stages can be summed.
        const MOST_TOKENS: u64 = 1_000_000_000_000_000_000;
        let steps = self.stage_steps(stage, 0);
        let tokens = self.batch.tokens_through(steps);
        for (found, most, unit) in [(steps, MOST_STEPS, "steps"), (tokens, MOST_TOKENS, "tokens")] {
            if found > most {
                return Err(ScheduleError::Value {
                    path: path.to_path_buf(),
                    key: key.to_string(),
                    value: format!("{found:e} {unit}"),
                    expected: format!("must be at most {most:e} {unit}"),
                });
            }
        }
        Ok(())
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

    /// Sequences in one forward pass: no more than there are in a full batch.
    pub fn micro_batch(&self) -> usize {
        let of_batch = self.file.batch.tokens / self.file.model.context_len as u64;
        self.file.batch.micro_batch.min(of_batch as usize)
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

    /// 6 N D of the pilot runs that it was planned with, FLOPs.
    pub fn pilot_compute(&self) -> Option<f64> {
        self.prediction().and_then(|plan| plan.pilot_compute).or(self.file.pilot_compute)
    }
}

/// The key of a table, other than that of its kind, without which it would have another fault, or none.
fn key_at_fault<T: DeserializeOwned>(text: &str, name: &str, kind: &str) -> Option<String> {
    let file: toml::Table = text.parse().ok()?;
    let table = file.get(name)?.as_table()?;
    let fault = |table: &toml::Table| {
        let found = toml::Value::Table(table.clone()).try_into::<T>();
        found.err().map(|error| error.to_string())
    };
    let whole = fault(table)?;
    let is_at_fault = |key: &&String| {
        let mut without = table.clone();
        without.remove(*key);
        fault(&without).as_ref() != Some(&whole)
    };
    table.keys().filter(|key| *key != kind).find(is_at_fault).cloned()
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
        assert!(schedule.stages()[0].shape(256).tied_head);
        let untied = GOOD.replace("[model]\n", "[model]\ntied_head = false\n");
        assert!(!parse(&untied).unwrap().stages()[0].shape(256).tied_head);
    }

    #[test]
    fn a_rule_for_moments_says_what_it_can_be() {
        let due = "moments must be \"mapped\", \"zero\" or { reestimated = BATCHES }";
        for rule in ["\"reestimated\"", "{ reestimated = 4, mapped = true }", "4"] {
            let growth = format!("growth = {{ moments = {rule} }}");
            let text = second(&format!(
                "n_layers = 4;d_model = 256;n_heads = 8;{growth};until = {{ steps = 10 }};"
            ));
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(due), "{error}");
        }
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

    /// What stands in a good file, what is put there, and what is said about it.
    const BAD: &[(&str, &str, &str)] = &[
        ("n_heads = 4", "n_heads = 3", "stages[0].n_heads = 3: must divide d_model = 128"),
        ("tokens = 4096", "tokens = 4000", "batch.tokens = 4000: must be a positive multiple"),
        ("keep = 2", "keep = 0", "checkpoint.keep = 0: must be at least 1"),
        ("peak = 0.008", "peak = -1.0", "learning_rate.peak = -1: must be positive"),
        ("peak = 0.008", "peak = 1e300", "learning_rate.peak = 1e300: must be below"),
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
        ("until = { steps = 1200 }", "until = { steps = 1200 }\ngrowth = {}", "grows from nothing"),
        ("version = 1", "version = 2", "version = 2: this version reads version 1"),
        ("name = \"test\"", "name = \"../x\"", "name = \"../x\": must be letters"),
        ("d_model = 128", "d_model = \"wide\"", "invalid type: string \"wide\""),
        ("weight_decay = 0.1", "weight_decay = 125", "peak = 0.008: must be below 1 / optimizer"),
        ("strip_cr = true", "strip_cr = 5", "expected a boolean (strip_cr)"),
        ("base_width = 64", "base_width = 1e3", "expected usize (base_width)"),
        ("every_steps = 50", "every_steps = 0", "evaluation.every_steps = 0: must be at least 1"),
        ("tokens = 49152", "tokens = 7", "evaluation.tokens = 7: must be at least one sequence"),
        ("base_width = 64", "base_width = 0", "parametrization.base_width = 0: must be from 1"),
        (
            "base_width = 64",
            "base_width = 64\noutput_multiplier = 1e-300",
            "output_multiplier = 1e-300: must be from 1e-10",
        ),
        (
            "base_width = 64",
            "base_width = 64\nhidden_gain = 1e300",
            "hidden_gain = 1e300: must be from 1e-10",
        ),
        (
            "base_width = 64",
            "base_width = 64\nembedding_std = 0.0",
            "embedding_std = 0: must be from 1e-10",
        ),
        ("eps = 1e-9", "eps = 2e12", "optimizer.eps = 2000000000000: must be from 1e-30"),
        ("clip_norm = 1.0", "clip_norm = -1.0", "optimizer.clip_norm = -1: must be at least 1e-10"),
        (
            "weight_decay = 0.1",
            "weight_decay = -0.1",
            "optimizer.weight_decay = -0.1: must be 0 or more",
        ),
        (
            "peak = 0.008",
            "peak = 0.008\nfinal_fraction = 0.5",
            "learning_rate.final_fraction = 0.5: a constant learning rate",
        ),
        ("peak = 0.008", "peak = 0.008\ndecay_fraction = 0.5", "decay_fraction = 0.5: only shape"),
        ("micro_batch = 32", "micro_batch = 0", "batch.micro_batch = 0: must be at least 1"),
        (
            "micro_batch = 32",
            "micro_batch = 32\n[batch.ramp]\nfrom_tokens = 8192\nsteps = 9",
            "batch.ramp.from_tokens = 8192: must be at most",
        ),
        (
            "micro_batch = 32",
            "micro_batch = 32\n[batch.ramp]\nfrom_tokens = 1000\nsteps = 9",
            "batch.ramp.from_tokens = 1000: must be a positive",
        ),
        (
            "micro_batch = 32",
            "micro_batch = 32\n[batch.ramp]\nfrom_tokens = 1024\nsteps = 0",
            "batch.ramp.steps = 0: must be from 1",
        ),
        ("{ steps = 1200 }", "{ steps = 0 }", "stages[0].until.steps = 0: must be at least 1"),
        ("{ steps = 1200 }", "{ tokens = 0 }", "stages[0].until.tokens = 0: must be at least 1"),
        (
            "{ steps = 1200 }",
            "{ compute = -1.0 }",
            "stages[0].until.compute = -1: must be positive",
        ),
        (
            "{ steps = 1200 }",
            "{ steps = 9, loss = 0.0 }",
            "stages[0].until.loss = 0: must be positive",
        ),
        (
            "[[stages]]",
            "[machine]\nthreads = 0\n\n[[stages]]",
            "machine.threads = 0: must be from 1",
        ),
        (
            "[[stages]]",
            "[from_scratch]\npeak = 0.0\n\n[[stages]]",
            "from_scratch.peak = 0: must be positive",
        ),
        (
            "[[stages]]",
            "[from_scratch]\nuntil = { loss = 1.5 }\n\n[[stages]]",
            "from_scratch.until = { loss }: needs steps",
        ),
        (
            "strip_cr = true",
            "strip_cr = true\nvalidation_fraction = 1.0",
            "data.validation_fraction = 1: must be between 0 and 1",
        ),
        ("name = \"test\"", "name = \"_x\"", "a letter or digit first"),
        ("seed = 1", "seed = 1\npilot_compute = 0.0", "pilot_compute = 0: must be positive"),
    ];

    #[test]
    fn each_bad_value_is_named_with_what_would_be_right() {
        for (good, bad, message) in BAD {
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

    #[test]
    fn steps_beyond_any_run_are_refused() {
        let with = |until: &str| {
            second(&format!("n_layers = 6;d_model = 256;n_heads = 8;until = {{ {until} }};"))
        };
        for until in
            ["steps = 9000000000000000000", "compute = 1e300", "tokens = 5000000000000000000"]
        {
            let error = parse(&with(until)).unwrap_err().to_string();
            assert!(
                error.contains("stages[1].until = ") && error.contains("at most 1e12 steps"),
                "{error}"
            );
        }
        let alone = "[from_scratch]\nuntil = { steps = 9000000000000000000 }\n";
        let error = parse(&(with("steps = 10") + "\n" + alone)).unwrap_err().to_string();
        assert!(error.contains("from_scratch.until = "), "{error}");
        let large = with("steps = 1000000000000").replace("tokens = 4096", "tokens = 1073741824");
        assert!(parse(&large).unwrap_err().to_string().contains("at most 1e18 tokens"));
        // One limit of several counts, the first to come.
        let most = parse(&with("steps = 1000000000000, compute = 1e300")).unwrap();
        assert_eq!(most.n_steps(), 1_000_000_001_200);
        assert!(most.most_compute() > most.stages()[1].shape(1).flops_per_token().0 * 4e15);
    }

    /// Every value of a good file in turn becomes one that it should not be: what is taken then must not make what is asked of it
    /// panic.
    #[test]
    fn no_value_makes_a_schedule_panic() {
        let values = [
            "0",
            "1",
            "-1",
            "2",
            "0.5",
            "1e-320",
            "1e308",
            "nan",
            "inf",
            "9223372036854775807",
            "1000000000000",
            "true",
            "\"x\"",
            "[]",
            "{}",
        ];
        let good = second(
            "n_layers = 6;d_model = 256;n_heads = 8;[stages.until];steps = 10;tokens = 40960;compute = 1e15;[stages.growth];\
             resumed_step = 5;rewarmup_steps = 2;split_strength = 0.5;[from_scratch];peak = 0.01;[from_scratch.until];steps = 9;\
             loss = 1.5",
        );
        parse(&good).unwrap();
        let lines: Vec<&str> = good.lines().collect();
        let mut taken = 0;
        for (i, line) in lines.iter().enumerate() {
            let Some((key, _)) = line.split_once('=') else { continue };
            for value in values {
                let mut changed = lines.clone();
                let line = format!("{key}= {value}");
                changed[i] = &line;
                let Ok(schedule) = parse(&changed.join("\n")) else { continue };
                taken += 1;
                let steps = schedule.n_steps();
                assert!(schedule.most_compute() > 0.0, "{line}");
                for step in [1, steps / 2, steps] {
                    let before = schedule.steps_of(0, 0).min(step);
                    assert!(schedule.learning_rate_at(1, before, step) >= 0.0, "{line}");
                }
                assert_eq!(parse(&schedule.to_toml()).unwrap(), schedule, "{line}");
                let _ = schedule.clone().with_length(0.5);
                assert!(schedule.from_scratch().is_ok(), "{line}");
            }
        }
        assert!(taken > 50, "{taken}");
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
