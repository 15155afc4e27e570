//! The operators against a forward pass in f64 that shares nothing with the model crate.

use crate::{GrowthError, GrowthOperator};
use measure::{GptShape, Parametrization};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use schedule::{DepthMode, Growth, MomentRule, NamedPlacement, Placement, WidthMode};
use state::{
    Checkpoint, CheckpointStore, HostTensor, Origin, ParamId, ParamRole as R, TrainingState,
    write_folder,
};
use std::collections::BTreeMap;
use std::f64::consts::PI;
use std::ops::ControlFlow;

const VOCABULARY: usize = 11;
const CONTEXT: usize = 6;

fn shape(n_layers: usize, n_heads: usize, d_head: usize, d_ff: usize, tied: bool) -> GptShape {
    GptShape {
        n_layers,
        d_model: n_heads * d_head,
        n_heads,
        d_head,
        d_ff,
        n_vocab: VOCABULARY,
        context_len: CONTEXT,
        tied_head: tied,
    }
}

/// A state in which nothing is zero or one, as after training.
fn trained(shape: GptShape, parametrization: Parametrization, seed: u64) -> TrainingState {
    let origin = Origin::of_no_run(seed);
    let mut state = TrainingState::init(shape, parametrization, origin);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for (id, tensor) in &mut state.params {
        let amount = match id.role {
            R::TokenEmbedding | R::PositionEmbedding | R::HeadWeight => 0.5,
            _ => 0.2,
        };
        for x in &mut tensor.data {
            *x += amount * rng.sample::<f32, _>(StandardNormal);
        }
    }
    for tensor in state.moments.first.values_mut() {
        tensor.data.fill_with(|| rng.sample(StandardNormal));
    }
    for tensor in state.moments.second.values_mut() {
        tensor.data.fill_with(|| rng.sample::<f32, _>(StandardNormal).powi(2));
    }
    state.position.step = 100;
    state.position.moment_updates = 100;
    state
}

/// Logits of each position, by the formulas of the paper and nothing else.
fn logits(state: &TrainingState, tokens: &[usize]) -> Vec<Vec<f64>> {
    let GptShape { d_model: d, n_heads, d_head: size, d_ff, .. } = state.shape;
    let of_heads = n_heads * size;
    let p = |role, layer| -> Vec<f64> {
        let tensor: &HostTensor = &state.params[&ParamId { role, layer }];
        tensor.data.iter().map(|x| f64::from(*x)).collect()
    };
    let norm = |x: &[f64], gain: &[f64], bias: &[f64]| -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / d as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / d as f64;
        let root = (variance + state.constants.norm_eps).sqrt();
        (0..d).map(|i| (x[i] - mean) / root * gain[i] + bias[i]).collect()
    };
    let linear = |x: &[f64], weight: &[f64], bias: &[f64]| -> Vec<f64> {
        let n = bias.len();
        (0..n)
            .map(|j| bias[j] + (0..x.len()).map(|i| x[i] * weight[i * n + j]).sum::<f64>())
            .collect()
    };
    let (embedding, positions) = (p(R::TokenEmbedding, None), p(R::PositionEmbedding, None));
    let mut stream: Vec<Vec<f64>> = tokens
        .iter()
        .enumerate()
        .map(|(t, token)| (0..d).map(|i| embedding[token * d + i] + positions[t * d + i]).collect())
        .collect();
    for layer in (0..state.shape.n_layers).map(Some) {
        let b = |role| p(role, layer);
        let (gain, bias) = (b(R::AttentionNormGain), b(R::AttentionNormBias));
        let (weight, qkv_bias) = (b(R::QkvWeight), b(R::QkvBias));
        let qkv: Vec<Vec<f64>> =
            stream.iter().map(|x| linear(&norm(x, &gain, &bias), &weight, &qkv_bias)).collect();
        let (out, out_bias) = (b(R::AttentionOutWeight), b(R::AttentionOutBias));
        for t in 0..tokens.len() {
            let mut heads = vec![0.0; of_heads];
            for head in 0..n_heads {
                let at = |part: usize, place: usize| part * of_heads + head * size + place;
                let score = |s: usize| {
                    let dot = (0..size).map(|i| qkv[t][at(0, i)] * qkv[s][at(1, i)]).sum::<f64>();
                    (dot / (size as f64).sqrt()).exp()
                };
                let total: f64 = (0..=t).map(score).sum();
                for (s, qkv) in qkv[..=t].iter().enumerate() {
                    for i in 0..size {
                        heads[head * size + i] += score(s) / total * qkv[at(2, i)];
                    }
                }
            }
            let added = linear(&heads, &out, &out_bias);
            stream[t] = stream[t].iter().zip(added).map(|(x, added)| x + added).collect();
        }
        let (gain, bias) = (b(R::FeedForwardNormGain), b(R::FeedForwardNormBias));
        let (wide, wide_bias) = (b(R::FeedForwardInWeight), b(R::FeedForwardInBias));
        let (out, out_bias) = (b(R::FeedForwardOutWeight), b(R::FeedForwardOutBias));
        for x in &mut stream {
            let mut units = linear(&norm(x, &gain, &bias), &wide, &wide_bias);
            assert_eq!(units.len(), d_ff);
            for u in &mut units {
                let inner = (2.0 / PI).sqrt() * (*u + 0.044_715 * u.powi(3));
                *u = 0.5 * *u * (1.0 + inner.tanh());
            }
            let added = linear(&units, &out, &out_bias);
            *x = x.iter().zip(added).map(|(x, added)| x + added).collect();
        }
    }
    let (gain, bias) = (p(R::FinalNormGain, None), p(R::FinalNormBias, None));
    let head = if state.shape.tied_head { embedding } else { p(R::HeadWeight, None) };
    let row = |x: &[f64], v: usize| -> f64 {
        state.constants.output_multiplier * (0..d).map(|i| x[i] * head[v * d + i]).sum::<f64>()
    };
    let last = |x: &Vec<f64>| {
        let x = norm(x, &gain, &bias);
        (0..VOCABULARY).map(|v| row(&x, v)).collect()
    };
    stream.iter().map(last).collect()
}

