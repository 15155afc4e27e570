// Axes: R rows (sequences times positions), C width, V vocabulary.

use crate::forward::compute_type;
use burn::tensor::{FloatDType, IndexingUpdateOp, Int, Tensor};
use measure::Precision;

/// Logits in memory at a time: 16 MiB of f32, whatever the batch and the vocabulary.
const CHUNK_ELEMENTS: usize = 1 << 22;

/// The output head with softmax and cross-entropy, over rows in chunks.
pub struct Head {
    /// `[V, C]`, without autodiff.
    pub weight: Tensor<2>,
    pub output_multiplier: f64,
    pub precision: Precision,
}

/// The head's part of the backward pass.
pub struct HeadGradients {
    /// `[R, C]`, f32.
    pub hidden: Tensor<2>,
    /// `[V, C]`, f32.
    pub weight: Tensor<2>,
}

impl Head {
    /// Logits of rows of the last norm's output, `[R, V]` in f32.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let product = self.compute(hidden).matmul(self.compute(self.weight.clone()).transpose());
        product.cast(FloatDType::F32) * self.output_multiplier
    }

    /// Sum over rows of the cross-entropy in nats.
    ///
    /// # Shapes
    /// `hidden` `[R, C]`, `targets` `[R, 1]`.
    pub fn loss(&self, hidden: &Tensor<2>, targets: &Tensor<2, Int>) -> f64 {
        let sums: Vec<Tensor<1>> = self
            .chunks(hidden, targets)
            .map(|(_, hidden, targets)| SoftmaxRows::of(self.logits(hidden)).loss(targets))
            .collect();
        total(sums)
    }

    /// The same, with the gradients of that sum times `weight_of_row`.
    pub fn loss_and_gradients(
        &self,
        hidden: &Tensor<2>,
        targets: &Tensor<2, Int>,
        weight_of_row: f64,
    ) -> (f64, HeadGradients) {
        let scale = self.output_multiplier * weight_of_row;
        let (mut sums, mut of_hidden, mut of_weight) = (Vec::new(), Vec::new(), None);
        for (n, hidden, targets) in self.chunks(hidden, targets) {
            let rows = SoftmaxRows::of(self.logits(hidden.clone()));
            sums.push(rows.loss(targets.clone()));
            let minus_one = Tensor::full([n, 1], -scale, &hidden.device());
            let of_logits = (rows.exponentials * (rows.sums.recip() * scale)).scatter(
                1,
                targets,
                minus_one,
                IndexingUpdateOp::Add,
            );
            let of_logits = self.compute(of_logits);
            let hidden = self.compute(hidden);
            let weight = self.compute(self.weight.clone());
            of_hidden.push(of_logits.clone().matmul(weight).cast(FloatDType::F32));
            let part = of_logits.transpose().matmul(hidden).cast(FloatDType::F32);
            of_weight = Some(match of_weight {
                None => part,
                Some(sum) => sum + part,
            });
        }
        let weight = of_weight.unwrap_or_else(|| self.weight.zeros_like());
        (total(sums), HeadGradients { hidden: Tensor::cat(of_hidden, 0), weight })
    }

    fn compute(&self, x: Tensor<2>) -> Tensor<2> {
        x.cast(compute_type(self.precision))
    }

    /// Chunks of rows: how many, their hidden states, their targets.
    fn chunks<'a>(
        &'a self,
        hidden: &'a Tensor<2>,
        targets: &'a Tensor<2, Int>,
    ) -> impl Iterator<Item = (usize, Tensor<2>, Tensor<2, Int>)> + 'a {
        let [rows, c] = hidden.dims();
        let step = (CHUNK_ELEMENTS / self.weight.dims()[0]).max(1);
        (0..rows).step_by(step).map(move |start| {
            let end = rows.min(start + step);
            let part = hidden.clone().slice([start..end, 0..c]);
            (end - start, part, targets.clone().slice([start..end, 0..1]))
        })
    }
}

/// The softmax of each row of logits, kept apart as exponentials and their sums.
struct SoftmaxRows {
    /// Logits less their row's largest, `[R, V]`.
    shifted: Tensor<2>,
    exponentials: Tensor<2>,
    /// `[R, 1]`.
    sums: Tensor<2>,
}

impl SoftmaxRows {
    fn of(logits: Tensor<2>) -> Self {
        let shifted = logits.clone() - logits.max_dim(1);
        let exponentials = shifted.clone().exp();
        let sums = exponentials.clone().sum_dim(1);
        Self { shifted, exponentials, sums }
    }

    /// Sum over rows of the cross-entropy, in nats.
    fn loss(&self, targets: Tensor<2, Int>) -> Tensor<1> {
        (self.sums.clone().log() - self.shifted.clone().gather(1, targets)).sum()
    }
}

fn total(sums: Vec<Tensor<1>>) -> f64 {
    if sums.is_empty() {
        return 0.0;
    }
    crate::host::elements(Tensor::cat(sums, 0)).into_iter().map(f64::from).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::activation::log_softmax;
    use burn::tensor::{Device, Distribution, TensorData};

    /// Enough rows and words for three chunks.
    #[test]
    fn chunks_give_the_loss_and_gradients_of_the_whole() {
        let (rows, c, v) = (100, 3, 100_000);
        let device = Device::flex();
        let normal = Distribution::Normal(0.0, 1.0);
        let hidden = Tensor::<2>::random([rows, c], normal, &device);
        let weight = Tensor::<2>::random([v, c], normal, &device);
        let targets: Vec<i32> = (0..rows).map(|i| i * 977 % v).collect();
        let targets = Tensor::<2, Int>::from_data(TensorData::new(targets, [rows, 1]), &device);
        let head =
            Head { weight: weight.clone(), output_multiplier: 0.7, precision: Precision::F32 };
        assert_eq!(head.chunks(&hidden, &targets).count(), 3);
        let (loss, found) = head.loss_and_gradients(&hidden, &targets, 0.5);

        let tracked = |x: Tensor<2>| x.autodiff().require_grad();
        let (hidden_leaf, weight_leaf) = (tracked(hidden.clone()), tracked(weight));
        let logits = hidden_leaf.clone().matmul(weight_leaf.clone().transpose()) * 0.7;
        let whole = -log_softmax(logits, 1).gather(1, targets.clone().autodiff()).sum();
        let gradients = (whole.clone() * 0.5).backward();
        let whole = f64::from(whole.into_scalar::<f32>());
        assert!((loss / whole - 1.0).abs() < 1e-5);
        assert!((head.loss(&hidden, &targets) / whole - 1.0).abs() < 1e-5);
        for (leaf, found) in [(hidden_leaf, found.hidden), (weight_leaf, found.weight)] {
            let due = leaf.grad(&gradients).unwrap();
            let largest = due.clone().abs().max().into_scalar::<f32>();
            let apart = (found - due).abs().max().into_scalar::<f32>();
            assert!(apart < 1e-5 * largest, "{apart:e} of {largest:e}");
        }
    }
}
