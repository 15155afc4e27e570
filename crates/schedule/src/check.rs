use crate::file::{ScheduleFile, StageFile};
use crate::learning_rate::default_decay_fraction;
use crate::schedule::stage_shape;
use crate::{
    AdamWSettings, DataSource, DecayShape, LearningRate, MomentRule, Prediction, ScheduleError,
    Until,
};
use measure::Parametrization;
use std::fmt::Display;
use std::path::Path;

/// The file format that this version reads and writes.
const FORMAT_VERSION: u32 = 1;

/// Largest base width: that of the widest models.
const MOST_BASE_WIDTH: usize = 1_000_000;

/// Most tokens of an evaluation set.
pub const MOST_EVALUATION_TOKENS: u64 = 1 << 27;

/// Largest batch: some hundred times that of the largest models.
pub const MOST_BATCH_TOKENS: u64 = 1 << 30;

/// Reports the first value that is out of range.
pub(crate) struct Checker<'a> {
    pub path: &'a Path,
}

/// A value for people: a number of many digits with an exponent.
fn shown(text: String) -> String {
    const MOST_DIGITS: usize = 24;
    match text.parse::<f64>() {
        Ok(number) if text.len() > MOST_DIGITS => format!("{number:e}"),
        _ => text,
    }
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
            value: shown(value.to_string()),
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

    pub fn check(&self, file: &ScheduleFile) -> Result<(), ScheduleError> {
        let expected = format!("this version reads version {FORMAT_VERSION}");
        self.require(file.version == FORMAT_VERSION, "version", file.version, expected)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_name = file.name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && file.name.chars().all(plain);
        let expected = "must be letters, digits, '-', '_' and '.', a letter or digit first, since it names the run's folder";
        self.require(is_name, "name", format!("{:?}", file.name), expected)?;
        self.data(&file.data)?;
        let names = file.model.start.as_ref().is_none_or(|start| !start.as_os_str().is_empty());
        self.require(names, "model.start", "\"\"", "must be a checkpoint's folder")?;
        self.parametrization(file.parametrization)?;
        self.optimizer(file.optimizer)?;
        self.learning_rate(file.learning_rate)?;
        let decay = file.optimizer.weight_decay;
        self.decay("learning_rate.peak", file.learning_rate.peak, decay)?;
        if let Some(compute) = file.pilot_compute {
            self.positive("pilot_compute", compute)?;
        }
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
        self.stages(file)?;
        if let Some(alone) = &file.from_scratch {
            if let Some(peak) = alone.peak {
                self.positive("from_scratch.peak", peak)?;
                self.decay("from_scratch.peak", peak, decay)?;
            }
            if let Some(until) = alone.until {
                self.until("from_scratch.until", until)?;
            }
        }
        file.prediction.as_ref().map_or(Ok(()), |prediction| self.prediction(file, prediction))
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
            DataSource::Tokens(tokens) => {
                let is_utf8 = tokens.file.to_str().is_some();
                self.require(is_utf8, "data.file", tokens.file.display(), "must be UTF-8")?;
                held_out(tokens.validation_fraction)
            }
        }
    }

    fn parametrization(&self, parametrization: Parametrization) -> Result<(), ScheduleError> {
        let (hidden_key, hidden) = match parametrization {
            Parametrization::Mup { base_width, hidden_gain, .. } => {
                let expected = format!("must be from 1 to {MOST_BASE_WIDTH}");
                let in_range = (1..=MOST_BASE_WIDTH).contains(&base_width);
                self.require(in_range, "parametrization.base_width", base_width, expected)?;
                ("parametrization.hidden_gain", hidden_gain)
            }
            Parametrization::Standard { hidden_std, .. } => {
                ("parametrization.hidden_std", hidden_std)
            }
        };
        let factor = |key: &str, value: f64| {
            let expected = "must be from 1e-10 to 1e10, for the model is made of 32-bit floats";
            self.require((1e-10..=1e10).contains(&value), key, value, expected)
        };
        factor(hidden_key, hidden)?;
        factor("parametrization.embedding_std", parametrization.embedding_std())?;
        let at_base = match parametrization {
            Parametrization::Mup { output_multiplier, .. }
            | Parametrization::Standard { output_multiplier, .. } => output_multiplier,
        };
        factor("parametrization.output_multiplier", at_base)
    }

    fn optimizer(&self, adamw: AdamWSettings) -> Result<(), ScheduleError> {
        self.below_one("optimizer.beta1", adamw.beta1)?;
        self.below_one("optimizer.beta2", adamw.beta2)?;
        let expected = "must be from 1e-30 to 1e10, for the update is made in 32-bit floats";
        let in_range = (1e-30..=1e10).contains(&adamw.eps);
        self.require(in_range, "optimizer.eps", adamw.eps, expected)?;
        self.not_negative("optimizer.weight_decay", adamw.weight_decay)?;
        let expected = "must be at least 1e-10, for the gradient is made in 32-bit floats";
        let in_range = adamw.clip_norm >= 1e-10 && adamw.clip_norm.is_finite();
        self.require(in_range, "optimizer.clip_norm", adamw.clip_norm, expected)
    }

    /// Errs if an update takes more from a parameter than there is of it: with every step it would change its sign and grow.
    fn decay(&self, key: &str, peak: f64, weight_decay: f64) -> Result<(), ScheduleError> {
        let expected = format!("must be below 1 / optimizer.weight_decay = {}", 1.0 / weight_decay);
        self.require(peak * weight_decay < 1.0, key, peak, expected)
    }

    fn learning_rate(&self, rate: LearningRate) -> Result<(), ScheduleError> {
        self.positive("learning_rate.peak", rate.peak)?;
        self.fraction("learning_rate.final_fraction", rate.final_fraction)?;
        self.fraction("learning_rate.decay_fraction", rate.decay_fraction)?;
        let only_wsd = "only shape = \"wsd\" decays over a share of the run";
        let fits = rate.shape == DecayShape::Wsd || rate.decay_fraction == default_decay_fraction();
        self.require(fits, "learning_rate.decay_fraction", rate.decay_fraction, only_wsd)?;
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
                tokens > 0 && tokens <= MOST_BATCH_TOKENS && tokens.is_multiple_of(context_len),
                key,
                tokens,
                format!(
                    "must be a positive multiple of model.context_len = {context_len}, at most {MOST_BATCH_TOKENS}"
                ),
            )
        };
        whole("batch.tokens", file.batch.tokens)?;
        self.at_least_one("batch.micro_batch", file.batch.micro_batch as u64)?;
        if let Some(ramp) = &file.batch.ramp {
            whole("batch.ramp.from_tokens", ramp.from_tokens)?;
            self.require(
                ramp.from_tokens <= file.batch.tokens,
                "batch.ramp.from_tokens",
                ramp.from_tokens,
                format!("must be at most batch.tokens = {}", file.batch.tokens),
            )?;
            let expected = "must be from 1 to 10000000";
            let in_range = (1..=10_000_000).contains(&ramp.steps);
            self.require(in_range, "batch.ramp.steps", ramp.steps, expected)?;
            self.fraction("batch.ramp.rate_exponent", ramp.rate_exponent)?;
        }
        Ok(())
    }

    fn stages(&self, file: &ScheduleFile) -> Result<(), ScheduleError> {
        self.require(!file.stages.is_empty(), "stages", 0, "needs at least one stage")?;
        for (i, stage) in file.stages.iter().enumerate() {
            let key = format!("stages[{i}]");
            if let Err(error) = stage_shape(file, stage).check() {
                let text = error.to_string();
                let (named, expected) = text.split_once(": ").unwrap_or((&text, ""));
                let (dimension, value) = named.split_once(" = ").unwrap_or((named, ""));
                let key = match dimension {
                    "context_len" => "model.context_len".to_string(),
                    of_stage => format!("{key}.{of_stage}"),
                };
                self.require(false, &key, value, expected)?;
            }
            self.until(&format!("{key}.until"), stage.until)?;
            match i.checked_sub(1) {
                None => {
                    let expected = "the first stage grows from nothing";
                    self.require(
                        stage.growth.is_none(),
                        &format!("{key}.growth"),
                        "{ .. }",
                        expected,
                    )?;
                }
                Some(before) => self.growth(file, &file.stages[before], stage, &key)?,
            }
        }
        Ok(())
    }

    fn growth(
        &self,
        file: &ScheduleFile,
        before: &StageFile,
        stage: &StageFile,
        key: &str,
    ) -> Result<(), ScheduleError> {
        let (small, large) = (stage_shape(file, before), stage_shape(file, stage));
        let growth = stage.growth.clone().unwrap_or_default();
        let refusal = growth.plan(&small, &large).err().or_else(|| growth.idle(&small, &large));
        if let Some(refusal) = refusal {
            let key = match refusal.key.as_str() {
                "shape" => key.to_string(),
                inner => format!("{key}.{inner}"),
            };
            self.require(false, &key, refusal.value, refusal.expected)?;
        }
        match growth.moments {
            MomentRule::Reestimated(batches) => {
                let expected = "must be from 1 to 10000 batches";
                let in_range = (1..=10_000).contains(&batches);
                self.require(
                    in_range,
                    &format!("{key}.growth.moments.reestimated"),
                    batches,
                    expected,
                )
            }
            MomentRule::Mapped | MomentRule::Zero => Ok(()),
        }
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
        if let Some(slope) = until.slope {
            let expected = "must be negative and finite: a loss that falls has a slope below 0";
            let in_range = slope < 0.0 && slope.is_finite();
            self.require(in_range, &format!("{key}.slope"), slope, expected)?;
        }
        let bounded = until.steps.is_some() || until.tokens.is_some() || until.compute.is_some();
        let found = match (until.loss, until.slope) {
            (Some(_), _) => "{ loss }",
            (None, Some(_)) => "{ slope }",
            (None, None) => "{}",
        };
        let expected =
            "needs steps, tokens or compute (a loss or a slope alone may never be reached)";
        self.require(bounded, key, found, expected)
    }

    fn prediction(
        &self,
        file: &ScheduleFile,
        prediction: &Prediction,
    ) -> Result<(), ScheduleError> {
        self.positive("prediction.final_loss", prediction.final_loss)?;
        self.positive("prediction.compute", prediction.compute)?;
        self.positive("prediction.compute_from_scratch", prediction.compute_from_scratch)?;
        if let Some(compute) = prediction.pilot_compute {
            self.positive("prediction.pilot_compute", compute)?;
        }
        let saving = |key: &str, value: f64| {
            let is_one = value.is_finite() && value < 1.0;
            self.require(is_one, key, value, "must be a finite number below 1")
        };
        saving("prediction.saving", prediction.saving)?;
        for (i, end) in prediction.saving_interval.iter().flatten().enumerate() {
            saving(&format!("prediction.saving_interval[{i}]"), *end)?;
        }
        if let Some([low, high]) = prediction.saving_interval {
            let key = "prediction.saving_interval[1]";
            self.require(low <= high, key, high, "must not be below the lower end")?;
        }
        if let Some(pace) = prediction.pace {
            self.positive("prediction.pace", pace)?;
        }
        if let Some(tokens) = prediction.pace_over {
            self.positive("prediction.pace_over", tokens)?;
            let above = prediction.pace.is_some_and(|pace| pace > 1.0);
            self.require(above, "prediction.pace_over", tokens, "goes with a pace above 1")?;
        }
        if let Some(share) = prediction.grow_by {
            self.positive("prediction.grow_by", share)?;
        }
        let curve = &prediction.curve;
        let n = curve.loss.len();
        let has_band = !curve.low.is_empty() || !curve.high.is_empty();
        let band = |end: &Vec<f64>| if has_band { end.len() } else { n };
        for (name, length) in [
            ("low", band(&curve.low)),
            ("high", band(&curve.high)),
            ("stage", curve.stage.len()),
            ("tokens", curve.tokens.len()),
            ("compute", curve.compute.len()),
        ] {
            let expected = format!("must have as many values as prediction.curve.loss, {n}");
            self.require(length == n, &format!("prediction.curve.{name}"), length, expected)?;
        }
        let last = file.stages.len() - 1;
        for i in 0..n {
            let key = |name: &str| format!("prediction.curve.{name}[{i}]");
            let expected = format!("must be a stage, from 0 to {last}");
            self.require(curve.stage[i] <= last, &key("stage"), curve.stage[i], expected)?;
            self.positive(&key("tokens"), curve.tokens[i])?;
            self.positive(&key("compute"), curve.compute[i])?;
            self.positive(&key("loss"), curve.loss[i])?;
            if has_band {
                self.positive(&key("low"), curve.low[i])?;
                self.positive(&key("high"), curve.high[i])?;
                let expected = format!("must not be below the lower end, {}", curve.low[i]);
                self.require(curve.low[i] <= curve.high[i], &key("high"), curve.high[i], expected)?;
            }
            if i > 0 {
                let expected = "must not be below the stage before it";
                let in_order = curve.stage[i - 1] <= curve.stage[i];
                self.require(in_order, &key("stage"), curve.stage[i], expected)?;
                let expected =
                    format!("must be above the value before it, {}", curve.compute[i - 1]);
                let rises = curve.compute[i - 1] < curve.compute[i];
                self.require(rises, &key("compute"), curve.compute[i], expected)?;
                let expected =
                    format!("must not be below the value before it, {}", curve.tokens[i - 1]);
                let rises = curve.tokens[i - 1] <= curve.tokens[i];
                self.require(rises, &key("tokens"), curve.tokens[i], expected)?;
            }
        }
        for stage in 0..=last {
            let points = curve.stage.iter().filter(|of| **of == stage).count();
            let expected = format!("must have at least two points of stage {stage}");
            self.require(points >= 2, "prediction.curve.stage", points, expected)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
