use crate::file::{ScheduleFile, StageFile};
use crate::{
    AdamWSettings, Batch, CheckpointSettings, DataSource, DecayShape, EvaluationSettings,
    LearningRate, Machine, ScheduleError, TextData, TokenData, Until,
};
use measure::{GptShape, Parametrization};
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// The file format that this version reads and writes.
const FORMAT_VERSION: u32 = 1;

/// Most tokens of an evaluation set.
const MOST_EVALUATION_TOKENS: u64 = 1 << 27;

/// A checked schedule: a complete run.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    file: ScheduleFile,
    batch: Batch,
    stages: Vec<Stage>,
}

/// One stage: a shape, and when it ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    shape: GptShape,
    until: Until,
}

impl Stage {
    /// The stage's shape for a vocabulary, which the data fixes.
    pub fn shape(&self, n_vocab: usize) -> GptShape {
        GptShape { n_vocab, ..self.shape }
    }

    /// The stage's limits.
    pub fn until(&self) -> Until {
        self.until
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
    /// A path that is not UTF-8, which TOML cannot hold.
    pub fn with_text(mut self, files: Vec<PathBuf>) -> Result<Self, ScheduleError> {
        let text = match self.file.data {
            DataSource::Text(text) => text,
            DataSource::Tokens(TokenData { validation_fraction, .. }) => {
                TextData { validation_fraction, ..TextData::default() }
            }
            DataSource::Synthetic(_) => TextData::default(),
        };
        self.file.data = DataSource::Text(TextData { files, ..text });
        Self::check(self.file, Path::new("--text"))
    }

    /// The same run with another number of steps as its only limit.
    ///
    /// # Errors
    /// No steps at all.
    pub fn with_steps(mut self, steps: u64) -> Result<Self, ScheduleError> {
        for stage in &mut self.file.stages {
            stage.until = Until { steps: Some(steps), tokens: None, compute: None, loss: None };
        }
        Self::check(self.file, Path::new("--steps"))
    }

    fn check(file: ScheduleFile, path: &Path) -> Result<Self, ScheduleError> {
        let checker = Checker { path };
        checker.check(&file)?;
        let tokens = file.batch.tokens;
        let (from, steps) =
            file.batch.ramp.as_ref().map_or((tokens, 0), |ramp| (ramp.from_tokens, ramp.steps));
        let batch = Batch::new(file.model.context_len, tokens, from, steps);
        let stages = file
            .stages
            .iter()
            .map(|stage| Stage { shape: stage_shape(&file, stage), until: stage.until })
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

    /// Steps that the single stage makes unless its target loss comes first: the least of its
    /// limits in steps, tokens and compute.
    pub fn n_steps(&self) -> u64 {
        let Stage { shape, until } = &self.stages[0];
        let by_tokens = until.tokens.map(|tokens| self.batch.steps_for_tokens(tokens));
        let by_compute = until.compute.map(|flops| {
            let tokens = (flops / shape.flops_per_token().0).ceil() as u64;
            self.batch.steps_for_tokens(tokens)
        });
        [until.steps, by_tokens, by_compute].into_iter().flatten().min().unwrap_or(0)
    }
}

/// The shape with a vocabulary of one, until the data says how large it is.
fn stage_shape(file: &ScheduleFile, stage: &StageFile) -> GptShape {
    GptShape {
        n_layers: stage.n_layers,
        d_model: stage.d_model,
        n_heads: stage.n_heads,
        d_ff: stage.d_ff.unwrap_or(stage.d_model.saturating_mul(4)),
        n_vocab: 1,
        context_len: file.model.context_len,
        tied_head: file.model.tied_head,
    }
}

/// Reports the first value that is out of range.
struct Checker<'a> {
    path: &'a Path,
}

impl Checker<'_> {
    fn require(
        &self,
        holds: bool,
        key: &str,
        value: impl Display,
        expected: impl Display,
    ) -> Result<(), ScheduleError> {
        if holds {
            return Ok(());
        }
        Err(ScheduleError::Value {
            path: self.path.to_path_buf(),
            key: key.to_string(),
            value: value.to_string(),
            expected: expected.to_string(),
        })
    }

