use crate::{Branch, Event, GrowthReport, Start, TrainError};
use corpus::{TokenFileInfo, open_locked};
use schedule::Schedule;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

const SCHEDULE_FILE: &str = "schedule.toml";
const METRICS_FILE: &str = "metrics.csv";
const START_FILE: &str = "start.json";
const BRANCH_FILE: &str = "branch.json";
const EVENTS_FILE: &str = "events.jsonl";
const LOCK_FILE: &str = "lock";
/// Tells a run's folder from any other, before it has a schedule.
const LOCK_CONTENT: &[u8] = b"a run of staged\n";
const DATA_FOLDER: &str = "data";

/// A run's folder: schedule.toml, metrics.csv, events.jsonl, checkpoints/ and data/; branch.json where it branched off, start.json where it began with a model
/// that was there.
pub struct RunFolder {
    root: PathBuf,
    /// The folder and those above it that this process made, the innermost first.
    made: Vec<PathBuf>,
    /// Whether the run began earlier.
    begun: bool,
    /// Held while the run is on; the system lets go of it when the process ends.
    _lock: File,
    events: Option<File>,
    /// What was told before there was a list of events to write it to.
    early: Vec<Event>,
}

impl RunFolder {
    /// Takes a folder for a run. Nothing but empty folders and the lock is made yet.
    ///
    /// # Errors
    /// Another process works there, the folder holds another run, or this run and `resume` is not
    /// asked for, or it holds something else.
    pub fn take(root: &Path, schedule: &Schedule, resume: bool) -> Result<Self, TrainError> {
        if root.to_str().is_none() {
            return Err(TrainError::folder(root, "the name must be UTF-8"));
        }
        let lock_path = root.join(LOCK_FILE);
        let ours = fs::read(&lock_path).is_ok_and(|content| content == LOCK_CONTENT);
        // A schedule alone may be anybody's.
        let has_run = Self::is_run(root) && Self::events_of(root).exists();
        if root.exists() && !ours && !has_run {
            check_empty(root)?;
        }
        let of_a_run = [Self::checkpoints_of(root), Self::metrics_of(root), Self::events_of(root)];
        if ours && !Self::is_run(root) && of_a_run.iter().any(|path| path.exists()) {
            let reason = "its schedule.toml is gone, without which nothing tells what was run; put it back, or choose another --out";
            return Err(TrainError::folder(root, reason));
        }
        let made: Vec<PathBuf> = root
            .ancestors()
            .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
            .map(Path::to_path_buf)
            .collect();
        fs::create_dir_all(root).map_err(TrainError::io(root))?;
        let mut lock = Self::locked(root, &lock_path)?;
        lock.write_all(LOCK_CONTENT).map_err(TrainError::io(&lock_path))?;
        let begun = Self::is_run(root);
        if begun {
            check_held_run(root, schedule, resume)?;
        }
        Ok(Self {
            root: root.to_path_buf(),
            made,
            begun,
            _lock: lock,
            events: None,
            early: Vec::new(),
        })
    }

    /// The lock, held.
    fn locked(root: &Path, path: &Path) -> Result<File, TrainError> {
        let (lock, locked) = open_locked(path).map_err(TrainError::io(path))?;
        match locked {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => {
                Err(TrainError::folder(root, "another process is working on this run"))
            }
            Err(TryLockError::Error(cause)) => {
                Err(TrainError::Io { path: path.to_path_buf(), cause })
            }
        }
    }

