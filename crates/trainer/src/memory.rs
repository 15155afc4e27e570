use crate::TrainError;
use crate::gradients::of_a_pass;
use measure::GptShape;
use model::DeviceChoice;

/// Numbers of 32 bits for each parameter, beside its gradients: itself, the copy that the kernels read, and Adam's two moments.
const NUMBERS: u64 = 4;

/// While a checkpoint is written: these, a gradient, and copies for the files of the parameter and its moments.
const NUMBERS_SAVED: u64 = 8;

/// Passes of a step of so many sequences that run side by side on the CPU, each with a gradient of its own.
pub(crate) fn side_by_side(sequences: u64, micro_batch: u64) -> u64 {
    let micro_batches = sequences.div_ceil(micro_batch) as usize;
    micro_batches.div_ceil(of_a_pass(micro_batches, rayon::current_num_threads())) as u64
}

/// Errs if a model that is to be trained on the CPU, with so many passes side by side, is larger than the machine's memory, where the
/// system tells that.
pub(crate) fn check_memory(
    shape: &GptShape,
    device: DeviceChoice,
    passes: u64,
) -> Result<(), TrainError> {
    if device != DeviceChoice::Cpu {
        return Ok(());
    }
    let needed = 4 * (NUMBERS + passes).max(NUMBERS_SAVED) * shape.n_params_total();
    match memory() {
        Some(there) if needed > there => Err(TrainError::Memory {
            shape: *shape,
            passes,
            needed: gibibytes(needed),
            there: gibibytes(there),
        }),
        _ => Ok(()),
    }
}

fn gibibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Bytes of memory, as Linux tells them.
fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024 * kibibytes)
}
