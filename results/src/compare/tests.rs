use std::fs;

use schema::{Outcome, SampleRows};
use tempfile::TempDir;

use super::*;
use crate::Store;
use crate::fixtures::{
    dense_record, depth_rows, episode_rows, plan, policy_metrics, policy_record, prediction_rows,
    segmentation_rows, untrained,
};

struct World {
    _root: TempDir,
    store: Store,
}

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("runs")).unwrap();
        Self { _root: root, store }
    }

    fn finish(&self, record: &RunRecord, rows: &SampleRows) -> std::path::PathBuf {
        let run = self.store.begin(&record.plan).unwrap();
        run.finish(&record.outcome, rows).unwrap();
        run.folder().to_owned()
    }

    /// Depth and segmentation of a backbone that is worse by `worse` on every image.
    fn dense(&self, backbone: &str, seed: u64, worse: f64) {
        let mut rows = depth_rows(60);
        for (i, row) in rows.iter_mut().enumerate() {
            let metrics = row.metrics.as_mut().unwrap();
            metrics.rmse = 0.5 + (i % 7) as f64 / 20.0 + worse * (1.0 + (i % 3) as f64);
        }
        self.put(backbone, "nyuv2", seed, SampleRows::Depth(rows));
        let mut rows = segmentation_rows(50, 5);
        for row in &mut rows {
            let lose = |count: &mut u64| *count = (*count as f64 * (1.0 - worse)) as u64;
            row.intersection.iter_mut().for_each(lose);
        }
        self.put(backbone, "ade20k", seed, SampleRows::Segmentation(rows));
    }

    fn put(
        &self,
        backbone: &str,
        dataset: &str,
        seed: u64,
        rows: SampleRows,
    ) -> std::path::PathBuf {
        let mut record = dense_record(backbone, dataset, "linear", 0.5);
        record.plan.seed = seed;
        let metrics = metrics(&rows, Selection::Last);
        record.outcome = Outcome { metrics, ..record.outcome };
        self.finish(&record, &rows)
    }

    /// A depth run whose best epoch's rows are kept; every image's rmse is `last` and `best`.
    fn with_best(&self, backbone: &str, last: f64, best: f64) -> std::path::PathBuf {
        let rows = |rmse: f64| {
            let mut rows = depth_rows(40);
            for (i, row) in rows.iter_mut().enumerate() {
                row.metrics.as_mut().unwrap().rmse = rmse + (i % 5) as f64 / 50.0;
            }
            SampleRows::Depth(rows)
        };
        let mut record = dense_record(backbone, "nyuv2", "linear", 0.5);
        record.outcome.metrics =
            [metrics(&rows(last), Selection::Last), metrics(&rows(best), Selection::Best)].concat();
        let run = self.store.begin(&record.plan).unwrap();
        run.keep_best(&rows(best)).unwrap();
        run.finish(&record.outcome, &rows(last)).unwrap();
        run.folder().to_owned()
    }

    fn compare(&self, backbones: &[&str]) -> Result<Comparison, CompareError> {
        compare(&self.store.list().unwrap(), &options(backbones))
    }
}

fn metrics(rows: &SampleRows, selection: Selection) -> Vec<schema::MetricValue> {
    let samples = Samples::new(rows);
    let values = samples.metrics().zip(samples.values());
    let metric = |(name, value): (&str, f64)| schema::MetricValue {
        name: name.to_owned(),
        value,
        ci_low: None,
        ci_high: None,
        selection,
    };
    values.map(metric).collect()
}

fn options(backbones: &[&str]) -> CompareOptions {
    let backbones = backbones.iter().map(ToString::to_string).collect();
    CompareOptions { backbones, ..CompareOptions::default() }
}

#[test]
fn two_backbones_on_every_task_they_share() {
    let world = World::new();
    world.dense("good", 0, 0.0);
    world.dense("bad", 0, 0.1);
    world.dense("alike", 0, 0.0);
    // On a task of its own, and under another protocol.
    let knn = RunRecord { format: 1, plan: plan("good"), outcome: crate::fixtures::outcome(1.0) };
    world.finish(&knn, &SampleRows::Knn(prediction_rows(5)));

    let found = world.compare(&["good", "bad"]).unwrap();
    insta::assert_snapshot!("two", found.text(false));
    let better: Vec<_> = found.pairs.iter().map(|line| (&*line.task, line.better)).collect();
    assert_eq!(better, [("ade20k/linear", "a"), ("nyuv2/linear", "a")]);
    // The other way round the other one is better, and a tie is a tie.
    let back = world.compare(&["bad", "good"]).unwrap();
    assert!(back.pairs.iter().all(|line| line.better == "b"), "{back:?}");
    let alike = world.compare(&["good", "alike"]).unwrap();
    assert!(alike.pairs.iter().all(|line| line.better == "tie" && line.p == 1.0), "{alike:?}");
    let json: serde_json::Value = serde_json::to_value(&found).unwrap();
    assert_eq!(json["pairs"][1]["metric"], "rmse");
    assert!(json["pairs"][1]["interval"]["low"].as_f64().unwrap() < 0.0);
}