fn largest_change(before: &TrainingState, after: &TrainingState) -> f64 {
    let tokens: Vec<usize> = (0..CONTEXT).map(|i| i * 5 % VOCABULARY).collect();
    let (old, new) = (logits(before, &tokens), logits(after, &tokens));
    assert!(new.iter().flatten().all(|x| x.is_finite()), "not finite");
    let size = old.iter().flatten().fold(1.0, |most: f64, x| most.max(x.abs()));
    let apart = old.iter().flatten().zip(new.iter().flatten()).map(|(a, b)| (a - b).abs());
    apart.fold(0.0, f64::max) / size
}

fn operator(before: &TrainingState, to: GptShape, growth: &Growth) -> GrowthOperator {
    GrowthOperator::new(before.shape, to, before.parametrization, growth, 5).unwrap()
}

fn grown(before: &TrainingState, to: GptShape, growth: &Growth) -> TrainingState {
    operator(before, to, growth).grow(before).unwrap()
}

fn width(width: WidthMode) -> Growth {
    Growth { width, ..Growth::default() }
}

fn depth(depth: DepthMode) -> Growth {
    Growth { depth, ..Growth::default() }
}

fn widened(shape: GptShape, factor: usize) -> GptShape {
    GptShape {
        d_model: factor * shape.d_model,
        n_heads: factor * shape.n_heads,
        d_ff: factor * shape.d_ff,
        ..shape
    }
}

