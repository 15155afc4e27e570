/// A pseudo-random permutation of `0..n`, computed point by point: a Feistel network over the next
/// even power of two, walked until it lands inside the range (Black and Rogaway 2002).
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    key: u64,
}

const ROUNDS: u64 = 6;

impl Permutation {
    /// The permutation of `0..n` with a key.
    pub fn new(n: u64, key: u64) -> Self {
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        Self { n, half_bits: bits.div_ceil(2).max(1), key }
    }

    /// Where `i` below n goes.
    pub fn at(&self, i: u64) -> u64 {
        let mut x = self.encipher(i);
        while x >= self.n {
            x = self.encipher(x);
        }
        x
    }

    fn encipher(&self, x: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (x >> self.half_bits, x & mask);
        for round in 0..ROUNDS {
            let mixed = mix(self.key ^ mix(right ^ (round << 56)));
            (left, right) = (right, left ^ (mixed & mask));
        }
        left << self.half_bits | right
    }
}

/// The finaliser of `SplitMix64` (Steele et al. 2014).
pub fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_point_is_hit_once(n in 1u64..3000, key: u64) {
            let permutation = Permutation::new(n, key);
            let mut hit = vec![false; n as usize];
            for i in 0..n {
                let j = permutation.at(i) as usize;
                prop_assert!(!hit[j]);
                hit[j] = true;
            }
        }
    }

    #[test]
    fn keys_give_different_orders_without_a_trend() {
        let n = 10_000;
        let (a, b) = (Permutation::new(n, 1), Permutation::new(n, 2));
        let same = (0..n).filter(|i| a.at(*i) == b.at(*i)).count();
        assert!(same < 10, "{same} points agree");
        let first_half: u64 = (0..n / 2).map(|i| a.at(i)).sum();
        let mean = first_half as f64 / (n / 2) as f64;
        assert!((mean / (n as f64 / 2.0) - 1.0).abs() < 0.03, "mean {mean}");
    }
}
