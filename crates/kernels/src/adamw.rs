//! One parameter's AdamW update (Loshchilov and Hutter 2019, algorithm 2) in one pass over memory.

use crate::vector::{sum2, vectorized};

/// Elements that are squared in f32 before their sum goes on in f64.
const PART: usize = 1 << 12;

/// The numbers of an update, the same for every element of a tensor.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// Factor on the gradient.
    pub clip: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// 1 less each decay, taken before it is rounded.
    pub fresh: [f32; 2],
    /// What the parameter keeps of itself: 1 less learning rate times decay.
    pub kept: f32,
    /// Learning rate over the first moment's bias correction.
    pub rate: f32,
    /// One over the root of the second moment's bias correction.
    pub root_scale: f32,
    /// Added to the root.
    pub eps: f32,
}

impl AdamWStep {
    /// Makes the update; all slices are of one length.
    pub fn update(
        self,
        param: &mut [f32],
        gradient: &[f32],
        first: &mut [f32],
        second: &mut [f32],
    ) {
        let n = param.len();
        let (gradient, first, second) = (&gradient[..n], &mut first[..n], &mut second[..n]);
        let [fresh1, fresh2] = self.fresh;
        vectorized(|| {
            for i in 0..n {
                let g = gradient[i] * self.clip;
                let m = first[i] * self.beta1 + g * fresh1;
                let v = second[i] * self.beta2 + g * g * fresh2;
                first[i] = m;
                second[i] = v;
                let root = v.sqrt() * self.root_scale + self.eps;
                param[i] = param[i] * self.kept - m / root * self.rate;
            }
        });
    }
}

/// Sum of the squares, in an order that depends on nothing.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    vectorized(|| x.chunks(PART).map(|x| f64::from(sum2(x, x, |a, b| a * b))).sum())
}
