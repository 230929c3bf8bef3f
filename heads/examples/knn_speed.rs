//! Times an exact k-NN search over random features:
//!
//! ```sh
//! cargo run --release -p pixio-eval-heads --example knn_speed -- [TRAIN] [QUERIES] [DIM] [K]
//! ```
//!
//! Prints one line of JSON: seconds (checking the features and searching), peak resident memory,
//! and what the features alone take. `scripts/knn_speed.sh` runs it beside PyTorch.

use std::{ops::ControlFlow, time::Instant};

use pixio_eval_heads::knn::{Features, Knn, KnnError, l2_normalise, working_bytes};
use rayon::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut sizes = [200_000, 5_000, 1024, 200];
    for (size, argument) in sizes.iter_mut().zip(std::env::args().skip(1)) {
        *size = argument.parse()?;
    }
    let [rows, count, dim, k] = sizes;
    let train = features(rows, dim, 1)?;
    let queries = features(count, dim, 2)?;
    let labels = vec![0; rows];

    let start = Instant::now();
    let knn = Knn::new(Features::new(&train, dim)?, &labels, 1)?;
    let checked = start.elapsed().as_secs_f64();
    let found = knn.search(Features::new(&queries, dim)?, k, &mut |_| ControlFlow::Continue(()))?;
    let seconds = start.elapsed().as_secs_f64();

    const MIB: f64 = 1024.0 * 1024.0;
    println!(
        "{{\"engine\": \"pixio-eval\", \"seconds\": {seconds:.3}, \"check_seconds\": {checked:.3}, \
         \"peak_mib\": {:.0}, \"features_mib\": {:.0}, \"buffers_mib\": {:.0}, \"gflops\": {:.0}, \
         \"mean_similarity\": {:.4}}}",
        peak_bytes() / MIB,
        ((rows + count) * dim * size_of::<f32>()) as f64 / MIB,
        working_bytes(k) as f64 / MIB,
        2.0 * (rows * dim) as f64 * count as f64 / seconds / 1e9,
        found.similarities.iter().sum::<f32>() / found.similarities.len() as f32,
    );
    Ok(())
}

/// Rows of sums of four uniform numbers, close to normal, L2-normalised.
fn features(rows: usize, dim: usize, seed: u64) -> Result<Vec<f32>, KnnError> {
    let mut values = vec![0.0; rows * dim];
    values.par_chunks_mut(dim).enumerate().for_each(|(index, row)| {
        let mut state = (seed << 40) + index as u64;
        for value in row {
            // SplitMix64
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let parts = (0..4).map(|part| ((z ^ (z >> 31)) >> (16 * part) & 0xffff) as f32);
            *value = parts.sum::<f32>() - 2.0 * 65535.0;
        }
    });
    l2_normalise(&mut values, dim)?;
    Ok(values)
}

/// Peak resident set of this process; 0 where the system does not tell.
fn peak_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0
}
