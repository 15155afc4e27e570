//! Growth operators on the model that runs: the loss, its gradient, and training after the growth.

use burn::tensor::Device;
use growth::GrowthOperator;
use measure::{GptShape, Parametrization, Precision};
use model::{Gpt, Tensors, to_device, to_host};
use proptest::prelude::*;
use schedule::{
    AdamWSettings, DepthMode, Growth, MomentRule, NamedPlacement, Placement, WidthMode,
};
use state::{HostTensor, Moments, Origin, ParamId, ParamRole, TrainingState};
use std::collections::BTreeMap;
use trainer::{AdamW, gradient_norm};

const CONTEXT: usize = 16;
const VOCABULARY: usize = 29;
const SETTINGS: AdamWSettings =
    AdamWSettings { beta1: 0.9, beta2: 0.98, eps: 1e-9, weight_decay: 0.1, clip_norm: 1e9 };

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

/// Text with something to learn: most tokens follow from the one before.
fn batch(seed: u64, step: u64) -> Vec<u32> {
    let mut tokens = Vec::new();
    for sequence in 0..4 {
        let mixed = (seed << 32 | step << 8 | sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut token = mixed >> 40;
        for i in 0..=CONTEXT as u64 {
            let surprise = if (mixed >> (i % 31)).is_multiple_of(8) { i } else { 0 };
            token = (5 * token + 1 + surprise) % VOCABULARY as u64;
            tokens.push(token as u32);
        }
    }
    tokens
}

/// A model, its optimizer and its steps, without schedule and files.
struct Training {
    state: TrainingState,
    gpt: Gpt,
    adamw: AdamW,
    seed: u64,
}

impl Training {
    fn of(state: TrainingState, seed: u64) -> Self {
        let device = Device::flex();
        let moments = |tensors| to_device(tensors, &device);
        let (first, second) = (moments(&state.moments.first), moments(&state.moments.second));
        let adamw = AdamW::new(SETTINGS, state.shape, state.parametrization, first, second);
        let gpt = Gpt::new(&state, &device, Precision::F32);
        Self { state, gpt, adamw, seed }
    }

    fn start(shape: GptShape, parametrization: Parametrization, seed: u64) -> Self {
        let origin = Origin::of_no_run(seed);
        Self::of(TrainingState::init(shape, parametrization, origin), seed)
    }

    fn gradients(&self) -> (f64, Tensors) {
        let tokens = batch(self.seed, self.state.position.step);
        let weight = 1.0 / (4 * CONTEXT) as f64;
        let found = self.gpt.loss_and_gradients(&tokens, CONTEXT, weight).unwrap();
        (found.loss_sum * weight, found.gradients)
    }

    /// Makes updates and gives the loss before each.
    fn train(&mut self, updates: usize) -> Vec<f64> {
        let one = |_| {
            let (loss, gradients) = self.gradients();
            let norm = gradient_norm(&gradients);
            let position = &mut self.state.position;
            position.step += 1;
            position.moment_updates += 1;
            let update = position.moment_updates;
            self.adamw.update(self.gpt.params_mut(), gradients, norm, update, 0.02);
            loss
        };
        (0..updates).map(one).collect()
    }

    fn state(&self) -> TrainingState {
        let shape = &self.state.shape;
        let (first, second) = self.adamw.moments();
        TrainingState {
            params: to_host(self.gpt.params(), shape),
            moments: Moments { first: to_host(first, shape), second: to_host(second, shape) },
            ..self.state.clone()
        }
    }

    fn grown(&self, to: GptShape, growth: &Growth) -> Self {
        let state = self.state();
        let parametrization = state.parametrization;
        let operator = GrowthOperator::new(state.shape, to, parametrization, growth, 9).unwrap();
        Self::of(operator.grow(&state).unwrap(), self.seed)
    }
}

fn widened(shape: GptShape, factor: usize) -> GptShape {
    GptShape {
        d_model: factor * shape.d_model,
        n_heads: factor * shape.n_heads,
        d_ff: factor * shape.d_ff,
        ..shape
    }
}

fn duplicate() -> Growth {
    Growth { width: WidthMode::Duplicate, ..Growth::default() }
}

/// Largest difference over largest element.
fn apart(found: &[f32], due: &[f32]) -> f64 {
    assert!(found.iter().all(|x| x.is_finite()), "not finite");
    let most = due.iter().fold(1e-12, |most: f32, x| most.max(x.abs()));
    let apart = found.iter().zip(due).map(|(a, b)| f64::from((a - b).abs()));
    apart.fold(0.0, f64::max) / f64::from(most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_loss_and_the_logits_are_kept(
        n_layers in 1usize..=6, d_model in 8usize..36, n_heads in 1usize..5, d_head in 4usize..9,
        d_ff in 1usize..40,
        added in 0usize..5, tied: bool, mup: bool, way in 0usize..3, factor in 1usize..5,
        more in (0usize..4, 0usize..5, 0usize..20, 0usize..20), random: bool, place in 0usize..3, seed in 0u64..1000,
    ) {
        let small = GptShape { d_model, ..shape(n_layers, n_heads, d_head, d_ff, tied) };
        let width = [WidthMode::Duplicate, WidthMode::Split, WidthMode::Fresh][way];
        let wide = if width == WidthMode::Fresh {
            let wide = shape(n_layers, n_heads + more.0, d_head + more.1, d_ff + more.2, tied);
            GptShape { d_model: small.d_model + more.3, ..wide }
        } else {
            widened(small, factor)
        };
        let to = GptShape { n_layers: n_layers + added, ..wide };
        prop_assume!(to != small);
        let placement =
            [NamedPlacement::Interleave, NamedPlacement::Stack, NamedPlacement::Middle][place];
        prop_assume!(placement != NamedPlacement::Middle || added <= n_layers);
        let growth = Growth {
            width,
            depth: if random { DepthMode::Identity } else { DepthMode::CopyIdentity },
            placement: Placement::Named(placement),
            ..Growth::default()
        };
        let parametrization =
            if mup { Parametrization::mup(16) } else { Parametrization::standard() };
        let mut training = Training::start(small, parametrization, seed);
        training.train(10);
        let grown = training.grown(to, &growth);
        let text = batch(seed, 77);
        let [before, after] = [&training, &grown].map(|one| one.gpt.loss(&text, CONTEXT).unwrap());
        prop_assert!((after / before - 1.0).abs() <= 1e-6, "loss {before} -> {after}");
        let [before, after] =
            [&training, &grown].map(|one| one.gpt.logits(&text[..CONTEXT]).unwrap());
        prop_assert!(after.iter().all(|x| x.is_finite()), "not finite");
        let moved = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        prop_assert!(moved <= 1e-5, "logits moved by {moved}");
    }
}

/// Every block of every matrix, those between different copies too.
#[test]
fn gradients_after_duplication_are_the_mapped_gradients() {
    for (factor, tied) in [(2, true), (3, false), (4, true)] {
        let small = shape(2, 2, 4, 12, tied);
        let mut training = Training::start(small, Parametrization::mup(8), 4);
        training.train(10);
        let grown = training.grown(widened(small, factor), &duplicate());
        // The gradient takes the place of the first moment, which the operator maps.
        let mut of_gradients = training.state();
        of_gradients.moments.first = to_host(&training.gradients().1, &small);
        let to = widened(small, factor);
        let mup = Parametrization::mup(8);
        let operator = GrowthOperator::new(small, to, mup, &duplicate(), 9).unwrap();
        let mapped = operator.grow(&of_gradients).unwrap().moments.first;
        let found: BTreeMap<ParamId, HostTensor> = to_host(&grown.gradients().1, &to);
        let same = |parts: usize, id: &ParamId| {
            // Gradients of the keys' biases are zero but for rounding: the softmax does not see them.
            let (n, part) = (found[id].data.len(), found[id].data.len() / parts);
            let keys = id.role == ParamRole::QkvBias;
            (0..n).filter(|i| !keys || i / part != 1).collect::<Vec<_>>()
        };
        for id in mapped.keys() {
            let places = same(3, id);
            let pick = |tensor: &HostTensor| -> Vec<f32> {
                places.iter().map(|i| tensor.data[*i]).collect()
            };
            let apart = apart(&pick(&found[id]), &pick(&mapped[id]));
            assert!(apart < 1e-5, "x{factor} {id}: {apart}");
        }
    }
}

/// Of what acts within blocks and after the last norm: there old entries stand to the loss as before the growth.
#[test]
fn gradients_after_a_fresh_growth_are_the_mapped_gradients() {
    let small = shape(2, 2, 4, 12, false);
    let to = GptShape { d_model: 13, n_heads: 3, d_head: 6, d_ff: 17, ..small };
    let growth = Growth::default();
    assert_eq!(growth.width, WidthMode::Fresh);
    let mut training = Training::start(small, Parametrization::mup(8), 4);
    training.train(10);
    let grown = training.grown(to, &growth);
    let found = to_host(&grown.gradients().1, &to);
    let gradients = to_host(&training.gradients().1, &small);
    let with = |value: &dyn Fn(f32) -> f32| {
        let of = |tensor: &HostTensor| HostTensor {
            data: tensor.data.iter().map(|x| value(*x)).collect(),
            ..tensor.clone()
        };
        gradients.iter().map(|(id, tensor)| (*id, of(tensor))).collect::<BTreeMap<_, _>>()
    };
    let operator = GrowthOperator::new(small, to, Parametrization::mup(8), &growth, 9).unwrap();
    let mapped = |first, second| {
        let state = TrainingState { moments: Moments { first, second }, ..training.state() };
        operator.grow(&state).unwrap().moments
    };
    let moments = mapped(with(&|x| x), with(&|x| x * x));
    // What comes from an old entry is not zero here; all else is, in both moments.
    let old = mapped(with(&|_| 1.0), with(&|_| 1.0));
    let mut compared = 0;
    for (id, found) in &found {
        use ParamRole as R;
        // What is written to the stream counts in its mean, which is over more coordinates now.
        let exact = !matches!(
            id.role,
            R::TokenEmbedding
                | R::PositionEmbedding
                | R::AttentionOutWeight
                | R::AttentionOutBias
                | R::FeedForwardOutWeight
                | R::FeedForwardOutBias
        );
        let places: Vec<usize> =
            (0..found.data.len()).filter(|i| old.first[id].data[*i] != 0.0).collect();
        assert_eq!(places.len(), gradients[id].data.len(), "{id}");
        let beside = (0..found.data.len()).filter(|i| !places.contains(i));
        for i in beside {
            let new = (moments.first[id].data[i], moments.second[id].data[i]);
            assert_eq!(new, (0.0, 0.0), "{id}: moments of new entry {i}");
        }
        if !exact {
            continue;
        }
        // Gradients of the keys' biases are zero but for rounding: the softmax does not see them.
        let keys = found.data.len() / 3..2 * found.data.len() / 3;
        let seen = |i: &&usize| id.role != R::QkvBias || !keys.contains(*i);
        let pick = |tensor: &HostTensor, value: &dyn Fn(f32) -> f32| -> Vec<f32> {
            places.iter().filter(seen).map(|i| value(tensor.data[*i])).collect()
        };
        let first = apart(&pick(found, &|x| x), &pick(&moments.first[id], &|x| x));
        let second = apart(&pick(found, &|x| x * x), &pick(&moments.second[id], &|x| x));
        assert!(first < 1e-4 && second < 1e-4, "{id}: {first}, {second}");
        compared += places.len();
    }
    assert!(compared > 500, "{compared}");
}

/// Largest relative differences of the losses after one update and over 20, after a growth and a change
/// to what it gave.
fn departure(
    factor: usize,
    parametrization: Parametrization,
    growth: &Growth,
    change: impl Fn(&mut TrainingState),
) -> [f64; 2] {
    let small = shape(2, 2, 8, 64, true);
    let mut training = Training::start(small, parametrization, 4);
    training.train(60);
    let mut state = training.grown(widened(small, factor), growth).state();
    change(&mut state);
    let mut grown = Training::of(state, training.seed);
    let (due, found) = (training.train(21), grown.train(21));
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&due[13..]) < mean(&due[..8]), "nothing is learnt: {due:?}");
    let apart: Vec<f64> =
        due.iter().zip(found).map(|(due, found)| (found / due - 1.0).abs()).collect();
    assert!(apart.iter().all(|x| x.is_finite()), "not finite: {apart:?}");
    [apart[1], apart.iter().copied().fold(0.0, f64::max)]
}