fn parametrization(mup: bool) -> Parametrization {
    if mup { Parametrization::mup(4) } else { Parametrization::standard() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// What is stored in f32 without rounding keeps the logits to rounding in f64.
    #[test]
    fn exact_operators_keep_the_logits_in_f64(
        n_layers in 1usize..4, n_heads in 1usize..4, d_head in 1usize..5, d_ff in 1usize..9,
        d_model in 2usize..13, factor in 1usize..5, added in 0usize..4, random: bool, tied: bool,
        mup: bool, seed: u64,
    ) {
        prop_assume!(factor > 1 || added > 0);
        let small = GptShape { d_model, ..shape(n_layers, n_heads, d_head, d_ff, tied) };
        let before = trained(small, parametrization(mup), seed);
        let to = GptShape { n_layers: n_layers + added, ..widened(small, factor) };
        let mode = if random { DepthMode::Identity } else { DepthMode::CopyIdentity };
        let growth = Growth { width: WidthMode::Duplicate, depth: mode, ..Growth::default() };
        let operator = operator(&before, to, &growth);
        prop_assert!(operator.is_loss_preserving());
        let change = largest_change(&before, &operator.grow(&before).unwrap());
        prop_assert!(change < 1e-12, "{change}");
    }

    /// Split and fresh store sums and means, which f32 rounds; a norm over very few coordinates
    /// enlarges that without limit.
    #[test]
    fn rounded_operators_keep_the_logits_to_f32(
        n_layers in 1usize..4, n_heads in 1usize..4, d_head in 4usize..7, d_ff in 1usize..9,
        factor in 2usize..5, more_heads in 0usize..4, larger_heads in 0usize..4,
        more_units in 0usize..5, d_model in 8usize..20, wider in 0usize..9, tied: bool, mup: bool,
        seed: u64,
    ) {
        let small = GptShape { d_model, ..shape(n_layers, n_heads, d_head, d_ff, tied) };
        let before = trained(small, parametrization(mup), seed);
        let split = grown(&before, widened(small, factor), &width(WidthMode::Split));
        let change = largest_change(&before, &split);
        prop_assert!(change < 1e-5, "split {change}");
        // Heads and stream widen each by itself.
        let to = shape(n_layers, n_heads + more_heads, d_head + larger_heads, d_ff + more_units, tied);
        let to = GptShape { d_model: small.d_model + wider, ..to };
        prop_assume!(to != small);
        let fresh = grown(&before, to, &width(WidthMode::Fresh));
        let change = largest_change(&before, &fresh);
        prop_assert!(change < 1e-5, "fresh to {to:?}: {change}");
    }

    /// Width, then depth: one growth is two, one after the other.
    #[test]
    fn a_growth_in_both_directions_is_the_growth_in_one_after_the_other(
        n_layers in 1usize..4, n_heads in 1usize..3, factor in 2usize..4, added in 1usize..4,
        width in 0usize..3, mode in 0usize..3, seed: u64,
    ) {
        let small = shape(n_layers, n_heads, 3, 5, true);
        let before = trained(small, Parametrization::mup(4), seed);
        let width = [WidthMode::Duplicate, WidthMode::Split, WidthMode::Fresh][width];
        let mode = [DepthMode::Identity, DepthMode::CopyIdentity, DepthMode::Copy][mode];
        let growth = Growth { width, depth: mode, ..Growth::default() };
        let wide = widened(small, factor);
        let both = GptShape { n_layers: n_layers + added, ..wide };
        let at_once = grown(&before, both, &growth);
        let in_turns = grown(&grown(&before, wide, &growth), both, &growth);
        prop_assert_eq!(at_once.params, in_turns.params);
        prop_assert_eq!(at_once.moments, in_turns.moments);
        prop_assert_eq!(at_once.constants, in_turns.constants);
    }

    /// From file to file is the same as in memory.
    #[test]
    fn a_checkpoint_grows_as_its_state_does(fresh: bool, mode in 0usize..3, zero: bool, tied: bool) {
        let small = shape(2, 2, 3, 5, tied);
        let before = trained(small, Parametrization::mup(4), 3);
        let growth = Growth {
            width: if fresh { WidthMode::Fresh } else { WidthMode::Split },
            depth: [DepthMode::Identity, DepthMode::CopyIdentity, DepthMode::Copy][mode],
            moments: if zero { MomentRule::Zero } else { MomentRule::Mapped },
            ..Growth::default()
        };
        let to = GptShape { n_layers: 5, ..widened(small, 2) };
        let operator = operator(&before, to, &growth);
        let folder = tempfile::tempdir().unwrap();
        let path = CheckpointStore::open(folder.path()).unwrap().save(&before, 1, None).unwrap();
        let target = folder.path().join("grown");
        let mut seen = (0, 0);
        let opened = Checkpoint::open(&path).unwrap();
        std::fs::create_dir(&target).unwrap();
        let bytes = operator.grow_checkpoint(&opened, &target, &mut |done, total| {
            seen = (done, total);
            ControlFlow::Continue(())
        }).unwrap();
        prop_assert_eq!(seen.0, seen.1);
        prop_assert!(bytes > seen.1);
        let in_memory = operator.grow(&before).unwrap();
        prop_assert_eq!(Checkpoint::open(&target).unwrap().load().unwrap(), in_memory);
    }
}

#[test]
fn moments_of_copies_are_those_of_the_grown_models_own_gradients() {
    let small = shape(1, 2, 2, 3, false);
    let before = trained(small, Parametrization::mup(4), 8);
    for (factor, mode) in [(2, WidthMode::Duplicate), (3, WidthMode::Split)] {
        let after = grown(&before, widened(small, factor), &width(mode));
        let k = factor as f32;
        for (moments, old, scale) in [
            (&after.moments.first, &before.moments.first, k),
            (&after.moments.second, &before.moments.second, k * k),
        ] {
            // Feed-forward units as rows, the residual stream as columns: no block is left out.
            let id = ParamId::in_block(R::FeedForwardOutWeight, 0);
            let (rows, columns) = (small.d_ff, small.d_model);
            for (i, found) in moments[&id].data.iter().enumerate() {
                let (row, column) = (i / (factor * columns) % rows, i % columns);
                assert_eq!(*found, old[&id].data[row * columns + column] * (1.0 / scale));
            }
            // Queries, keys and values grow each by itself.
            let id = ParamId::in_block(R::QkvBias, 0);
            for (i, found) in moments[&id].data.iter().enumerate() {
                let (part, within) = (i / (factor * columns), i % columns);
                assert_eq!(*found, old[&id].data[part * columns + within] * (1.0 / scale));
            }
        }
    }
}

#[test]
fn copies_differ_by_the_strength_asked_for_and_the_differences_cancel() {
    let small = shape(1, 4, 16, 256, true);
    let before = trained(small, Parametrization::mup(4), 8);
    let id = ParamId::in_block(R::FeedForwardInWeight, 0);
    for (factor, strength) in [(2, 0.5), (3, 0.1), (4, 1.0)] {
        let growth = Growth { split_strength: strength, ..width(WidthMode::Split) };
        let after = grown(&before, widened(small, factor), &growth);
        let (rows, columns) = (small.d_model, small.d_ff);
        let block = |i: usize, j: usize| -> Vec<f64> {
            let data = &after.params[&id].data;
            let at = |r: usize, c: usize| (i * rows + r) * factor * columns + j * columns + c;
            (0..rows * columns).map(|x| f64::from(data[at(x / columns, x % columns)])).collect()
        };
        let old: Vec<f64> = before.params[&id].data.iter().map(|x| f64::from(*x)).collect();
        let size = |x: &[f64]| (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64).sqrt();
        for j in 0..factor {
            let blocks: Vec<Vec<f64>> = (0..factor).map(|i| block(i, j)).collect();
            for (i, found) in blocks.iter().enumerate().filter(|(i, _)| *i != j) {
                let ratio = size(found) / size(&old);
                assert!((ratio / strength - 1.0).abs() < 0.03, "block {i} {j}: {ratio}");
            }
            let sum: Vec<f64> =
                (0..old.len()).map(|x| blocks.iter().map(|b| b[x]).sum::<f64>() - old[x]).collect();
            assert!(size(&sum) < 1e-6 * size(&old), "{}", size(&sum));
        }
    }
}

#[test]
fn new_projections_are_zero_and_copies_are_copies() {
    let small = shape(2, 1, 4, 6, true);
    let before = trained(small, Parametrization::mup(4), 8);
    let placement = Placement::Named(NamedPlacement::Stack);
    let with = |mode| Growth { placement: placement.clone(), ..depth(mode) };
    let to = GptShape { n_layers: 4, ..small };
    let of = |tensors: &BTreeMap<ParamId, HostTensor>, role, layer| {
        tensors[&ParamId::in_block(role, layer)].clone()
    };
    let copied = grown(&before, to, &with(DepthMode::Copy));
    let identity = grown(&before, to, &with(DepthMode::Identity));
    let copy_identity = grown(&before, to, &with(DepthMode::CopyIdentity));
    for role in [R::QkvWeight, R::AttentionOutWeight, R::FeedForwardOutBias] {
        assert_eq!(of(&copied.params, role, 2), of(&before.params, role, 0));
        assert_eq!(of(&copied.moments.first, role, 3), of(&before.moments.first, role, 1));
        for after in [&copied, &identity, &copy_identity] {
            assert_eq!(of(&after.params, role, 1), of(&before.params, role, 1));
            assert_eq!(of(&after.moments.second, role, 1), of(&before.moments.second, role, 1));
        }
    }
    assert_eq!(of(&copy_identity.params, R::QkvWeight, 3), of(&before.params, R::QkvWeight, 1));
    let copied_moment = of(&copy_identity.moments.first, R::QkvWeight, 3);
    assert_eq!(copied_moment, of(&before.moments.first, R::QkvWeight, 1));
    assert_ne!(of(&identity.params, R::QkvWeight, 3), of(&before.params, R::QkvWeight, 1));
    let zero = |tensor: HostTensor| tensor.data.iter().all(|x| *x == 0.0);
    for after in [&identity, &copy_identity] {
        for role in [R::AttentionOutWeight, R::FeedForwardOutWeight, R::FeedForwardOutBias] {
            assert!(zero(of(&after.params, role, 2)) && zero(of(&after.moments.first, role, 2)));
        }
    }
    assert!(zero(of(&identity.moments.second, R::QkvWeight, 2)));
    assert!(!operator(&before, to, &with(DepthMode::Copy)).is_loss_preserving());
    assert!(largest_change(&before, &copied) > 1e-3);
}

#[test]
fn the_rest_of_the_state_grows_too() {
    let small = shape(2, 2, 4, 8, true);
    let before = trained(small, Parametrization::mup(8), 1);
    let twice = grown(&before, widened(small, 2), &width(WidthMode::Duplicate));
    assert_eq!(twice.constants.output_multiplier, before.constants.output_multiplier / 2.0);
    assert_eq!(twice.constants.norm_eps, before.constants.norm_eps);
    assert_eq!((twice.position.stage, twice.position.stage_step), (1, 0));
    assert_eq!((twice.position.step, twice.position.moment_updates), (100, 100));
    let zero = Growth { moments: MomentRule::Zero, ..Growth::default() };
    let zeroed = grown(&before, widened(small, 2), &zero);
    assert_eq!(zeroed.position.moment_updates, 0);
    let moments = zeroed.moments.first.values().chain(zeroed.moments.second.values());
    assert!(moments.flat_map(|tensor| &tensor.data).all(|x| *x == 0.0));
    let fresh = grown(&before, shape(2, 3, 4, 12, true), &width(WidthMode::Fresh));
    assert!((fresh.constants.norm_eps / before.constants.norm_eps - 8.0 / 12.0).abs() < 1e-12);
}

#[test]
fn the_seed_and_nothing_else_fixes_the_result() {
    let small = shape(2, 2, 4, 8, true);
    let before = trained(small, Parametrization::mup(8), 1);
    let to = widened(small, 2);
    let with = |seed| {
        let growth = width(WidthMode::Split);
        let operator =
            GrowthOperator::new(small, to, before.parametrization, &growth, seed).unwrap();
        operator.grow(&before).unwrap()
    };
    assert_eq!(with(1), with(1));
    assert_ne!(with(1).params, with(2).params);
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(alone.install(|| with(1)), with(1));
}

#[test]
fn states_that_do_not_fit_leave_nothing_behind() {
    let small = shape(2, 2, 4, 8, true);
    let before = trained(small, Parametrization::mup(8), 1);
    let to = widened(small, 2);
    let operator = operator(&before, to, &Growth::default());
    let other = trained(shape(1, 2, 4, 8, true), Parametrization::mup(8), 1);
    let error = operator.grow(&other).unwrap_err();
    assert!(matches!(&error, GrowthError::Unfit(text) if text.contains("is of shape")), "{error}");
    let mut other = before.clone();
    other.parametrization = Parametrization::mup(16);
    let error = operator.grow(&other).unwrap_err();
    assert!(matches!(&error, GrowthError::Unfit(text) if text.contains("parametrized")), "{error}");
    let mut short = before.clone();
    short.params.remove(&ParamId::outside(R::FinalNormGain));
    let error = operator.grow(&short).unwrap_err().to_string();
    assert!(error.contains("has no transformer.ln_f.weight"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let path = CheckpointStore::open(folder.path()).unwrap().save(&before, 1, None).unwrap();
    let target = folder.path().join("grown");
    let without_moments = Checkpoint::open_params(&path).unwrap();
    let grow_until = |from: &Checkpoint, flow: ControlFlow<()>| {
        write_folder(&target, &mut |folder| {
            operator.grow_checkpoint(from, folder, &mut |_, _| flow)
        })
    };
    let grow = |from: &Checkpoint| grow_until(from, ControlFlow::Continue(()));
    let error = grow(&without_moments).unwrap_err().to_string();
    assert!(error.contains("the moments were not opened"), "{error}");
    let names = || -> Vec<_> {
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    let whole = Checkpoint::open(&path).unwrap();
    let stopped = grow_until(&whole, ControlFlow::Break(()));
    assert!(matches!(stopped, Err(GrowthError::Stopped)), "{stopped:?}");
    assert_eq!(names().len(), 1, "{:?}", names());
    // What a kill left of an earlier try goes with the next one; no process has so high a number.
    std::fs::create_dir(folder.path().join(".grown.growing-4194305")).unwrap();
    grow(&Checkpoint::open(&path).unwrap()).unwrap();
    assert_eq!(names().len(), 2, "{:?}", names());
    let error = grow(&Checkpoint::open(&path).unwrap()).unwrap_err().to_string();
    assert!(error.contains("is there already"), "{error}");
}

#[test]
fn random_blocks_share_no_numbers_with_old_ones() {
    let small = shape(2, 2, 4, 6, true);
    let before = trained(small, Parametrization::mup(4), 8);
    let to = GptShape { n_layers: 4, ..widened(small, 2) };
    let after =
        grown(&before, to, &Growth { width: WidthMode::Fresh, ..depth(DepthMode::Identity) });
    for role in [R::QkvWeight, R::FeedForwardInWeight] {
        let mut rows: Vec<Vec<u32>> = Vec::new();
        for layer in 0..4 {
            let tensor = &after.params[&ParamId::in_block(role, layer)];
            let row = tensor.data.chunks(tensor.dims[1]).next_back().unwrap();
            rows.push(row.iter().map(|x| x.to_bits()).collect());
        }
        for (i, row) in rows.iter().enumerate() {
            assert!(!rows[..i].contains(row), "{role:?}: block {i}");
        }
    }
}

#[test]
fn a_growth_is_told_by_what_grows() {
    let small = shape(1, 2, 4, 8, true);
    let told = |to: GptShape| {
        let operator =
            GrowthOperator::new(small, to, Parametrization::mup(4), &Growth::default(), 5);
        operator.unwrap().describe()
    };
    assert_eq!(told(GptShape { d_ff: 32, ..small }), "feed-forward 8 -> 32 fresh");
    assert_eq!(told(widened(small, 2)), "width 8 -> 16, heads 2 -> 4, feed-forward 8 -> 16 fresh");
    let both = told(GptShape { n_layers: 2, n_heads: 4, ..small });
    assert_eq!(both, "heads 2 -> 4 fresh, then depth 1 -> 2 copy_identity 0 0'");
}

/// What a growth draws has the scale of the larger model's start, by its role and the number of its inputs.
#[test]
fn what_is_new_has_the_scale_of_a_start() {
    let (small, large) = (shape(1, 2, 8, 64, false), shape(2, 8, 8, 256, false));
    for parametrization in [Parametrization::mup(16), Parametrization::standard()] {
        let from = trained(small, parametrization, 3);
        let growth = Growth { depth: DepthMode::Identity, ..width(WidthMode::Fresh) };
        let operator = GrowthOperator::new(small, large, parametrization, &growth, 7).unwrap();
        let to = operator.grow(&from).unwrap();
        let (old, new) = (small.d_model, large.d_model);
        let of = |role, layer: Option<usize>, is_drawn: &dyn Fn(usize, usize) -> bool| {
            let tensor = &to.params[&ParamId { role, layer }];
            let columns = tensor.dims[1];
            let entries = tensor.data.iter().enumerate();
            let drawn = entries.filter(|(i, _)| is_drawn(i / columns, i % columns));
            let squares: Vec<f64> = drawn.map(|(_, x)| f64::from(*x).powi(2)).collect();
            assert!(squares.len() > 500, "{role:?}: {} entries", squares.len());
            (squares.iter().sum::<f64>() / squares.len() as f64).sqrt()
        };
        let hidden = parametrization.hidden_std(new);
        let new_units = |_: usize, column: usize| column >= small.d_ff;
        let new_heads = |_: usize, column: usize| column % new >= old;
        let new_rows = |row: usize, _: usize| row >= old;
        let all = |_: usize, _: usize| true;
        for (found, due) in [
            (of(R::FeedForwardInWeight, Some(0), &new_units), hidden),
            (of(R::QkvWeight, Some(0), &new_heads), hidden),
            (of(R::FeedForwardInWeight, Some(0), &new_rows), hidden),
            (of(R::FeedForwardInWeight, Some(1), &all), hidden),
            (of(R::QkvWeight, Some(1), &all), hidden),
            (of(R::HeadWeight, None, &|_, column| column >= old), parametrization.embedding_std()),
        ] {
            assert!((found / due - 1.0).abs() < 0.1, "{parametrization:?}: {found} for {due}");
        }
    }
}
