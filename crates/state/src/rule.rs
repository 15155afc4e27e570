use crate::ParamRole as R;
use measure::{GptShape, Parametrization};

/// How a parameter's update departs from the schedule's numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateRule {
    /// Factor on the learning rate.
    pub learning_rate: f64,
    /// Factor on the weight decay; 0 where nothing decays.
    pub weight_decay: f64,
    /// Factor on the optimizer's eps.
    pub eps: f64,
}

impl UpdateRule {
    /// The rule for a role in a model of this shape.
    ///
    /// With r the width over the base width, mu-P divides the learning rate of hidden matrices by
    /// r and multiplies their decay by r, so that the product of the two does not depend on the
    /// width (Yang et al. 2022, table 8). Every gradient falls as 1/r, and eps with it. Only
    /// hidden matrices decay.
    pub fn of(role: R, shape: &GptShape, parametrization: &Parametrization) -> Self {
        let ratio = parametrization.width_ratio(shape.d_model);
        let eps = 1.0 / ratio;
        match role {
            R::QkvWeight
            | R::AttentionOutWeight
            | R::FeedForwardInWeight
            | R::FeedForwardOutWeight => {
                Self { learning_rate: 1.0 / ratio, weight_decay: ratio, eps }
            }
            R::TokenEmbedding
            | R::PositionEmbedding
            | R::HeadWeight
            | R::AttentionNormGain
            | R::AttentionNormBias
            | R::QkvBias
            | R::AttentionOutBias
            | R::FeedForwardNormGain
            | R::FeedForwardNormBias
            | R::FeedForwardInBias
            | R::FeedForwardOutBias
            | R::FinalNormGain
            | R::FinalNormBias => Self { learning_rate: 1.0, weight_decay: 0.0, eps },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(d_model: usize) -> GptShape {
        GptShape { n_vocab: 256, context_len: 64, ..GptShape::gpt2(2, d_model, 4) }
    }

    #[test]
    fn mup_keeps_learning_rate_times_decay_at_every_width() {
        let mup = Parametrization::mup(64);
        for d_model in [32, 64, 96, 512] {
            let rule = UpdateRule::of(R::QkvWeight, &shape(d_model), &mup);
            assert!((rule.learning_rate * rule.weight_decay - 1.0).abs() < 1e-15);
            assert!((rule.learning_rate * d_model as f64 - 64.0).abs() < 1e-12);
        }
    }

    #[test]
    fn only_hidden_matrices_decay() {
        let decaying: Vec<_> = crate::inventory(&shape(64))
            .into_iter()
            .filter(|id| {
                UpdateRule::of(id.role, &shape(64), &Parametrization::standard()).weight_decay > 0.0
            })
            .collect();
        assert_eq!(decaying.len(), 2 * 4);
    }

    #[test]
    fn standard_leaves_every_learning_rate_alone() {
        for id in crate::inventory(&shape(512)) {
            let rule = UpdateRule::of(id.role, &shape(512), &Parametrization::standard());
            assert_eq!((rule.learning_rate, rule.eps), (1.0, 1.0));
        }
    }
}