    /// Makes the folder this run's: writes the schedule of a new one and opens the list of events.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn begin(&mut self, schedule: &Schedule) -> Result<(), TrainError> {
        if !self.begun {
            self.write_schedule(schedule)?;
        }
        let path = self.root.join(EVENTS_FILE);
        let torn = fs::read(&path).is_ok_and(|text| !text.is_empty() && !text.ends_with(b"\n"));
        let mut events = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(TrainError::io(&path))?;
        if torn {
            events.write_all(b"\n").map_err(TrainError::io(&path))?;
        }
        self.events = Some(events);
        std::mem::take(&mut self.early).iter().try_for_each(|event| self.record(event))
    }

    /// Writes the schedule, also of a run that goes on, once it is found to be the same: its token file may lie elsewhere now.
    pub(crate) fn write_schedule(&self, schedule: &Schedule) -> Result<(), TrainError> {
        self.write(SCHEDULE_FILE, schedule.to_toml().as_bytes())
    }

    /// Writes what a growth did to growth-K.json, K being the stage that it begins.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn write_growth(&self, report: &GrowthReport) -> Result<(), TrainError> {
        self.write_json(&format!("growth-{}.json", report.stage), report)
    }

    /// Writes where the run branched off from to branch.json.
    pub(crate) fn write_branch(&self, branch: &Branch) -> Result<(), TrainError> {
        self.write_json(BRANCH_FILE, branch)
    }

    /// Forgets a branch that was cut short, of a run that begins at its start.
    pub(crate) fn forget_branch(&self) -> Result<(), TrainError> {
        let path = self.root.join(BRANCH_FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(TrainError::io(&path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Writes what the run begins with to start.json.
    pub(crate) fn write_start(&self, start: &Start) -> Result<(), TrainError> {
        self.write_json(START_FILE, start)
    }

    /// What a run began with, if that was a model that was there.
    ///
    /// # Errors
    /// A start.json that cannot be read.
    pub fn start_of(root: &Path) -> Result<Option<Start>, TrainError> {
        read_json(&root.join(START_FILE))
    }

    /// Where a run branched off from, if it did.
    ///
    /// # Errors
    /// A branch.json that cannot be read.
    pub fn branch_of(root: &Path) -> Result<Option<Branch>, TrainError> {
        read_json(&root.join(BRANCH_FILE))
    }

    /// The growths of a run, as far as it has come, in order.
    ///
    /// # Errors
    /// A growth-K.json that cannot be read.
    pub fn growths_of(root: &Path) -> Result<Vec<GrowthReport>, TrainError> {
        let read = |stage: usize| read_json(&root.join(format!("growth-{stage}.json")));
        (1..).map_while(|stage| read(stage).transpose()).collect()
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), TrainError> {
        let json = serde_json::to_vec_pretty(value);
        let json = json.map_err(|error| TrainError::folder(&self.root, error.to_string()))?;
        self.write(name, &json)
    }

    /// Writes a whole file, or none.
    fn write(&self, name: &str, content: &[u8]) -> Result<(), TrainError> {
        let path = self.root.join(name);
        measure::write_whole(&path, content).map_err(TrainError::io(&path))
    }

    /// Whether the run began earlier, so that what is in the folder is its own.
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// Whether the run has told of a checkpoint, or has a curve and no list of events, which is begun before the curve.
    pub(crate) fn has_saved(&self) -> bool {
        let path = self.root.join(EVENTS_FILE);
        if !path.exists() {
            return self.metrics().exists();
        }
        let events = fs::read(&path).unwrap_or_default();
        let events = String::from_utf8_lossy(&events);
        let is_saved = |line: &str| {
            serde_json::from_str::<serde_json::Value>(line)
                .is_ok_and(|event| event["event"] == "saved")
        };
        events.lines().any(is_saved)
    }

    /// Gives up a folder whose run did not begin: what was made there goes again.
    pub fn abandon(self) {
        if self.begun {
            return;
        }
        Self::remove_tokens(&self.root);
        for name in [SCHEDULE_FILE, EVENTS_FILE, LOCK_FILE] {
            let _ = fs::remove_file(self.root.join(name));
        }
        // Only empty folders can be removed this way.
        let _ = fs::remove_dir(self.data());
        for folder in &self.made {
            let _ = fs::remove_dir(folder);
        }
    }

    /// Removes the tokens that were made of text, whole or not.
    pub fn remove_tokens(root: &Path) {
        let tokens = Self::tokens_of(root);
        let (info, tokenizer) =
            (TokenFileInfo::path_for(&tokens), TokenFileInfo::tokenizer_path_for(&tokens));
        for path in [info, tokenizer, tokens] {
            let mut partial = path.clone().into_os_string();
            partial.push(".partial");
            let _ = fs::remove_file(path);
            let _ = fs::remove_file(partial);
        }
    }

    /// Keeps an event that is told before [`RunFolder::begin`], which writes it down.
    pub fn keep(&mut self, event: &Event) {
        if !event.is_progress() {
            self.early.push(event.clone());
        }
    }

    /// Writes an event down; steps have their rows in metrics.csv instead.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn record(&mut self, event: &Event) -> Result<(), TrainError> {
        let (Some(events), false) = (&mut self.events, event.is_progress()) else {
            return Ok(());
        };
        let path = self.root.join(EVENTS_FILE);
        let mut line = serde_json::to_vec(event)
            .map_err(|error| TrainError::folder(&path, error.to_string()))?;
        line.push(b'\n');
        events.write_all(&line).map_err(TrainError::io(&path))
    }

    /// metrics.csv.
    pub fn metrics(&self) -> PathBuf {
        Self::metrics_of(&self.root)
    }

    /// metrics.csv of any run.
    pub fn metrics_of(root: &Path) -> PathBuf {
        root.join(METRICS_FILE)
    }

    /// events.jsonl of any run.
    pub fn events_of(root: &Path) -> PathBuf {
        root.join(EVENTS_FILE)
    }

    /// The folder of checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        Self::checkpoints_of(&self.root)
    }

    /// The folder of checkpoints of any run.
    pub fn checkpoints_of(root: &Path) -> PathBuf {
        root.join("checkpoints")
    }

    /// The folder of the run's own token file.
    pub fn data(&self) -> PathBuf {
        self.root.join(DATA_FOLDER)
    }

    /// The token file that a run makes of its text.
    pub fn tokens_of(root: &Path) -> PathBuf {
        root.join(DATA_FOLDER).join("tokens.bin")
    }

    /// The file of losses that a path stands for: a run's folder for its metrics.csv, any other for itself.
    pub fn curve_file(path: &Path) -> PathBuf {
        if path.is_dir() { Self::metrics_of(path) } else { path.to_path_buf() }
    }

    /// Whether a folder holds a run.
    pub fn is_run(root: &Path) -> bool {
        root.join(SCHEDULE_FILE).exists()
    }

    /// The schedule of a run.
    ///
    /// # Errors
    /// The folder holds no run, or its schedule is broken.
    pub fn schedule_of(root: &Path) -> Result<Schedule, TrainError> {
        let path = root.join(SCHEDULE_FILE);
        if !Self::is_run(root) {
            return Err(TrainError::folder(root, "holds no run (no schedule.toml)"));
        }
        Ok(Schedule::read(&path)?)
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// What a file holds; `None` where there is no such file.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, TrainError> {
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read(path).map_err(TrainError::io(path))?;
    let found = serde_json::from_slice(&text);
    found.map(Some).map_err(|error| TrainError::folder(path, error.to_string()))
}

fn check_held_run(root: &Path, schedule: &Schedule, resume: bool) -> Result<(), TrainError> {
    if !resume {
        let reason = "already holds a run; add --resume to go on with it, or choose another --out";
        return Err(TrainError::folder(root, reason));
    }
    let held = RunFolder::schedule_of(root)?;
    let Some(difference) = schedule.difference_from(&held) else { return Ok(()) };
    let reason = format!("holds another run: {difference}; choose another --out");
    Err(TrainError::folder(root, reason))
}

/// Errs if a folder that is no run's holds anything but a lock that was not finished.
fn check_empty(root: &Path) -> Result<(), TrainError> {
    for entry in fs::read_dir(root).map_err(TrainError::io(root))? {
        let entry = entry.map_err(TrainError::io(root))?;
        let name = entry.file_name();
        let unfinished = entry.metadata().is_ok_and(|metadata| metadata.len() == 0);
        if name != LOCK_FILE || !unfinished {
            let reason = format!("holds {} and no run; choose another --out", name.display());
            return Err(TrainError::folder(root, reason));
        }
    }
    Ok(())
}
