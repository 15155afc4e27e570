use crate::TrainError;
use measure::GptShape;
use model::DeviceChoice;

/// Numbers of 32 bits for each parameter: itself, its gradient and Adam's two moments.
const NUMBERS: u64 = 4;

/// Errs if a model that is to be trained on the CPU is larger than the machine's memory, where the system tells that.
pub(crate) fn check_memory(shape: &GptShape, device: DeviceChoice) -> Result<(), TrainError> {
    if device != DeviceChoice::Cpu {
        return Ok(());
    }
    let needed = 4 * NUMBERS * shape.n_params_total();
    match memory() {
        Some(there) if needed > there => Err(TrainError::Memory {
            shape: *shape,
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
