use crate::gradients::batch_gradients;
use crate::memory::{Passes, check_memory};
use crate::{AdamW, TrainError, gradient_norm};
use burn::tensor::{Device, Distribution, Tensor};
use measure::{GptShape, Parametrization, Precision};
use model::{DeviceChoice, Gpt, compute_type, product as multiply, to_device};
use schedule::AdamWSettings;
use serde::Serialize;
use state::{Origin, TrainingState};
use std::collections::BTreeMap;
use std::time::Instant;

/// Rows and columns of the matrices whose product is the machine's peak, on the CPU and elsewhere.
const PEAK_SIZE: usize = 2048;
const PEAK_SIZE_ON_DEVICES: usize = 8192;
/// Steps before the clock counts, and products before the peak does.
const WARMUP: usize = 2;

/// A training step to measure.
#[derive(Clone, Copy, Debug)]
pub struct StepBench {
    /// Shape of the model.
    pub shape: GptShape,
    /// Sequences in a step.
    pub sequences: u64,
    /// Sequences in one forward pass.
    pub micro_batch: u64,
    /// Steps that are measured.
    pub steps: usize,
    /// Where it runs.
    pub device: DeviceChoice,
    /// Number format.
    pub precision: Precision,
    /// Whether activations are made again in the backward pass.
    pub recompute: bool,
}

/// What a training step takes; seconds are medians over the steps.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Tokens of a step over its median time.
    pub tokens_per_second: f64,
    /// 6 N with attention's products over the full context and the head, 10^9 FLOPs a second; a kernel that skips what causality
    /// hides computes fewer.
    pub gflops: f64,
    /// 10^9 FLOPs a second of a product of two matrices in the run's number format: 2048 x 2048 on the CPU, 8192 x
    /// 8192 elsewhere.
    pub peak_gflops: f64,
    /// `gflops` over `peak_gflops`.
    pub peak_fraction: f64,
    /// A whole step.
    pub step_seconds: f64,
    /// Data, forward and backward pass.
    pub gradients_seconds: f64,
    /// The gradient's norm and the update.
    pub optimizer_seconds: f64,
    /// Time of a thread's share of the gradients by part, and the data's; means over the steps.
    pub parts: BTreeMap<&'static str, f64>,
    /// Most memory that the process has held, where the system tells.
    pub peak_rss_bytes: Option<u64>,
    /// Threads on the CPU.
    pub threads: usize,
}

impl StepBench {
    /// Trains on random tokens and measures.
    ///
    /// # Errors
    /// A shape that cannot be built, or a device that cannot be used.
    pub fn run(&self) -> Result<StepReport, TrainError> {
        self.shape.check()?;
        let context_len = self.shape.context_len;
        let passes = Passes::new(self.sequences, self.micro_batch, context_len, self.recompute);
        check_memory(&self.shape, self.device, passes)?;
        let device = self.device.open(self.precision)?;
        let peak_gflops = peak_gflops(&device, self.precision);
        let parametrization = Parametrization::mup(64);
        let state = TrainingState::init(self.shape, parametrization, Origin::of_no_run(1));
        let mut gpt = Gpt::new(&state, &device, self.precision).recomputing(self.recompute);
        let moments = |tensors| to_device(tensors, &device);
        let (first, second) = (moments(&state.moments.first), moments(&state.moments.second));
        let mut adamw = AdamW::new(SETTINGS, self.shape, parametrization, first, second);
        let mut clocks: Vec<[f64; 2]> = Vec::new();
        let mut data_seconds = 0.0;
        let mut before = gpt.part_seconds();
        for step in 1..=self.steps + WARMUP {
            if step == WARMUP + 1 {
                data_seconds = 0.0;
                before = gpt.part_seconds();
            }
            let began = Instant::now();
            let fetch = |start, n| Some(self.random_tokens(step as u64, start, n));
            let batch =
                batch_gradients(&gpt, self.sequences, self.micro_batch, context_len, fetch)?;
            let Some(batch) = batch else { continue };
            data_seconds += batch.data_seconds;
            let middle = began.elapsed().as_secs_f64();
            let norm = gradient_norm(&batch.gradients);
            adamw.update(gpt.params_mut(), batch.gradients, norm, step as u64, 1e-3);
            // Devices that work in the background are waited for.
            let _ = device.sync();
            clocks.push([middle, began.elapsed().as_secs_f64() - middle]);
        }
        let clocks = &clocks[WARMUP..];
        let mut parts = BTreeMap::from([("data", data_seconds / self.steps as f64)]);
        if let (Some(before), Some(after)) = (before, gpt.part_seconds()) {
            let share = 1.0 / (self.steps as f64 * passes.at_once as f64);
            parts.extend([
                ("embedding", share * (after.embedding - before.embedding)),
                ("norms", share * (after.norms - before.norms)),
                ("attention", share * (after.attention - before.attention)),
                ("feed_forward", share * (after.feed_forward - before.feed_forward)),
                ("head_and_loss", share * (after.head - before.head)),
            ]);
        }
        let step_seconds = median(clocks.iter().map(|[gradients, rest]| gradients + rest));
        let tokens = self.sequences as f64 * self.shape.context_len as f64;
        let gflops = self.shape.flops_per_token_exact().0 * tokens / step_seconds / 1e9;
        Ok(StepReport {
            tokens_per_second: tokens / step_seconds,
            gflops,
            peak_gflops,
            peak_fraction: gflops / peak_gflops,
            step_seconds,
            gradients_seconds: median(clocks.iter().map(|[gradients, _]| *gradients)),
            optimizer_seconds: median(clocks.iter().map(|[_, rest]| *rest)),
            parts,
            peak_rss_bytes: peak_rss_bytes(),
            threads: rayon::current_num_threads(),
        })
    }

    fn random_tokens(&self, step: u64, start: u64, n: u64) -> Vec<u32> {
        let len = self.shape.context_len as u64 + 1;
        let token = |i: u64| {
            let mixed = (step << 40 | i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            ((mixed >> 32) % self.shape.n_vocab as u64) as u32
        };
        (start * len..(start + n) * len).map(token).collect()
    }
}

const SETTINGS: AdamWSettings =
    AdamWSettings { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip_norm: 1.0 };

fn peak_gflops(device: &Device, precision: Precision) -> f64 {
    let size = if *device == Device::flex() { PEAK_SIZE } else { PEAK_SIZE_ON_DEVICES };
    let matrix = || {
        let matrix = Tensor::<2>::random([size; 2], Distribution::Default, device);
        matrix.cast(compute_type(precision))
    };
    let (a, b) = (matrix(), matrix());
    let seconds = || {
        let began = Instant::now();
        let _found = multiply(a.clone(), b.clone());
        let _ = device.sync();
        began.elapsed().as_secs_f64()
    };
    for _ in 0..WARMUP {
        seconds();
    }
    // Only what is read shows that a device did not fail.
    let _ = multiply(a.clone(), b.clone()).slice([0..1, 0..1]).into_data();
    2.0 * (size as f64).powi(3) / median((0..5).map(|_| seconds())) / 1e9
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// `VmHWM` of Linux's /proc.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
