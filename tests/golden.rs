//! A small GPT against PyTorch: logits, loss, every gradient, and parameters after 20 AdamW updates.
//! The golden files are made by `golden/make_golden.py` in float64.

use measure::{GptShape, Parametrization, Precision};
use model::{DeviceChoice, Gpt, Tensors, to_host};
use safetensors::SafeTensors;
use schedule::AdamWSettings;
use serde_json::Value;
use state::{HostTensor, ModelConstants, Moments, Origin, Position, TrainingState, inventory};
use std::collections::BTreeMap;
use trainer::{AdamW, gradient_norm};

struct Golden {
    bytes: Vec<u8>,
    case: Value,
}

impl Golden {
    fn read(name: &str) -> Self {
        let path = format!("{}/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let case = header.metadata().as_ref().unwrap()["case"].clone();
        Self { bytes, case: serde_json::from_str(&case).unwrap() }
    }

    fn get<T: bytemuck::Pod>(&self, name: &str) -> Vec<T> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        bytemuck::pod_collect_to_vec(tensors.tensor(name).unwrap().data())
    }

    fn part<T: serde::de::DeserializeOwned>(&self, key: &str) -> T {
        serde_json::from_value(self.case[key].clone()).unwrap()
    }

    fn state(&self) -> TrainingState {
        let shape: GptShape = self.part("shape");
        let parametrization: Parametrization = self.part("parametrization");
        let tensor = |id: state::ParamId| {
            let data = self.get(&format!("param.{id}"));
            (id, HostTensor { dims: id.role.dims(&shape), data })
        };
        TrainingState {
            shape,
            parametrization,
            constants: ModelConstants {
                output_multiplier: parametrization.output_multiplier(shape.d_model),
                norm_eps: self.part("norm_eps"),
            },
            position: Position::default(),
            origin: Origin::of_no_run(0),
            params: inventory(&shape).into_iter().map(tensor).collect(),
            moments: Moments { first: BTreeMap::new(), second: BTreeMap::new() },
        }
    }

    fn sequences(&self, step: usize) -> Vec<u32> {
        let all: Vec<i32> = self.get("tokens");
        let shape: GptShape = self.part("shape");
        let n = self.part::<usize>("sequences") * (shape.context_len + 1);
        all[step * n..(step + 1) * n].iter().map(|token| *token as u32).collect()
    }

    fn targets(&self) -> f64 {
        let shape: GptShape = self.part("shape");
        (self.part::<usize>("sequences") * shape.context_len) as f64
    }

    fn gpt(&self) -> Gpt {
        let device = DeviceChoice::Cpu.open(Precision::F32).unwrap();
        Gpt::new(&self.state(), &device, Precision::F32)
    }
}

/// The largest difference over the largest value.
fn difference(found: &[f32], golden: &[f32]) -> f64 {
    assert_eq!(found.len(), golden.len());
    assert!(found.iter().all(|x| x.is_finite()), "not finite");
    let largest = golden.iter().map(|x| x.abs()).fold(0.0, f32::max);
    let apart = found.iter().zip(golden).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    f64::from(apart) / f64::from(largest)
}

fn assert_close(found: &Tensors, golden: &Golden, prefix: &str, tolerance: f64) {
    for (id, tensor) in to_host(found, &golden.part("shape")) {
        let apart = difference(&tensor.data, &golden.get::<f32>(&format!("{prefix}{id}")));
        assert!(apart <= tolerance, "{prefix}{id}: {apart:e}");
    }
}

fn logits_loss_and_gradients_are_pytorchs(name: &str) {
    let golden = Golden::read(name);
    let gpt = golden.gpt();
    let context_len = gpt.shape().context_len;
    let sequences = golden.sequences(0);
    let logits: Vec<f32> = sequences
        .chunks(context_len + 1)
        .flat_map(|sequence| gpt.logits(&sequence[..context_len]).unwrap())
        .collect();
    assert!(difference(&logits, &golden.get::<f32>("logits")) <= 1e-5);
    let n = golden.targets();
    let found = gpt.loss_and_gradients(&sequences, context_len, 1.0 / n).unwrap();
    let loss = f64::from(golden.get::<f32>("loss")[0]);
    assert!((found.loss_sum / n / loss - 1.0).abs() <= 1e-5);
    assert!((gpt.loss(&sequences, context_len).unwrap() / n / loss - 1.0).abs() <= 1e-5);
    assert_close(&found.gradients, &golden, "grad.", 1e-5);
}

fn parameters_after_twenty_updates_are_pytorchs(name: &str) {
    let golden = Golden::read(name);
    let mut gpt = golden.gpt();
    let shape = *gpt.shape();
    let settings: AdamWSettings = golden.part("adamw");
    let parametrization = golden.part("parametrization");
    let mut adamw = AdamW::new(settings, shape, parametrization, Tensors::new(), Tensors::new());
    let (n, losses) = (golden.targets(), golden.get::<f32>("losses"));
    for (i, golden_loss) in losses.into_iter().enumerate() {
        let sequences = golden.sequences(i);
        let found = gpt.loss_and_gradients(&sequences, shape.context_len, 1.0 / n).unwrap();
        let apart = (found.loss_sum / n / f64::from(golden_loss) - 1.0).abs();
        assert!(apart <= 1e-4, "loss of update {i}: {apart:e}");
        let norm = gradient_norm(&found.gradients);
        let rate = golden.part("learning_rate");
        adamw.update(gpt.params_mut(), found.gradients, norm, i as u64 + 1, rate);
    }
    assert_close(gpt.params(), &golden, "after.", 1e-4);
}

#[test]
fn logits_loss_and_gradients_are_pytorchs_under_mup() {
    logits_loss_and_gradients_are_pytorchs("mup");
}

#[test]
fn logits_loss_and_gradients_are_pytorchs_under_the_standard_parametrization() {
    logits_loss_and_gradients_are_pytorchs("standard");
}

#[test]
fn parameters_after_twenty_updates_are_pytorchs_under_mup() {
    parameters_after_twenty_updates_are_pytorchs("mup");
}

#[test]
fn parameters_after_twenty_updates_are_pytorchs_under_the_standard_parametrization() {
    parameters_after_twenty_updates_are_pytorchs("standard");
}

#[test]
fn gradients_of_micro_batches_add_up_to_those_of_the_batch() {
    let golden = Golden::read("mup");
    let gpt = golden.gpt();
    let context_len = gpt.shape().context_len;
    let sequences = golden.sequences(1);
    let whole = gpt.loss_and_gradients(&sequences, context_len, 1.0).unwrap();
    let mut sum: Option<BTreeMap<_, HostTensor>> = None;
    for sequence in sequences.chunks(context_len + 1) {
        let part = gpt.loss_and_gradients(sequence, context_len, 1.0).unwrap();
        let part = to_host(&part.gradients, gpt.shape());
        sum = Some(match sum {
            None => part,
            Some(mut sum) => {
                for (id, tensor) in &mut sum {
                    tensor.data.iter_mut().zip(&part[id].data).for_each(|(a, b)| *a += b);
                }
                sum
            }
        });
    }
    for (id, tensor) in to_host(&whole.gradients, gpt.shape()) {
        let apart = difference(&sum.as_ref().unwrap()[&id].data, &tensor.data);
        assert!(apart < 1e-5, "{id}: {apart:e}");
    }
}
