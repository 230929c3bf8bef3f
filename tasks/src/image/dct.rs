//! From the DCT coefficients of a JPEG to its pixels, with AVX2: what libjpeg does in plain C where it is
//! built without its assembler kernels, and to the same pixels. Only for what nearly every photograph is:
//! Y'CbCr, all in one scan, colour at full or (4:2:0) half resolution; everything else stays with libjpeg.
//!
//! - Inverse DCT: the accurate integer one, 13 fractional bits (Loeffler, Ligtenberg and Moschytz 1989,
//!   "Practical fast 1-D DCT algorithms with 11 multiplications"), two more bits between its passes.
//! - Upsampling: a triangle filter, 3/4 of the nearer and 1/4 of the farther sample on each axis.
//! - Colour: JFIF's conversion, with 16 fractional bits.
//!
//! All blocks are decoded, at full size. Decoding at an eighth, a quarter or half of it (libjpeg's
//! `scale_denom`) would be faster still, but a resize of its result has other pixels: it is used nowhere.

use std::arch::x86_64::*;

use mozjpeg_sys as sys;

/// Larger images (pixels) are left to libjpeg, which needs a few of their rows at a time.
const MAX_PIXELS: usize = 1 << 24;
/// Magnitude of scaled coefficients, and of the values between the passes, up to which sixteen bits are
/// enough for all that is computed. No picture of 8-bit samples comes near it; damaged files do, and are
/// left to libjpeg.
const LIMIT: i32 = 8191;
/// Magnitude of a sample, before 128 is added, from which on libjpeg no longer cuts it off but wraps.
const SAMPLE_LIMIT: i16 = 511;
/// Samples of a side of a block.
const SIDE: usize = 8;

/// How the colour channels are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chroma {
    Full,
    /// Half on both axes.
    Half,
}

/// A component's samples, in rows of `stride`; its own size is at most that of its blocks.
struct Plane {
    samples: Vec<u8>,
    stride: usize,
}

/// Decodes to `[H, W, 3]`, or says `None` and has then used `info` up: the file is not of the usual kind, or
/// ends too early.
///
/// # Safety
/// `info` is a decompressor with a source and error manager whose header was just read.
pub unsafe fn decode(info: &mut sys::jpeg_decompress_struct) -> Option<Vec<u8>> {
    if !is_x86_feature_detected!("avx2") {
        return None;
    }
    let (height, width) = (info.image_height as usize, info.image_width as usize);
    let usual = info.num_components == 3
        && info.jpeg_color_space == sys::J_COLOR_SPACE::JCS_YCbCr
        && height * width <= MAX_PIXELS;
    // SAFETY: the header was read.
    if !usual || unsafe { sys::jpeg_has_multiple_scans(info) } != 0 {
        return None;
    }
    // SAFETY: after the header there are `num_components` of them; the slice ends here, since libjpeg writes
    // to them when it reads on.
    let factors = unsafe { std::slice::from_raw_parts(info.comp_info, 3) };
    let factors: Vec<_> = factors.iter().map(|c| (c.h_samp_factor, c.v_samp_factor)).collect();
    let chroma = match factors[..] {
        [(1, 1), (1, 1), (1, 1)] => Chroma::Full,
        // Narrower ones are repeated, not filtered.
        [(2, 2), (1, 1), (1, 1)] if width.div_ceil(2) > 2 => Chroma::Half,
        _ => return None,
    };
    // SAFETY: the header was read and decompression has not started.
    let arrays = unsafe { sys::jpeg_read_coefficients(info) };
    // More scans would have changed what the first one said.
    if arrays.is_null() || info.input_scan_number != 1 {
        return None;
    }
    // SAFETY: as above; all coefficients are read, and nothing changes the components from here on.
    let components = unsafe { std::slice::from_raw_parts(info.comp_info, 3) };
    let mut planes = Vec::with_capacity(3);
    for (index, component) in components.iter().enumerate() {
        // SAFETY: an array for each component; its rows are those of `component`.
        planes.push(unsafe { plane(info, *arrays.add(index), component) }?);
    }
    let [luma, blue, red] = <[Plane; 3]>::try_from(planes).ok()?;
    let mut out = vec![0; height * width * 3];
    let lines = out.chunks_exact_mut(width * 3).enumerate();
    match chroma {
        Chroma::Full => {
            for (y, line) in lines {
                let row = |plane: &'_ Plane| y * plane.stride..y * plane.stride + width;
                let (blue, red) = (&blue.samples[row(&blue)], &red.samples[row(&red)]);
                // SAFETY: the processor has AVX2.
                unsafe { to_rgb(&luma.samples[row(&luma)], blue, red, line) };
            }
        }
        Chroma::Half => {
            let half = (height.div_ceil(2), width.div_ceil(2));
            let mut scratch = vec![0_u16; half.1 + 2];
            let (mut wide_blue, mut wide_red) = (vec![[0; 2]; half.1], vec![[0; 2]; half.1]);
            for (y, line) in lines {
                let near = y / 2;
                let far =
                    if y % 2 == 0 { near.saturating_sub(1) } else { (near + 1).min(half.0 - 1) };
                for (plane, wide) in [(&blue, &mut wide_blue), (&red, &mut wide_red)] {
                    let row = |at: usize| &plane.samples[at * plane.stride..][..half.1];
                    // SAFETY: the processor has AVX2.
                    unsafe { widen(row(near), row(far), &mut scratch, wide) };
                }
                let luma = &luma.samples[y * luma.stride..][..width];
                let (blue, red) = (wide_blue.as_flattened(), wide_red.as_flattened());
                // SAFETY: the processor has AVX2.
                unsafe { to_rgb(luma, &blue[..width], &red[..width], line) };
            }
        }
    }
    Some(out)
}

