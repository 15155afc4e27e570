use crate::{CurveError, LearningCurve};

/// Share of a curve's points in each local fit.
const SPAN: f64 = 0.1;

/// Fewest points in a local fit.
const LEAST_NEIGHBOURS: usize = 7;

/// Rounds that take weight from outliers.
const ROBUST_ROUNDS: usize = 2;

/// Factor of compute over which a slope is taken: over less, noise is more of it than the curve's bend.
const SLOPE_SPAN: f64 = 4.0;

/// Most places at which a curve is smoothed; of more points, these are spread evenly over them.
const MOST_PLACES: usize = 500;

/// Fewest points of a curve.
const LEAST_POINTS: usize = 4;

/// A learning curve as a smooth function of compute: a straight line in ln L over ln C through each
/// point's neighbours, by weighted least squares with less weight for outliers (Cleveland 1979). Of more than 500 points it is found
/// at 500, from all of them, and a straight line in between.
#[derive(Clone, Debug, PartialEq)]
pub struct SmoothCurve {
    /// ln C, ln L and d ln L / d ln C, the slope of a parabola over a factor of four of compute, by increasing compute.
    points: Vec<[f64; 3]>,
}

impl SmoothCurve {
    /// Smooths pairs of compute (FLOPs) and loss (nats per token).
    ///
    /// # Errors
    /// Fewer than four points, or a number that is not positive.
    pub fn new(pairs: &[(f64, f64)]) -> Result<Self, CurveError> {
        Ok(Self { points: smoothed(pairs)? })
    }

    /// The held-out loss of a run over its compute. Each stage is smoothed by itself, for the slope jumps
    /// where a model grows; a stage of fewer than four evaluations is smoothed with the one after it, the last one with the one
    /// before it.
    ///
    /// # Errors
    /// Fewer than four evaluations, or a number that is not positive.
    pub fn of_run(curve: &LearningCurve) -> Result<Self, CurveError> {
        let mut stages: Vec<Vec<(f64, f64)>> = Vec::new();
        let mut last_stage = None;
        for (point, loss) in curve.evaluated() {
            let new = last_stage != Some(point.stage)
                && stages.last().is_none_or(|stage| stage.len() >= LEAST_POINTS);
            if new {
                stages.push(Vec::new());
            }
            last_stage = Some(point.stage);
            if let Some(stage) = stages.last_mut() {
                stage.push((point.compute_flops, loss));
            }
        }
        if stages.len() > 1 && stages.last().is_some_and(|stage| stage.len() < LEAST_POINTS) {
            let rest = stages.pop().unwrap_or_default();
            stages.last_mut().into_iter().for_each(|stage| stage.extend(&rest));
        }
        if stages.is_empty() {
            return Err(CurveError::TooShort { n_points: 0 });
        }
        let mut points: Vec<[f64; 3]> = Vec::new();
        for stage in stages {
            points.extend(smoothed(&stage)?);
        }
        Ok(Self { points })
    }

    /// Compute, FLOPs, and smoothed loss, by increasing compute.
    pub fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.points.iter().map(|point| (point[0].exp(), point[1].exp()))
    }

    /// The least compute from which on the slope d ln L / d ln C stays at or above a value, FLOPs; `None`
    /// if it is below it at the end.
    pub fn compute_at_slope(&self, slope: f64) -> Option<f64> {
        let flat = self.points.iter().rev().take_while(|point| point[2] >= slope).count();
        let first = self.points.len() - flat;
        self.points.get(first).map(|point| point[0].exp())
    }
}

/// A slope d ln L / d ln C.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// Its value.
    pub value: f64,
    /// Its standard error, as the points lie off the parabola.
    pub standard_error: f64,
}

/// The slope d ln L / d ln C at the end of pairs of compute (FLOPs) and loss (nats per token): that of a parabola through ln L over
/// ln C of the last factor of four of compute, or of less where the points lie off it in runs, as at a step of the curve. `None` where
/// that holds fewer than `least` points.
///
/// # Errors
/// A number that is not positive.
pub fn slope_at_end(pairs: &[(f64, f64)], least: usize) -> Result<Option<Slope>, CurveError> {
    if pairs.len() < least.max(LEAST_POINTS) {
        return Ok(None);
    }
    let ln = in_logarithms(pairs)?;
    Ok(slope_near(&ln, None, ln[ln.len() - 1].0, least))
}

