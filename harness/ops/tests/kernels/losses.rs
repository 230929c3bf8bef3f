//! Grouped losses of resized logits and their gradients, and predictions.

use half::bf16;

use crate::host::{Argument, Kernels, assert_close, kernels, values};

#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Sizes {
    batch: i32,
    from: [i32; 2],
    to: [i32; 2],
    channels: i32,
    groups: i32,
    scales: [f32; 2],
}

impl Sizes {
    fn new(batch: usize, from: [usize; 2], to: [usize; 2], channels: usize, groups: usize) -> Self {
        let scale = |i: usize| {
            if to[i] > 1 { (from[i] - 1) as f32 / (to[i] - 1) as f32 } else { 0.0 }
        };
        let narrow = |sides: [usize; 2]| sides.map(|side| side as i32);
        Self {
            batch: batch as i32,
            from: narrow(from),
            to: narrow(to),
            channels: channels as i32,
            groups: groups as i32,
            scales: [scale(0), scale(1)],
        }
    }

    fn places(&self) -> usize {
        (self.from[0] * self.from[1]) as usize
    }

    fn pixels(&self) -> usize {
        (self.to[0] * self.to[1]) as usize
    }

    fn all_pixels(&self) -> usize {
        self.batch as usize * self.pixels()
    }

    fn channels(&self) -> usize {
        self.channels as usize
    }

    /// The places of `[B, h, w]` that a pixel of `[B, H, W]` takes from, and how much of each.
    fn taps(&self, pixel: usize) -> [(usize, f64); 4] {
        let (image, at) = (pixel / self.pixels(), (pixel % self.pixels()) as i32);
        let line = |i: usize, at: i32| {
            let place = self.scales[i] * at as f32;
            let left = (place as i32).min(self.from[i] - 1);
            let share = f64::from((place - left as f32).clamp(0.0, 1.0));
            [(left, 1.0 - share), ((left + 1).min(self.from[i] - 1), share)]
        };
        let (rows, columns) = (line(0, at / self.to[1]), line(1, at % self.to[1]));
        let tap = |row: (i32, f64), column: (i32, f64)| {
            let place = (row.0 * self.from[1] + column.0) as usize;
            (image * self.places() + place, row.1 * column.1)
        };
        [
            tap(rows[0], columns[0]),
            tap(rows[0], columns[1]),
            tap(rows[1], columns[0]),
            tap(rows[1], columns[1]),
        ]
    }

    /// The resized logits of a pixel.
    fn resized(&self, logits: &[f64], pixel: usize) -> Vec<f64> {
        let channel = |c: usize| {
            self.taps(pixel).iter().map(|&(at, w)| w * logits[at * self.channels() + c]).sum()
        };
        (0..self.channels()).map(channel).collect()
    }

    /// The transpose: the gradient of logits from that of every pixel's channels.
    fn spread(&self, gradients: &[Vec<f64>]) -> Vec<f64> {
        let mut all = vec![0.0; self.batch as usize * self.places() * self.channels()];
        for (pixel, gradient) in gradients.iter().enumerate() {
            for (at, weight) in self.taps(pixel) {
                for (c, gradient) in gradient.iter().enumerate() {
                    all[at * self.channels() + c] += weight * gradient;
                }
            }
        }
        all
    }

    /// Pixels of each group that are `valid`.
    fn grouped(&self, valid: impl Fn(usize) -> bool) -> Vec<Vec<usize>> {
        let each = self.all_pixels() / self.groups as usize;
        (0..self.groups as usize)
            .map(|g| (g * each..(g + 1) * each).filter(|&pixel| valid(pixel)).collect())
            .collect()
    }

    fn grid(&self, size: usize) -> [u32; 3] {
        [self.pixels().div_ceil(size) as u32, self.batch as u32, 1]
    }
}

/// Logits in both dtypes: rounded to bf16, so that both are the same numbers.
struct Logits {
    wide: Vec<f32>,
    half: Vec<bf16>,
    exact: Vec<f64>,
}

