//! Images whose channels lie side by side.

use half::{bf16, f16};

use crate::host::{Argument, Kernels, assert_close, kernels, values};

/// A floating type that the kernels are made for.
trait Value: 'static + Copy + PartialEq + std::fmt::Debug {
    const NAME: &str;
    /// Values in 16 bytes.
    const GROUP: usize;
    fn of(value: f32) -> Self;
    fn wide(self) -> f32;
    /// The distance of neighbours at 1.
    fn unit() -> f64;
}

impl Value for f32 {
    const NAME: &str = "f32";
    const GROUP: usize = 4;
    fn of(value: f32) -> Self {
        value
    }
    fn wide(self) -> f32 {
        self
    }
    fn unit() -> f64 {
        2e-6
    }
}

impl Value for bf16 {
    const NAME: &str = "bf16";
    const GROUP: usize = 8;
    fn of(value: f32) -> Self {
        Self::from_f32(value)
    }
    fn wide(self) -> f32 {
        self.to_f32()
    }
    fn unit() -> f64 {
        4e-3
    }
}

impl Value for f16 {
    const NAME: &str = "f16";
    const GROUP: usize = 8;
    fn of(value: f32) -> Self {
        Self::from_f32(value)
    }
    fn wide(self) -> f32 {
        self.to_f32()
    }
    fn unit() -> f64 {
        5e-4
    }
}

fn some<T: Value>(count: usize, seed: u64) -> Vec<T> {
    values(count, seed).into_iter().map(T::of).collect()
}

fn wide<T: Value>(values: &[T]) -> Vec<f32> {
    values.iter().map(|v| v.wide()).collect()
}

/// Runs the kernel for rows of `width` values, `GROUP` at a time if that divides them.
fn launch<T: Value>(
    kernels: Kernels,
    name: &str,
    width: usize,
    grid: impl Fn(usize) -> [usize; 2],
    threads: u32,
    mut arguments: impl FnMut(i32) -> Vec<Box<dyn Argument>>,
) {
    let group = if width.is_multiple_of(T::GROUP) { T::GROUP } else { 1 };
    let [x, y] = grid(width / group);
    let arguments = arguments((width / group) as i32);
    let arguments: Vec<&dyn Argument> = arguments.iter().map(|a| &**a).collect();
    let name = format!("{name}_{}_{group}", T::NAME);
    kernels.launch(&name, [x as u32, y as u32, 1], [threads, 1, 1], 0, &arguments);
}

/// Batch; height, width and channels; kernel; stride; padding.
type Case = (usize, [usize; 3], [usize; 2], usize, usize);

const CASES: [Case; 6] = [
    (2, [5, 7, 8], [3, 3], 1, 1),
    (1, [6, 5, 3], [3, 3], 2, 1),
    (3, [4, 4, 16], [3, 3], 2, 1),
    (1, [1, 1, 24], [3, 3], 1, 1),
    (2, [5, 4, 5], [2, 3], 3, 2),
    (1, [3, 9, 1100], [1, 1], 1, 0),
];

fn result((_, [height, width, _], [kh, kw], stride, padding): Case) -> [usize; 2] {
    [(height + 2 * padding - kh) / stride + 1, (width + 2 * padding - kw) / stride + 1]
}

/// The place of every column in the image, none beside it.
fn places(case: Case) -> Vec<Option<usize>> {
    let (batch, [height, width, channels], [kh, kw], stride, padding) = case;
    let [lines, pixels] = result(case);
    let mut places = Vec::new();
    for row in 0..batch * lines * pixels {
        let (image, line, pixel) = (row / pixels / lines, row / pixels % lines, row % pixels);
        for (dy, dx) in (0..kh).flat_map(|dy| (0..kw).map(move |dx| (dy, dx))) {
            let (y, x) = (line * stride + dy, pixel * stride + dx);
            let inside =
                (padding..height + padding).contains(&y) && (padding..width + padding).contains(&x);
            for channel in 0..channels {
                places.push(inside.then(|| {
                    ((image * height + y - padding) * width + x - padding) * channels + channel
                }));
            }
        }
    }
    places
}