#[test]
fn many_backbones_have_a_standing() {
    let world = World::new();
    for (name, worse) in [("good", 0.0), ("twin", 0.0), ("bad", 0.1), ("worst", 0.2)] {
        world.dense(name, 0, worse);
    }
    let found = world.compare(&["worst", "good", "twin", "bad"]).unwrap();
    assert_eq!(found.pairs.len(), 2 * 6);
    insta::assert_snapshot!("many", found.text(false));
    let all = found.text(true);
    assert!(all.contains("A: worst\nB: good\n") && all.contains("A: twin\nB: bad\n"), "{all}");
}

#[test]
fn seeds_are_compared_one_by_one_and_their_spread_is_told_apart() {
    let world = World::new();
    for (seed, worse) in [(0, 0.1), (1, 0.2)] {
        world.dense("good", seed, 0.0);
        world.dense("bad", seed, worse);
    }
    world.dense("good", 2, 0.0);
    let options =
        CompareOptions { tasks: vec!["nyuv2/linear".to_owned()], ..options(&["bad", "good"]) };
    let found = compare(&world.store.list().unwrap(), &options).unwrap();
    assert_eq!(found.pairs.iter().map(|line| line.seed).collect::<Vec<_>>(), [0, 1]);
    let [seeds] = found.seeds.as_slice() else { panic!("{found:?}") };
    // Each image is worse by 0.1 times 1, 2 or 3: 0.2 in the mean.
    assert_eq!(seeds.seeds, 2);
    assert!((seeds.mean - 0.3).abs() < 1e-9 && (seeds.sd - 0.02_f64.sqrt()).abs() < 1e-9);
    insta::assert_snapshot!("seeds", found.text(false));
}

#[test]
fn what_cannot_be_compared_is_said() {
    let world = World::new();
    world.dense("good", 0, 0.0);
    world.dense("bad", 0, 0.1);
    let told = |backbones: &[&str]| world.compare(backbones).unwrap_err().to_string();
    insta::assert_snapshot!(told(&["good", "good"]), @"compare takes two or more different backbones, found 1");
    insta::assert_snapshot!(told(&["good", "best"]), @"no finished run has backbone `best`; there are: bad, good");
    let tasks = CompareOptions { tasks: vec!["kitti".to_owned()], ..options(&["good", "bad"]) };
    let error = compare(&world.store.list().unwrap(), &tasks).unwrap_err();
    insta::assert_snapshot!(error, @"no finished run has task `kitti`; there are: ade20k/linear, nyuv2/linear");
    // Another metric than the rows have: said for each pair.
    let metric = CompareOptions { metric: Some("silog".to_owned()), ..options(&["good", "bad"]) };
    let found = compare(&world.store.list().unwrap(), &metric).unwrap();
    assert_eq!((found.pairs.len(), found.notes.len()), (1, 3), "{:?}", found.notes);

    // One run's images changed, and the other's file is cut short.
    let fewer = world.put("few", "nyuv2", 0, SampleRows::Depth(depth_rows(59)));
    let found = world.compare(&["good", "few"]).unwrap_err().to_string();
    assert!(found.contains("1 images are in the first run alone and 0 in the second"), "{found}");
    let file = fewer.join("predictions.parquet");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let found = world.compare(&["good", "few"]).unwrap_err().to_string();
    assert!(found.contains("predictions.parquet is not a complete predictions file"), "{found}");
}