fn logits(sizes: &Sizes, scale: f32) -> Logits {
    let count = sizes.batch as usize * sizes.places() * sizes.channels();
    let half: Vec<bf16> = values(count, 7).iter().map(|v| bf16::from_f32(v * scale)).collect();
    let wide: Vec<f32> = half.iter().map(|v| v.to_f32()).collect();
    Logits { exact: wide.iter().map(|&v| f64::from(v)).collect(), half, wide }
}

/// The gradients of both dtypes against what they should be.
#[track_caller]
fn assert_gradients(wide: &[f32], half: &[bf16], expected: &[f64]) {
    let most = expected.iter().fold(0.0, |most: f64, e| most.max(e.abs()));
    for (i, ((&w, h), &e)) in wide.iter().zip(half).zip(expected).enumerate() {
        assert!((f64::from(w) - e).abs() <= 3e-6 * most, "element {i}: found {w}, expected {e}");
        let off = (h.to_f64() - e).abs();
        assert!(off <= 3e-6 * most + e.abs() / 256.0, "element {i}: found {h}, expected {e}");
    }
}

fn size_name(channels: usize) -> &'static str {
    match channels {
        ..=32 => "32",
        33..=160 => "160",
        _ => "256",
    }
}

const UPSTREAM: f32 = 0.7;

#[test]
fn cross_entropy_is_grouped_and_has_its_gradient() {
    let Some(kernels) = kernels("losses") else { return };
    for (sizes, empty) in [
        (Sizes::new(2, [3, 5], [7, 9], 7, 1), None),
        (Sizes::new(4, [4, 4], [17, 13], 21, 2), Some(1)),
        (Sizes::new(2, [5, 6], [10, 12], 150, 2), None),
        (Sizes::new(2, [1, 1], [5, 3], 200, 2), Some(0)),
        (Sizes::new(1, [9, 8], [4, 5], 40, 1), None),
        (Sizes::new(1, [4, 6], [4, 6], 256, 1), None),
        (Sizes::new(3, [3, 1], [1, 9], 2, 3), None),
    ] {
        entropy(kernels, sizes, empty);
    }
}