/// Pairs of compute and loss as ln C and ln L by increasing compute, each compute once.
fn in_logarithms(pairs: &[(f64, f64)]) -> Result<Vec<(f64, f64)>, CurveError> {
    let positive = |x: f64| x > 0.0 && x.is_finite();
    if let Some(bad) = pairs.iter().position(|pair| !positive(pair.0) || !positive(pair.1)) {
        let (compute, loss) = pairs[bad];
        return Err(CurveError::Point { point: bad + 1, compute, loss });
    }
    let mut ln: Vec<(f64, f64)> = pairs.iter().map(|pair| (pair.0.ln(), pair.1.ln())).collect();
    ln.sort_by(|a, b| a.0.total_cmp(&b.0));
    ln.dedup_by_key(|point| point.0);
    if ln.len() < LEAST_POINTS {
        return Err(CurveError::TooShort { n_points: ln.len() });
    }
    Ok(ln)
}

/// ln C, ln L and d ln L / d ln C of smoothed pairs of compute and loss.
fn smoothed(pairs: &[(f64, f64)]) -> Result<Vec<[f64; 3]>, CurveError> {
    let ln = in_logarithms(pairs)?;
    let n_near = ((SPAN * ln.len() as f64) as usize).max(LEAST_NEIGHBOURS).min(ln.len());
    let mut trust = vec![1.0; ln.len()];
    let n_places = ln.len().min(MOST_PLACES);
    let places: Vec<usize> = (0..n_places).map(|i| i * (ln.len() - 1) / (n_places - 1)).collect();
    let mut points = local_lines(&ln, &places, n_near, &trust);
    for _ in 0..ROBUST_ROUNDS {
        let off = |point: &(f64, f64)| {
            let (left, right, t) = between(&points, point.0)?;
            Some((point.1 - (1.0 - t) * left[1] - t * right[1]).abs())
        };
        let off: Vec<f64> = ln.iter().filter_map(off).collect();
        let mut sorted = off.clone();
        sorted.sort_by(f64::total_cmp);
        let limit = 6.0 * sorted[sorted.len() / 2];
        if limit <= 0.0 {
            break;
        }
        trust = off.iter().map(|off| (1.0 - (off / limit).min(1.0).powi(2)).powi(2)).collect();
        points = local_lines(&ln, &places, n_near, &trust);
    }
    for point in &mut points {
        let slope = slope_near(&ln, Some(&trust), point[0], LEAST_NEIGHBOURS);
        point[2] = slope.map_or(point[2], |slope| slope.value);
    }
    Ok(points)
}

/// The slope at `x` over a factor of four of compute around it, or next to it at the ends of a curve: over half of that in ln C, and
/// half again, while neighbours lie off the parabola on one side more than noise does. `None` where `least` points are more than there
/// are, or where they make no parabola.
fn slope_near(ln: &[(f64, f64)], trust: Option<&[f64]>, x: f64, least: usize) -> Option<Slope> {
    let (first, last) = (ln[0].0, ln[ln.len() - 1].0);
    let mut span = SLOPE_SPAN.ln();
    let mut found = None;
    loop {
        let low = (x - 0.5 * span).min(last - span).max(first);
        let from = ln.partition_point(|point| point.0 < low * (1.0 - 1e-12));
        let to = ln.partition_point(|point| point.0 <= (low + span) * (1.0 + 1e-12));
        if to - from < least {
            return found;
        }
        let weights = trust.map(|trust| &trust[from..to]);
        let Some((slope, correlation)) = slope_of_parabola(&ln[from..to], weights, x) else {
            return found;
        };
        // Neighbours that lie off together are fewer than they seem.
        let alike = correlation.clamp(0.0, 0.9);
        let standard_error = slope.standard_error * ((1.0 + alike) / (1.0 - alike)).sqrt();
        found = Some(Slope { standard_error, ..slope });
        if correlation <= 2.0 / ((to - from) as f64).sqrt() {
            return found;
        }
        span *= 0.5;
    }
}