fn window(case: Case, groups: i32, rectify: bool) -> Vec<Box<dyn Argument>> {
    let (_, [height, width, _], [kh, kw], stride, padding) = case;
    let [lines, pixels] = result(case);
    [
        height as i32,
        width as i32,
        groups,
        lines as i32,
        pixels as i32,
        kw as i32,
        (kh * kw) as i32,
        stride as i32,
        padding as i32,
        i32::from(rectify),
    ]
    .into_iter()
    .map(|size| Box::new(size) as Box<dyn Argument>)
    .collect()
}

fn columns_and_gradients<T: Value>(kernels: Kernels) {
    for (case, rectify) in CASES.into_iter().flat_map(|case| [(case, false), (case, true)]) {
        let (batch, [height, width, channels], ..) = case;
        let mut x: Vec<T> = some(batch * height * width * channels, 1);
        x[0] = T::of(f32::NAN);
        let places = places(case);
        let [lines, pixels] = result(case);
        let mut columns = vec![T::of(7.0); places.len()];
        launch::<T>(
            kernels,
            "columns",
            channels,
            |_| [batch * lines * pixels, 1],
            128,
            |groups| {
                let mut all: Vec<Box<dyn Argument>> =
                    vec![Box::new(x.as_ptr()), Box::new(columns.as_mut_ptr())];
                all.extend(window(case, groups, rectify));
                all
            },
        );
        for (found, place) in columns.iter().zip(&places) {
            let expected = place.map_or(0.0, |place| x[place].wide());
            let expected = if rectify && expected < 0.0 { 0.0 } else { expected };
            assert!(found.wide() == expected || found.wide().is_nan() && expected.is_nan());
        }

        let columns = values(places.len(), 2);
        let mut expected = vec![0f64; x.len()];
        for (&v, place) in columns.iter().zip(&places) {
            if let Some(place) = *place
                && (!rectify || x[place].wide() > 0.0)
            {
                expected[place] += f64::from(v);
            }
        }
        let mut gradient = vec![T::of(7.0); x.len()];
        launch::<T>(
            kernels,
            "gather",
            channels,
            |_| [batch * height * width, 1],
            128,
            |groups| {
                let mut all: Vec<Box<dyn Argument>> = vec![
                    Box::new(columns.as_ptr()),
                    Box::new(x.as_ptr()),
                    Box::new(gradient.as_mut_ptr()),
                ];
                all.extend(window(case, groups, rectify));
                all
            },
        );
        assert_close(&wide(&gradient), &expected, T::unit());
    }
}

#[test]
fn columns_are_what_a_convolution_reads() {
    let Some(kernels) = kernels("images") else { return };
    columns_and_gradients::<f32>(kernels);
    columns_and_gradients::<bf16>(kernels);
    columns_and_gradients::<f16>(kernels);
}

