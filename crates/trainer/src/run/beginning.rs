//! What a run begins or goes on with.

use super::RunOptions;
use crate::branch::CommonPart;
use crate::data::{open_corpus, prepare_text};
use crate::memory::{Passes, check_memory};
use crate::start::{Start, StartingModel, check_same_start};
use crate::{Event, RunFolder, TrainError};
use corpus::Corpus;
use measure::GptShape;
use model::DeviceChoice;
use schedule::Schedule;
use state::{Checkpoint, CheckpointStore, Origin, TrainingState};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// What a run begins with.
pub(super) struct Beginning {
    pub(super) corpus: Corpus,
    /// Whether its tokens were made of text just now.
    pub(super) made_tokens: bool,
    pub(super) origin: Origin,
    /// The model that is there.
    pub(super) start: Option<Start>,
    /// What it has in common with the run that it branches off from.
    pub(super) common: Option<CommonPart>,
    /// The state of the model that is there, unless what is common is beyond it.
    pub(super) first: Option<TrainingState>,
}

impl Beginning {
    /// Reads it all; only the tokens of text are written.
    pub(super) fn prepare(
        options: &RunOptions,
        folder: &mut RunFolder,
        observe: &mut dyn FnMut(&Event),
        stop: &AtomicBool,
    ) -> Result<Self, TrainError> {
        let schedule = &options.schedule;
        let is_new = CheckpointStore::reader(&folder.checkpoints()).is_empty()?;
        // Before text is made into tokens, which may take long.
        let model = if is_new { StartingModel::open(schedule)? } else { None };
        let here = model.as_ref().map(|model| &model.start);
        check_same_start(folder.root(), RunFolder::start_of(folder.root())?.as_ref(), here)?;
        let branch_of = options.branch_of.as_ref().filter(|_| is_new);
        if let Some(source) = branch_of {
            check_same_start(source, RunFolder::start_of(source)?.as_ref(), here)?;
        }
        let begun = folder.begun();
        let mut tell = |event: &Event| {
            observe(event);
            folder.keep(event);
        };
        let made_tokens = prepare_text(schedule, &options.folder, begun, &mut tell, stop)?;
        let read = Self::read(options, made_tokens, model, branch_of);
        if read.is_err() && made_tokens {
            // Of a text that is another now: they would pass for the run's own.
            RunFolder::remove_tokens(&options.folder);
        }
        read
    }

    /// What is there once the tokens are.
    fn read(
        options: &RunOptions,
        made_tokens: bool,
        model: Option<StartingModel>,
        branch_of: Option<&PathBuf>,
    ) -> Result<Self, TrainError> {
        let schedule = &options.schedule;
        let corpus = open_corpus(schedule, &options.folder)?;
        let n_vocab = corpus.n_vocab();
        for stage in schedule.stages() {
            let shape = stage.shape(n_vocab);
            shape.check()?;
            check_memory(&shape, options.device, Passes::of(schedule))?;
        }
        let origin = origin(schedule, options.device, &corpus);
        let (common, first) = match (branch_of, &model) {
            (Some(source), _) => {
                (Some(CommonPart::read(source, schedule, n_vocab, &origin)?), None)
            }
            (None, Some(model)) => {
                (None, Some(model.state(schedule.parametrization(), n_vocab, &origin)?))
            }
            (None, None) => (None, None),
        };
        Ok(Self {
            corpus,
            made_tokens,
            origin,
            start: model.map(|model| model.start),
            common,
            first,
        })
    }
}

/// The tensor library and its version, as Cargo.toml pins it.
pub const TENSOR_LIBRARY: &str = "burn 0.22.1";

/// Where the states of a run come from.
pub(crate) fn origin(schedule: &Schedule, device: DeviceChoice, corpus: &Corpus) -> Origin {
    Origin {
        seed: schedule.seed(),
        vocabulary: corpus.vocabulary(),
        data: corpus.identity(),
        device: device.to_string(),
        threads: rayon::current_num_threads(),
        versions: format!("staged {}, {TENSOR_LIBRARY}", env!("CARGO_PKG_VERSION")),
    }
}

/// A checkpoint's state, if it is one of this run.
pub(crate) fn loaded(
    checkpoint: &Checkpoint,
    schedule: &Schedule,
    n_vocab: usize,
    origin: &Origin,
) -> Result<TrainingState, TrainError> {
    let info = checkpoint.info();
    let refuse = |what: &str, there: String, here: String| {
        let reason = format!("{what} is {there} in the checkpoint and {here} in the run");
        Err(TrainError::folder(checkpoint.path(), reason))
    };
    if info.origin.vocabulary != origin.vocabulary {
        let (there, here) = (info.origin.vocabulary.clone(), origin.vocabulary.clone());
        let gone = if corpus::is_unknown(&here) {
            ", for the JSON beside its tokens, which tells it, is gone"
        } else {
            ""
        };
        return refuse("the vocabulary", there, here + gone);
    }
    if info.origin.data != origin.data {
        let (there, here) = (info.origin.data.clone(), origin.data.clone());
        return refuse("the data", there, here);
    }
    let stage = info.position.stage;
    let Some(stage) = schedule.stages().get(stage) else {
        let n_stages = schedule.stages().len();
        return refuse("the stage, from 0,", stage.to_string(), format!("below {n_stages}"));
    };
    let shape = stage.shape(n_vocab);
    if info.shape != shape {
        let told = |shape: &GptShape| {
            format!("{shape} (vocabulary {}, context {})", shape.n_vocab, shape.context_len)
        };
        return refuse("the shape", told(&info.shape), told(&shape));
    }
    if info.origin.seed != origin.seed {
        return refuse("the seed", info.origin.seed.to_string(), origin.seed.to_string());
    }
    Ok(checkpoint.load()?)
}

/// What differs of the machines that two states come from.
pub(super) fn machine_change(before: &Origin, now: &Origin) -> Option<Event> {
    let text = |origin: &Origin| {
        format!("{}, {} threads, {}", origin.device, origin.threads, origin.versions)
    };
    (text(before) != text(now))
        .then(|| Event::MachineChanged { before: text(before), now: text(now) })
}