/// The slope at `x` of the weighted least-squares parabola through points, from polynomials that are orthogonal on them, and the
/// correlation of what neighbours lie off it; `None` where they lie too close together for one.
fn slope_of_parabola(
    points: &[(f64, f64)],
    weights: Option<&[f64]>,
    x: f64,
) -> Option<(Slope, f64)> {
    let weight = |i: usize| weights.map_or(1.0, |weights| weights[i]);
    let sum = |term: &dyn Fn(f64, f64) -> f64| -> f64 {
        points.iter().enumerate().map(|(i, (at, y))| weight(i) * term(*at, *y)).sum()
    };
    let total = sum(&|_, _| 1.0);
    let (mean_x, mean_y) = (sum(&|at, _| at) / total, sum(&|_, y| y) / total);
    let line = |at: f64| at - mean_x;
    let square = sum(&|at, _| line(at).powi(2));
    let skew = sum(&|at, _| line(at).powi(3)) / square;
    let bend = |at: f64| line(at).powi(2) - skew * line(at) - square / total;
    let bend_square = sum(&|at, _| bend(at).powi(2));
    let freedom = total - 3.0;
    if !(bend_square > 1e-12 * square * square / total && freedom > 0.0) {
        return None;
    }
    let of_line = sum(&|at, y| line(at) * y) / square;
    let of_bend = sum(&|at, y| bend(at) * y) / bend_square;
    let off = |at: f64, y: f64| y - mean_y - of_line * line(at) - of_bend * bend(at);
    let squares = sum(&|at, y| off(at, y).powi(2));
    let products: f64 = (1..points.len())
        .map(|i| {
            let [(at, y), (next_at, next_y)] = [points[i - 1], points[i]];
            (weight(i - 1) * weight(i)).sqrt() * off(at, y) * off(next_at, next_y)
        })
        .sum();
    let correlation = if squares > 0.0 { products / squares } else { 0.0 };
    let variance = squares / freedom;
    let of_slope = 2.0 * line(x) - skew;
    let slope = Slope {
        value: of_line + of_bend * of_slope,
        standard_error: (variance * (1.0 / square + of_slope * of_slope / bend_square)).sqrt(),
    };
    Some((slope, correlation))
}

impl SmoothCurve {
    /// Loss at the first point.
    pub fn first_loss(&self) -> f64 {
        self.points[0][1].exp()
    }

    /// Loss at the last point.
    pub fn last_loss(&self) -> f64 {
        self.points[self.points.len() - 1][1].exp()
    }

    /// The lowest loss.
    pub fn lowest_loss(&self) -> f64 {
        self.lowest_ln_loss().exp()
    }

    /// The greatest compute, FLOPs.
    pub fn last_compute(&self) -> f64 {
        self.points[self.points.len() - 1][0].exp()
    }

    /// Loss at an amount of compute; `None` outside the curve.
    pub fn loss_at(&self, compute: f64) -> Option<f64> {
        let (left, right, t) = between(&self.points, compute.ln())?;
        Some((left[1] + t * (right[1] - left[1])).exp())
    }

    /// d ln L / d ln C at an amount of compute; beyond the curve that of its end.
    pub fn slope_at(&self, compute: f64) -> f64 {
        let (first, last) = (self.points[0], self.points[self.points.len() - 1]);
        let at = compute.ln().clamp(first[0], last[0]);
        between(&self.points, at)
            .map_or(last[2], |(left, right, t)| left[2] + t * (right[2] - left[2]))
    }

    /// The least compute at which a loss is reached, FLOPs; `None` if it never is, or before the
    /// first point.
    pub fn compute_at(&self, loss: f64) -> Option<f64> {
        let ln = self.at_an_end(loss.ln());
        let i = self.points.iter().position(|point| point[1] <= ln)?;
        if i == 0 {
            return (self.points[0][1] >= ln).then(|| self.points[0][0].exp());
        }
        let (left, right) = (self.points[i - 1], self.points[i]);
        let t = (ln - left[1]) / (right[1] - left[1]);
        Some((left[0] + t * (right[0] - left[0])).exp())
    }

    fn lowest_ln_loss(&self) -> f64 {
        self.points.iter().map(|point| point[1]).fold(f64::INFINITY, f64::min)
    }

    /// ln of a loss, that of the first, the last or the lowest point where rounding alone tells them apart: exp and ln take one off the other.
    fn at_an_end(&self, ln_loss: f64) -> f64 {
        let last = self.points[self.points.len() - 1][1];
        let ends = [self.points[0][1], last, self.lowest_ln_loss()];
        ends.into_iter().find(|end| (end - ln_loss).abs() < 1e-12).unwrap_or(ln_loss)
    }
}