fn entropy(kernels: Kernels, sizes: Sizes, empty: Option<usize>) {
    let (channels, pixels) = (sizes.channels(), sizes.all_pixels());
    let logits = logits(&sizes, 6.0);
    let group = pixels / sizes.groups as usize;
    let ignore = if channels == 256 { 3 } else { 255 };
    let labels: Vec<u8> = (0..pixels)
        .map(|i| match i % 7 {
            _ if empty == Some(i / group) => ignore,
            0 => ignore,
            _ => (i * i % channels) as u8,
        })
        .collect();

    let known = sizes.grouped(|pixel| labels[pixel] != ignore);
    let kept = known.iter().filter(|group| !group.is_empty()).count() as f64;
    let mut expected = 0.0;
    let mut slopes = vec![vec![0.0; channels]; pixels];
    for group in &known {
        for &pixel in group {
            let z = sizes.resized(&logits.exact, pixel);
            let norm = z.iter().map(|z| z.exp()).sum::<f64>().ln();
            let (label, share) = (usize::from(labels[pixel]), 1.0 / (kept * group.len() as f64));
            expected += (norm - z[label]) * share;
            for (c, slope) in slopes[pixel].iter_mut().enumerate() {
                *slope = (z[c] - norm).exp() - f64::from(u8::from(c == label));
                *slope *= share * f64::from(UPSTREAM);
            }
        }
    }
    let expected_gradient = sizes.spread(&slopes);

    let run = |dtype: &str, logits: &dyn Argument, gradient: &dyn Argument| {
        let name = |kernel: &str| format!("{kernel}_{dtype}_{}", size_name(channels));
        let grid = sizes.grid(64);
        let blocks = (grid[0] * grid[1]) as usize;
        let mut norms = vec![f32::NAN; pixels];
        let (mut sums, mut counts) = (vec![f64::NAN; blocks], vec![u32::MAX; blocks]);
        let (mut value, mut weights) = (f32::NAN, vec![f32::NAN; sizes.groups as usize]);
        let (norms, labels, ignore) = (norms.as_mut_ptr(), labels.as_ptr(), i32::from(ignore));
        let arguments: [&dyn Argument; 7] =
            [logits, &labels, &sizes, &ignore, &norms, &sums.as_mut_ptr(), &counts.as_mut_ptr()];
        kernels.launch(&name("entropy_forward"), grid, [256, 1, 1], 0, &arguments);
        let parts = (blocks / sizes.groups as usize) as i32;
        let arguments: [&dyn Argument; 6] = [
            &sums.as_ptr(),
            &counts.as_ptr(),
            &parts,
            &sizes.groups,
            &std::ptr::from_mut(&mut value),
            &weights.as_mut_ptr(),
        ];
        kernels.launch("entropy_value", [1, 1, 1], [256, 1, 1], 0, &arguments);
        assert_close(&[value], &[expected], 2e-6);
        let places = sizes.batch as usize * sizes.places();
        let arguments: [&dyn Argument; 8] = [
            logits,
            &labels,
            &norms,
            &weights.as_ptr(),
            &std::ptr::from_ref(&UPSTREAM),
            &sizes,
            &ignore,
            gradient,
        ];
        let grid = [places.div_ceil(8) as u32, 1, 1];
        kernels.launch(&name("entropy_backward"), grid, [256, 1, 1], 0, &arguments);
    };
    let mut wide = vec![f32::NAN; logits.wide.len()];
    run("f32", &logits.wide.as_ptr(), &wide.as_mut_ptr());
    let mut half = vec![bf16::NAN; logits.half.len()];
    run("bf16", &logits.half.as_ptr(), &half.as_mut_ptr());
    assert_gradients(&wide, &half, &expected_gradient);
}

#[test]
fn silog_is_grouped_and_has_its_gradient() {
    let Some(kernels) = kernels("losses") else { return };
    for (sizes, empty) in [
        (Sizes::new(2, [3, 5], [7, 9], 1, 1), None),
        (Sizes::new(4, [4, 4], [37, 33], 1, 2), Some(1)),
        (Sizes::new(2, [5, 6], [10, 12], 1, 2), None),
        (Sizes::new(2, [1, 1], [5, 3], 1, 2), Some(0)),
        (Sizes::new(1, [9, 8], [4, 5], 1, 1), None),
        (Sizes::new(1, [4, 6], [4, 6], 1, 1), None),
    ] {
        depth(kernels, sizes, empty);
    }
}

