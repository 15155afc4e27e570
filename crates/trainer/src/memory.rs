use crate::TrainError;
use crate::gradients::of_a_pass;
use measure::GptShape;
use model::{DeviceChoice, numbers_of_a_pass};
use schedule::Schedule;
use std::fs;
use std::path::Path;

/// Numbers of 32 bits for each parameter, beside its gradients: itself, the copy that the kernels read, and Adam's two moments.
const NUMBERS: u64 = 4;

/// While a checkpoint is written: these, a gradient, and copies for the files of the parameter and its moments.
const NUMBERS_SAVED: u64 = 8;

/// The passes of a step on the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passes {
    /// Those that run side by side, each with a gradient and activations of its own.
    pub at_once: u64,
    /// Tokens that each takes at a time.
    pub tokens: u64,
    /// Whether activations are made again in the backward pass.
    pub recompute: bool,
}

impl Passes {
    /// Those of a step of so many sequences.
    pub fn new(sequences: u64, micro_batch: u64, context_len: usize, recompute: bool) -> Self {
        let micro_batches = sequences.div_ceil(micro_batch) as usize;
        let of_a_pass = of_a_pass(micro_batches, rayon::current_num_threads());
        Self {
            at_once: micro_batches.div_ceil(of_a_pass) as u64,
            tokens: micro_batch.min(sequences).saturating_mul(context_len as u64),
            recompute,
        }
    }

    /// Those of a full batch of a schedule.
    pub fn of(schedule: &Schedule) -> Self {
        let context_len = schedule.context_len();
        let sequences = schedule.batch().final_tokens() / context_len as u64;
        let recompute = schedule.machine().recompute;
        Self::new(sequences, schedule.micro_batch() as u64, context_len, recompute)
    }
}

/// Errs if a model that is to be trained on the CPU takes more than the machine's memory, where the system tells that.
pub(crate) fn check_memory(
    shape: &GptShape,
    device: DeviceChoice,
    passes: Passes,
) -> Result<(), TrainError> {
    if device != DeviceChoice::Cpu {
        return Ok(());
    }
    let Passes { at_once, tokens, recompute } = passes;
    let of_params = (NUMBERS + at_once).max(NUMBERS_SAVED).saturating_mul(shape.n_params_total());
    let activations = at_once.saturating_mul(numbers_of_a_pass(shape, tokens, recompute));
    let bytes = |numbers: u64| 4.0 * numbers as f64;
    let needed = bytes(of_params) + bytes(activations);
    match memory() {
        Some(there) if needed > there as f64 => Err(TrainError::Memory {
            shape: *shape,
            passes: at_once,
            tokens,
            needed: needed / GIB,
            activations: bytes(activations) / GIB,
            there: there as f64 / GIB,
        }),
        _ => Ok(()),
    }
}

const GIB: f64 = (1 << 30) as f64;

/// Bytes of memory that the process may have, as Linux tells them: the machine's, or the least that a control group of either version
/// that it is in is limited to.
fn memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // Lines are `0::/PATH` of version 2 and `NUMBER:CONTROLLERS:/PATH` of version 1.
    let limits = groups.lines().filter_map(|line| {
        let (controllers, group) = line.split_once(':')?.1.split_once(":/")?;
        let file = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => return None,
        };
        Path::new(group).ancestors().filter_map(|group| limit(file, group)).min()
    });
    limits.chain([1024 * kibibytes]).min()
}

/// The limit of a group: the file of that name in its folder, below a root. None where there is no such file or it says `max`.
fn limit((root, file): (&str, &str), group: &Path) -> Option<u64> {
    fs::read_to_string(Path::new(root).join(group).join(file)).ok()?.trim().parse().ok()
}