    fn at_least_one(&self, key: &str, value: u64) -> Result<(), ScheduleError> {
        self.require(value > 0, key, value, "must be at least 1")
    }

    fn positive(&self, key: &str, value: f64) -> Result<(), ScheduleError> {
        self.require(value > 0.0 && value.is_finite(), key, value, "must be positive and finite")
    }

    fn not_negative(&self, key: &str, value: f64) -> Result<(), ScheduleError> {
        self.require(value >= 0.0 && value.is_finite(), key, value, "must be 0 or more, and finite")
    }

    fn fraction(&self, key: &str, value: f64) -> Result<(), ScheduleError> {
        self.require((0.0..=1.0).contains(&value), key, value, "must be between 0 and 1")
    }

    fn below_one(&self, key: &str, value: f64) -> Result<(), ScheduleError> {
        self.require((0.0..1.0).contains(&value), key, value, "must be at least 0 and below 1")
    }

    fn check(&self, file: &ScheduleFile) -> Result<(), ScheduleError> {
        let expected = format!("this version reads version {FORMAT_VERSION}");
        self.require(file.version == FORMAT_VERSION, "version", file.version, expected)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_name = file.name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && file.name.chars().all(plain);
        let expected = "must be letters, digits, '-', '_' and '.', since it names the run's folder";
        self.require(is_name, "name", format!("{:?}", file.name), expected)?;
        self.data(&file.data)?;
        self.parametrization(file.parametrization)?;
        self.optimizer(file.optimizer)?;
        self.learning_rate(file.learning_rate)?;
        self.batch(file)?;
        self.at_least_one("evaluation.every_steps", file.evaluation.every_steps)?;
        let context_len = file.model.context_len as u64;
        self.require(
            file.evaluation.tokens >= context_len,
            "evaluation.tokens",
            file.evaluation.tokens,
            format!("must be at least one sequence, model.context_len = {context_len}"),
        )?;
        self.require(
            file.evaluation.tokens <= MOST_EVALUATION_TOKENS,
            "evaluation.tokens",
            file.evaluation.tokens,
            format!("must be at most {MOST_EVALUATION_TOKENS}, which are held in memory"),
        )?;
        self.at_least_one("checkpoint.every_steps", file.checkpoint.every_steps)?;
        self.at_least_one("checkpoint.keep", file.checkpoint.keep as u64)?;
        if let Some(threads) = file.machine.threads {
            let expected = "must be from 1 to 1024";
            let in_range = (1..=1024).contains(&threads);
            self.require(in_range, "machine.threads", threads, expected)?;
        }
        self.stages(file)
    }

    fn data(&self, data: &DataSource) -> Result<(), ScheduleError> {
        let held_out = |fraction: f64| {
            self.require(
                fraction > 0.0 && fraction < 1.0,
                "data.validation_fraction",
                fraction,
                "must be between 0 and 1, both left out",
            )
        };
        match data {
            DataSource::Synthetic(synthetic) => self.require(
                (2..=1024).contains(&synthetic.n_words),
                "data.n_words",
                synthetic.n_words,
                "must be from 2 to 1024 (the exact entropy looks at every pair of words)",
            ),
            DataSource::Text(text) => {
                if let Some(path) = text.files.iter().find(|path| path.to_str().is_none()) {
                    self.require(false, "data.files", path.display(), "must be UTF-8")?;
                }
                held_out(text.validation_fraction)
            }
            DataSource::Tokens(tokens) => held_out(tokens.validation_fraction),
        }
    }

    fn parametrization(&self, parametrization: Parametrization) -> Result<(), ScheduleError> {
        let (hidden_key, hidden) = match parametrization {
            Parametrization::Mup { base_width, hidden_gain, .. } => {
                self.at_least_one("parametrization.base_width", base_width as u64)?;
                ("parametrization.hidden_gain", hidden_gain)
            }
            Parametrization::Standard { hidden_std, .. } => {
                ("parametrization.hidden_std", hidden_std)
            }
        };
        self.positive(hidden_key, hidden)?;
        self.positive("parametrization.embedding_std", parametrization.embedding_std())?;
        let at_base = match parametrization {
            Parametrization::Mup { output_multiplier, .. }
            | Parametrization::Standard { output_multiplier, .. } => output_multiplier,
        };
        self.positive("parametrization.output_multiplier", at_base)
    }

