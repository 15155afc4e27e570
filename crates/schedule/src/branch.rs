use crate::Schedule;
use crate::file::ScheduleFile;
use crate::{CheckpointSettings, DataSource, DecayShape, Machine, Until};
use std::fmt;
use std::path::{Component, PathBuf};

impl Schedule {
    /// The last step, counted from the start of the run, before the rate of a `wsd` run decays; `None` where that is not in this
    /// stage, which began after `before` steps, or at its start. From there a run of another length can branch off.
    pub fn stable_until(&self, stage: usize, before: u64) -> Option<u64> {
        let rate = self.learning_rate();
        let is_last = stage + 1 == self.stages().len();
        if !(is_last && rate.decays() && rate.shape == DecayShape::Wsd) {
            return None;
        }
        let (resumed, n_steps) = self.course_of(stage, before);
        let start = rate.decay_start(n_steps);
        (resumed < start && start < n_steps).then(|| before + (start - resumed))
    }

    /// Whether a run of this schedule and one of `other` are the same, bit for bit, up to `step`, which both make in
    /// `stage`, begun after `before` steps. Names, predictions, checkpoints and what follows do not count.
    ///
    /// # Errors
    /// What parts them, for people.
    pub fn same_until(
        &self,
        other: &Self,
        stage: usize,
        before: u64,
        step: u64,
    ) -> Result<(), String> {
        let (Some(ours), Some(mut theirs)) = (self.common_part(stage), other.common_part(stage))
        else {
            return Err(format!("not both have a stage {}", stage + 1));
        };
        if stage == 0 {
            // A learning rate counts by its values, below, so that runs of other lengths and decays have a part in common.
            theirs.learning_rate = ours.learning_rate;
        }
        if let Some(difference) = difference(&theirs, &ours) {
            return Err(difference.to_string());
        }
        for (schedule, whose) in [(self, "this run"), (other, "the other run")] {
            let end = before.saturating_add(schedule.steps_of(stage, before));
            if end < step {
                return Err(format!("{whose} ends its stage {} at step {end}", stage + 1));
            }
        }
        for step in before + 1..=step {
            let rate = |schedule: &Self| schedule.learning_rate_at(stage, before, step);
            let (here, there) = (rate(self), rate(other));
            if here.to_bits() != there.to_bits() {
                return Err(format!(
                    "the learning rate of step {step} is {there} there and {here} here"
                ));
            }
        }
        Ok(())
    }

    /// The first line in which another schedule differs: "`that` there, `this` here"; `None` if none does. Where a token file or the
    /// law lies does not count: folders move, a checkpoint knows what it learnt from, and a prediction's numbers which law made it.
    pub fn difference_from(&self, there: &Self) -> Option<String> {
        let placeless = |schedule: &Self| {
            let mut file = schedule.file.clone();
            without_token_path(&mut file);
            if let Some(prediction) = &mut file.prediction {
                prediction.law.clear();
            }
            // Of no number of the run.
            (file.pilot_compute, file.from_scratch) = (None, None);
            file
        };
        difference(&placeless(there), &placeless(self)).map(|found| found.to_string())
    }

    /// The first line in which a run of `there` is of another kind: not of this schedule under another seed or, with `any_length`, to
    /// another length. Its name, evaluations, checkpoints, threads and memory do not count, nor does its data, which may be the same as text
    /// and as tokens: what the runs learnt from says that.
    pub fn difference_in_kind(&self, there: &Self, any_length: bool) -> Option<Difference> {
        let kind = |schedule: &Self| {
            let mut file = schedule.file.clone();
            (file.seed, file.data) = (0, self.file.data.clone());
            file.evaluation = self.file.evaluation;
            file.machine = Machine { precision: file.machine.precision, ..self.file.machine };
            for stage in file.stages.iter_mut().filter(|_| any_length) {
                stage.until = Until::default();
            }
            without_incidentals(&mut file);
            file
        };
        difference(&kind(there), &kind(self))
    }

    /// What decides the course of a run up to a step in this stage, but for the learning rate and the stage's length.
    fn common_part(&self, stage: usize) -> Option<ScheduleFile> {
        let mut file = self.file.clone();
        without_incidentals(&mut file);
        file.stages.truncate(stage + 1);
        let last = file.stages.get_mut(stage)?;
        last.until = Until { loss: last.until.loss, slope: last.until.slope, ..Until::default() };
        Some(file)
    }
}

