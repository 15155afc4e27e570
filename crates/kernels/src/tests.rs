//! Each kernel against its definition in f64: the forward pass element by element, the backward pass by
//! the slope along a random direction.

use crate::attention::{self, Heads, Tiles};
use crate::norm::{self, Moments};
use crate::{gelu, head};
use proptest::prelude::*;

/// Numbers between -1 and 1 without a pattern that matters.
fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| draw()).collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

fn dot(a: &[f32], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * b).sum()
}

/// The slope of `f`, weighted by `weight`, along `direction`.
fn slope(f: impl Fn(&[f64]) -> Vec<f64>, x: &[f32], direction: &[f32], weight: &[f32]) -> f64 {
    let at = |way: f64| {
        let moved = x.iter().zip(direction).map(|(x, d)| f64::from(*x) + way * f64::from(*d));
        dot(weight, &f(&moved.collect::<Vec<f64>>()))
    };
    (8.0 * (at(1e-4) - at(-1e-4)) - (at(2e-4) - at(-2e-4))) / 1.2e-3
}

fn close(found: &[f32], due: &[f64]) -> Result<(), TestCaseError> {
    prop_assert_eq!(found.len(), due.len());
    let most = due.iter().fold(1e-3f64, |most, x| most.max(x.abs()));
    for (found, due) in found.iter().zip(due) {
        prop_assert!((f64::from(*found) - due).abs() < 1e-5 * most, "{found} for {due}");
    }
    Ok(())
}

/// A slope that is a sum of many terms, against that sum in f32.
fn close_slope(found: f64, due: f64, n: usize) -> Result<(), TestCaseError> {
    let scale = due.abs().max((n as f64).sqrt());
    prop_assert!((found - due).abs() < 1e-5 * scale, "{found} for {due}");
    Ok(())
}

