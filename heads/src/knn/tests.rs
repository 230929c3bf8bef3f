use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

const SMALL: Plan = Plan { query_chunk: 10, train_block: 70 };
/// Larger than any set here: one matrix product.
const WHOLE: Plan = Plan { query_chunk: 4096, train_block: 4096 };

fn go(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Rows of small integers, normalised: many exact duplicates, and some rows of zeros.
fn integers(seed: u64, rows: usize, dim: usize, levels: u64) -> Vec<f32> {
    let mut state = seed;
    let mut level = || (random(&mut state) % levels) as f32 - (levels / 2) as f32;
    let mut values: Vec<f32> = (0..rows * dim).map(|_| level()).collect();
    l2_normalise(&mut values, dim).unwrap();
    values
}

/// Rows of four entries +-1/2, the others 0: norms and products are exact in any order.
fn halves(seed: u64, rows: usize, dim: usize) -> Vec<f32> {
    let mut state = seed;
    let mut values = vec![0.0; rows * dim];
    for row in values.chunks_mut(dim) {
        while row.iter().filter(|&&value| value != 0.0).count() < 4 {
            let draw = random(&mut state);
            row[(draw >> 8) as usize % dim] = if draw & 1 == 0 { 0.5 } else { -0.5 };
        }
    }
    values
}

fn search(train: &[f32], queries: &[f32], dim: usize, k: usize, plan: Plan) -> Neighbours {
    let labels = vec![0; train.len() / dim];
    let mut knn = Knn::new(Features::new(train, dim).unwrap(), &labels, 1).unwrap();
    knn.plan = plan;
    knn.search(Features::new(queries, dim).unwrap(), k, &mut go).unwrap()
}

/// The search that runs on a device, on the processor; in these blocks of (held, queries, train).
fn on_device(
    train: &[f32],
    queries: &[f32],
    dim: usize,
    k: usize,
    blocks: [usize; 3],
) -> Neighbours {
    let labels = vec![0; train.len() / dim];
    let mut knn = Knn::new(Features::new(train, dim).unwrap(), &labels, 1).unwrap();
    let [held, queries_at_once, train_at_once] = blocks;
    let blocks = Blocks { held, queries: queries_at_once, train: train_at_once };
    knn.device = Some(Place { device: Device::Cpu, blocks: Some(blocks), upload: None });
    knn.search(Features::new(queries, dim).unwrap(), k, &mut go).unwrap()
}

fn bits(neighbours: &Neighbours) -> (Vec<u32>, &[u32]) {
    (neighbours.similarities.iter().map(|value| value.to_bits()).collect(), &neighbours.rows)
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// All similarities in 64 bits, sorted; -0 made 0, which is its equal.
fn reference(train: &[f32], query: &[f32], k: usize) -> Vec<(f32, u32)> {
    let mut all: Vec<(f32, u32)> =
        train.chunks(query.len()).map(|row| dot(row, query) as f32 + 0.0).zip(0..).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    all.truncate(k);
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn chunked_search_equals_the_whole_sorted_matrix(
        seed: u64, rows in 1_usize..400, count in 1_usize..25, dim in 4_usize..12, share in 0.0..1.0,
    ) {
        let k = 1 + (share * (rows - 1) as f64) as usize;
        let (train, queries) = (halves(seed, rows, dim), halves(!seed, count, dim));
        let found = search(&train, &queries, dim, k, SMALL);
        prop_assert_eq!(found.rows.len(), count * k);
        for (query, (similarities, rows)) in
            queries.chunks(dim).zip(found.similarities.chunks(k).zip(found.rows.chunks(k)))
        {
            let found: Vec<_> = similarities.iter().copied().zip(rows.iter().copied()).collect();
            prop_assert_eq!(found, reference(&train, query, k));
        }
    }

    #[test]
    fn rounding_does_not_depend_on_the_cut(
        seed: u64, rows in 1_usize..400, count in 1_usize..25, dim in 1_usize..1100, levels in 2_u64..6,
    ) {
        let k = rows.min(50);
        let (train, queries) = (integers(seed, rows, dim, levels), integers(!seed, count, dim, levels));
        let whole = search(&train, &queries, dim, k, WHOLE);
        let small = search(&train, &queries, dim, k, SMALL);
        prop_assert_eq!(bits(&small), bits(&whole));
        let alone = search(&train, &queries[..dim], dim, k, WHOLE);
        prop_assert_eq!(bits(&alone).1, &whole.rows[..k]);
        for (query, (similarities, rows)) in
            queries.chunks(dim).zip(whole.similarities.chunks(k).zip(whole.rows.chunks(k)))
        {
            let row = |index: u32| &train[index as usize * dim..][..dim];
            for (i, (&similarity, &index)) in similarities.iter().zip(rows).enumerate() {
                prop_assert!((f64::from(similarity) - dot(row(index), query)).abs() < 1e-5);
                if i > 0 && row(rows[i - 1]) == row(index) {
                    prop_assert_eq!(similarities[i - 1].to_bits(), similarity.to_bits());
                    prop_assert!(rows[i - 1] < index);
                }
            }
            let last = reference(&train, query, k)[k - 1].0;
            prop_assert!((similarities[k - 1] - last).abs() < 1e-5);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Where products are exact the search of devices finds the same neighbours, ties by index, however it
    /// is cut; elsewhere the same similarities but for rounding.
    #[test]
    fn the_search_of_devices_equals_that_of_the_processor(
        seed: u64,
        rows in 1_usize..400,
        count in 1_usize..25,
        dim in 4_usize..40,
        cut in [1_usize..30, 1..12, 1..90],
    ) {
        let k = rows.min(50);
        let (train, queries) = (halves(seed, rows, dim), halves(!seed, count, dim));
        let host = search(&train, &queries, dim, k, SMALL);
        let usual = Blocks::of(Features::new(&train, dim).unwrap(), count, k);
        for [held, queries_at_once, train_at_once] in
            [cut, [usual.held, usual.queries, usual.train]]
        {
            let blocks = [held.max(queries_at_once), queries_at_once, train_at_once];
            let found = on_device(&train, &queries, dim, k, blocks);
            prop_assert_eq!(bits(&found), bits(&host));
        }
        let (train, queries) = (integers(seed, rows, dim, 5), integers(!seed, count, dim, 5));
        let host = search(&train, &queries, dim, k, SMALL);
        let found = on_device(&train, &queries, dim, k, [cut[0].max(cut[1]), cut[1], cut[2]]);
        for (a, b) in found.similarities.iter().zip(&host.similarities) {
            prop_assert!((a - b).abs() <= 1e-6, "{} {}", a, b);
        }
    }
}

#[test]
fn progress_on_a_device_is_complete_and_can_interrupt() {
    let (train, queries) = (halves(1, 200, 8), halves(2, 25, 8));
    let labels = vec![0; 200];
    let mut knn = Knn::new(Features::new(&train, 8).unwrap(), &labels, 1).unwrap();
    let blocks = Some(Blocks { held: 16, queries: 8, train: 70 });
    let uploads = AtomicUsize::new(0);
    let upload = |parts: &[&[f32]], shape: (usize, usize)| {
        uploads.fetch_add(1, Ordering::Relaxed);
        Tensor::from_vec(parts.concat(), shape, &Device::Cpu)
    };
    knn.device = Some(Place { device: Device::Cpu, blocks, upload: None });
    let knn = knn.uploading(&upload);
    let queries = Features::new(&queries, 8).unwrap();
    let mut seen = vec![];
    let mut record = |progress: Progress| {
        seen.push(progress.done);
        ControlFlow::Continue(())
    };
    knn.search(queries, 5, &mut record).unwrap();
    assert_eq!(seen, [1120, 2240, 3200, 3830, 4460, 5000]);
    // Queries of 8, and train rows once for each 16 of them.
    assert_eq!(uploads.load(Ordering::Relaxed), 4 + 2 * 3);
    let mut stop = |progress: Progress| match progress.done {
        done if done >= 3000 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let stopped = knn.search(queries, 5, &mut stop).unwrap_err();
    assert_eq!(stopped, KnnError::Interrupted(Progress { done: 3200, total: 5000 }));
}

#[test]
fn a_device_serves_votes_and_leaves_more_neighbours_to_the_processor() {
    let (train, queries) = (halves(3, 1300, 16), halves(4, 30, 16));
    let (labels, query_labels): (Vec<u32>, Vec<u32>) =
        ((0..1300).map(|i| i % 7).collect(), (0..30).map(|i| i % 7).collect());
    let features = Features::new(&train, 16).unwrap();
    let queries = Features::new(&queries, 16).unwrap();
    let host = Knn::new(features, &labels, 7).unwrap();
    let mut device = Knn::new(features, &labels, 7).unwrap();
    assert!(Knn::new(features, &labels, 7).unwrap().on(&Device::Cpu).device.is_none());
    device.device = Some(Place { device: Device::Cpu, blocks: None, upload: None });
    for k in [vec![1, 10], vec![1300]] {
        let vote = VoteStage { revision: 1, k, temperature: 0.07 };
        let of = |knn: &Knn<'_>| knn.predict(queries, &query_labels, &vote, &mut go).unwrap();
        assert_eq!(of(&device), of(&host));
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (dim, k) = (96, 37);
    let train = integers(1, 9000, dim, 7);
    let queries = integers(2, 1100, dim, 7);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| search(&train, &queries, dim, k, Plan::DEFAULT))
    };
    let one = with(1);
    for threads in [2, 3, 8] {
        assert!(bits(&with(threads)) == bits(&one), "{threads} threads");
    }
}

/// Clusters around one direction a class, wide enough for neighbours to differ between queries.
fn clusters(seed: u64, rows: usize, dim: usize, classes: usize) -> (Vec<f32>, Vec<u32>) {
    let mut state = seed;
    let labels: Vec<u32> = (0..rows).map(|row| (row % classes) as u32).collect();
    let mut values = Vec::with_capacity(rows * dim);
    for &label in &labels {
        for column in 0..dim {
            let noise = (0..4).map(|_| (random(&mut state) >> 40) as f32 / 2_f32.powi(24) - 0.5);
            let centre = if column == label as usize { 4.0 } else { 0.0 };
            values.push(centre + noise.sum::<f32>());
        }
    }
    l2_normalise(&mut values, dim).unwrap();
    (values, labels)
}

#[test]
fn true_labels_are_found_and_shuffled_labels_are_chance() {
    let (dim, classes, count) = (32, 10, 1000);
    let (train, labels) = clusters(3, 4000, dim, classes);
    let (queries, query_labels) = clusters(4, count, dim, classes);
    let accuracy = |labels: &[u32]| {
        let knn = Knn::new(Features::new(&train, dim).unwrap(), labels, classes).unwrap();
        let vote = VoteStage { revision: 1, k: vec![10], temperature: 0.07 };
        let queries = Features::new(&queries, dim).unwrap();
        knn.predict(queries, &query_labels, &vote, &mut go).unwrap().accuracy[0]
    };
    assert!(accuracy(&labels).top1 > 99.0);

    let mut shuffled = labels;
    let mut state = 5;
    for last in (1..shuffled.len()).rev() {
        shuffled.swap(last, random(&mut state) as usize % (last + 1));
    }
    let chance = accuracy(&shuffled);
    let sigma = |share: f64| 100.0 * (share * (1.0 - share) / count as f64).sqrt();
    assert!((chance.top1 - 10.0).abs() < 3.0 * sigma(0.1), "{chance:?}");
    assert!((chance.top5 - 50.0).abs() < 3.0 * sigma(0.5), "{chance:?}");
}

#[test]
fn progress_is_complete_and_can_interrupt() {
    let (train, queries) = (halves(1, 200, 8), halves(2, 25, 8));
    let labels = vec![0; 200];
    let mut knn = Knn::new(Features::new(&train, 8).unwrap(), &labels, 1).unwrap();
    knn.plan = SMALL;
    let queries = Features::new(&queries, 8).unwrap();
    let mut seen = vec![];
    let mut record = |progress: Progress| {
        seen.push(progress.done);
        ControlFlow::Continue(())
    };
    knn.search(queries, 5, &mut record).unwrap();
    assert!(seen.is_sorted_by(|a, b| a < b));
    assert_eq!((seen[0], seen.last()), (10 * 70, Some(&(25 * 200))));

    let mut stop = |progress: Progress| match progress.done {
        done if done >= 1000 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let stopped = knn.search(queries, 5, &mut stop).unwrap_err();
    assert!(
        matches!(stopped, KnnError::Interrupted(Progress { done: 1400, total: 5000 })),
        "{stopped}"
    );
}

#[test]
fn bad_sets_are_refused() {
    let train = halves(1, 30, 8);
    let features = Features::new(&train, 8).unwrap();
    let refused = |labels: &[u32]| Knn::new(features, labels, 3).err().unwrap().to_string();
    assert_eq!(
        refused(&[0; 29]),
        "30 train features come with 29 labels: one label a row is needed"
    );
    let mut labels = [2; 30];
    labels[17] = 3;
    assert_eq!(refused(&labels), "label 3 of train row 17 is outside the 3 classes (0 to 3 - 1)");

    let none = Features::new(&[], 8).unwrap();
    assert_eq!(Knn::new(none, &[], 3).err(), Some(KnnError::Empty { set: Set::Train }));

    let knn = Knn::new(features, &[2; 30], 3).unwrap();
    let search = |queries, k| knn.search(queries, k, &mut go).unwrap_err();
    assert_eq!(search(none, 5), KnnError::Empty { set: Set::Query });
    assert_eq!(search(features, 0), KnnError::KZero);
    assert_eq!(search(features, 31), KnnError::KTooLarge { k: 31, train: 30 });
    let other = Features::new(&train, 6).unwrap();
    assert_eq!(search(other, 5), KnnError::DimensionMismatch { train: 8, query: 6 });
    let mut broken = train.clone();
    broken[8 * 3 + 1] = f32::NAN;
    let broken = Features::new(&broken, 8).unwrap();
    assert!(matches!(
        search(broken, 5),
        KnnError::NonFinite { set: Set::Query, row: 3, column: 1, .. }
    ));
    let nan = Knn::new(broken, &[2; 30], 3).err().unwrap();
    assert!(matches!(nan, KnnError::NonFinite { set: Set::Train, row: 3, column: 1, .. }));

    let vote = VoteStage { revision: 1, k: vec![5, 31], temperature: 0.07 };
    let predict = |labels: &[u32], vote| knn.predict(features, labels, vote, &mut go).unwrap_err();
    assert_eq!(predict(&[0; 30], &vote), KnnError::KTooLarge { k: 31, train: 30 });
    let vote = VoteStage { k: vec![5], ..vote };
    let outside = KnnError::LabelOutside { set: Set::Query, row: 0, label: 7, classes: 3 };
    assert_eq!(predict(&[7; 30], &vote), outside);
    assert_eq!(
        predict(&[0; 3], &vote),
        KnnError::LabelCount { set: Set::Query, rows: 30, labels: 3 }
    );
}

#[test]
fn the_stated_memory_is_the_allocated_memory() {
    assert_eq!(size_of::<TopK>(), 40);
    let expected = 8192 * (8 * (200 + 200 + 32) + 40) + 8192 * 1008 * 4;
    assert_eq!(working_bytes(200), expected);
    assert_eq!(expected >> 20, 58);
}
