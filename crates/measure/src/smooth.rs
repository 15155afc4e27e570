use crate::CurveError;

/// Share of a curve's points in each local fit.
const SPAN: f64 = 0.1;

/// Fewest points in a local fit.
const LEAST_NEIGHBOURS: usize = 7;

/// Rounds that take weight from outliers.
const ROBUST_ROUNDS: usize = 2;

/// A learning curve as a smooth function of compute: a straight line in ln L over ln C through each
/// point's neighbours, by weighted least squares with less weight for outliers (Cleveland 1979).
#[derive(Clone, Debug, PartialEq)]
pub struct SmoothCurve {
    /// ln C, ln L, d ln L / d ln C, by increasing compute.
    points: Vec<[f64; 3]>,
}

impl SmoothCurve {
    /// Smooths pairs of compute (FLOPs) and loss (nats per token).
    ///
    /// # Errors
    /// Fewer than four points, or a number that is not positive.
    pub fn new(pairs: &[(f64, f64)]) -> Result<Self, CurveError> {
        let positive = |x: f64| x > 0.0 && x.is_finite();
        if let Some(bad) = pairs.iter().position(|pair| !positive(pair.0) || !positive(pair.1)) {
            let (compute, loss) = pairs[bad];
            return Err(CurveError::Point { point: bad + 1, compute, loss });
        }
        let mut ln: Vec<(f64, f64)> = pairs.iter().map(|pair| (pair.0.ln(), pair.1.ln())).collect();
        ln.sort_by(|a, b| a.0.total_cmp(&b.0));
        ln.dedup_by_key(|point| point.0);
        if ln.len() < 4 {
            return Err(CurveError::TooShort { n_points: ln.len() });
        }
        let n_near = ((SPAN * ln.len() as f64) as usize).max(LEAST_NEIGHBOURS).min(ln.len());
        let mut trust = vec![1.0; ln.len()];
        let mut points = local_lines(&ln, n_near, &trust);
        for _ in 0..ROBUST_ROUNDS {
            let off: Vec<f64> =
                ln.iter().zip(&points).map(|(point, line)| (point.1 - line[1]).abs()).collect();
            let mut sorted = off.clone();
            sorted.sort_by(f64::total_cmp);
            let limit = 6.0 * sorted[sorted.len() / 2];
            if limit <= 0.0 {
                break;
            }
            trust = off.iter().map(|off| (1.0 - (off / limit).min(1.0).powi(2)).powi(2)).collect();
            points = local_lines(&ln, n_near, &trust);
        }
        Ok(Self { points })
    }

    /// Loss at the first point.
    pub fn first_loss(&self) -> f64 {
        self.points[0][1].exp()
    }

    /// The lowest loss.
    pub fn last_loss(&self) -> f64 {
        self.points.iter().map(|point| point[1]).fold(f64::INFINITY, f64::min).exp()
    }

    /// The greatest compute, FLOPs.
    pub fn last_compute(&self) -> f64 {
        self.points[self.points.len() - 1][0].exp()
    }

    /// Loss at an amount of compute; `None` outside the curve.
    pub fn loss_at(&self, compute: f64) -> Option<f64> {
        let (left, right, t) = self.place(compute.ln())?;
        Some((left[1] + t * (right[1] - left[1])).exp())
    }

    /// d ln L / d ln C at an amount of compute; beyond the curve that of its end.
    pub fn slope_at(&self, compute: f64) -> f64 {
        let (first, last) = (self.points[0], self.points[self.points.len() - 1]);
        let at = compute.ln().clamp(first[0], last[0]);
        self.place(at).map_or(last[2], |(left, right, t)| left[2] + t * (right[2] - left[2]))
    }

    /// The least compute at which a loss is reached, FLOPs; `None` if it never is, or before the
    /// first point.
    pub fn compute_at(&self, loss: f64) -> Option<f64> {
        let ln = loss.ln();
        let i = self.points.iter().position(|point| point[1] <= ln)?;
        if i == 0 {
            return (self.points[0][1] >= ln).then(|| self.points[0][0].exp());
        }
        let (left, right) = (self.points[i - 1], self.points[i]);
        let t = (ln - left[1]) / (right[1] - left[1]);
        Some((left[0] + t * (right[0] - left[0])).exp())
    }

