use crate::ParamRole as R;
use crate::{
    HostTensor, ModelConstants, Moments, Origin, ParamId, Position, TrainingState, inventory,
};
use measure::{GptShape, Parametrization};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use std::collections::BTreeMap;

/// GPT-2's epsilon in layer norms.
const NORM_EPS: f64 = 1e-5;

impl TrainingState {
    /// A state before the first step: parameters drawn from `origin.seed`, moments zero.
    ///
    /// Each tensor has a random stream of its own, so it does not depend on the other tensors.
    pub fn init(shape: GptShape, parametrization: Parametrization, origin: Origin) -> Self {
        let params: BTreeMap<_, _> = inventory(&shape)
            .into_iter()
            .map(|id| (id, initial_tensor(id, &shape, &parametrization, origin.seed)))
            .collect();
        Self {
            shape,
            parametrization,
            constants: ModelConstants {
                output_multiplier: parametrization.output_multiplier(shape.d_model),
                norm_eps: NORM_EPS,
            },
            position: Position::default(),
            origin,
            moments: Moments::zeros(&params),
            params,
        }
    }
}

fn initial_tensor(
    id: ParamId,
    shape: &GptShape,
    parametrization: &Parametrization,
    seed: u64,
) -> HostTensor {
    let dims = id.role.dims(shape);
    let to_residual = |fan_in: usize| {
        parametrization.hidden_std(fan_in) / parametrization.residual_divisor(shape.n_layers)
    };
    match id.role {
        R::TokenEmbedding | R::PositionEmbedding | R::HeadWeight => {
            normal(id, dims, parametrization.embedding_std(), seed)
        }
        R::QkvWeight | R::FeedForwardInWeight => {
            let std = parametrization.hidden_std(dims[0]);
            normal(id, dims, std, seed)
        }
        R::AttentionOutWeight | R::FeedForwardOutWeight => {
            let std = to_residual(dims[0]);
            normal(id, dims, std, seed)
        }
        R::AttentionNormGain | R::FeedForwardNormGain | R::FinalNormGain => {
            let data = vec![1.0; dims[0]];
            HostTensor { dims, data }
        }
        R::AttentionNormBias
        | R::QkvBias
        | R::AttentionOutBias
        | R::FeedForwardNormBias
        | R::FeedForwardInBias
        | R::FeedForwardOutBias
        | R::FinalNormBias => HostTensor::zeros(dims),
    }
}

fn normal(id: ParamId, dims: Vec<usize>, std: f64, seed: u64) -> HostTensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let layer = id.layer.map_or(0, |layer| layer as u64 + 1);
    rng.set_stream(layer << 8 | id.role as u64);
    let data = (0..dims.iter().product::<usize>())
        .map(|_| (std * rng.sample::<f64, _>(StandardNormal)) as f32)
        .collect();
    HostTensor { dims, data }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn small_state(tied_head: bool) -> TrainingState {
        let shape =
            GptShape { n_vocab: 100, context_len: 32, tied_head, ..GptShape::gpt2(2, 64, 4) };
        let origin = Origin::of_no_run(7);
        TrainingState::init(shape, Parametrization::mup(32), origin)
    }

    fn std_of(tensor: &HostTensor) -> f64 {
        let squares: f64 = tensor.data.iter().map(|x| f64::from(*x).powi(2)).sum();
        (squares / tensor.data.len() as f64).sqrt()
    }

    #[test]
    fn standard_deviations_follow_the_parametrization() {
        let state = small_state(false);
        let cases = [
            (ParamId::outside(R::TokenEmbedding), 0.05),
            (ParamId::outside(R::HeadWeight), 0.05),
            (ParamId::in_block(R::QkvWeight, 1), 0.5 / 8.0),
            (ParamId::in_block(R::AttentionOutWeight, 1), 0.5 / 8.0 / 2f64.sqrt()),
            (ParamId::in_block(R::FeedForwardOutWeight, 0), 0.5 / 16.0 / 2f64.sqrt()),
        ];
        for (id, std) in cases {
            let found = std_of(&state.params[&id]);
            assert!((found / std - 1.0).abs() < 0.05, "{id}: {found} for {std}");
        }
    }

    #[test]
    fn the_seed_fixes_the_state_and_tensors_differ() {
        assert_eq!(small_state(true), small_state(true));
        let state = small_state(true);
        let block = |layer| &state.params[&ParamId::in_block(R::QkvWeight, layer)];
        assert_ne!(block(0), block(1));
    }

    #[test]
    fn tensors_do_not_depend_on_the_rest_of_the_model() {
        let id = ParamId::in_block(R::QkvWeight, 1);
        assert_eq!(small_state(true).params[&id], small_state(false).params[&id]);
    }
}