#[test]
fn duplication_follows_the_small_model_update_for_update() {
    for factor in [2, 3, 4] {
        let [_, apart] = departure(factor, Parametrization::mup(16), &duplicate(), |_| ());
        assert!(apart <= 1e-6, "x{factor}: {apart}");
    }
}

#[test]
fn duplication_departs_without_the_moments_or_without_mup() {
    let zeroed = Growth { moments: MomentRule::Zero, ..duplicate() };
    let [_, apart] = departure(2, Parametrization::mup(16), &zeroed, |_| ());
    assert!((0.12..0.48).contains(&apart), "zeroed moments: {apart}");
    let [_, apart] = departure(2, Parametrization::standard(), &duplicate(), |_| ());
    assert!((0.07..0.3).contains(&apart), "without mu-P: {apart}");
    let diagonal = departure(2, Parametrization::mup(16), &duplicate(), diagonal_moments_alone);
    let [at_once, apart] = diagonal;
    assert!((0.0035..0.014).contains(&at_once), "moments between copies zeroed: {at_once} at once");
    assert!((0.03..0.12).contains(&apart), "moments between copies zeroed: {apart}");
}

/// Zeroes the moments of the blocks between different copies of a doubled width, as published code has
/// them (Shen et al. 2022).
fn diagonal_moments_alone(state: &mut TrainingState) {
    let shape = state.shape;
    let Moments { first, second } = &mut state.moments;
    for moments in [first, second] {
        for (id, tensor) in moments.iter_mut() {
            let (rows, columns) = match id.role {
                ParamRole::QkvWeight | ParamRole::AttentionOutWeight => {
                    (shape.d_model, shape.d_model)
                }
                ParamRole::FeedForwardInWeight => (shape.d_model, shape.d_ff),
                ParamRole::FeedForwardOutWeight => (shape.d_ff, shape.d_model),
                _ => continue,
            };
            let width = tensor.dims[1];
            for (i, x) in tensor.data.iter_mut().enumerate() {
                let (row, column) = (i / width, i % width % columns);
                if (row < rows / 2) != (column < columns / 2) {
                    *x = 0.0;
                }
            }
        }
    }
}

