use crate::ModelError;
use crate::cpu::CpuPath;
#[cfg(feature = "cuda")]
use crate::cuda::CudaPath;
use crate::host::to_device;
use burn::tensor::{Device, Tensor};
use kernels::{Batch, Network, PartSeconds, Weights};
use measure::{GptShape, Precision};
use state::{ModelConstants, ParamId, TrainingState};
use std::collections::BTreeMap;

/// Parameters, gradients or moments on a device.
pub type Tensors = BTreeMap<ParamId, Tensor<2>>;

/// A GPT-2 decoder: parameters on a device, and what they compute.
pub struct Gpt {
    shape: GptShape,
    constants: ModelConstants,
    device: Device,
    params: Tensors,
    kernels: Kernels,
}

/// Whose kernels compute.
enum Kernels {
    Cpu(CpuPath),
    #[cfg(feature = "cuda")]
    Cuda(CudaPath),
}

/// The loss of a batch and its gradient.
pub struct LossAndGradients {
    /// Cross-entropy summed over the batch's targets, in nats.
    pub loss_sum: f64,
    /// Gradient of `loss_sum` times the weight asked for, for every parameter, in f32.
    pub gradients: Tensors,
}

/// Losses and gradients that add up over passes.
pub struct GradientSum {
    loss_sum: f64,
    gradients: Sums,
}

enum Sums {
    Cpu(Weights<Vec<f32>>),
    /// With losses that nobody has waited for.
    #[cfg(feature = "cuda")]
    Cuda(gpu::Gradients, Vec<gpu::Losses>),
}

#[cfg(feature = "cuda")]
fn kernels(device: &Device, precision: Precision) -> Kernels {
    if *device == Device::flex() {
        Kernels::Cpu(CpuPath::default())
    } else {
        Kernels::Cuda(CudaPath::new(precision))
    }
}

#[cfg(not(feature = "cuda"))]
fn kernels(_device: &Device, _precision: Precision) -> Kernels {
    Kernels::Cpu(CpuPath::default())
}

impl Gpt {
    /// The model of a training state, on a device that was opened for this precision. On the CPU it
    /// computes in f32 with the kernels crate, on a GPU with the gpu crate.
    pub fn new(state: &TrainingState, device: &Device, precision: Precision) -> Self {
        Self {
            shape: state.shape,
            constants: state.constants,
            device: device.clone(),
            params: to_device(&state.params, device),
            kernels: kernels(device, precision),
        }
    }

    /// Shape of the model.
    pub fn shape(&self) -> &GptShape {
        &self.shape
    }

    /// How many passes are best made at a time: one on each thread of the CPU, whose kernels mostly
    /// keep a single core busy, and one on any other device.
    pub fn passes_at_once(&self, threads: usize) -> usize {
        if self.device == Device::flex() { threads.max(1) } else { 1 }
    }

    /// The same with activations made again in the backward pass instead of kept: memory for one block instead of all, for a quarter
    /// more time (docs/BENCHMARKS.md).
    #[must_use]
    pub fn recomputing(mut self, recompute: bool) -> Self {
        match &mut self.kernels {
            Kernels::Cpu(cpu) => cpu.recompute = recompute,
            #[cfg(feature = "cuda")]
            Kernels::Cuda(cuda) => {
                cuda.recompute = recompute;
                cuda.forget_params();
            }
        }
        self
    }

    /// Time that its passes have taken by part, summed over the threads; `None` but on the CPU.
    pub fn part_seconds(&self) -> Option<PartSeconds> {
        match &self.kernels {
            Kernels::Cpu(cpu) => Some(cpu.seconds()),
            #[cfg(feature = "cuda")]
            Kernels::Cuda(_) => None,
        }
    }

    /// The parameters.
    pub fn params(&self) -> &Tensors {
        &self.params
    }

    /// The parameters, for an optimizer to change.
    pub fn params_mut(&mut self) -> &mut Tensors {
        match &mut self.kernels {
            Kernels::Cpu(cpu) => cpu.forget_params(),
            #[cfg(feature = "cuda")]
            Kernels::Cuda(cuda) => cuda.forget_params(),
        }
        &mut self.params
    }

    /// Loss and gradients of sequences, each with one token more than its positions; the gradient
    /// is that of the summed loss times `weight`.
    ///
    /// # Errors
    /// Tokens outside the vocabulary, sequences longer than the context or of no length.
    pub fn loss_and_gradients(
        &self,
        sequences: &[u32],
        context_len: usize,
        weight: f64,
    ) -> Result<LossAndGradients, ModelError> {
        let mut sum = self.gradient_sum();
        self.add_gradients(&mut sum, sequences, context_len, weight)?;
        Ok(self.summed(sum))
    }

