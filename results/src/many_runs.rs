//! Thousands of runs are read and tabulated in seconds.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use schema::{EpochRecord, RunRecord};

use crate::fixtures::{dense_record, record};
use crate::{Format, Layout, LayoutOptions, Status, Store, TableOptions, render};

const RUNS: u64 = 5000;

/// A k-NN, a depth or a segmentation run (21 classes), the latter with a curve of 60 epochs.
fn synthetic(number: u64) -> RunRecord {
    let backbone = format!("backbone-{}", number % 40);
    let mut made = match number % 3 {
        0 => record(&backbone, 40.0),
        1 => dense_record(&backbone, "nyuv2", "dpt", 0.25 + number as f64 / 1e5),
        _ => dense_record(&backbone, "voc2012", "linear", 60.0 + number as f64 / 1e3),
    };
    made.plan.seed = number / 120;
    if !number.is_multiple_of(3) {
        let mut metrics: BTreeMap<String, f64> = made
            .outcome
            .metrics
            .iter()
            .map(|metric| (metric.name.clone(), metric.value + 0.1))
            .collect();
        if number % 3 == 2 {
            metrics.extend((0..21).map(|class| (format!("iou/{class}"), f64::from(class) / 7.0)));
        }
        let line = |epoch| EpochRecord {
            epoch,
            loss: Some(1.0 / epoch as f64),
            metrics: metrics.clone(),
            ..EpochRecord::default()
        };
        made.outcome.curve = (1..=60).map(line).collect();
    }
    made
}

#[test]
fn five_thousand_runs_make_a_table_in_three_seconds() {
    let root = tempfile::tempdir().unwrap();
    for number in 0..RUNS {
        let made = synthetic(number);
        let task = &made.plan.task;
        let name = format!("run-{}", made.plan.key().short());
        let folder = root.path().join(&task.dataset).join(&task.head).join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("record.json"), serde_json::to_vec_pretty(&made).unwrap()).unwrap();
    }
    let table = |format: Format, layout: Option<&str>| {
        let began = Instant::now();
        let listed = Store::open(root.path()).unwrap().list().unwrap();
        let finished = listed.into_iter().filter_map(|run| match run.status {
            Status::Finished(record) => Some(*record),
            _ => None,
        });
        let records: Vec<RunRecord> = finished.collect();
        assert_eq!(records.len() as u64, RUNS);
        let bytes = match layout {
            None => render(&records, format, &TableOptions::default()).unwrap(),
            Some(name) => Layout::open(name)
                .unwrap()
                .render(&records, LayoutOptions::default(), format)
                .unwrap(),
        };
        assert!(bytes.len() > 50_000);
        began.elapsed()
    };
    for (format, layout) in [
        (Format::Text, None),
        (Format::Markdown, None),
        (Format::Csv, None),
        (Format::Parquet, None),
        (Format::Latex, Some("sizes")),
    ] {
        // Other work on the machine slows single tries.
        let least = Duration::from_secs(3);
        let taken = (0..3).map(|_| table(format, layout)).find(|taken| *taken < least);
        println!("{format} {}: {taken:.2?}", layout.unwrap_or("wide"));
        assert!(taken.is_some(), "{format}");
    }
}
