//! The network against the kernels crate's, on a CUDA device or on what there is of graphics.

use crate::{Network, contiguous, norm, update, use_one_queue};
use burn::tensor::{Device, Tensor, TensorData};
use kernels::{AdamWStep, Batch, Network as CpuNetwork, Weights, Workspace};
use measure::{GptShape, Parametrization, Precision};
use state::{HostTensor, Origin, ParamId, ParamRole, TrainingState};
use std::collections::BTreeMap;

type Host = BTreeMap<ParamId, Vec<f32>>;

fn device() -> Device {
    use_one_queue();
    #[cfg(feature = "cuda")]
    return Device::cuda(0);
    #[cfg(not(feature = "cuda"))]
    Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)
}

/// Number formats with the error that their products may bring: tensor cores keep 10 of the bits of an f32 (TF32).
#[cfg(feature = "cuda")]
const FORMATS: [(Precision, f32); 2] = [(Precision::F32, 1e-2), (Precision::Bf16, 5e-2)];
#[cfg(not(feature = "cuda"))]
const FORMATS: [(Precision, f32); 1] = [(Precision::F32, 1e-4)];

fn state(shape: GptShape) -> TrainingState {
    let mut state = TrainingState::init(shape, Parametrization::mup(8), Origin::of_no_run(7));
    for (i, (id, tensor)) in state.params.iter_mut().enumerate() {
        for (j, x) in tensor.data.iter_mut().enumerate() {
            let wave = ((i * 7919 + j * 31) as f32).sin();
            *x = match id.role {
                ParamRole::TokenEmbedding | ParamRole::PositionEmbedding => *x * 20.0,
                _ => *x + 0.1 * wave,
            };
        }
    }
    state
}

fn on_device(tensors: &BTreeMap<ParamId, HostTensor>) -> BTreeMap<ParamId, Tensor<2>> {
    let matrix = |x: &HostTensor| {
        let columns = *x.dims.last().unwrap();
        let data = TensorData::new(x.data.clone(), [x.data.len() / columns, columns]);
        contiguous(Tensor::from_data(data, &device()))
    };
    tensors.iter().map(|(id, x)| (*id, matrix(x))).collect()
}

fn host(x: &Tensor<2>) -> Vec<f32> {
    x.clone().try_into_vec_as().unwrap()
}

fn apart(found: &[f32], due: &[f32], least: f32) -> f32 {
    assert_eq!(found.len(), due.len());
    assert!(found.iter().all(|x| x.is_finite()), "not finite");
    let most = due.iter().fold(least, |most, x| most.max(x.abs()));
    found.iter().zip(due).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / most
}

/// Loss, logits and every gradient, in two passes whose gradients add up.
fn same_as_the_cpu(shape: GptShape, context_len: usize, n: usize) {
    let state = state(shape);
    let text: Vec<u32> =
        (0..n * (context_len + 1)).map(|i| (i * 977 % 4093 % shape.n_vocab) as u32).collect();
    let rows = || text.chunks_exact(context_len + 1);
    let inputs: Vec<u32> = rows().flat_map(|row| &row[..context_len]).copied().collect();
    let targets: Vec<u32> = rows().flat_map(|row| &row[1..]).copied().collect();
    let batch = Batch { inputs: &inputs, targets: &targets, context_len };
    let constants = state.constants;

    let weights = Weights::build(&shape, |id| state.params[&id].data.as_slice());
    let cpu = CpuNetwork { shape, constants, weights, recompute: false };
    let mut workspace = Workspace::default();
    let mut due = Weights::build(&shape, |id| vec![0.0; state.params[&id].data.len()]);
    let mut loss_due = 0.0;
    for weight in [0.3, 0.1] {
        loss_due += cpu.add_gradients(&batch, weight, &mut workspace, &mut due);
    }
    let due: Host = due.into_pairs().into_iter().collect();
    let largest = due.values().flatten().fold(0.0f32, |most, x| most.max(x.abs()));

    let params = on_device(&state.params);
    for (precision, tolerance) in FORMATS {
        let mut before: Option<Host> = None;
        for (recompute, small_chunks) in [(false, false), (true, false), (false, true)] {
            let network = Network::new(shape, constants, precision, recompute, &params);
            let network = if small_chunks { network.in_small_chunks() } else { network };
            let mut sums = network.zeros();
            let mut loss = 0.0;
            for weight in [0.3, 0.1] {
                loss += network.add_gradients(&batch, weight, &mut sums).sum();
            }
            let off = (loss / loss_due - 1.0).abs();
            assert!(off < 0.1 * f64::from(tolerance), "{precision:?} {loss} for {loss_due}");
            let found: Host = sums.into_tensors().iter().map(|(id, x)| (*id, host(x))).collect();
            for (id, due) in &due {
                // Gradients that vanish but for rounding, as the keys' biases, are held against the rest.
                let apart = apart(&found[id], due, 0.03 * largest);
                assert!(apart < tolerance, "{precision:?} {shape} {id}: {apart}");
            }
            if !small_chunks {
                assert!(before.as_ref().is_none_or(|before| *before == found), "made again");
                before = Some(found);
            }
            let again = network.loss(&batch).sum();
            assert!((2.0 * again / loss - 1.0).abs() < 1e-6);
            let one = &inputs[..context_len];
            let first = context_len / 2;
            let found = network.logits(one, first);
            let due = cpu.logits(one, first, &mut workspace);
            assert!(apart(&found, &due, 1e-3) < tolerance);
        }
    }
}

