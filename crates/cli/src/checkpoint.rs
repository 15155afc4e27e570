use crate::output;
use anyhow::{Context, Result, bail};
use corpus::Tokenizer;
use measure::Precision;
use model::{DeviceChoice, Gpt};
use schedule::{DataSource, Schedule};
use state::{Checkpoint, CheckpointInfo, CheckpointStore};
use std::path::{Path, PathBuf};
use trainer::{RunFolder, run_tokenizer};

/// A checkpoint with the run that it belongs to.
pub struct OpenedCheckpoint {
    pub path: PathBuf,
    pub info: CheckpointInfo,
    pub gpt: Gpt,
    pub schedule: Schedule,
    /// The run's folder.
    pub root: PathBuf,
}

impl OpenedCheckpoint {
    /// Opens a checkpoint folder, or the newest whole checkpoint of a run's folder.
    pub fn open(path: &Path, device: &str) -> Result<Self> {
        let choice: DeviceChoice = device.parse()?;
        let (path, root) = locate(path)?;
        let root = root.with_context(|| {
            format!("{}: lies in no run, whose schedule and data it needs", path.display())
        })?;
        let schedule = RunFolder::schedule_of(&root)?;
        let checkpoint = Checkpoint::open_params(&path)?;
        let state = checkpoint.load_params()?;
        // A run in bfloat16 can be looked at on any machine.
        let precision = match choice {
            DeviceChoice::Cpu => Precision::F32,
            DeviceChoice::Cuda(_) => schedule.machine().precision,
        };
        let gpt = Gpt::new(&state, &choice.open(precision)?, precision);
        let info = checkpoint.info().clone();
        Ok(Self { path, info, gpt, schedule, root })
    }

    /// Errs unless tokens of a vocabulary mean the same to this checkpoint.
    pub fn check_vocabulary(&self, whose: &str, vocabulary: &str) -> Result<()> {
        let here = &self.info.origin.vocabulary;
        if vocabulary != here {
            bail!(
                "{whose}: its vocabulary is {vocabulary}, the checkpoint's {here}; use tokens made \
                 with the checkpoint's tokenizer"
            );
        }
        Ok(())
    }

    /// The tokenizer of the run.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let root = self.root.display().to_string();
        let tokenizer = run_tokenizer(&self.schedule, &self.root)?.with_context(|| {
            format!(
                "{root}: the tokenizer of its token file is not known (no tokenizer.json beside it)"
            )
        })?;
        let language = matches!(self.schedule.data(), DataSource::Synthetic(_));
        if !language {
            self.check_vocabulary(&root, &tokenizer.vocabulary()?)?;
        }
        Ok(tokenizer)
    }
}

/// A checkpoint folder by its own path or by that of its run, then the newest whole one, and the run
/// that it lies in.
pub fn locate(path: &Path) -> Result<(PathBuf, Option<PathBuf>)> {
    if path.join("state.json").exists() {
        let whole = path.canonicalize().with_context(|| path.display().to_string())?;
        let root = whole.parent().and_then(Path::parent).map(Path::to_path_buf);
        let run = root.filter(|root| RunFolder::is_run(root));
        Ok((path.to_path_buf(), run))
    } else if RunFolder::is_run(path) {
        Ok((newest(path)?.path().to_path_buf(), Some(path.to_path_buf())))
    } else {
        bail!(
            "{}: neither a checkpoint (no state.json) nor a run (no schedule.toml)",
            path.display()
        );
    }
}

/// The newest whole checkpoint of a run, with a warning for each that is passed over.
fn newest(root: &Path) -> Result<Checkpoint> {
    let (newest, skipped) =
        CheckpointStore::reader(&RunFolder::checkpoints_of(root)).newest_whole()?;
    for skipped in skipped {
        let path = skipped.path.display();
        output::note(&format!("warning: {path} is passed over: {}", skipped.reason));
    }
    newest.with_context(|| format!("{}: no whole checkpoint", root.display()))
}
