//! Other runs that a schedule stands for: on other data, from scratch, of another length.

use crate::{DataSource, Schedule, ScheduleError, TextData, Until};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

impl Schedule {
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
    /// `from_scratch.until` says; otherwise at the loss that ends the last stage, if one does and the rate does not decay, and at the latest at the compute that
    /// the plan predicts for it, or without a plan at the most that the stages may take.
    ///
    /// # Errors
    /// A length beyond any run's, where the last shape is far smaller than what the stages may take.
    pub fn from_scratch(mut self) -> Result<Self, ScheduleError> {
        let alone = self.file.from_scratch.take().unwrap_or_default();
        let predicted = self.file.prediction.take().map(|found| found.compute_from_scratch);
        let compute = predicted.unwrap_or_else(|| self.most_compute());
        self.file.name.push_str("-from-scratch");
        self.file.model.start = None;
        self.file.pilot_compute = None;
        if let Some(peak) = alone.peak {
            self.file.learning_rate.peak = peak;
        }
        self.file.stages.drain(..self.file.stages.len() - 1);
        for stage in &mut self.file.stages {
            // Before its rate has decayed a run has no loss that counts.
            let loss = stage.until.loss.filter(|_| !self.file.learning_rate.decays());
            let compute = Some(compute);
            stage.until = alone.until.unwrap_or(Until { compute, loss, ..Until::default() });
            stage.growth = None;
        }
        Self::check(self.file, Path::new("--from-scratch"))
    }

    /// The same run with its last stage this many times as long, for the end that a run of another length has. The warm-up
    /// stays, and of a prediction, which is of the given length, what its pilot runs cost.
    ///
    /// # Errors
    /// A factor with which the stage has no step, or more than any run.
    pub fn with_length(mut self, factor: f64) -> Result<Self, ScheduleError> {
        self.file.pilot_compute = self.pilot_compute();
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

    /// The same run at another peak learning rate, which is its baseline's too.
    ///
    /// # Errors
    /// A peak that no schedule can have.
    pub fn with_peak(mut self, peak: f64) -> Result<Self, ScheduleError> {
        self.file.learning_rate.peak = peak;
        if let Some(alone) = &mut self.file.from_scratch {
            alone.peak = None;
        }
        let _ = write!(self.file.name, "-peak-{peak}"); // A String takes everything.
        Self::check(self.file, Path::new("--peaks"))
    }

    /// The same run on sequences of another length, in batches of so many tokens.
    ///
    /// # Errors
    /// A length that the batch is no multiple of.
    pub fn with_sequences(
        mut self,
        context_len: usize,
        batch_tokens: u64,
    ) -> Result<Self, ScheduleError> {
        self.file.model.context_len = context_len;
        self.file.batch.tokens = batch_tokens;
        Self::check(self.file, Path::new("--context"))
    }
}

#[cfg(test)]
mod tests {
    use crate::Schedule;
    use crate::schedule::tests::{GOOD, parse, second};

    fn text_with_pilots(text: &str) -> String {
        text.replace("seed = 1\n", "seed = 1\npilot_compute = 3e12\n")
    }

    /// A run of 1,200 steps of 786,432 parameters whose plan foretold so much compute for it.
    fn planned(compute: f64) -> Schedule {
        let told = "[prediction]\nlaw = \"law.json\"\nbatch = \"4096\"\nfinal_loss = 3.0\nsaving = 0.5\ncompute_from_scratch = 2e14";
        let curve = "stage = [0, 0]\ntokens = [1e5, 1e6]\nloss = [4.0, 3.0]\nlow = []\nhigh = []";
        let compute_of_curve = format!("compute = [1e11, {compute:e}]");
        parse(&format!(
            "{GOOD}\n{told}\ncompute = {compute:e}\n[prediction.curve]\n{curve}\n{compute_of_curve}\n"
        ))
        .unwrap()
    }

    #[test]
    fn a_planned_baseline_is_as_long_as_the_plan_says() {
        let step = 6.0 * 786_432.0 * 4096.0;
        let alone = planned(1e14).from_scratch().unwrap();
        assert_eq!(alone.n_steps(), (2e14f64 / step).ceil() as u64);
        assert!(alone.departed_from_plan().is_none(), "it has no prediction");
    }

    #[test]
    fn stages_that_were_changed_after_the_plan_are_told() {
        let compute = 1200.0 * 6.0 * 786_432.0 * 4096.0;
        assert_eq!(planned(compute).departed_from_plan(), None);
        assert_eq!(planned(0.97 * compute).departed_from_plan(), None);
        let told = planned(0.5 * compute).departed_from_plan().unwrap();
        assert!(told.contains("changed after the plan"), "{told}");
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
        assert_eq!(alone.stages()[0].until().loss, None);
        let to_a_loss = text.replace("tokens = 40960", "tokens = 40960, loss = 1.2");
        let to_a_loss = parse(&to_a_loss).unwrap().from_scratch().unwrap();
        assert_eq!(to_a_loss.stages()[0].until().loss, Some(1.2));
        let decaying = text.replace("tokens = 40960", "tokens = 40960, loss = 1.2");
        let decaying = decaying.replace("shape = \"constant\"", "shape = \"wsd\"");
        let decaying = parse(&decaying).unwrap();
        assert!(decaying.learning_rate().decays());
        assert_eq!(decaying.from_scratch().unwrap().stages()[0].until().loss, None);
        assert_eq!(to_a_loss.n_steps(), alone.n_steps());
        let own = "[from_scratch]\npeak = 0.004\nuntil = { steps = 7, loss = 1.5 }\n";
        let alone = parse(&(text + own)).unwrap().from_scratch().unwrap();
        assert_eq!((alone.n_steps(), alone.learning_rate().peak), (7, 0.004));
        let longer = alone.clone().with_length(1.5).unwrap();
        assert_eq!((longer.name(), longer.n_steps()), ("test-from-scratch-x1.5", 11));
        assert!(alone.clone().with_length(-1.0).is_err());
        assert_eq!(alone.stages()[0].until().loss, Some(1.5));
        // What pilot runs took stays with the staged run of another length, and is none of the baseline's.
        let paid = parse(&text_with_pilots(&whole.to_toml())).unwrap();
        let longer = paid.clone().with_length(2.0).unwrap();
        assert_eq!(longer.pilot_compute(), Some(3e12));
        assert_eq!(paid.from_scratch().unwrap().pilot_compute(), None);
        assert_eq!(longer.difference_from(&whole.clone().with_length(2.0).unwrap()), None);
    }
}