fn depth(kernels: Kernels, sizes: Sizes, empty: Option<usize>) {
    let (pixels, range) = (sizes.all_pixels(), [0.5_f32, 10.0]);
    let logits = logits(&sizes, 5.0);
    let group = pixels / sizes.groups as usize;
    let metres: Vec<f32> = values(pixels, 3)
        .into_iter()
        .enumerate()
        .map(|(i, v)| match i % 5 {
            _ if empty == Some(i / group) => 0.0,
            0 => f32::NAN,
            _ => 5.0 + 6.0 * v,
        })
        .collect();

    let known = sizes.grouped(|pixel| (range[0]..=range[1]).contains(&metres[pixel]));
    let kept = known.iter().filter(|group| !group.is_empty()).count() as f64;
    let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
    let mut expected = 0.0;
    let mut slopes = vec![vec![0.0]; pixels];
    for group in known.iter().filter(|group| !group.is_empty()) {
        let count = group.len() as f64;
        let distance = |&pixel: &usize| {
            let share = sigmoid(sizes.resized(&logits.exact, pixel)[0]);
            let prediction = 10.0 * share;
            let slope = if prediction < 0.5 { 0.0 } else { share - 1.0 };
            (f64::from(metres[pixel]).ln() - prediction.max(0.5).ln(), slope)
        };
        let found: Vec<(f64, f64)> = group.iter().map(distance).collect();
        let mean = found.iter().map(|(d, _)| d).sum::<f64>() / count;
        let squares = found.iter().map(|(d, _)| d * d).sum::<f64>() / count;
        let loss = (squares - mean * mean / 2.0).sqrt();
        expected += loss / kept;
        for (&pixel, (d, slope)) in group.iter().zip(found) {
            slopes[pixel][0] =
                f64::from(UPSTREAM) * (d - mean / 2.0) * slope / (kept * count * loss);
        }
    }
    let expected_gradient = sizes.spread(&slopes);

    let run = |dtype: &str, logits: &dyn Argument, gradient: &dyn Argument| {
        let grid = sizes.grid(1024);
        let blocks = (grid[0] * grid[1]) as usize;
        let (mut sums, mut counts) = (vec![f64::NAN; 2 * blocks], vec![u32::MAX; blocks]);
        let (mut value, mut slopes) = (f32::NAN, vec![f32::NAN; 2 * sizes.groups as usize]);
        let metres = metres.as_ptr();
        let arguments: [&dyn Argument; 7] = [
            logits,
            &metres,
            &sizes,
            &range[0],
            &range[1],
            &sums.as_mut_ptr(),
            &counts.as_mut_ptr(),
        ];
        let name = format!("silog_forward_{dtype}");
        kernels.launch(&name, grid, [256, 1, 1], 0, &arguments);
        let parts = (blocks / sizes.groups as usize) as i32;
        let arguments: [&dyn Argument; 6] = [
            &sums.as_ptr(),
            &counts.as_ptr(),
            &parts,
            &sizes.groups,
            &std::ptr::from_mut(&mut value),
            &slopes.as_mut_ptr(),
        ];
        kernels.launch("silog_value", [1, 1, 1], [256, 1, 1], 0, &arguments);
        assert_close(&[value], &[expected], 2e-6);
        let arguments: [&dyn Argument; 8] = [
            logits,
            &metres,
            &slopes.as_ptr(),
            &std::ptr::from_ref(&UPSTREAM),
            &sizes,
            &range[0],
            &range[1],
            gradient,
        ];
        let places = sizes.batch as usize * sizes.places();
        let grid = [places.div_ceil(8) as u32, 1, 1];
        kernels.launch(&format!("silog_backward_{dtype}"), grid, [256, 1, 1], 0, &arguments);
    };
    let mut wide = vec![f32::NAN; logits.wide.len()];
    run("f32", &logits.wide.as_ptr(), &wide.as_mut_ptr());
    let mut half = vec![bf16::NAN; logits.half.len()];
    run("bf16", &logits.half.as_ptr(), &half.as_mut_ptr());
    assert_gradients(&wide, &half, &expected_gradient);

    let exact: Vec<f64> =
        (0..pixels).map(|pixel| 10.0 * sigmoid(sizes.resized(&logits.exact, pixel)[0])).collect();
    let mut result = vec![f32::NAN; pixels];
    for (dtype, logits) in [
        ("f32", &logits.wide.as_ptr() as &dyn Argument),
        ("bf16", &logits.half.as_ptr() as &dyn Argument),
    ] {
        let arguments: [&dyn Argument; 4] = [logits, &sizes, &range[1], &result.as_mut_ptr()];
        let name = format!("depth_{dtype}");
        kernels.launch(&name, sizes.grid(1024), [256, 1, 1], 0, &arguments);
        assert_close(&result, &exact, 2e-6);
        result.fill(f32::NAN);
    }
}

