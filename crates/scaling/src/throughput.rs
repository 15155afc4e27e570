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

    /// Seconds for a token: interpolated in ln over ln N; beyond the largest size and where only one was measured in proportion to N, and
    /// below the smallest one as the first two tell, but neither slower than there nor less than in proportion to N.
    pub fn seconds(&self, n_params: f64) -> f64 {
        let at = n_params.ln();
        let next = self.points.partition_point(|point| point.0 < at).max(1);
        let left = self.points[next - 1];
        let slope = match self.points.get(next) {
            Some(right) => {
                let slope = (right.1 - left.1) / (right.0 - left.0);
                if at < left.0 { slope.clamp(0.0, 1.0) } else { slope }
            }
            None => 1.0,
        };
        (left.1 + slope * (at - left.0)).exp()
    }

    /// By what factor a size lies beyond those that were measured; 1 among them.
    pub fn extrapolation(&self, n_params: f64) -> f64 {
        let at = n_params.ln();
        let (least, greatest) = (self.points[0].0, self.points[self.points.len() - 1].0);
        (at - greatest).max(least - at).max(0.0).exp()
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
        // Nor are two sizes that hardly differ what others are told by.
        let near =
            Throughput::new(&[(1e6, 8e4), (1.02e6, 7e4), (1e7, 1e4), (1.02e7, 8e3)]).unwrap();
        assert!((near.seconds(1e5) * 8e5 - 1.0).abs() < 1e-9);
        assert!((near.seconds(1.02e8) * 8e2 - 1.0).abs() < 1e-9);
        for (n_params, factor) in [(1e6, 1.0), (3e6, 1.0), (1.02e8, 10.0), (1e5, 10.0)] {
            assert!((near.extrapolation(n_params) / factor - 1.0).abs() < 1e-9, "{n_params}");
        }
        let one = Throughput::new(&[(1e6, 1e3)]).unwrap();
        assert!((one.seconds(1e7) - 1e-2).abs() < 1e-12);
        assert!(Throughput::new(&[]).is_err());
        assert!(Throughput::new(&[(1e6, 0.0)]).unwrap_err().to_string().contains("per_second = 0"));
    }
}