    fn place(&self, ln_compute: f64) -> Option<([f64; 3], [f64; 3], f64)> {
        let (first, last) = (self.points[0], self.points[self.points.len() - 1]);
        if !(first[0]..=last[0]).contains(&ln_compute) {
            return None;
        }
        let right = self.points.partition_point(|point| point[0] < ln_compute).max(1);
        let (left, right) = (self.points[right - 1], self.points[right]);
        Some((left, right, (ln_compute - left[0]) / (right[0] - left[0])))
    }
}

/// A line through the nearest points of each point, weighted by nearness and trust.
fn local_lines(points: &[(f64, f64)], n_near: usize, trust: &[f64]) -> Vec<[f64; 3]> {
    let mut first = 0;
    let line = |(i, (x, y)): (usize, &(f64, f64))| {
        while first + n_near < points.len() && points[first + n_near].0 - x < x - points[first].0 {
            first += 1;
        }
        let near = first..first + n_near;
        let reach = (x - points[near.start].0).max(points[near.end - 1].0 - x) * (1.0 + 1e-9);
        let [mut weights, mut sum_x, mut sum_y, mut square, mut product] = [0.0; 5];
        for j in near {
            let (dx, dy) = (points[j].0 - x, points[j].1 - y);
            let weight = trust[j] * (1.0 - (dx.abs() / reach).powi(3)).powi(3);
            weights += weight;
            sum_x += weight * dx;
            sum_y += weight * dy;
            square += weight * dx * dx;
            product += weight * dx * dy;
        }
        let spread = weights * square - sum_x * sum_x;
        if weights <= 0.0 || spread <= 1e-12 * weights * square {
            let slope = if i > 0 { (y - points[i - 1].1) / (x - points[i - 1].0) } else { 0.0 };
            return [*x, *y, slope];
        }
        let slope = (weights * product - sum_x * sum_y) / spread;
        [*x, y + (sum_y - slope * sum_x) / weights, slope]
    };
    points.iter().enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn power_law(noise: f64) -> Vec<(f64, f64)> {
        let point = |i: u32| {
            let compute = 1e12 * f64::from(i);
            let wave = f64::from((i * 7919) % 101) / 50.0 - 1.0;
            (compute, 8.0 * (compute / 1e12).powf(-0.05) * (noise * wave).exp())
        };
        (1..=500).map(point).collect()
    }

    #[test]
    fn a_power_law_is_kept_with_its_slope() {
        let curve = SmoothCurve::new(&power_law(0.0)).unwrap();
        for compute in [5e12, 1e14, 4.9e14] {
            let due = 8.0 * (compute / 1e12f64).powf(-0.05);
            assert!((curve.loss_at(compute).unwrap() / due - 1.0).abs() < 1e-6);
            assert!((curve.slope_at(compute) + 0.05).abs() < 1e-6);
            assert!((curve.compute_at(due).unwrap() / compute - 1.0).abs() < 1e-4);
        }
        assert_eq!(curve.loss_at(1e10), None);
        assert_eq!(curve.compute_at(1.0), None);
    }

    #[test]
    fn noise_and_outliers_are_smoothed_away() {
        let mut pairs = power_law(0.005);
        pairs[300].1 *= 2.0;
        let curve = SmoothCurve::new(&pairs).unwrap();
        let due = 8.0 * 301f64.powf(-0.05);
        assert!((curve.loss_at(3.01e14).unwrap() / due - 1.0).abs() < 0.002);
        assert!((curve.slope_at(4e14) + 0.05).abs() < 0.02, "{}", curve.slope_at(4e14));
    }

    #[test]
    fn what_is_no_curve_is_explained() {
        let message = |pairs: &[(f64, f64)]| SmoothCurve::new(pairs).unwrap_err().to_string();
        assert!(message(&[(1.0, 2.0)]).contains("1 points"));
        assert!(message(&[(1.0, 2.0), (0.0, 2.0)]).contains("point 2: compute 0"));
    }
}
