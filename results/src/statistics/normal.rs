//! The standard normal distribution.

use std::f64::consts::SQRT_2;

/// Share of the distribution below `z`.
pub(super) fn below(z: f64) -> f64 {
    0.5 * libm::erfc(-z / SQRT_2)
}

/// The `z` that a share of the distribution is below; infinite for 0 and 1.
pub(super) fn quantile(share: f64) -> f64 {
    if share <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if share >= 1.0 {
        return f64::INFINITY;
    }
    // `below` rises from 0 to 1 over this range; halving it 64 times leaves no digit open.
    let (mut low, mut high) = (-40.0, 40.0);
    for _ in 0..64 {
        let middle = (low + high) / 2.0;
        if below(middle) < share { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_quantiles_are_the_tabled_ones() {
        for (z, share) in
            [(0.0, 0.5), (1.0, 0.841_344_746_068_543), (-1.959_963_984_540_054, 0.025)]
        {
            assert!((below(z) - share).abs() < 1e-14, "{z}");
            assert!((quantile(share) - z).abs() < 1e-12, "{share}");
        }
        assert_eq!((quantile(0.0), quantile(1.0)), (f64::NEG_INFINITY, f64::INFINITY));
    }
}
