//! Loops over slices that compilers turn into vector instructions: sums go over independent lanes, and
//! nothing branches on the data.

/// Lanes of a sum: those of the widest vectors.
const LANES: usize = 16;

/// Runs a loop, compiled for the widest vectors that this machine has. What it calls must be inlined.
#[inline(always)]
pub fn vectorized<R>(run: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(run)
}

/// Sum of f(a, b, c) over elements of three slices.
#[inline(always)]
pub fn sum3(a: &[f32], b: &[f32], c: &[f32], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let (c, c_rest) = c.as_chunks::<LANES>();
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for i in 0..LANES {
            lanes[i] += f(a[i], b[i], c[i]);
        }
    }
    let rest = a_rest.iter().zip(b_rest).zip(c_rest);
    lanes.iter().sum::<f32>() + rest.map(|((a, b), c)| f(*a, *b, *c)).sum::<f32>()
}

/// Sum of f(a, b) over pairs of elements of two slices.
#[inline(always)]
pub fn sum2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    sum3(a, b, b, |a, b, _| f(a, b))
}

/// Sum of f(x) over a slice.
#[inline(always)]
pub fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    sum3(x, x, x, |x, _, _| f(x))
}

/// The largest element; minus infinity for none.
#[inline(always)]
pub fn largest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut parts = x.chunks_exact(LANES);
    for part in &mut parts {
        for i in 0..LANES {
            lanes[i] = if part[i] > lanes[i] { part[i] } else { lanes[i] };
        }
    }
    lanes.iter().chain(parts.remainder()).fold(f32::NEG_INFINITY, |most, x| most.max(*x))
}

/// e^x to 2 units in the last place, by a polynomial on [-ln 2 / 2, ln 2 / 2] (Cody and Waite's
/// reduction); arguments are held between -87 and 88.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding and taking away 1.5 * 2^23 rounds to a whole number, which is left in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in a part that products with small whole numbers keep exactly, and the rest.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 0.166_666_65;
    p = p * r + 0.5;
    let p = p * (r * r) + r + 1.0;
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    p * f32::from_bits(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_that_of_f64_to_the_last_places() {
        for i in -870_000..=880_000 {
            let x = i as f32 * 1e-4;
            let due = f64::from(x).exp();
            let apart = (f64::from(exp(x)) / due - 1.0).abs();
            assert!(apart < 2.5e-7, "exp({x}): {apart:e}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1e9) < 1e-37 && exp(f32::NAN).is_nan());
    }

    #[test]
    fn sums_and_maxima_take_in_every_element() {
        for n in [0, 1, 15, 16, 17, 100] {
            let x: Vec<f32> = (0..n).map(|i| (i * 7 % 13) as f32).collect();
            assert_eq!(sum(&x, |x| x), x.iter().sum::<f32>());
            assert_eq!(largest(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
