use burn::tensor::Tensor;
use kernels::{AdamWStep, sum_of_squares};
use measure::{GptShape, Parametrization};
use model::{Tensors, elements, matrix};
use rayon::prelude::*;
use schedule::AdamWSettings;
use state::UpdateRule;

/// Added to the gradient's norm when it is clipped, as PyTorch's `clip_grad_norm_` does.
const CLIP_EPS: f64 = 1e-6;

/// AdamW over named parameters (Loshchilov and Hutter 2019, algorithm 2): decoupled decay on
/// hidden matrices, a learning rate and an eps for each role, clipping by the global norm.
pub struct AdamW {
    settings: AdamWSettings,
    shape: GptShape,
    parametrization: Parametrization,
    first_moment: Tensors,
    second_moment: Tensors,
}

impl AdamW {
    /// An optimizer that goes on from these moments.
    pub fn new(
        settings: AdamWSettings,
        shape: GptShape,
        parametrization: Parametrization,
        first_moment: Tensors,
        second_moment: Tensors,
    ) -> Self {
        Self { settings, shape, parametrization, first_moment, second_moment }
    }

    /// First and second moments.
    pub fn moments(&self) -> (&Tensors, &Tensors) {
        (&self.first_moment, &self.second_moment)
    }

    /// Makes an update, of which the moments have seen `step` with this one, with the gradient's norm
    /// from [`gradient_norm`].
    pub fn update(
        &mut self,
        params: &mut Tensors,
        gradients: Tensors,
        gradient_norm: f64,
        step: u64,
        learning_rate: f64,
    ) {
        let clip = clip_factor(self.settings, gradient_norm);
        #[cfg(feature = "cuda")]
        if !on_cpu(&gradients) {
            self.update_on_gpu(params, gradients, clip, step, learning_rate);
            return;
        }
        self.update_on_cpu(params, gradients, clip, step, learning_rate);
    }

    #[cfg(feature = "cuda")]
    fn update_on_gpu(
        &mut self,
        params: &mut Tensors,
        gradients: Tensors,
        clip: f64,
        step: u64,
        learning_rate: f64,
    ) {
        for (id, gradient) in gradients {
            let param = &params[&id];
            let rule = UpdateRule::of(id.role, &self.shape, &self.parametrization);
            let numbers = self.numbers(rule, clip, step, learning_rate);
            let moments = [&self.first_moment[&id], &self.second_moment[&id]];
            gpu::update(param, gradient, moments, numbers);
        }
    }

    /// One pass over the memory of all tensors, which are shared out among the threads.
    fn update_on_cpu(
        &mut self,
        params: &mut Tensors,
        gradients: Tensors,
        clip: f64,
        step: u64,
        learning_rate: f64,
    ) {
        let taken: Vec<_> = gradients
            .into_iter()
            .filter_map(|(id, gradient)| {
                let param = params.remove(&id)?;
                let old = |moment: Option<Tensor<2>>| moment.unwrap_or_else(|| param.zeros_like());
                let first = old(self.first_moment.remove(&id));
                let second = old(self.second_moment.remove(&id));
                Some((id, param, gradient, first, second))
            })
            .collect();
        let this = &*self;
        let made: Vec<_> = taken
            .into_par_iter()
            .map(|(id, param, gradient, first, second)| {
                let (dims, device) = (param.dims(), param.device());
                let rule = UpdateRule::of(id.role, &this.shape, &this.parametrization);
                let (mut param, gradient) = (elements(param), elements(gradient));
                let (mut first, mut second) = (elements(first), elements(second));
                let numbers = this.numbers(rule, clip, step, learning_rate);
                numbers.update(&mut param, &gradient, &mut first, &mut second);
                (id, [param, first, second].map(|data| matrix(data, dims, &device)))
            })
            .collect();
        for (id, [param, first, second]) in made {
            params.insert(id, param);
            self.first_moment.insert(id, first);
            self.second_moment.insert(id, second);
        }
    }

    fn numbers(&self, rule: UpdateRule, clip: f64, step: u64, learning_rate: f64) -> AdamWStep {
        let AdamWSettings { beta1, beta2, eps, weight_decay, .. } = self.settings;
        let learning_rate = learning_rate * rule.learning_rate;
        AdamWStep {
            clip: clip as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            fresh: [beta1, beta2].map(|beta| (1.0 - beta) as f32),
            kept: (1.0 - learning_rate * weight_decay * rule.weight_decay) as f32,
            rate: (learning_rate / (1.0 - beta1.powf(step as f64))) as f32,
            root_scale: (1.0 - beta2.powf(step as f64)).sqrt().recip() as f32,
            eps: (eps * rule.eps) as f32,
        }
    }
}

/// What a gradient of this norm is multiplied by.
pub(crate) fn clip_factor(settings: AdamWSettings, gradient_norm: f64) -> f64 {
    (settings.clip_norm / (gradient_norm + CLIP_EPS)).min(1.0)
}