    /// A sum of gradients to which nothing has been added.
    pub fn gradient_sum(&self) -> GradientSum {
        let gradients = match &self.kernels {
            Kernels::Cpu(_) => Sums::Cpu(CpuPath::zeros(&self.shape)),
            #[cfg(feature = "cuda")]
            Kernels::Cuda(cuda) => Sums::Cuda(self.on_gpu(cuda).zeros(), Vec::new()),
        };
        GradientSum { loss_sum: 0.0, gradients }
    }

    /// The gradients of a sum.
    pub fn summed(&self, sum: GradientSum) -> LossAndGradients {
        let (loss_sum, gradients) = match sum.gradients {
            Sums::Cpu(sums) => (sum.loss_sum, CpuPath::tensors(&self.shape, sums, &self.device)),
            #[cfg(feature = "cuda")]
            Sums::Cuda(sums, losses) => {
                (losses.into_iter().map(gpu::Losses::sum).sum(), sums.into_tensors())
            }
        };
        LossAndGradients { loss_sum, gradients }
    }

    /// Adds loss and gradients as [`Gpt::loss_and_gradients`] gives them.
    ///
    /// # Errors
    /// As [`Gpt::loss_and_gradients`].
    ///
    /// # Panics
    /// When the sum is that of a model on another device.
    pub fn add_gradients(
        &self,
        sum: &mut GradientSum,
        sequences: &[u32],
        context_len: usize,
        weight: f64,
    ) -> Result<(), ModelError> {
        match (&mut sum.gradients, &self.kernels) {
            (Sums::Cpu(sums), Kernels::Cpu(cpu)) => {
                let (inputs, targets) = self.tokens(sequences, context_len)?;
                let batch = Batch { inputs: &inputs, targets: &targets, context_len };
                sum.loss_sum += cpu.add_gradients(&self.on_cpu(cpu), &batch, weight, sums);
            }
            #[cfg(feature = "cuda")]
            (Sums::Cuda(sums, losses), Kernels::Cuda(cuda)) => {
                let (inputs, targets) = self.tokens(sequences, context_len)?;
                let batch = Batch { inputs: &inputs, targets: &targets, context_len };
                losses.push(self.on_gpu(cuda).add_gradients(&batch, weight, sums));
            }
            #[cfg(feature = "cuda")]
            _ => unreachable!("a sum belongs to the model that made it"),
        }
        Ok(())
    }

    /// Cross-entropy of sequences, summed over their targets, in nats.
    ///
    /// # Errors
    /// As [`Gpt::loss_and_gradients`].
    pub fn loss(&self, sequences: &[u32], context_len: usize) -> Result<f64, ModelError> {
        let (inputs, targets) = self.tokens(sequences, context_len)?;
        let batch = Batch { inputs: &inputs, targets: &targets, context_len };
        Ok(match &self.kernels {
            Kernels::Cpu(cpu) => cpu.loss(&self.on_cpu(cpu), &batch),
            #[cfg(feature = "cuda")]
            Kernels::Cuda(cuda) => self.on_gpu(cuda).loss(&batch).sum(),
        })
    }

    /// Logits of every position of one sequence, `n_vocab` of the first one, of the second one and so on.
    ///
    /// # Errors
    /// As [`Gpt::loss_and_gradients`].
    pub fn logits(&self, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        self.logits_from(tokens, 0)
    }

    /// The same of the positions from `first` on.
    pub(crate) fn logits_from(&self, tokens: &[u32], first: usize) -> Result<Vec<f32>, ModelError> {
        self.check(tokens, tokens.len())?;
        Ok(match &self.kernels {
            Kernels::Cpu(cpu) => cpu.logits(&self.on_cpu(cpu), tokens, first),
            #[cfg(feature = "cuda")]
            Kernels::Cuda(cuda) => self.on_gpu(cuda).logits(tokens, first),
        })
    }

    fn on_cpu<'a>(&'a self, cpu: &'a CpuPath) -> Network<'a> {
        cpu.network(self.shape, self.constants, &self.params)
    }

    #[cfg(feature = "cuda")]
    fn on_gpu<'a>(&'a self, cuda: &'a CudaPath) -> &'a gpu::Network {
        cuda.network(self.shape, self.constants, &self.params)
    }

    /// Inputs and targets of sequences, each one after the other.
    fn tokens(
        &self,
        sequences: &[u32],
        context_len: usize,
    ) -> Result<(Vec<u32>, Vec<u32>), ModelError> {
        self.check(sequences, context_len)?;
        let rows = sequences.chunks_exact(context_len + 1);
        if sequences.is_empty() || !rows.remainder().is_empty() {
            return Err(ModelError::Input(format!(
                "{} tokens do not make whole sequences of {} tokens",
                sequences.len(),
                context_len + 1
            )));
        }
        let inputs: Vec<u32> = rows.clone().flat_map(|row| &row[..context_len]).copied().collect();
        let targets: Vec<u32> = rows.flat_map(|row| &row[1..]).copied().collect();
        Ok((inputs, targets))
    }