/// A component's samples.
///
/// # Safety
/// `array` holds the coefficients of `component`, both of `info`; the processor has AVX2.
unsafe fn plane(
    info: &mut sys::jpeg_decompress_struct,
    array: *mut sys::jvirt_barray_control,
    component: &sys::jpeg_component_info,
) -> Option<Plane> {
    let (rows, columns) = (component.height_in_blocks as usize, component.width_in_blocks as usize);
    let stride = columns * SIDE;
    let mut samples = vec![0; rows * SIDE * stride];
    // SAFETY: the table was saved when the scan began; the memory manager lives as long as `info`.
    let (table, access) =
        unsafe { (component.quant_table.as_ref()?, (*info.common.mem).access_virt_barray?) };
    if table.quantval.iter().any(|&step| i32::from(step) > LIMIT) {
        return None;
    }
    let table = Table {
        steps: table.quantval.map(|step| step as i16),
        limits: table.quantval.map(|step| (LIMIT / i32::from(step).max(1)) as i16),
    };
    // SAFETY: the processor has AVX2.
    let mut excess = unsafe { _mm_setzero_si128() };
    for (row, band) in samples.chunks_exact_mut(SIDE * stride).enumerate() {
        // SAFETY: one row of an array that is in memory as a whole, of `columns` blocks or more.
        let blocks = unsafe {
            let row = access(&mut info.common, array, row as sys::JDIMENSION, 1, 0);
            std::slice::from_raw_parts(*row, columns)
        };
        for (column, block) in blocks.iter().enumerate() {
            // SAFETY: the processor has AVX2.
            let block = unsafe { inverse(block, &table, &mut excess) };
            for (line, samples) in band.chunks_exact_mut(stride).zip(block) {
                line[column * SIDE..][..SIDE].copy_from_slice(&samples);
            }
        }
    }
    // SAFETY: the processor has AVX2.
    let within = unsafe { _mm_testz_si128(excess, excess) } == 1;
    within.then_some(Plane { samples, stride })
}

/// Steps of the coefficients, and the largest magnitudes at which they stay within [`LIMIT`].
struct Table {
    steps: [i16; 64],
    limits: [i16; 64],
}