fn rows_and_elements<T: Value>(kernels: Kernels) {
    for (rows, width) in [(1, 8), (130, 24), (65, 5), (64, 1100)] {
        let (bias, old): (Vec<T>, Vec<T>) = (some(width, 1), some(rows * width, 2));
        for add in [false, true] {
            let mut y = old.clone();
            launch::<T>(
                kernels,
                "bias",
                width,
                |_| [rows.div_ceil(64), 1],
                256,
                |groups| {
                    vec![
                        Box::new(y.as_mut_ptr()),
                        Box::new(bias.as_ptr()),
                        Box::new(rows as i64),
                        Box::new(groups),
                        Box::new(i32::from(add)),
                    ]
                },
            );
            for (i, (y, old)) in y.iter().zip(&old).enumerate() {
                let base = if add { old.wide() } else { 0.0 };
                assert_eq!(*y, T::of(base + bias[i % width].wide()));
            }
            let mut y = old.clone();
            let mut x: Vec<T> = some(rows * width, 3);
            x[0] = T::of(0.0);
            let blocks = |groups: usize| [groups.div_ceil(1024), 1];
            launch::<T>(kernels, "relu", rows * width, blocks, 256, |groups| {
                vec![
                    Box::new(x.as_ptr()),
                    Box::new(y.as_mut_ptr()),
                    Box::new(i64::from(groups)),
                    Box::new(i32::from(add)),
                ]
            });
            for ((y, old), x) in y.iter().zip(&old).zip(&x) {
                let positive = if add { *old } else { *x };
                assert_eq!(*y, if x.wide() > 0.0 { positive } else { T::of(0.0) });
            }
        }
    }
    for (a, m, n, v) in [(3, 4, 9, 1), (70, 2, 3, 8), (1, 17, 40, 5), (2, 5, 4, 16)] {
        let x: Vec<T> = some(a * m * n * v, 1);
        let mut y = vec![T::of(7.0); x.len()];
        let blocks = |groups: usize| [(m * n * groups).div_ceil(256), a.min(50)];
        launch::<T>(kernels, "swap", v, blocks, 256, |groups| {
            vec![
                Box::new(x.as_ptr()),
                Box::new(y.as_mut_ptr()),
                Box::new(a as i64),
                Box::new(m as i32),
                Box::new(n as i32),
                Box::new(groups),
            ]
        });
        for (i, y) in y.iter().enumerate() {
            let (of_v, of_m, of_n, of_a) = (i % v, i / v % m, i / v / m % n, i / v / m / n);
            assert_eq!(*y, x[((of_a * m + of_m) * n + of_n) * v + of_v]);
        }
    }
    let (batch, tokens, width, more) = (2, 5, 300, 7);
    let (x, row): (Vec<T>, _) = (some(batch * tokens * width, 1), values(batch * more, 2));
    let mut y = vec![f32::NAN; batch * tokens * (width + more)];
    let arguments: [&dyn Argument; 6] = [
        &x.as_ptr(),
        &row.as_ptr(),
        &y.as_mut_ptr(),
        &(tokens as i64),
        &(width as i32),
        &(more as i32),
    ];
    let name = format!("join_{}", T::NAME);
    kernels.launch(&name, [(batch * tokens) as u32, 1, 1], [256, 1, 1], 0, &arguments);
    for (token, y) in y.chunks(width + more).enumerate() {
        assert_eq!(y[..width], wide(&x[token * width..][..width]));
        assert_eq!(y[width..], row[token / tokens * more..][..more]);
    }
}

#[test]
fn elements_are_moved_added_to_and_rectified() {
    let Some(kernels) = kernels("images") else { return };
    rows_and_elements::<f32>(kernels);
    rows_and_elements::<bf16>(kernels);
    rows_and_elements::<f16>(kernels);
}

#[test]
fn windows_are_added_where_they_lie() {
    let Some(kernels) = kernels("images") else { return };
    for (channels, group) in [(8, 4), (150, 1), (1, 1), (1028, 4)] {
        let ([lines, pixels], side, [height, width]) = ([7, 9], 4, [3, 4]);
        let (before, window) =
            (values(lines * pixels * channels, 1), values(side * side * channels, 2));
        let (mut sums, [top, left]) = (before.clone(), [4, 5]);
        let first = (top * pixels + left) * channels;
        let groups = (width * channels / group) as i64;
        let (to, from) = (sums[first..].as_mut_ptr(), window.as_ptr());
        let steps = [pixels, side].map(|pixels| (pixels * channels / group) as i64);
        let arguments: [&dyn Argument; 5] = [&to, &from, &steps[0], &steps[1], &groups];
        let grid = [(groups as u32).div_ceil(256), height as u32, 1];
        kernels.launch(&format!("add_rows_f32_{group}"), grid, [256, 1, 1], 0, &arguments);
        for (i, (found, before)) in sums.iter().zip(&before).enumerate() {
            let (line, pixel, channel) =
                (i / channels / pixels, i / channels % pixels, i % channels);
            let inside =
                (top..top + height).contains(&line) && (left..left + width).contains(&pixel);
            let more = match inside {
                true => window[((line - top) * side + pixel - left) * channels + channel],
                false => 0.0,
            };
            assert_eq!(*found, before + more, "{line} {pixel} {channel}");
        }
    }
}

