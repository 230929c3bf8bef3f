//! Element-wise kernels, compiled once for each x86 instruction set and chosen when run.
//!
//! Kernels are plain loops that the compiler vectorises. Sums and maxima run in [`LANES`] independent
//! lanes, which fixes their order whatever the vector width.

use std::mem::MaybeUninit;

/// Lanes of a sum or maximum; row lengths that are multiples of it have no scalar remainder.
pub(crate) const LANES: usize = 16;

/// Defines a function that runs `$body::<FMA>` compiled for the best instruction set at hand.
macro_rules! multiversion {
    ($(#[$doc:meta])* $vis:vis fn $name:ident = $body:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?) => {
        $(#[$doc])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn v4($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn v3($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                let v3_here = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
                if v3_here
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: every feature `v4` enables was detected.
                    return unsafe { v4($($arg),*) };
                }
                if v3_here {
                    // SAFETY: every feature `v3` enables was detected.
                    return unsafe { v3($($arg),*) };
                }
            }
            $body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}

pub(crate) use multiversion;

/// `a * b + c`, fused where that is one instruction (otherwise it would be a library call).
#[inline(always)]
fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// The polynomial with `coefficients`, lowest power first, at `x`.
#[inline(always)]
fn polynomial<const FMA: bool, const N: usize>(coefficients: &[f32; N], x: f32) -> f32 {
    let mut y = coefficients[N - 1];
    let mut i = N - 1;
    while i > 0 {
        i -= 1;
        y = mul_add::<FMA>(y, x, coefficients[i]);
    }
    y
}

/// `e^x` for `x <= 88`, within 2 units in the last place down to the smallest normal number, 0 below.
#[inline(always)]
fn exp<const FMA: bool>(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer, which is then in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const LOWEST: f32 = -87.0;
    // Minimax on |r| <= ln(2)/2 for (e^r - 1 - r) / r^2.
    const TAIL: [f32; 5] =
        [4.999_999_4e-1, 1.666_651_5e-1, 4.166_845_6e-2, 8.369_419e-3, 1.381_314_1e-3];
    let inside = if x < LOWEST { LOWEST } else { x };
    let shifted = mul_add::<FMA>(inside, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<FMA>(n, -LN2_LOW, mul_add::<FMA>(n, -LN2_HIGH, inside));
    let y = mul_add::<FMA>(r * r, polynomial::<FMA, 5>(&TAIL, r), r) + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < LOWEST { 0.0 } else { y * power }
}

/// `x / 2 (1 + erf(x / sqrt 2))`.
#[inline(always)]
fn gelu_one<const FMA: bool>(x: f32) -> f32 {
    // From here on erf(x / sqrt 2) rounds to 1.
    const SATURATED: f32 = 5.6;
    // Minimax in x^2 for erf(x / sqrt 2) / x below SATURATED: erf is within 2e-8.
    const P: [f32; 6] =
        [7.978_845e-1, 6.853_513_4e-2, 9.399_998e-3, 3.452_815_3e-4, 1.267_704_5e-5, 4.434_748e-8];
    const Q: [f32; 6] =
        [1.0, 2.525_620_2e-1, 2.887_628_6e-2, 1.906_292_4e-3, 7.465_95e-5, 1.179_681_4e-6];
    let u = x * x;
    let ratio = x * polynomial::<FMA, 6>(&P, u) / polynomial::<FMA, 6>(&Q, u);
    let erf = if x.abs() < SATURATED { ratio } else { 1.0f32.copysign(x) };
    let half = 0.5 * x;
    mul_add::<FMA>(half, erf, half)
}

#[inline(always)]
fn gelu_in_place_body<const FMA: bool>(values: &mut [f32]) {
    for v in values {
        *v = gelu_one::<FMA>(*v);
    }
}

multiversion! {
    /// GELU of every value, in place.
    pub(crate) fn gelu_in_place = gelu_in_place_body(values: &mut [f32])
}

#[inline(always)]
fn gelu_into_body<const FMA: bool>(from: &[f32], to: &mut [MaybeUninit<f32>]) {
    for (to, &v) in to.iter_mut().zip(from) {
        to.write(gelu_one::<FMA>(v));
    }
}

multiversion! {
    /// GELU of every value of `from`, which is as long as `to`.
    pub(crate) fn gelu_into = gelu_into_body(from: &[f32], to: &mut [MaybeUninit<f32>])
}

/// The sum of the lanes, in halves. Not inlined: its shuffles would shape the loop that fills the lanes.
#[inline(never)]
fn total(lanes: &mut [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            lanes[l] += lanes[l + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for l in 0..LANES {
            lanes[l] += chunk[l];
        }
    }
    for (lane, v) in lanes.iter_mut().zip(rest) {
        *lane += v;
    }
    total(&mut lanes)
}

#[inline(always)]
fn sum_of_squares<const FMA: bool>(values: &[f32], centre: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for l in 0..LANES {
            let d = chunk[l] - centre;
            lanes[l] = mul_add::<FMA>(d, d, lanes[l]);
        }
    }
    for (lane, v) in lanes.iter_mut().zip(rest) {
        let d = v - centre;
        *lane = mul_add::<FMA>(d, d, *lane);
    }
    total(&mut lanes)
}

#[inline(always)]
fn layer_norm_rows_body<const FMA: bool>(
    from: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f64,
    to: &mut [MaybeUninit<f32>],
) {
    let width = weight.len();
    for (row, to) in from.chunks_exact(width).zip(to.chunks_exact_mut(width)) {
        let mean = sum(row) / width as f32;
        let variance = f64::from(sum_of_squares::<FMA>(row, mean)) / width as f64;
        let inverse = (1.0 / (variance + eps).sqrt()) as f32;
        for (((to, &v), &w), &b) in to.iter_mut().zip(row).zip(weight).zip(bias) {
            to.write(mul_add::<FMA>((v - mean) * inverse, w, b));
        }
    }
}

multiversion! {
    /// Layer normalisation of whole rows: `from` and `to` hold equally many, each as long as `weight` and
    /// `bias` (not empty).
    pub(crate) fn layer_norm_rows = layer_norm_rows_body(
        from: &[f32],
        weight: &[f32],
        bias: &[f32],
        eps: f64,
        to: &mut [MaybeUninit<f32>],
    )
}

/// The largest of the lanes, in halves. Not inlined, like [`total`].
#[inline(never)]
fn largest(lanes: &mut [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            lanes[l] = if lanes[l + width] > lanes[l] { lanes[l + width] } else { lanes[l] };
        }
        width /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn maximum(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in values.chunks_exact(LANES) {
        for l in 0..LANES {
            lanes[l] = if chunk[l] > lanes[l] { chunk[l] } else { lanes[l] };
        }
    }
    largest(&mut lanes)
}

#[inline(always)]
fn exponentiate_body<const FMA: bool>(row: &mut [f32], highest: f32) -> (f32, f32) {
    let largest = maximum(row);
    let largest = if highest > largest { highest } else { largest };
    for v in row.iter_mut() {
        *v = exp::<FMA>(*v - largest);
    }
    (largest, sum(row))
}

multiversion! {
    /// `e^(v - largest)` for every value in place, `largest` being the largest of `highest` and the row;
    /// returns `largest` and the sum. The row's length is a multiple of [`LANES`]. A NaN makes the sum NaN.
    pub(crate) fn exponentiate = exponentiate_body(row: &mut [f32], highest: f32) -> (f32, f32)
}

#[inline(always)]
fn scale_body<const FMA: bool>(values: &mut [f32], factor: f32) {
    for v in values {
        *v *= factor;
    }
}

multiversion! {
    /// Multiplies every value by `factor`.
    pub(crate) fn scale = scale_body(values: &mut [f32], factor: f32)
}

#[inline(always)]
fn sum_of_body<const FMA: bool>(values: &[f32]) -> f32 {
    sum(values)
}

multiversion! {
    /// The sum of the values.
    pub(crate) fn sum_of = sum_of_body(values: &[f32]) -> f32
}

multiversion! {
    /// The sum of the squares of the values less `centre`.
    pub(crate) fn squares_of = sum_of_squares(values: &[f32], centre: f32) -> f32
}

#[inline(always)]
fn products_of_body<const FMA: bool>(values: &[f32], centre: f32, others: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    let (other_chunks, other_rest) = others.as_chunks::<LANES>();
    for (chunk, other) in chunks.iter().zip(other_chunks) {
        for l in 0..LANES {
            lanes[l] = mul_add::<FMA>(chunk[l] - centre, other[l], lanes[l]);
        }
    }
    for ((lane, v), other) in lanes.iter_mut().zip(rest).zip(other_rest) {
        *lane = mul_add::<FMA>(v - centre, *other, *lane);
    }
    total(&mut lanes)
}

multiversion! {
    /// The sum of the products of the values less `centre` and as many others.
    pub(crate) fn products_of = products_of_body(values: &[f32], centre: f32, others: &[f32]) -> f32
}

#[inline(always)]
fn mix_into_body<const FMA: bool>(a: &[f32], b: &[f32], share: f32, to: &mut [MaybeUninit<f32>]) {
    for ((to, &a), &b) in to.iter_mut().zip(a).zip(b) {
        to.write(mul_add::<FMA>(share, b - a, a));
    }
}

multiversion! {
    /// `a + share (b - a)`, all equally long.
    pub(crate) fn mix_into =
        mix_into_body(a: &[f32], b: &[f32], share: f32, to: &mut [MaybeUninit<f32>])
}

#[inline(always)]
fn add_scaled_body<const FMA: bool>(from: &[f32], factor: f32, to: &mut [f32]) {
    for (to, &v) in to.iter_mut().zip(from) {
        *to = mul_add::<FMA>(factor, v, *to);
    }
}

multiversion! {
    /// `to += factor from`, both equally long.
    pub(crate) fn add_scaled = add_scaled_body(from: &[f32], factor: f32, to: &mut [f32])
}

/// The larger of `v` and 0; a NaN stays one.
#[inline(always)]
pub(crate) fn rectified(v: f32) -> f32 {
    if v < 0.0 { 0.0 } else { v }
}

#[inline(always)]
fn relu_into_body<const FMA: bool>(from: &[f32], to: &mut [MaybeUninit<f32>]) {
    for (to, &v) in to.iter_mut().zip(from) {
        to.write(rectified(v));
    }
}

multiversion! {
    /// The larger of each value and 0, both equally long.
    pub(crate) fn relu_into = relu_into_body(from: &[f32], to: &mut [MaybeUninit<f32>])
}

#[inline(always)]
fn where_positive_body<const FMA: bool>(
    control: &[f32],
    from: &[f32],
    to: &mut [MaybeUninit<f32>],
) {
    for ((to, &c), &v) in to.iter_mut().zip(control).zip(from) {
        to.write(if c <= 0.0 { 0.0 } else { v });
    }
}

multiversion! {
    /// The values of `from` where `control` is positive (or NaN), else 0; all equally long.
    pub(crate) fn where_positive =
        where_positive_body(control: &[f32], from: &[f32], to: &mut [MaybeUninit<f32>])
}

#[inline(always)]
fn clear_unless_positive_body<const FMA: bool>(control: &[f32], values: &mut [f32]) {
    for (v, &c) in values.iter_mut().zip(control) {
        *v = if c <= 0.0 { 0.0 } else { *v };
    }
}

multiversion! {
    /// Sets values to 0 unless `control` is positive (or NaN) there, both equally long.
    pub(crate) fn clear_unless_positive =
        clear_unless_positive_body(control: &[f32], values: &mut [f32])
}

#[inline(always)]
fn affine_into_body<const FMA: bool>(
    from: &[f32],
    factor: f32,
    offset: f32,
    to: &mut [MaybeUninit<f32>],
) {
    for (to, &v) in to.iter_mut().zip(from) {
        to.write(mul_add::<FMA>(v, factor, offset));
    }
}

multiversion! {
    /// `factor from + offset`, both equally long.
    pub(crate) fn affine_into =
        affine_into_body(from: &[f32], factor: f32, offset: f32, to: &mut [MaybeUninit<f32>])
}

#[inline(always)]
fn combine_into_body<const FMA: bool>(
    a: &[f32],
    b: &[f32],
    [of_a, of_b, offset]: [f32; 3],
    to: &mut [MaybeUninit<f32>],
) {
    for ((to, &a), &b) in to.iter_mut().zip(a).zip(b) {
        to.write(mul_add::<FMA>(a, of_a, mul_add::<FMA>(b, of_b, offset)));
    }
}

multiversion! {
    /// `a factors[0] + b factors[1] + factors[2]`, all equally long.
    pub(crate) fn combine_into =
        combine_into_body(a: &[f32], b: &[f32], factors: [f32; 3], to: &mut [MaybeUninit<f32>])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_is_within_two_units_in_the_last_place() {
        let mut x = -87.0f32;
        while x <= 1.0 {
            for (y, level) in [(exp::<true>(x), "fused"), (exp::<false>(x), "plain")] {
                let exact = f64::from(x).exp();
                let unit = f64::from((exact as f32).next_up()) - f64::from(exact as f32);
                let error = (f64::from(y) - exact).abs() / unit;
                assert!(error <= 2.0, "{level} e^{x}: {y} is {error} units off");
            }
            x += 0.000_97;
        }
        assert_eq!(exp::<true>(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp::<true>(0.0), 1.0);
        assert!(exp::<true>(f32::NAN).is_nan());
    }

    #[test]
    fn every_instruction_set_sums_in_the_same_order() {
        let values: Vec<f32> =
            (0..1003u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32).collect();
        let mut a = values[..992].to_vec();
        let mut b = a.clone();
        let first = exponentiate(&mut a, f32::NEG_INFINITY);
        let second = exponentiate_body::<
            { cfg!(any(target_arch = "aarch64", target_arch = "x86_64")) },
        >(&mut b, f32::NEG_INFINITY);
        if cfg!(target_arch = "aarch64") || is_fma_here() {
            assert_eq!(first, second);
            assert_eq!(a, b);
        }
        let exact: f64 = values.iter().map(|&v| f64::from(v)).sum();
        assert!((f64::from(sum(&values)) / exact - 1.0).abs() < 1e-6);
    }

    fn is_fma_here() -> bool {
        #[cfg(target_arch = "x86_64")]
        return is_x86_feature_detected!("fma") && is_x86_feature_detected!("avx2");
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}