/// Samples of a block from its coefficients, in natural order. `excess` is no longer zero when a value was
/// beyond its limit.
#[target_feature(enable = "avx2")]
#[inline]
fn inverse(coefficients: &[i16; 64], table: &Table, excess: &mut __m128i) -> [[u8; SIDE]; SIDE] {
    let rows = coefficients.as_chunks::<SIDE>().0;
    let (steps, limits) = (table.steps.as_chunks::<SIDE>().0, table.limits.as_chunks::<SIDE>().0);
    let mut scaled = [_mm_setzero_si128(); SIDE];
    for (i, scaled) in scaled.iter_mut().enumerate() {
        let row = load(&rows[i]);
        beyond(row, load(&limits[i]), excess);
        *scaled = _mm_mullo_epi16(row, load(&steps[i]));
    }
    let columns = pass::<11>(scaled);
    columns.iter().for_each(|&row| beyond(row, _mm_set1_epi16(LIMIT as i16), excess));
    let rows = pass::<18>(transpose(columns));
    rows.iter().for_each(|&row| beyond(row, _mm_set1_epi16(SAMPLE_LIMIT), excess));
    let rows = transpose(rows);
    let mut out = [[0; SIDE]; SIDE];
    let middle = _mm_set1_epi8(-128);
    for (pair, rows) in out.as_chunks_mut::<2>().0.iter_mut().zip(rows.as_chunks::<2>().0) {
        let bytes = _mm_add_epi8(_mm_packs_epi16(rows[0], rows[1]), middle);
        *pair =
            [_mm_extract_epi64::<0>(bytes), _mm_extract_epi64::<1>(bytes)].map(i64::to_le_bytes);
    }
    out
}

/// Marks what has a magnitude above its limit.
#[target_feature(enable = "avx2")]
#[inline]
fn beyond(values: __m128i, limits: __m128i, excess: &mut __m128i) {
    *excess = _mm_or_si128(*excess, _mm_subs_epu16(_mm_abs_epi16(values), limits));
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(values: &[i16; SIDE]) -> __m128i {
    // SAFETY: sixteen bytes, at any address.
    unsafe { _mm_loadu_si128(values.as_ptr().cast()) }
}

/// The one-dimensional transform down each of eight columns, rounded and shifted right.
#[target_feature(enable = "avx2")]
#[inline]
fn pass<const SHIFT: i32>(rows: [__m128i; SIDE]) -> [__m128i; SIDE] {
    let [i0, i1, i2, i3, i4, i5, i6, i7] = rows;
    let zero = _mm_setzero_si128();
    // Sums of two products, in 32 bits.
    let both = |a, b, of_a: i16, of_b: i16| {
        let pairs = _mm256_set_m128i(_mm_unpackhi_epi16(a, b), _mm_unpacklo_epi16(a, b));
        let factors = (i32::from(of_b) << 16) | i32::from(of_a as u16);
        _mm256_madd_epi16(pairs, _mm256_set1_epi32(factors))
    };
    // Even rows.
    let (sum, difference) = (_mm_add_epi16(i0, i4), _mm_sub_epi16(i0, i4));
    let (e0, e1) = (both(sum, zero, 8192, 0), both(difference, zero, 8192, 0));
    let (e2, e3) = (both(i2, i6, 4433, 4433 - 15137), both(i2, i6, 4433 + 6270, 4433));
    let even = [
        _mm256_add_epi32(e0, e3),
        _mm256_add_epi32(e1, e2),
        _mm256_sub_epi32(e1, e2),
        _mm256_sub_epi32(e0, e3),
    ];
    // Odd rows.
    let (z3, z4) = (_mm_add_epi16(i7, i3), _mm_add_epi16(i5, i1));
    let (z3, z4) = (both(z3, z4, 9633 - 16069, 9633), both(z3, z4, 9633, 9633 - 3196));
    let odd = [
        _mm256_add_epi32(both(i7, i1, -7373, 12299 - 7373), z4),
        _mm256_add_epi32(both(i5, i3, -20995, 25172 - 20995), z3),
        _mm256_add_epi32(both(i5, i3, 16819 - 20995, -20995), z4),
        _mm256_add_epi32(both(i7, i1, 2446 - 7373, -7373), z3),
    ];
    let half = _mm256_set1_epi32(1 << (SHIFT - 1));
    let narrow = |wide| {
        let wide = _mm256_srai_epi32::<SHIFT>(_mm256_add_epi32(wide, half));
        _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256::<1>(wide))
    };
    let up = |k: usize| narrow(_mm256_add_epi32(even[k], odd[k]));
    let down = |k: usize| narrow(_mm256_sub_epi32(even[k], odd[k]));
    [up(0), up(1), up(2), up(3), down(3), down(2), down(1), down(0)]
}