    fn check(&self, tokens: &[u32], context_len: usize) -> Result<(), ModelError> {
        if context_len == 0 || context_len > self.shape.context_len {
            return Err(ModelError::Input(format!(
                "{context_len} positions: the model has from 1 to {}",
                self.shape.context_len
            )));
        }
        let outside = tokens.iter().find(|token| **token as usize >= self.shape.n_vocab);
        outside.map_or(Ok(()), |token| {
            let n_vocab = self.shape.n_vocab;
            Err(ModelError::Input(format!("token {token} in a vocabulary of {n_vocab}")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::elements;
    use crate::reference::Reference;
    use burn::tensor::FloatDType;
    use measure::Parametrization;
    use proptest::prelude::*;
    use state::{Origin, ParamRole};

    fn gpt(shape: GptShape, precision: Precision) -> Gpt {
        let state = TrainingState::init(shape, Parametrization::mup(8), Origin::of_no_run(3));
        Gpt::new(&state, &Device::flex(), precision)
    }

    fn shape(n_layers: usize, n_heads: usize, d_head: usize, tied_head: bool) -> GptShape {
        let d_model = n_heads * d_head;
        let (n_vocab, context_len) = (17, 9);
        let d_ff = 3 * d_model;
        GptShape { n_layers, d_model, n_heads, d_head, d_ff, n_vocab, context_len, tied_head }
    }

    fn tokens(n: usize) -> Vec<u32> {
        (0..n as u32).map(|i| i * 7 % 17).collect()
    }

    #[test]
    fn a_position_sees_nothing_that_follows() {
        let gpt = gpt(shape(2, 2, 8, true), Precision::F32);
        let mut text = tokens(9);
        let before = gpt.logits(&text).unwrap();
        text[6] = 1;
        let after = gpt.logits(&text).unwrap();
        let of_position =
            |logits: &[f32]| -> Vec<Vec<f32>> { logits.chunks(17).map(<[f32]>::to_vec).collect() };
        let (before, after) = (of_position(&before), of_position(&after));
        assert_eq!(before.len(), 9);
        assert_eq!(before[..6], after[..6]);
        assert!((6..9).all(|position| before[position] != after[position]));
    }

    #[test]
    fn a_model_before_training_knows_nothing() {
        let gpt = gpt(shape(3, 2, 8, true), Precision::F32);
        let loss = gpt.loss(&tokens(20), 9).unwrap() / 18.0;
        assert!((loss - 17f64.ln()).abs() < 0.2, "{loss}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        /// Loss, logits and every gradient, over shapes that fill no vector and no tile, against Burn's in f64.
        #[test]
        fn our_kernels_compute_what_burn_computes(
            n_layers in 1usize..3, d_model in 5usize..200, n_heads in 1usize..4, d_head in 0usize..4,
            d_ff in 1usize..70, n_vocab in 2usize..300, context in 0usize..5, n in 1usize..4, tied_head: bool, seed: u64,
        ) {
            let d_head = [1, 5, 24, 64][d_head];
            let context_len = [1, 7, 33, 64, 129][context];
            let shape =
                GptShape { n_layers, d_model, n_heads, d_head, d_ff, n_vocab, context_len, tied_head };
            let mut state = TrainingState::init(shape, Parametrization::mup(8), Origin::of_no_run(seed));
            for (i, (id, tensor)) in state.params.iter_mut().enumerate() {
                for (j, x) in tensor.data.iter_mut().enumerate() {
                    let wave = ((i * 7919 + j * 31) as f32).sin();
                    *x = match id.role {
                        ParamRole::TokenEmbedding | ParamRole::PositionEmbedding => *x * 20.0,
                        _ => *x + 0.1 * wave,
                    };
                }
            }
            let text: Vec<u32> = (0..n * (context_len + 1))
                .map(|i| ((i as u64 * 977 + seed % 1000) % n_vocab as u64) as u32)
                .collect();
            let ours = Gpt::new(&state, &Device::flex(), Precision::F32);
            let burns = Reference::new(&state, FloatDType::F64);
            let in_f32 = Reference::new(&state, FloatDType::F32);
            let found = ours.loss_and_gradients(&text, context_len, 0.3).unwrap();
            let (loss_due, due) = burns.loss_and_gradients(&text, context_len, 0.3);
            let (_, rounded) = in_f32.loss_and_gradients(&text, context_len, 0.3);
            prop_assert!((found.loss_sum / loss_due - 1.0).abs() < 1e-5);
            let ours = ours.recomputing(true);
            let again = ours.loss_and_gradients(&text, context_len, 0.3).unwrap();
            for (id, gradient) in &found.gradients {
                let bits = |x: &Tensor<2>| elements(x.clone());
                prop_assert_eq!(bits(&again.gradients[id]), bits(gradient), "{} again", id);
            }
            let loss = ours.loss(&text, context_len).unwrap();
            prop_assert!((loss / found.loss_sum - 1.0).abs() < 1e-6);
            let logits = ours.logits(&text[..context_len]).unwrap();
            let apart = |found: &[f32], due: &[f32], least: f32| {
                assert!(found.iter().all(|x| x.is_finite()), "not finite");
                let most = due.iter().fold(least, |most, x| most.max(x.abs()));
                found.iter().zip(due).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / most
            };
            prop_assert!(apart(&logits, &burns.logits(&text[..context_len]), 1e-3) < 1e-5);
            // Gradients that vanish but for rounding, as the keys' biases, are held against the rest.
            let largest = |gradients: &Tensors| gradients.values()
                .map(|x| x.clone().abs().max().into_scalar::<f32>())
                .fold(0.0, f32::max);
            let least = 0.03 * largest(&due);
            for (id, gradient) in &due {
                let (due, found) =
                    (elements(gradient.clone()), elements(found.gradients[id].clone()));
                // Where terms cancel, f32 is farther off by itself.
                let rounding = apart(&elements(rounded[id].clone()), &due, least);
                let apart = apart(&found, &due, least);
                prop_assert!(apart < f32::max(1e-5, 2.0 * rounding), "{id}: {apart:e}, {rounding:e}");
            }
        }
    }

    #[test]
    fn bad_input_is_explained() {
        let gpt = gpt(shape(1, 1, 8, true), Precision::F32);
        let message =
            |tokens: &[u32], context_len| gpt.loss(tokens, context_len).unwrap_err().to_string();
        assert_eq!(message(&[1, 17], 1), "token 17 in a vocabulary of 17");
        assert_eq!(message(&tokens(11), 10), "10 positions: the model has from 1 to 9");
        assert_eq!(message(&tokens(5), 2), "5 tokens do not make whole sequences of 3 tokens");
        assert!(message(&[], 2).contains("0 tokens"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        /// The derivative along the gradient against differences of the loss itself.
        #[test]
        fn gradients_are_the_slope_of_the_loss(
            n_layers in 1usize..3, n_heads in 1usize..4, d_head in 5usize..10, tied_head: bool,
            context_len in 1usize..10,
        ) {
            let mut gpt = gpt(shape(n_layers, n_heads, d_head, tied_head), Precision::F32);
            // At their initial size of 0.02 the first layer norm turns embeddings so fast that
            // differences in f32 see no straight line.
            for (id, param) in gpt.params_mut() {
                if matches!(id.role, ParamRole::TokenEmbedding | ParamRole::PositionEmbedding) {
                    *param = param.clone() * 30.0;
                }
            }
            let text = tokens(2 * (context_len + 1));
            let found = gpt.loss_and_gradients(&text, context_len, 1.0).unwrap();
            prop_assert!((found.loss_sum - gpt.loss(&text, context_len).unwrap()).abs() < 1e-4);
            let mut slope = 0.0;
            let directions: Tensors = found.gradients.iter().map(|(id, gradient)| {
                let length = gradient.clone().square().sum().into_scalar::<f32>().sqrt();
                slope += f64::from(length);
                (*id, gradient.clone() / (length + 1e-12))
            }).collect();
            let start = gpt.params.clone();
            let mut loss_at = |way: f64| {
                for (id, direction) in &directions {
                    gpt.params_mut().insert(*id, start[id].clone() + direction.clone() * way);
                }
                gpt.loss(&text, context_len).unwrap()
            };
            let mut difference = |step: f64| (loss_at(step) - loss_at(-step)) / (2.0 * step);
            let measured = (4.0 * difference(5e-3) - difference(1e-2)) / 3.0;
            prop_assert!((measured / slope - 1.0).abs() < 0.01, "{measured} for {slope}");
        }
    }

    #[test]
    fn the_model_has_the_counted_parameters() {
        for tied_head in [true, false] {
            let shape = shape(3, 2, 5, tied_head);
            let gpt = gpt(shape, Precision::F32);
            let total: usize = gpt.params().values().map(|x| x.dims()[0] * x.dims()[1]).sum();
            assert_eq!(total as u64, shape.n_params_total());
        }
    }
}
