use crate::ScalingError;
use crate::cost::positive;

/// Measured training speed by size.
#[derive(Clone, Debug, PartialEq)]
pub struct Throughput {
    /// ln N and ln of seconds per token, by increasing N.
    points: Vec<(f64, f64)>,
}

impl Throughput {
    /// From pairs of N and tokens per second; sizes that were measured often get their geometric mean.
    ///
    /// # Errors
    /// No pair, or a number that is not positive.
    pub fn new(pairs: &[(f64, f64)]) -> Result<Self, ScalingError> {
        let mut points = Vec::new();
        for (n_params, tokens_per_second) in pairs {
            positive("n_params", *n_params)?;
            positive("tokens_per_second", *tokens_per_second)?;
            points.push((n_params.ln(), -tokens_per_second.ln()));
        }
        if points.is_empty() {
            return Err(ScalingError::NoSolution("a speed without measured sizes"));
        }
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mean = |group: &[(f64, f64)]| {
            (group[0].0, group.iter().map(|point| point.1).sum::<f64>() / group.len() as f64)
        };
        Ok(Self { points: points.chunk_by(|a, b| a.0 == b.0).map(mean).collect() })
    }

    /// Seconds for a token: interpolated in ln over ln N, continued by the outermost pieces, but beyond the largest size and where
    /// only one was measured at least in proportion to N.
    pub fn seconds(&self, n_params: f64) -> f64 {
        let at = n_params.ln();
        let right = self.points.partition_point(|point| point.0 < at);
        let right = right.clamp(1, self.points.len().max(2) - 1);
        let left = self.points[right - 1];
        let largest = self.points[self.points.len() - 1];
        let slope = match self.points.get(right) {
            Some(next) => (next.1 - left.1) / (next.0 - left.0),
            None => 1.0,
        };
        if at > largest.0 {
            return (largest.1 + slope.max(1.0) * (at - largest.0)).exp();
        }
        (left.1 + slope * (at - left.0)).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_met_at_its_points_and_continued_beyond() {
        let speed = Throughput::new(&[(1e7, 1e4), (1e6, 8e4), (1e6, 8e4)]).unwrap();
        assert!((speed.seconds(1e6) * 8e4 - 1.0).abs() < 1e-12);
        assert!((speed.seconds(1e7) * 1e4 - 1.0).abs() < 1e-12);
        assert!((speed.seconds(1e5) * 6.4e5 - 1.0).abs() < 1e-9);
        // A larger model is not faster for ever because it was faster once.
        let rising = Throughput::new(&[(1e6, 8e4), (1e7, 8.1e4)]).unwrap();
        assert!((rising.seconds(1e9) * 8.1e2 - 1.0).abs() < 1e-9);
        let one = Throughput::new(&[(1e6, 1e3)]).unwrap();
        assert!((one.seconds(1e7) - 1e-2).abs() < 1e-12);
        assert!(Throughput::new(&[]).is_err());
        assert!(Throughput::new(&[(1e6, 0.0)]).unwrap_err().to_string().contains("per_second = 0"));
    }
}