#[test]
fn the_same_backbone_twice_counts_once_and_untrained_is_said() {
    let world = World::new();
    world.dense("good", 0, 0.0);
    let mut other = untrained(dense_record("floor", "nyuv2", "linear", 0.5));
    let rows = SampleRows::Depth(depth_rows(60));
    world.finish(&other, &rows);
    other.plan.backbone.identity = schema::fingerprint(&"other weights");
    other.outcome.finished = "2026-01-02T00:00:00Z".to_owned();
    world.finish(&other, &rows);
    let found = world.compare(&["good", "floor"]).unwrap();
    assert_eq!(found.pairs[0].b, "floor (untrained)");
    assert_eq!(found.standings.iter().map(|s| s.wins + s.losses + s.ties).sum::<usize>(), 2);
    insta::assert_snapshot!(found.notes.join("\n"), @r"
    floor has several runs of nyuv2/linear, protocol pixio, seed 0: the last finished counts
    nyuv2/linear: the last epoch is compared, as floor has kept no per-image rows of its best epoch
    ");
}

#[test]
fn the_best_epoch_is_compared_where_its_rows_are_kept() {
    let world = World::new();
    world.with_best("steady", 0.5, 0.45);
    let other = world.with_best("late", 0.6, 0.4);
    let found = world.compare(&["steady", "late"]).unwrap();
    let line = &found.pairs[0];
    assert_eq!((line.selection, line.better), ("best", "b"));
    assert!((line.difference - 0.05).abs() < 1e-9, "{line:?}");
    assert_eq!(found.standings[0].backbone, "late");
    assert!(found.text(false).contains("Best epoch of each run."), "{}", found.text(false));

    let last = CompareOptions { selection: Some(Selection::Last), ..options(&["steady", "late"]) };
    let found = compare(&world.store.list().unwrap(), &last).unwrap();
    assert_eq!((found.pairs[0].selection, found.pairs[0].better), ("last", "a"));
    assert_eq!((found.standings[0].backbone.as_str(), found.notes.len()), ("steady", 0));

    // A folder of an early version has no such file; rows of another epoch are not the best's.
    let best = other.join("predictions-best.parquet");
    for damage in [
        &|| fs::copy(other.join("predictions.parquet"), &best).map(drop) as std::io::Result<()>,
        &|| fs::remove_file(&best) as std::io::Result<()>,
    ] as [&dyn Fn() -> std::io::Result<()>; 2]
    {
        damage().unwrap();
        let found = world.compare(&["steady", "late"]).unwrap();
        assert_eq!((found.pairs[0].selection, found.pairs[0].better), ("last", "a"));
        insta::allow_duplicates! {
            insta::assert_snapshot!(found.notes.join("\n"), @"nyuv2/linear: the last epoch is compared, as late has kept no per-image rows of its best epoch");
        }
    }
}

#[test]
fn one_image_and_values_that_are_no_numbers_have_no_interval_and_it_is_said() {
    let world = World::new();
    for (name, worse) in [("one", 0.0), ("other", 0.25)] {
        let mut rows = depth_rows(1);
        rows[0].metrics.as_mut().unwrap().rmse += worse;
        world.put(name, "nyuv2", 0, SampleRows::Depth(rows));
    }
    let found = world.compare(&["one", "other"]).unwrap();
    let line = &found.pairs[0];
    assert_eq!((line.images, line.interval, line.p, line.better), (1, None, 1.0, "tie"));
    let said = |notes: &[String], words: &str| notes.iter().any(|note| note.contains(words));
    assert!(said(&found.notes, "one image has no interval"), "{:?}", found.notes);

    for name in ["broken", "whole"] {
        let mut rows = depth_rows(5);
        if name == "broken" {
            rows[2].metrics.as_mut().unwrap().rmse = f64::NAN;
        }
        world.put(name, "nyuv2", 0, SampleRows::Depth(rows));
    }
    let found = world.compare(&["broken", "whole"]).unwrap();
    let line = &found.pairs[0];
    assert!(line.p.is_nan() && line.p_holm.is_nan() && line.better == "tie", "{line:?}");
    assert_eq!(line.interval, None);
    assert!(found.text(false).contains("NaN"), "{}", found.text(false));
}

#[test]
fn policies_are_compared_episode_by_episode() {
    let world = World::new();
    // The worse backbone loses half of its solved episodes, at every evaluation.
    for (backbone, keeps) in [("good", 1), ("bad", 2), ("alike", 1)] {
        let mut record = policy_record(backbone, "metaworld", 80.0);
        let mut rows = episode_rows(25);
        for row in rows.iter_mut().filter(|row| row.episode % keeps != 0) {
            (row.score, row.success) = (0.0, Some(false));
        }
        record.outcome.metrics = policy_metrics(&rows);
        world.finish(&record, &SampleRows::Policy(rows));
    }
    let found = world.compare(&["good", "bad"]).unwrap();
    insta::assert_snapshot!("policies", found.text(false));
    let line = &found.pairs[0];
    assert_eq!((line.selection, line.images, line.better), ("best-each", 50, "a"));
    assert_eq!(line.value_a, 70.0);
    let last =
        CompareOptions { selection: Some(Selection::Last), ..options(&["good", "bad", "alike"]) };
    let found = compare(&world.store.list().unwrap(), &last).unwrap();
    assert_eq!((found.pairs[0].selection, found.pairs[0].value_a), ("last", 65.0));
    assert!(found.notes.is_empty(), "{:?}", found.notes);
    let ranks: Vec<_> = found.standings.iter().map(|standing| standing.average_rank).collect();
    assert_eq!(ranks, [Some(1.5), Some(1.5), Some(3.0)]);
    let one =
        CompareOptions { metric: Some("score/assembly".to_owned()), ..options(&["good", "alike"]) };
    let found = compare(&world.store.list().unwrap(), &one).unwrap();
    assert_eq!((found.pairs[0].images, found.pairs[0].p), (25, 1.0));
}