#[test]
fn losses_and_gradients_are_those_of_the_cpu() {
    let shape = |n_layers, d_model, n_heads, d_head, d_ff, n_vocab, context_len, tied_head| {
        GptShape { n_layers, d_model, n_heads, d_head, d_ff, n_vocab, context_len, tied_head }
    };
    same_as_the_cpu(shape(2, 32, 2, 16, 128, 97, 16, true), 16, 3);
    same_as_the_cpu(shape(1, 19, 3, 5, 70, 17, 33, false), 33, 5);
    same_as_the_cpu(shape(1, 40, 1, 24, 64, 300, 64, true), 50, 2);
    // Enough rows for weights' gradients in parts, and for more than one chunk of sums.
    same_as_the_cpu(shape(1, 16, 2, 8, 32, 64, 64, true), 64, 32);
    // Sizes that tensor cores take in whole tiles.
    same_as_the_cpu(shape(2, 128, 2, 64, 512, 512, 128, true), 128, 16);
}

#[test]
fn updates_and_norms_are_those_of_the_cpu() {
    let dims = [37, 300];
    let values = |seed: usize| -> Vec<f32> {
        (0..dims[0] * dims[1]).map(|i| ((i * seed) as f32 * 0.37).sin()).collect()
    };
    let tensor = |values: &[f32]| {
        contiguous(Tensor::from_data(TensorData::new(values.to_vec(), dims), &device()))
    };
    let [mut param, gradient, mut first] = [3, 5, 7].map(values);
    let mut second: Vec<f32> = values(11).iter().map(|x| x * x).collect();
    let [on_param, on_gradient, on_first, on_second] =
        [&param, &gradient, &first, &second].map(|x| tensor(x));
    let numbers = AdamWStep {
        clip: 0.5,
        beta1: 0.9,
        beta2: 0.98,
        fresh: [0.1, 0.02],
        kept: 0.999,
        rate: 0.01,
        root_scale: 1.3,
        eps: 1e-3,
    };
    let length = norm([&on_gradient, &on_first].into_iter());
    let due = gradient.iter().chain(&first).map(|x| f64::from(x * x)).sum::<f64>().sqrt();
    assert!((length / due - 1.0).abs() < 1e-6, "{length} for {due}");
    numbers.update(&mut param, &gradient, &mut first, &mut second);
    update(&on_param, on_gradient, [&on_first, &on_second], numbers);
    assert!(apart(&host(&on_param), &param, 0.0) < 1e-6);
    assert!(apart(&host(&on_first), &first, 0.0) < 1e-6);
    assert!(apart(&host(&on_second), &second, 0.0) < 1e-6);
}