/// The shares of a line of `from` pixels in every place of a line of `to`.
fn shares(from: usize, to: usize) -> Vec<Vec<f64>> {
    let scale = if to > 1 { (from - 1) as f64 / (to - 1) as f64 } else { 0.0 };
    let line = |i: usize| {
        let at = i as f64 * scale;
        (0..from).map(|j| (1.0 - (at - j as f64).abs()).max(0.0)).collect()
    };
    (0..to).map(line).collect()
}

fn resized<T: Value>(kernels: Kernels) {
    for (batch, [height, width], [to_height, to_width], channels) in [
        (2, [3, 5], [6, 10], 8),
        (1, [4, 4], [9, 7], 3),
        (3, [7, 6], [3, 4], 16),
        (1, [1, 4], [5, 1], 5),
        (1, [2, 1], [1, 6], 8),
        (1, [5, 3], [5, 3], 8),
        (1, [2, 2], [33, 31], 1),
    ] {
        let (down, along) = (shares(height, to_height), shares(width, to_width));
        let small = batch * height * width * channels;
        let large = batch * to_height * to_width * channels;
        let (x, gradient): (Vec<T>, Vec<T>) = (some(small, 1), some(large, 2));
        let (mut expected, mut back) = (vec![0f64; large], vec![0f64; small]);
        for to in 0..large {
            let (channel, pixel) = (to % channels, to / channels % to_width);
            let (line, image) =
                (to / channels / to_width % to_height, to / channels / to_width / to_height);
            for (y, v) in down[line].iter().enumerate() {
                for (x_at, u) in along[pixel].iter().enumerate() {
                    let from = ((image * height + y) * width + x_at) * channels + channel;
                    expected[to] += v * u * f64::from(x[from].wide());
                    back[from] += v * u * f64::from(gradient[to].wide());
                }
            }
        }
        let run = |name: &str, from: &[T], count: usize, lines: usize, pixels: usize| {
            let mut to = vec![T::of(7.0); count];
            let blocks = |groups: usize| [(pixels * groups).div_ceil(256), lines.min(4)];
            launch::<T>(kernels, name, channels, blocks, 256, |groups| {
                let mut all: Vec<Box<dyn Argument>> =
                    vec![Box::new(from.as_ptr()), Box::new(to.as_mut_ptr())];
                for size in [batch, height, width, to_height, to_width] {
                    all.push(Box::new(size as i32));
                }
                all.push(Box::new(groups));
                all
            });
            to
        };
        let found = run("resize", &x, large, batch * to_height, to_width);
        assert_close(&wide(&found), &expected, T::unit());
        let found = run("resize_back", &gradient, small, batch * height, width);
        assert_close(&wide(&found), &back, T::unit());
    }
}

#[test]
fn images_are_resized_and_their_gradients_gathered() {
    let Some(kernels) = kernels("images") else { return };
    resized::<f32>(kernels);
    resized::<bf16>(kernels);
    resized::<f16>(kernels);
}

/// The sums of the parts of a matrix, and of those.
fn column_sums<T: Value>(
    kernels: Kernels,
    x: &[T],
    centre: Option<&[f32]>,
    other: Option<&[f32]>,
    width: usize,
    part: usize,
) -> Vec<f32> {
    let rows = x.len() / width;
    let parts = rows.div_ceil(part).max(1);
    let mut sums = vec![f32::NAN; parts * width];
    let null = || std::ptr::null::<f32>();
    let blocks = |groups: usize| [groups.div_ceil(32), parts];
    launch::<T>(kernels, "column_sums", width, blocks, 256, |groups| {
        vec![
            Box::new(x.as_ptr()),
            Box::new(centre.map_or_else(null, <[f32]>::as_ptr)),
            Box::new(other.map_or_else(null, <[f32]>::as_ptr)),
            Box::new(sums.as_mut_ptr()),
            Box::new(rows as i64),
            Box::new(groups),
            Box::new(part as i64),
        ]
    });
    if parts == 1 { sums } else { column_sums(kernels, &sums, None, None, width, parts) }
}