/// The points to both sides of a ln C, and the share of the way from the first to the second; `None` outside the curve.
fn between(points: &[[f64; 3]], ln_compute: f64) -> Option<([f64; 3], [f64; 3], f64)> {
    let (first, last) = (points[0], points[points.len() - 1]);
    if !(first[0]..=last[0]).contains(&ln_compute) {
        return None;
    }
    let right = points.partition_point(|point| point[0] < ln_compute).max(1);
    let (left, right) = (points[right - 1], points[right]);
    Some((left, right, (ln_compute - left[0]) / (right[0] - left[0])))
}

/// A line through the nearest points of those at some places, weighted by nearness and trust.
fn local_lines(
    points: &[(f64, f64)],
    places: &[usize],
    n_near: usize,
    trust: &[f64],
) -> Vec<[f64; 3]> {
    let mut first = 0;
    let line = |i: usize| {
        let (x, y) = points[i];
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
            return [x, y, slope];
        }
        let slope = (weights * product - sum_x * sum_y) / spread;
        [x, y + (sum_y - slope * sum_x) / weights, slope]
    };
    places.iter().copied().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CurvePoint;

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
        assert!((curve.slope_at(4e14) + 0.05).abs() < 0.005, "{}", curve.slope_at(4e14));
    }

    #[test]
    fn a_long_curve_is_found_at_some_places() {
        let mut pairs = noisy(1, 20_000, |k| 8.0 * k.powf(-0.05));
        pairs[12_345].1 *= 2.0;
        let curve = SmoothCurve::new(&pairs).unwrap();
        assert_eq!(curve.points().count(), MOST_PLACES);
        assert!((curve.last_compute() / 2e16 - 1.0).abs() < 1e-12);
        for k in [12_346.0, 19_999.5] {
            let found = curve.loss_at(1e12 * k).unwrap();
            assert!((found / (8.0 * f64::powf(k, -0.05)) - 1.0).abs() < 3e-4, "{k}: {found}");
            assert!((curve.slope_at(1e12 * k) + 0.05).abs() < 1e-3);
        }
    }

    #[test]
    fn the_kink_at_a_growth_is_kept() {
        let point = |i: u32, stage: usize, loss: f64| CurvePoint {
            stage,
            step: u64::from(i),
            tokens: u64::from(i),
            compute_flops: 1e12 * f64::from(i),
            train_loss: loss,
            val_loss: Some(loss),
            learning_rate: 0.01,
            grad_norm: 1.0,
            tokens_per_second: 1.0,
            wall_seconds: 1.0,
        };
        let flat = |i: u32| 4.0 * f64::from(i).powf(-0.01);
        let steep = |i: u32| flat(60) * (f64::from(i) / 60.0).powf(-0.2);
        let first = (1..=60).map(|i| point(i, 0, flat(i)));
        let points = first.chain((61..=120).map(|i| point(i, 1, steep(i)))).collect();
        let run = LearningCurve { points };
        let curve = SmoothCurve::of_run(&run).unwrap();
        for i in [20, 59, 60, 61, 62, 90] {
            let due = if i <= 60 { flat(i) } else { steep(i) };
            let found = curve.loss_at(1e12 * f64::from(i)).unwrap();
            assert!((found / due - 1.0).abs() < 1e-9, "{i}: {found} for {due}");
        }
        assert_eq!(curve.compute_at_slope(-0.1), None);
        // A stage of too few points for a curve of its own joins its neighbour.
        let early = LearningCurve { points: run.points[57..].to_vec() };
        assert_eq!(SmoothCurve::of_run(&early).unwrap().points().count(), 63);
        let short = LearningCurve { points: run.points[..62].to_vec() };
        assert_eq!(SmoothCurve::of_run(&short).unwrap().points().count(), 62);
    }

    #[test]
    fn a_slope_is_reached_where_the_curve_stays_flatter() {
        let pairs: Vec<(f64, f64)> =
            (1..=300).map(|i| (1e12 * f64::from(i), 1.0 + 5.0 * f64::from(i).powf(-0.5))).collect();
        let curve = SmoothCurve::new(&pairs).unwrap();
        let compute = curve.compute_at_slope(-0.15).unwrap();
        assert!((curve.slope_at(compute) + 0.15).abs() < 0.005);
    }

    /// A loss after 1, 2, ... evaluations, with 0.1 % of noise.
    fn noisy(seed: u64, n: u32, loss: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let mut noise = || (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
        let point = |k| (1e12 * f64::from(k), loss(f64::from(k)) * (0.001 * noise()).exp());
        (1..=n).map(point).collect()
    }

    /// A step in the curve: nearly flat, then falling, then flatter again.
    #[test]
    fn the_slope_beyond_a_step_is_not_that_of_the_step() {
        let loss = |k: f64| {
            let slope_of = |from: f64, slope: f64, k: f64| (k.max(from) / from).powf(slope);
            let steep = slope_of(40.0, -0.15, k.min(80.0));
            3.0 * k.min(40.0).powf(-0.01) * steep * slope_of(80.0, -0.04, k)
        };
        let (mut values, mut beyond) = (Vec::new(), 0);
        for seed in 0..40 {
            let pairs = noisy(seed, 160, loss);
            let end = slope_at_end(&pairs[..120], 10).unwrap().unwrap();
            beyond += u32::from((end.value + 0.04).abs() > 3.0 * end.standard_error);
            values.push(end.value);
            let steep = slope_at_end(&pairs[..78], 10).unwrap().unwrap();
            assert!(steep.value < -0.1, "{seed}: {steep:?}");
        }
        let mean = values.iter().sum::<f64>() / 40.0;
        assert!((mean + 0.04).abs() < 0.005 && beyond <= 3, "{mean}, {beyond} of 40");
    }

    /// Noise of which a quarter goes on to the next evaluation is known to tell less.
    #[test]
    fn the_error_of_a_slope_knows_of_noise_that_lasts() {
        let mut off = Vec::new();
        for seed in 0..200u64 {
            let white = noisy(seed, 200, |_| 1.0);
            let mut lasting = 0.0;
            let pairs: Vec<(f64, f64)> = white
                .iter()
                .map(|(compute, loss)| {
                    lasting = 0.25 * lasting + loss.ln();
                    (*compute, 4.0 * (compute / 1e12).powf(-0.05) * f64::exp(lasting))
                })
                .collect();
            let end = slope_at_end(&pairs, 10).unwrap().unwrap();
            off.push((end.value + 0.05) / end.standard_error);
        }
        let spread = (off.iter().map(|off| off * off).sum::<f64>() / 200.0).sqrt();
        // A third more than its error says; nearly twice a third where all noise is taken for new.
        assert!((0.8..1.45).contains(&spread), "{spread}");
    }

    /// L = 1 + 1.2 k^-0.35 after k evaluations, with 0.1 % of noise: what an online growth sees.
    #[test]
    fn the_slope_at_the_end_of_a_noisy_curve_is_its_own() {
        let slope = |k: f64| -0.35 * (1.0 - 1.0 / (1.0 + 1.2 * k.powf(-0.35)));
        let (mut fired, mut off) = (Vec::new(), Vec::new());
        for seed in 0..40u64 {
            let pairs = noisy(seed, 200, |k| 1.0 + 1.2 * k.powf(-0.35));
            let end = slope_at_end(&pairs, 10).unwrap().unwrap();
            off.push((end.value - slope(200.0)) / end.standard_error);
            let flat = |n: &usize| {
                let end = slope_at_end(&pairs[..*n], 10).unwrap();
                end.is_some_and(|end| end.value - 2.0 * end.standard_error >= -0.0775)
            };
            fired.extend((10..=200).find(flat));
        }
        // The curve's own slope is -0.0775 after 62 evaluations.
        assert!((slope(62.0) + 0.0775).abs() < 1e-3);
        fired.sort_unstable();
        assert_eq!(fired.len(), 40);
        assert!((50..=80).contains(&fired[20]), "{fired:?}");
        assert!(fired[4] >= 42 && fired[35] <= 110, "{fired:?}");
        let spread = (off.iter().map(|off| off * off).sum::<f64>() / 40.0).sqrt();
        assert!((0.6..1.5).contains(&spread), "{spread}");
        // A power law has one slope, which every part of it tells.
        let end = slope_at_end(&power_law(0.0)[..40], 10).unwrap().unwrap();
        assert!((end.value + 0.05).abs() < 1e-9 && end.standard_error < 1e-9, "{end:?}");
        assert_eq!(slope_at_end(&power_law(0.0)[..11], 10).unwrap(), None);
    }

    #[test]
    fn what_is_no_curve_is_explained() {
        let message = |pairs: &[(f64, f64)]| SmoothCurve::new(pairs).unwrap_err().to_string();
        assert!(message(&[(1.0, 2.0)]).contains("1 points"));
        assert!(message(&[(1.0, 2.0), (0.0, 2.0)]).contains("point 2: compute 0"));
    }
}