fn attention_by_definition(heads: Heads, qkv: &[f64]) -> Vec<f64> {
    let width = heads.n * heads.size;
    let at = |t: usize, part: usize, head: usize, i: usize| {
        qkv[t * 3 * width + part * width + head * heads.size + i]
    };
    let mut out = vec![0.0; heads.context_len * width];
    for t in 0..heads.context_len {
        for head in 0..heads.n {
            let score = |s: usize| {
                let dot: f64 = (0..heads.size).map(|i| at(t, 0, head, i) * at(s, 1, head, i)).sum();
                (dot / (heads.size as f64).sqrt()).exp()
            };
            let scores: Vec<f64> = (0..=t).map(score).collect();
            let total: f64 = scores.iter().sum();
            for i in 0..heads.size {
                let seen = scores.iter().enumerate().map(|(s, x)| x * at(s, 2, head, i));
                out[t * width + head * heads.size + i] = seen.sum::<f64>() / total;
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn attention_is_that_of_the_definition(
        n in 1usize..4, size in 0usize..3, context in 0usize..5, seed in 1u64..1000,
    ) {
        let heads =
            Heads { n, size: [1, 24, 64][size], context_len: [1, 7, 64, 65, 129][context] };
        let width = n * heads.size;
        let qkv: Vec<f32> =
            noise(heads.context_len * 3 * width, seed).iter().map(|x| 2.0 * x).collect();
        let mut log_sums = vec![0.0; n * heads.context_len];
        let mut out = vec![f32::NAN; heads.context_len * width];
        let mut tiles = Tiles::default();
        attention::forward(heads, &qkv, &mut tiles.scores, &mut log_sums, &mut out);
        close(&out, &attention_by_definition(heads, &wide(&qkv)))?;
        let of_out = noise(out.len(), seed + 1);
        let mut of_qkv = vec![f32::NAN; qkv.len()];
        attention::backward(heads, &qkv, &log_sums, &out, &of_out, &mut tiles, &mut of_qkv);
        let direction = noise(qkv.len(), seed + 2);
        let due = slope(|x| attention_by_definition(heads, x), &qkv, &direction, &of_out);
        close_slope(dot(&direction, &wide(&of_qkv)), due, out.len())?;
    }

    #[test]
    fn norms_are_those_of_the_definition(rows in 1usize..5, width in 2usize..70, seed in 1u64..1000) {
        let x = noise(rows * width, seed);
        let (gain, bias) = (noise(width, seed + 1), noise(width, seed + 2));
        let by_definition = |x: &[f64], gain: &[f64], bias: &[f64]| -> Vec<f64> {
            x.chunks(width).flat_map(|row| {
                let mean = row.iter().sum::<f64>() / width as f64;
                let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
                let root = (variance + 0.1).sqrt();
                (0..width).map(|i| (row[i] - mean) / root * gain[i] + bias[i]).collect::<Vec<_>>()
            }).collect()
        };
        let (mut moments, mut out) = (Moments::default(), vec![f32::NAN; x.len()]);
        norm::forward(&x, &gain, &bias, 0.1, &mut moments, &mut out);
        let (wide_gain, wide_bias) = (wide(&gain), wide(&bias));
        close(&out, &by_definition(&wide(&x), &wide_gain, &wide_bias))?;
        let of_out = noise(x.len(), seed + 3);
        // What is there already is added to.
        let mut of_x = vec![1.0; x.len()];
        let (mut of_gain, mut of_bias) = (vec![0.0; width], vec![0.0; width]);
        norm::backward(&x, &gain, &moments, &of_out, &mut of_x, &mut of_gain, &mut of_bias);
        let direction = noise(x.len(), seed + 4);
        let due = slope(|x| by_definition(x, &wide_gain, &wide_bias), &x, &direction, &of_out);
        let ones: f64 = direction.iter().map(|x| f64::from(*x)).sum();
        close_slope(dot(&direction, &wide(&of_x)) - ones, due, x.len())?;
        let along = noise(width, seed + 5);
        let wide_x = wide(&x);
        let due = slope(|gain| by_definition(&wide_x, gain, &wide_bias), &gain, &along, &of_out);
        close_slope(dot(&along, &wide(&of_gain)), due, x.len())?;
        let due = slope(|bias| by_definition(&wide_x, &wide_gain, bias), &bias, &along, &of_out);
        close_slope(dot(&along, &wide(&of_bias)), due, x.len())?;
    }

    #[test]
    fn gelu_is_that_of_the_definition(rows in 1usize..5, width in 1usize..70, seed in 1u64..1000) {
        let x: Vec<f32> = noise(rows * width, seed).iter().map(|x| 6.0 * x).collect();
        let bias = noise(width, seed + 1);
        let by_definition = |x: &[f64]| -> Vec<f64> {
            x.iter().map(|x| {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                0.5 * x * (1.0 + inner.tanh())
            }).collect()
        };
        let (mut sums, mut out) = (x.clone(), vec![f32::NAN; x.len()]);
        gelu::forward(&mut sums, &bias, &mut out);
        close(&out, &by_definition(&wide(&sums)))?;
        let of_out = noise(x.len(), seed + 2);
        let (mut gradient, mut of_bias) = (of_out.clone(), vec![0.0; width]);
        gelu::backward(&sums, &mut gradient, &mut of_bias);
        let direction = noise(x.len(), seed + 3);
        let due = slope(by_definition, &sums, &direction, &of_out);
        close_slope(dot(&direction, &wide(&gradient)), due, x.len())?;
        let total: f64 = gradient.iter().map(|x| f64::from(*x)).sum();
        close_slope(of_bias.iter().map(|x| f64::from(*x)).sum(), total, x.len())?;
    }

    /// More rows than one chunk, and a vocabulary that fills no vector.
    #[test]
    fn the_head_is_that_of_the_definition(rows in 1usize..70, n_vocab in 2usize..40, seed in 1u64..1000) {
        let (rows, width) = (rows * 20, 5);
        let hidden = noise(rows * width, seed);
        let weight = noise(n_vocab * width, seed + 1);
        let targets: Vec<u32> = (0..rows).map(|i| (i * 7 % n_vocab) as u32).collect();
        let losses = |hidden: &[f64], weight: &[f64]| -> Vec<f64> {
            hidden.chunks(width).zip(&targets).map(|(row, target)| {
                let logit = |word: &[f64]| -> f64 {
                    1.5 * word.iter().zip(row).map(|(a, b)| a * b).sum::<f64>()
                };
                let logits: Vec<f64> = weight.chunks(width).map(logit).collect();
                logits.iter().map(|x| x.exp()).sum::<f64>().ln() - logits[*target as usize]
            }).collect()
        };
        let mut chunk = Vec::new();
        let (mut of_hidden, mut of_weight) = (vec![f32::NAN; hidden.len()], vec![0.0; weight.len()]);
        let wanted = head::HeadGradients {
            weight_of_row: 0.5,
            of_hidden: &mut of_hidden,
            of_weight: &mut of_weight,
        };
        let found = head::loss(&hidden, &weight, width, 1.5, &targets, &mut chunk, Some(wanted));
        let due: f64 = losses(&wide(&hidden), &wide(&weight)).iter().sum();
        prop_assert!((found / due - 1.0).abs() < 1e-5, "{found} for {due}");
        let again = head::loss(&hidden, &weight, width, 1.5, &targets, &mut chunk, None);
        prop_assert!((again / found - 1.0).abs() < 1e-6);
        let direction = noise(hidden.len(), seed + 2);
        let of_rows = vec![0.5; rows];
        let due = slope(|hidden| losses(hidden, &wide(&weight)), &hidden, &direction, &of_rows);
        close_slope(dot(&direction, &wide(&of_hidden)), due, rows)?;
        let direction = noise(weight.len(), seed + 3);
        let due = slope(|weight| losses(&wide(&hidden), weight), &weight, &direction, &of_rows);
        close_slope(dot(&direction, &wide(&of_weight)), due, rows)?;
    }
}