/// One spelling of each path, and none of a token file's.
fn without_token_path(file: &mut ScheduleFile) {
    let plain = |path: &PathBuf| -> PathBuf {
        path.components().filter(|part| *part != Component::CurDir).collect()
    };
    match &mut file.data {
        DataSource::Tokens(tokens) => tokens.file = PathBuf::new(),
        DataSource::Text(text) => text.files = text.files.iter().map(plain).collect(),
        DataSource::Synthetic(_) => {}
    }
    file.model.start = file.model.start.as_ref().map(plain);
}

/// Takes from a schedule what changes no number of its run.
fn without_incidentals(file: &mut ScheduleFile) {
    without_token_path(file);
    file.name.clear();
    file.from_scratch = None;
    file.prediction = None;
    file.pilot_compute = None;
    file.machine.recompute = false;
    file.checkpoint = CheckpointSettings { every_steps: 1, keep: 1 };
}

/// The first line in which two schedules differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// That of the other one.
    pub there: String,
    /// That of this one.
    pub here: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} there, {} here", self.there, self.here)
    }
}

fn difference(there: &ScheduleFile, here: &ScheduleFile) -> Option<Difference> {
    if there == here {
        return None;
    }
    let text = |file: &ScheduleFile| toml::to_string(file).unwrap_or_default();
    let (there, here) = (text(there), text(here));
    let lines = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.is_empty()).map(|line| format!("`{line}`")).collect()
    };
    let (there, here) = (lines(&there), lines(&here));
    let same = there.iter().zip(&here).take_while(|(there, here)| there == here).count();
    let differing =
        |lines: &[String]| lines.get(same).map_or("nothing", String::as_str).to_string();
    Some(Difference { there: differing(&there), here: differing(&here) })
}

#[cfg(test)]
mod tests {
    use crate::schedule::tests::{GOOD, parse, second};

    /// 1,200 steps with a decay over the last fifth.
    fn trunk() -> String {
        GOOD.replace("constant", "wsd")
    }

    /// The same through a growth, with 600 more steps.
    fn grown(resumed_step: u64) -> String {
        let stage = format!(
            "n_layers = 6;d_model = 128;n_heads = 4;until = {{ steps = 600 }};growth = {{ resumed_step = {resumed_step} }};"
        );
        second(&stage).replace("constant", "wsd")
    }

    #[test]
    fn a_rate_is_stable_until_the_decay_of_the_last_stage() {
        let stable = |text: &str, stage, before| parse(text).unwrap().stable_until(stage, before);
        assert_eq!(stable(&trunk(), 0, 0), Some(960));
        assert_eq!(stable(&trunk().replace("wsd", "linear"), 0, 0), None);
        assert_eq!(stable(&grown(240), 0, 0), None);
        // The second stage goes from 240 to 840 on its course and decays from 672 on.
        assert_eq!(stable(&grown(240), 1, 1200), Some(1632));
        assert_eq!(stable(&grown(10_800), 1, 1200), None, "it decays from its start");
    }

    #[test]
    fn runs_are_the_same_until_one_of_them_decays_or_ends() {
        let trunk = parse(&trunk()).unwrap();
        let shorter = trunk.clone().with_length(0.5).unwrap();
        assert_eq!(shorter.same_until(&trunk, 0, 0, 480), Ok(()));
        assert_eq!(trunk.same_until(&shorter, 0, 0, 480), Ok(()));
        let parted = shorter.same_until(&trunk, 0, 0, 481).unwrap_err();
        assert!(parted.contains("learning rate of step 481"), "{parted}");
        let grown = parse(&grown(240).replacen("1200", "720", 1)).unwrap();
        assert_eq!(grown.same_until(&trunk, 0, 0, 720), Ok(()));
        let ended = grown.same_until(&trunk, 0, 0, 840).unwrap_err();
        assert!(ended.contains("this run ends its stage 1 at step 720"), "{ended}");
        let longer = grown.clone().with_length(2.0).unwrap();
        // At 240 of 840 and of 1,440 steps when it begins; the first decays from step 1,152 of the run on.
        assert_eq!(longer.same_until(&grown, 1, 720, 1152), Ok(()));
        assert!(longer.same_until(&grown, 1, 720, 1153).is_err());
        assert!(
            longer.same_until(&trunk, 1, 720, 721).unwrap_err().contains("not both have a stage 2")
        );
    }

