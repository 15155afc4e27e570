// Axes: B sequences, T positions, H heads, K width of a head, A = H K.

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData};

/// What is added to the scores: 0 where a position may look, minus infinity where it may not,
/// `[1, 1, T, T]`.
pub fn causal_mask(t: usize, device: &Device) -> Tensor<4> {
    let mask = (0..t * t).map(|i| if i % t > i / t { f32::NEG_INFINITY } else { 0.0 });
    Tensor::from_data(TensorData::new(mask.collect::<Vec<f32>>(), [1, 1, t, t]), device)
}

/// Causal attention of every head (Vaswani et al. 2017, eq. 1).
///
/// # Shapes
/// `qkv` `[B T, 3 A]`, queries, keys and values side by side; `mask` `[1, 1, T, T]`; the result
/// `[B T, A]`.
pub fn causal_attention(qkv: Tensor<2>, mask: Tensor<4>, n_heads: usize) -> Tensor<2> {
    let [rows, width] = qkv.dims();
    let (a, t) = (width / 3, mask.dims()[3]);
    let k = a / n_heads;
    let part = |i: usize| {
        qkv.clone()
            .slice([0..rows, i * a..(i + 1) * a])
            .reshape([rows / t, t, n_heads, k])
            .swap_dims(1, 2)
    };
    let (query, key, value) = (part(0) * (1.0 / (k as f64).sqrt()), part(1), part(2));
    let scores = query.matmul(key.swap_dims(2, 3));
    let mask = mask.cast(burn::tensor::FloatDType::from(scores.dtype()));
    let weights = softmax(scores + mask, 3);
    weights.matmul(value).swap_dims(1, 2).reshape([rows, a])
}