/// Euclidean norm of the whole gradient.
///
/// Squares are summed in parts of a fixed size, and the parts' sums in f64 in a fixed order.
pub fn gradient_norm(gradients: &Tensors) -> f64 {
    #[cfg(feature = "cuda")]
    if !on_cpu(gradients) {
        return gpu::norm(gradients.values());
    }
    let tensors: Vec<&Tensor<2>> = gradients.values().collect();
    let squares = |x: &&Tensor<2>| sum_of_squares(&elements((*x).clone()));
    let sums: Vec<f64> = tensors.par_iter().map(squares).collect();
    sums.iter().sum::<f64>().sqrt()
}

#[cfg(feature = "cuda")]
fn on_cpu(tensors: &Tensors) -> bool {
    tensors.values().all(|x| x.device() == burn::tensor::Device::flex())
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};
    use state::{ParamId, ParamRole};

    fn shape(d_model: usize) -> GptShape {
        GptShape { d_ff: 4, n_vocab: 4, context_len: 4, ..GptShape::gpt2(1, d_model, 1) }
    }

    fn one(id: ParamId, value: f32) -> Tensors {
        let data = TensorData::new(vec![value], [1, 1]);
        Tensors::from([(id, Tensor::from_data(data, &Device::flex()))])
    }

    fn value(tensors: &Tensors, id: ParamId) -> f64 {
        f64::from(tensors[&id].clone().into_scalar::<f32>())
    }

    /// Three updates of one number, written out from the paper's algorithm in f64.
    #[test]
    fn updates_are_those_of_the_paper() {
        let settings =
            AdamWSettings { beta1: 0.9, beta2: 0.98, eps: 1e-3, weight_decay: 0.1, clip_norm: 1e9 };
        for (role, decays) in [(ParamRole::QkvWeight, true), (ParamRole::QkvBias, false)] {
            let id = ParamId::in_block(role, 0);
            let mut params = one(id, 0.7);
            // Base width 1 and width 2: hidden matrices take half the rate and twice the decay.
            let mup = Parametrization::mup(1);
            let mut adamw = AdamW::new(settings, shape(2), mup, Tensors::new(), Tensors::new());
            let (mut x, mut m, mut v) = (0.7f64, 0.0f64, 0.0f64);
            for (t, g) in [0.3, -0.1, 0.5].into_iter().enumerate() {
                let t = t as i32 + 1;
                adamw.update(&mut params, one(id, g as f32), 0.0, t as u64, 0.01);
                m = 0.9 * m + 0.1 * g;
                v = 0.98 * v + 0.02 * g * g;
                let rate = if decays { 0.005 } else { 0.01 };
                let decay = if decays { 0.2 } else { 0.0 };
                let (m_hat, v_hat) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.98f64.powi(t)));
                x -= rate * decay * x + rate * m_hat / (v_hat.sqrt() + 1e-3 / 2.0);
            }
            assert!((value(&params, id) - x).abs() < 1e-6, "{role:?}");
        }
    }

    #[test]
    fn the_norm_of_a_large_gradient_is_the_same_every_time() {
        // Many tensors of unequal size, which threads finish in another order each time, and one large one.
        let rows = |layer: usize| if layer == 0 { 5000 } else { 1 + layer % 7 };
        let gradients: Tensors = (0..60)
            .map(|layer| {
                let n = 1000 * rows(layer);
                let values: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
                let data = TensorData::new(values, [rows(layer), 1000]);
                let id = ParamId::in_block(ParamRole::QkvWeight, layer);
                (id, Tensor::from_data(data, &Device::flex()))
            })
            .collect();
        let threads = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        let norm = || threads.install(|| gradient_norm(&gradients));
        let first = norm();
        let squares: usize = (0..60).map(|layer| 500 * rows(layer)).sum();
        assert!((first / (squares as f64).sqrt() - 1.0).abs() < 1e-3);
        assert!((0..50).all(|_| norm().to_bits() == first.to_bits()));
    }

    #[test]
    fn a_long_gradient_is_scaled_to_the_clip_norm() {
        let settings =
            AdamWSettings { beta1: 0.0, beta2: 0.0, eps: 1e6, weight_decay: 0.0, clip_norm: 1.0 };
        let id = ParamId::in_block(ParamRole::QkvBias, 0);
        let gradients = one(id, 50.0);
        let norm = gradient_norm(&gradients);
        assert_eq!(norm, 50.0);
        let mut params = one(id, 0.0);
        let standard = Parametrization::standard();
        let mut adamw = AdamW::new(settings, shape(1), standard, Tensors::new(), Tensors::new());
        adamw.update(&mut params, gradients, norm, 1, 1e6);
        assert!((value(&params, id) + 1.0).abs() < 1e-5);
    }
}