#[target_feature(enable = "avx2")]
#[inline]
fn transpose(r: [__m128i; SIDE]) -> [__m128i; SIDE] {
    let (a0, a1) = (_mm_unpacklo_epi16(r[0], r[1]), _mm_unpackhi_epi16(r[0], r[1]));
    let (a2, a3) = (_mm_unpacklo_epi16(r[2], r[3]), _mm_unpackhi_epi16(r[2], r[3]));
    let (a4, a5) = (_mm_unpacklo_epi16(r[4], r[5]), _mm_unpackhi_epi16(r[4], r[5]));
    let (a6, a7) = (_mm_unpacklo_epi16(r[6], r[7]), _mm_unpackhi_epi16(r[6], r[7]));
    let (b0, b1) = (_mm_unpacklo_epi32(a0, a2), _mm_unpackhi_epi32(a0, a2));
    let (b2, b3) = (_mm_unpacklo_epi32(a1, a3), _mm_unpackhi_epi32(a1, a3));
    let (b4, b5) = (_mm_unpacklo_epi32(a4, a6), _mm_unpackhi_epi32(a4, a6));
    let (b6, b7) = (_mm_unpacklo_epi32(a5, a7), _mm_unpackhi_epi32(a5, a7));
    [
        _mm_unpacklo_epi64(b0, b4),
        _mm_unpackhi_epi64(b0, b4),
        _mm_unpacklo_epi64(b1, b5),
        _mm_unpackhi_epi64(b1, b5),
        _mm_unpacklo_epi64(b2, b6),
        _mm_unpackhi_epi64(b2, b6),
        _mm_unpacklo_epi64(b3, b7),
        _mm_unpackhi_epi64(b3, b7),
    ]
}

/// One row of twice the width from the two nearest ones; past the ends the last samples go on. `sums` has
/// room for two more than a row.
#[target_feature(enable = "avx2")]
#[inline]
fn widen(near: &[u8], far: &[u8], sums: &mut [u16], wide: &mut [[u8; 2]]) {
    let last = near.len() + 1;
    for ((sum, &near), &far) in sums[1..].iter_mut().zip(near).zip(far) {
        *sum = 3 * u16::from(near) + u16::from(far);
    }
    (sums[0], sums[last]) = (sums[1], sums[last - 1]);
    let beside = sums.iter().zip(&sums[1..]).zip(&sums[2..]);
    for (((left, &sum), right), pair) in beside.zip(wide) {
        // Halves are rounded up on the left and down on the right.
        *pair = [(3 * sum + left + 8) >> 4, (3 * sum + right + 7) >> 4].map(|value| value as u8);
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn to_rgb(luma: &[u8], blue: &[u8], red: &[u8], out: &mut [u8]) {
    const HALF: i32 = 1 << 15;
    let samples = luma.iter().zip(blue).zip(red);
    for (((&y, &cb), &cr), pixel) in samples.zip(out.as_chunks_mut::<3>().0) {
        let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
        *pixel = [
            y + ((91881 * cr + HALF) >> 16),
            y + ((HALF - 22554 * cb - 46802 * cr) >> 16),
            y + ((116130 * cb + HALF) >> 16),
        ]
        .map(|value| value.clamp(0, 255) as u8);
    }
}
