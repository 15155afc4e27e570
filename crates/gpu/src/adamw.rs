//! AdamW (Loshchilov and Hutter 2019, algorithm 2), and the norm of gradients.

use crate::matrix::{cube, to_host, units};
use crate::sums::sums_of_squares;
use burn::tensor::Tensor;
use burn_backend::TensorMetadata;
use cubecl::prelude::*;
use kernels::AdamWStep;

#[cube(launch)]
fn update_kernel(
    param: &mut [f32],
    gradient: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    clip: f32,
    beta1: f32,
    beta2: f32,
    fresh1: f32,
    fresh2: f32,
    kept: f32,
    rate: f32,
    root_scale: f32,
    eps: f32,
) {
    if ABSOLUTE_POS < param.len() {
        let slope = gradient[ABSOLUTE_POS] * clip;
        let m = first[ABSOLUTE_POS] * beta1 + slope * fresh1;
        let v = second[ABSOLUTE_POS] * beta2 + slope * slope * fresh2;
        first[ABSOLUTE_POS] = m;
        second[ABSOLUTE_POS] = v;
        let root = v.sqrt() * root_scale + eps;
        param[ABSOLUTE_POS] = param[ABSOLUTE_POS] * kept - m / root * rate;
    }
}

/// Changes a parameter and its moments where they are, in every handle to them.
///
/// # Panics
/// Where they are not on a device of CubeCL, or have gaps between their rows.
pub fn update(
    param: &Tensor<2>,
    gradient: Tensor<2>,
    moments: [&Tensor<2>; 2],
    numbers: AdamWStep,
) {
    let [param, first, second] = [param, moments[0], moments[1]].map(|x| cube(x.clone()));
    let gradient = cube(gradient);
    let all = [&param, &first, &second, &gradient];
    assert!(all.iter().all(|x| x.is_contiguous()), "kernels read tensors row by row");
    let (count, dim) = units(param.shape().num_elements());
    let client = param.client.clone();
    let AdamWStep { clip, beta1, beta2, fresh, kept, rate, root_scale, eps } = numbers;
    update_kernel::launch(
        &client,
        count,
        dim,
        param.into_buffer_arg(),
        gradient.into_buffer_arg(),
        first.into_buffer_arg(),
        second.into_buffer_arg(),
        clip,
        beta1,
        beta2,
        fresh[0],
        fresh[1],
        kept,
        rate,
        root_scale,
        eps,
    );
}

/// Euclidean norm of all tensors together; sums are taken in a fixed order.
///
/// # Panics
/// Where they are not on a device of CubeCL, or the device fails.
pub fn norm<'a>(tensors: impl Iterator<Item = &'a Tensor<2>>) -> f64 {
    let tensors: Vec<_> = tensors.map(|x| cube(x.clone())).collect();
    let sums = sums_of_squares(&tensors);
    let sums = sums.map(|sums| to_host(sums).into_iter().map(f64::from).sum::<f64>());
    sums.unwrap_or(0.0).sqrt()
}