/// Predictions far below the nearest depth have no gradient, and none that is not a number.
#[test]
fn extreme_logits_have_no_gradient() {
    let Some(kernels) = kernels("losses") else { return };
    let sizes = Sizes::new(1, [2, 3], [2, 3], 1, 1);
    let logits = [-1000_f32, -90.0, -60.0, -20.0, 90.0, 1000.0];
    let (metres, slopes) = ([2_f32; 6], [1_f32, 0.1]);
    let mut gradient = [f32::NAN; 6];
    let arguments: [&dyn Argument; 8] = [
        &logits.as_ptr(),
        &metres.as_ptr(),
        &slopes.as_ptr(),
        &std::ptr::from_ref(&UPSTREAM),
        &sizes,
        &0.5_f32,
        &10_f32,
        &gradient.as_mut_ptr(),
    ];
    kernels.launch("silog_backward_f32", [1, 1, 1], [256, 1, 1], 0, &arguments);
    assert!(gradient.iter().all(|g| g.abs() < 1e-30), "{gradient:?}");
}

#[test]
fn probabilities_are_those_of_resized_logits() {
    let Some(kernels) = kernels("losses") else { return };
    for sizes in [
        Sizes::new(2, [3, 5], [7, 11], 7, 1),
        Sizes::new(1, [4, 4], [9, 8], 150, 1),
        Sizes::new(2, [3, 2], [3, 2], 255, 1),
    ] {
        let (channels, logits) = (sizes.channels(), logits(&sizes, 20.0));
        let expected: Vec<f64> = (0..sizes.all_pixels())
            .flat_map(|pixel| {
                let z = sizes.resized(&logits.exact, pixel);
                let most = z.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
                let total: f64 = z.iter().map(|z| (z - most).exp()).sum();
                z.into_iter().map(move |z| (z - most).exp() / total)
            })
            .collect();
        for (dtype, logits) in [
            ("f32", &logits.wide.as_ptr() as &dyn Argument),
            ("bf16", &logits.half.as_ptr() as &dyn Argument),
        ] {
            let mut result = vec![f32::NAN; expected.len()];
            let arguments: [&dyn Argument; 3] = [logits, &sizes, &result.as_mut_ptr()];
            let name = format!("softmax_{dtype}_{}", size_name(channels));
            kernels.launch(&name, sizes.grid(64), [256, 1, 1], 0, &arguments);
            assert_close(&result, &expected, 2e-6);
        }
    }
}

/// A NaN makes its pixel's loss and probabilities NaN, and large logits do not.
#[test]
fn a_nan_logit_shows_and_large_ones_stay_finite() {
    let Some(kernels) = kernels("losses") else { return };
    let sizes = Sizes::new(1, [1, 2], [1, 2], 2, 1);
    let logits = [1_f32, f32::NAN, 900.0, -900.0];
    let mut result = [7_f32; 4];
    let arguments: [&dyn Argument; 3] = [&logits.as_ptr(), &sizes, &result.as_mut_ptr()];
    kernels.launch("softmax_f32_32", [1, 1, 1], [256, 1, 1], 0, &arguments);
    assert!(result[0].is_nan() && result[1].is_nan());
    assert_eq!(result[2..], [1.0, 0.0]);
}

#[test]
fn the_largest_class_is_the_lowest_of_several() {
    let Some(kernels) = kernels("losses") else { return };
    for (pixels, channels) in [(1, 1), (19, 7), (40, 33), (9, 256)] {
        let mut maps: Vec<f32> =
            values(pixels * channels, 5).iter().map(|v| (v * 4.0).round()).collect();
        if channels > 1 {
            maps[channels] = f32::NAN;
        }
        let mut classes = vec![0xee_u8; pixels];
        let arguments: [&dyn Argument; 4] =
            [&maps.as_ptr(), &(pixels as i64), &(channels as i32), &classes.as_mut_ptr()];
        let grid = [pixels.div_ceil(8) as u32, 1, 1];
        kernels.launch("argmax", grid, [256, 1, 1], 0, &arguments);
        for (pixel, (values, class)) in maps.chunks(channels).zip(classes).enumerate() {
            let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let expected = values.iter().position(|&value| value == most);
            assert_eq!(Some(usize::from(class)), expected, "pixel {pixel}");
        }
    }
}
