/// Positive nodes and their weights of the Gauss-Legendre rule of 16 points on [-1, 1] (Abramowitz and Stegun 1964, table 25.4).
const NODES: [(f64, f64); 8] = [
    (0.095_012_509_837_637_44, 0.189_450_610_455_068_5),
    (0.281_603_550_779_258_9, 0.182_603_415_044_923_6),
    (0.458_016_777_657_227_4, 0.169_156_519_395_002_5),
    (0.617_876_244_402_643_7, 0.149_595_988_816_576_7),
    (0.755_404_408_355_003, 0.124_628_971_255_533_9),
    (0.865_631_202_387_831_7, 0.095_158_511_682_492_8),
    (0.944_575_023_073_232_6, 0.062_253_523_938_647_9),
    (0.989_400_934_991_649_9, 0.027_152_459_411_754_1),
];

/// The integral of a function by the Gauss-Legendre rule of 16 points on each of so many equal panels: exact for polynomials of degree
/// 31, and a few panels do for what is smooth.
pub(crate) fn integrate(from: f64, to: f64, panels: u32, f: impl Fn(f64) -> f64) -> f64 {
    let half = 0.5 * (to - from) / f64::from(panels);
    let panel = |i: u32| -> f64 {
        let middle = from + f64::from(2 * i + 1) * half;
        let pair = |(node, weight)| weight * (f(middle - half * node) + f(middle + half * node));
        NODES.into_iter().map(pair).sum()
    };
    (0..panels).map(panel).sum::<f64>() * half
}

#[cfg(test)]
mod tests {
    use super::integrate;

    #[test]
    fn integrals_of_powers_are_known() {
        for power in 0..=31 {
            let exact = 2f64.powi(power + 1) / f64::from(power + 1);
            let found = integrate(0.0, 2.0, 1, |x| x.powi(power));
            assert!((found / exact - 1.0).abs() < 1e-13, "x^{power}: {found} for {exact}");
        }
    }

    #[test]
    fn panels_join() {
        let found = integrate(-1.0, 30.0, 8, |x| (-x).exp());
        let exact = 1f64.exp() - (-30f64).exp();
        assert!((found / exact - 1.0).abs() < 1e-13, "{found} for {exact}");
    }
}