    #[test]
    fn a_branch_after_a_growth_has_had_the_same_course_before_it() {
        let grown = grown(240);
        let (here, there) =
            (parse(&grown).unwrap(), grown.replace("warmup_steps = 100", "warmup_steps = 200"));
        let parted = here.same_until(&parse(&there).unwrap(), 1, 1200, 1201).unwrap_err();
        assert!(parted.contains("`warmup_steps = 200` there"), "{parted}");
        let trunk = trunk();
        let to_a_loss = trunk.replace("{ steps = 1200 }", "{ steps = 1200, loss = 1.5 }");
        let parted = parse(&trunk).unwrap().same_until(&parse(&to_a_loss).unwrap(), 0, 0, 480);
        assert!(parted.unwrap_err().contains("loss = 1.5"));
    }

    #[test]
    fn a_part_that_only_one_schedule_has_is_named() {
        let text = trunk();
        let without = parse(&text).unwrap();
        let with = parse(&grown(240)).unwrap();
        assert_eq!(without.difference_from(&with).unwrap(), "`[[stages]]` there, nothing here");
        assert_eq!(with.difference_from(&without).unwrap(), "nothing there, `[[stages]]` here");
        assert_eq!(with.difference_from(&with.clone()), None);
        // How the last shape is trained alone makes no number of this run.
        let alone = parse(&format!("{text}\n[from_scratch]\npeak = 0.5\n")).unwrap();
        assert_eq!(alone.difference_from(&without), None);
        // Nor does where the law lies that foretold it.
        let foretold = |law: &str, loss: f64| {
            let told = format!("law = \"{law}\"\nbatch = \"4096\"\nfinal_loss = {loss}");
            let told = format!("{told}\ncompute = 1e12\ncompute_from_scratch = 1e12\nsaving = 0.0");
            let curve = "stage = [0, 0]\ntokens = [1e5, 1e6]\ncompute = [1e11, 1e12]\nloss = [4.0, 3.0]\nlow = []\nhigh = []";
            parse(&format!("{text}\n[prediction]\n{told}\n[prediction.curve]\n{curve}\n")).unwrap()
        };
        let here = foretold("here/law.json", 3.0);
        assert_eq!(here.difference_from(&foretold("there/law.json", 3.0)), None);
        let other = here.difference_from(&foretold("here/law.json", 3.1)).unwrap();
        assert!(other.contains("final_loss = 3.1"), "{other}");
    }

    #[test]
    fn what_changes_the_course_parts_runs_from_the_start() {
        let text = trunk();
        let trunk = parse(&text).unwrap();
        let changed = |old, new| parse(&text.replacen(old, new, 1)).unwrap();
        let same =
            [("keep = 2", "keep = 9"), ("\"test\"", "\"other\""), ("steps = 200", "steps = 7")];
        for (old, new) in same {
            assert_eq!(changed(old, new).same_until(&trunk, 0, 0, 480), Ok(()), "{new}");
        }
        // Threads make no other kind of run, the precision does.
        let kind = |machine: &str| parse(&format!("{text}\n[machine]\n{machine}\n")).unwrap();
        assert_eq!(kind("threads = 1").difference_in_kind(&kind("threads = 2"), false), None);
        let other =
            kind("precision = \"f32\"").difference_in_kind(&kind("precision = \"bf16\""), false);
        assert!(other.unwrap().there.contains("precision = \"bf16\""));
        let other = [
            ("seed = 1\n", "seed = 2\n", "`seed = 1` there, `seed = 2` here"),
            ("d_model = 128", "d_model = 256", "d_model"),
            ("micro_batch = 32", "micro_batch = 16", "micro_batch"),
            ("beta1 = 0.9", "beta1 = 0.8", "beta1"),
            ("every_steps = 50", "every_steps = 20", "every_steps"),
            ("peak = 0.008", "peak = 0.016", "learning rate of step 1"),
            ("warmup_steps = 100", "warmup_steps = 200", "learning rate of step 1"),
        ];
        for (old, new, reason) in other {
            let found = changed(old, new).same_until(&trunk, 0, 0, 1).unwrap_err();
            assert!(found.contains(reason), "{new}: {found}");
        }
    }
}
