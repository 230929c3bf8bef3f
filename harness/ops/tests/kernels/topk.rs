//! Nearest neighbours merged from blocks of similarities.

use candle_core::{Device, Tensor};
use pixio_eval_ops::{merge_nearest, neighbour_key, no_neighbours};

use crate::host::{Kernels, kernels, values};

/// As a block of queries is merged on a GPU.
fn launch(kernels: Kernels, keys: &mut [u64], k: usize, line: &[f32], rows: usize, first: u32) {
    let queries = keys.len() / k;
    let (k, columns, rows) = (k as i32, (line.len() / queries) as i32, rows as i32);
    kernels.launch(
        "topk_merge",
        [queries as u32, 1, 1],
        [256, 1, 1],
        0,
        &[&keys.as_mut_ptr(), &line.as_ptr(), &k, &columns, &rows, &first],
    );
}

/// Blocks of several widths, aligned to 16 bytes or not, with columns that are no rows, many equal
/// similarities and NaN: the kernel's keys are the host's, to the bit.
#[test]
fn keys_are_those_of_the_host() {
    let Some(kernels) = kernels("topk") else { return };
    for (queries, k, levels, blocks) in [
        (1, 1, 4.0, &[(1, 1), (3, 2), (4, 4)][..]),
        (3, 10, 1e6, &[(1500, 1500), (1024, 1000), (77, 77)]),
        (2, 200, 50.0, &[(4096, 4095), (2051, 2050)]),
        (2, 1000, 1e6, &[(5000, 5000), (30, 30), (3001, 2999)]),
        (2, 1024, 3.0, &[(700, 700), (4100, 4100)]),
    ] {
        let mut found = vec![u64::MAX; queries * k];
        let expected = no_neighbours(queries, k, &Device::Cpu).unwrap();
        let mut first = 5;
        for (block, &(columns, rows)) in blocks.iter().enumerate() {
            let coarse = |v: f32| (v * levels).round() / levels;
            let mut similarities: Vec<f32> =
                values(queries * columns, block as u64 + 1).into_iter().map(coarse).collect();
            similarities[columns / 2] = f32::NAN;
            similarities[columns / 3] = -0.0;
            launch(kernels, &mut found, k, &similarities, rows, first);
            let similarities =
                Tensor::from_vec(similarities, (queries, columns), &Device::Cpu).unwrap();
            merge_nearest(&expected, &similarities, first, rows).unwrap();
            first += rows as u32;
            let keys = expected.flatten_all().unwrap().to_vec1::<i64>().unwrap();
            let keys: Vec<u64> = keys.into_iter().map(|key| key as u64).collect();
            assert!(found == keys, "{queries} queries, k = {k}, block {block}");
        }
    }
}

/// Similarities that only rise: every tile is full of candidates.
#[test]
fn rising_similarities_leave_the_last_rows() {
    let Some(kernels) = kernels("topk") else { return };
    let (k, rows) = (300, 6000);
    let line: Vec<f32> = (0..rows).map(|i| i as f32 / rows as f32).collect();
    let mut found = vec![u64::MAX; k];
    launch(kernels, &mut found, k, &line, rows, 0);
    let expected: Vec<u64> =
        (0..k).map(|i| neighbour_key(line[rows - 1 - i], (rows - 1 - i) as u32)).collect();
    assert!(found == expected);
}