fn sums_of<T: Value>(kernels: Kernels) {
    for (rows, width, part) in [(1, 3, 64), (200, 8, 64), (129, 5, 64), (70, 264, 10), (0, 4, 64)] {
        let x: Vec<T> = some(rows * width, 1);
        let found = column_sums(kernels, &x, None, None, width, part);
        let mut expected = vec![0f64; width];
        for (i, x) in x.iter().enumerate() {
            expected[i % width] += f64::from(x.wide());
        }
        assert_close(&found, &expected, 1e-5);

        let weights: Vec<T> = some(rows, 2);
        for rectify in [false, true] {
            let mut expected = vec![0f64; width];
            for (i, x) in x.iter().enumerate() {
                let x = if rectify { x.wide().max(0.0) } else { x.wide() };
                expected[i % width] += f64::from(x) * f64::from(weights[i / width].wide());
            }
            let parts = rows.div_ceil(part).max(1);
            let mut sums = vec![f32::NAN; parts * width];
            let blocks = |groups: usize| [groups.div_ceil(32), parts];
            launch::<T>(kernels, "weighted_sums", width, blocks, 256, |groups| {
                vec![
                    Box::new(x.as_ptr()),
                    Box::new(weights.as_ptr()),
                    Box::new(sums.as_mut_ptr()),
                    Box::new(rows as i64),
                    Box::new(groups),
                    Box::new(part as i64),
                    Box::new(i32::from(rectify)),
                ]
            });
            let found = column_sums(kernels, &sums, None, None, width, parts);
            assert_close(&found, &expected, 1e-5);
        }
    }
}

#[test]
fn columns_are_summed_and_blended() {
    let Some(kernels) = kernels("images") else { return };
    sums_of::<f32>(kernels);
    sums_of::<bf16>(kernels);
    sums_of::<f16>(kernels);
    for (rows, width) in [(200, 8), (129, 5)] {
        let (x, z, factors) =
            (values(rows * width, 1), values(rows * width, 2), values(3 * width, 3));
        let centre = &factors[..width];
        let (mut squares, mut products) = (vec![0f64; width], vec![0f64; width]);
        for (i, (&x, &z)) in x.iter().zip(&z).enumerate() {
            let off = f64::from(x - centre[i % width]);
            squares[i % width] += off * off;
            products[i % width] += off * f64::from(z);
        }
        assert_close(&column_sums(kernels, &x, Some(centre), None, width, 64), &squares, 1e-5);
        assert_close(&column_sums(kernels, &x, Some(centre), Some(&z), width, 64), &products, 1e-5);
        for other in [None, Some(&z)] {
            let mut y = vec![f32::NAN; x.len()];
            launch::<f32>(
                kernels,
                "blend",
                width,
                |_| [rows.div_ceil(64), 1],
                256,
                |groups| {
                    vec![
                        Box::new(x.as_ptr()),
                        Box::new(other.map_or(std::ptr::null(), Vec::as_ptr)),
                        Box::new(factors.as_ptr()),
                        Box::new(y.as_mut_ptr()),
                        Box::new(rows as i64),
                        Box::new(groups),
                    ]
                },
            );
            let factor = |row: usize, i: usize| f64::from(factors[row * width + i % width]);
            let expected: Vec<f64> = (0..x.len())
                .map(|i| {
                    let more = other.map_or(0.0, |z| factor(1, i) * f64::from(z[i]));
                    factor(0, i) * f64::from(x[i]) + more + factor(2, i)
                })
                .collect();
            assert_close(&y, &expected, 1e-6);
        }
    }
}