    fn optimizer(&self, adamw: AdamWSettings) -> Result<(), ScheduleError> {
        self.below_one("optimizer.beta1", adamw.beta1)?;
        self.below_one("optimizer.beta2", adamw.beta2)?;
        let expected = "must be at least 1e-30, for the update is made in 32-bit floats";
        let in_range = adamw.eps.is_finite() && adamw.eps >= 1e-30;
        self.require(in_range, "optimizer.eps", adamw.eps, expected)?;
        self.not_negative("optimizer.weight_decay", adamw.weight_decay)?;
        self.positive("optimizer.clip_norm", adamw.clip_norm)
    }

    fn learning_rate(&self, rate: LearningRate) -> Result<(), ScheduleError> {
        self.positive("learning_rate.peak", rate.peak)?;
        self.fraction("learning_rate.final_fraction", rate.final_fraction)?;
        self.fraction("learning_rate.decay_fraction", rate.decay_fraction)?;
        let falls = rate.shape != DecayShape::Constant;
        let expected = "a constant learning rate has no final fraction";
        let fits = falls || rate.final_fraction == 0.0;
        self.require(fits, "learning_rate.final_fraction", rate.final_fraction, expected)
    }

    fn batch(&self, file: &ScheduleFile) -> Result<(), ScheduleError> {
        let context_len = file.model.context_len as u64;
        self.at_least_one("model.context_len", context_len)?;
        let whole = |key: &str, tokens: u64| {
            self.require(
                tokens > 0 && tokens.is_multiple_of(context_len),
                key,
                tokens,
                format!("must be a positive multiple of model.context_len = {context_len}"),
            )
        };
        whole("batch.tokens", file.batch.tokens)?;
        self.at_least_one("batch.micro_batch", file.batch.micro_batch as u64)?;
        if let Some(ramp) = &file.batch.ramp {
            whole("batch.ramp.from_tokens", ramp.from_tokens)?;
            let expected = "must be from 1 to 10000000";
            let in_range = (1..=10_000_000).contains(&ramp.steps);
            self.require(in_range, "batch.ramp.steps", ramp.steps, expected)?;
        }
        Ok(())
    }

    fn stages(&self, file: &ScheduleFile) -> Result<(), ScheduleError> {
        let expected = "this version trains exactly one stage";
        self.require(file.stages.len() == 1, "stages", file.stages.len(), expected)?;
        for (i, stage) in file.stages.iter().enumerate() {
            let key = format!("stages[{i}]");
            if let Err(error) = stage_shape(file, stage).check() {
                let text = error.to_string();
                let (named, expected) = text.split_once(": ").unwrap_or((&text, ""));
                let (dimension, value) = named.split_once(" = ").unwrap_or((named, ""));
                self.require(false, &format!("{key}.{dimension}"), value, expected)?;
            }
            self.until(&format!("{key}.until"), stage.until)?;
        }
        Ok(())
    }

    fn until(&self, key: &str, until: Until) -> Result<(), ScheduleError> {
        if let Some(steps) = until.steps {
            self.at_least_one(&format!("{key}.steps"), steps)?;
        }
        if let Some(tokens) = until.tokens {
            self.at_least_one(&format!("{key}.tokens"), tokens)?;
        }
        if let Some(compute) = until.compute {
            self.positive(&format!("{key}.compute"), compute)?;
        }
        if let Some(loss) = until.loss {
            self.positive(&format!("{key}.loss"), loss)?;
        }
        let bounded = until.steps.is_some() || until.tokens.is_some() || until.compute.is_some();
        let found = if until.loss.is_some() { "{ loss }" } else { "{}" };
        let expected = "needs steps, tokens or compute (a loss alone may never be reached)";
        self.require(bounded, key, found, expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = r#"
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

    fn parse(text: &str) -> Result<Schedule, ScheduleError> {
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
