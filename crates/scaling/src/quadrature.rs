/// The integral of a smooth function by Simpson's rule.
pub(crate) fn integrate(from: f64, to: f64, f: impl Fn(f64) -> f64) -> f64 {
    const PANELS: usize = 1000;
    let width = (to - from) / PANELS as f64;
    let panel = |i: usize| {
        let left = from + i as f64 * width;
        f(left) + 4.0 * f(left + 0.5 * width) + f(left + width)
    };
    (0..PANELS).map(panel).sum::<f64>() * width / 6.0
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_integral_of_a_power_is_known() {
        let found = super::integrate(0.0, 2.0, |x| x.powi(7));
        assert!((found - 32.0).abs() < 1e-9);
    }
}