#[test]
fn copies_part_after_a_split_and_never_after_duplication() {
    let small = shape(2, 2, 8, 64, true);
    let mut training = Training::start(small, Parametrization::mup(16), 4);
    training.train(60);
    let halves_apart = |growth: &Growth| {
        let mut grown = training.grown(widened(small, 2), growth);
        grown.train(20);
        let bias = ParamId::in_block(ParamRole::FeedForwardInBias, 1);
        let data = grown.state().params[&bias].data.clone();
        let (left, right) = data.split_at(data.len() / 2);
        apart(left, right)
    };
    assert!(halves_apart(&duplicate()) < 1e-4);
    assert!(halves_apart(&Growth { width: WidthMode::Split, ..Growth::default() }) > 0.01);
}

/// A state that was tampered with after its growth is noticed.
#[test]
fn a_growth_that_moves_the_loss_is_refused() {
    let small = shape(1, 2, 8, 64, true);
    let mut training = Training::start(small, Parametrization::mup(16), 4);
    training.train(10);
    let (before, mut after) =
        (training.state(), training.grown(widened(small, 2), &duplicate()).state());
    let operator =
        GrowthOperator::new(small, after.shape, before.parametrization, &duplicate(), 9).unwrap();
    let held_out = trainer::EvaluationSet::of_tokens(&batch(1, 1), 64, CONTEXT).unwrap();
    let check = |after: &TrainingState| trainer::check_growth(&operator, &before, after, &held_out);
    check(&after).unwrap();
    after.constants.output_multiplier *= 1.001;
    let message = check(&after).unwrap_err().to_string();
    assert!(message.contains("moved the loss from"), "{message}");
}
