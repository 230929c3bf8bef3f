use std::collections::BTreeSet;

use proptest::prelude::*;
use schema::{EpochRecord, MetricValue};
use tempfile::{TempDir, tempdir};

use super::*;
use crate::fixtures::{dense_record, depth_rows, outcome, plan, prediction_rows, record};
use crate::read_rows;

/// A store, and the folder to keep alive that holds it.
fn store() -> (TempDir, Store) {
    let root = tempdir().unwrap();
    let store = Store::open(&root.path().join("runs")).unwrap();
    (root, store)
}

fn finish(store: &Store, plan: &RunPlan) -> PathBuf {
    let run = store.begin(plan).unwrap();
    run.finish(&outcome(40.0), &knn_rows()).unwrap();
    run.folder().to_owned()
}

fn knn_rows() -> SampleRows {
    SampleRows::Knn(prediction_rows(3))
}

fn files(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// An error's words without the temporary folder's name and without the place in a JSON file,
/// which moves with every new field.
fn told(root: &TempDir, error: &dyn std::fmt::Display) -> String {
    let text = error.to_string().replace(root.path().to_str().unwrap(), "ROOT");
    match text.split_once(" at line ") {
        Some((what, place)) => {
            assert!(place.contains(" column "), "{place}");
            format!("{what} at line L column C")
        }
        None => text,
    }
}

fn key(plan: &RunPlan) -> String {
    plan.key().short().to_owned()
}

#[test]
fn a_finished_run_is_found_again_with_its_rows() {
    let (_root, store) = store();
    let plan = plan("random:pixio-nano");
    assert_eq!(store.finished(&plan).unwrap(), None);
    store.check_writable().unwrap();

    let run = store.begin(&plan).unwrap();
    let named = format!("imagenet1k/knn/random_pixio-nano-{}", key(&plan));
    assert_eq!(run.folder(), store.out().join(named));
    assert_eq!(store.finished(&plan).unwrap(), None);

    let written = run.finish(&outcome(40.0), &knn_rows()).unwrap();
    assert_eq!(store.finished(&plan).unwrap(), Some(written));
    assert_eq!(
        files(run.folder()),
        ["plan.json", "predictions.parquet", "record.json"].map(str::to_owned).into()
    );
    assert_eq!(read_rows(&run.folder().join("predictions.parquet")).unwrap(), knn_rows());
    let again = store.begin(&plan).unwrap_err();
    assert!(matches!(again, StoreError::AlreadyFinished { .. }), "{again}");

    let mut reseeded = plan;
    reseeded.seed = 1;
    assert_eq!(store.finished(&reseeded).unwrap(), None);
}

#[test]
fn the_same_encoder_under_another_name_is_the_same_run() {
    let (_root, store) = store();
    let named = plan("pixio-b");
    let mut folder = named.clone();
    folder.backbone.name = "weights/pixio-b".to_owned();

    let begun = store.begin(&folder).unwrap().folder().to_owned();
    assert_eq!(store.begin(&named).unwrap().folder(), begun);
    finish(&store, &named);
    assert_eq!(store.finished(&folder).unwrap().unwrap().plan.backbone.name, "pixio-b");
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn every_state_of_a_run_is_listed() {
    let (root, store) = store();
    assert!(store.list().unwrap().is_empty());
    let done = finish(&store, &plan("a-done"));
    let begun = store.begin(&plan("b-begun")).unwrap();
    let failed = store.begin(&plan("c-failed")).unwrap();
    failed.fail("the card caught fire\nbadly\n").unwrap();
    // As after a crash between two writes, and after one in the middle of a write.
    fs::write(begun.folder().join("predictions.parquet"), "rows").unwrap();
    fs::write(begun.folder().join(".writing-x1"), "{").unwrap();

    let newer = finish(&store, &plan("d-newer"));
    fs::write(newer.join("record.json"), r#"{"format": 7, "what": "ever"}"#).unwrap();
    let cut = finish(&store, &plan("e-cut"));
    let json = fs::read(cut.join("record.json")).unwrap();
    fs::write(cut.join("record.json"), &json[..json.len() / 2]).unwrap();
    let empty = store.begin(&plan("f-empty")).unwrap();
    fs::remove_file(empty.folder().join("plan.json")).unwrap();
    // Not runs.
    fs::create_dir_all(store.out().join("imagenet1k/knn/notes")).unwrap();
    fs::write(store.out().join("todo.txt"), "").unwrap();

    let told: Vec<String> = (store.list().unwrap().iter())
        .map(|listed| {
            let name = listed.folder.file_name().unwrap().to_str().unwrap();
            let (name, _) = name.rsplit_once('-').unwrap();
            match &listed.status {
                Status::Finished(record) => format!("{name}: finished {}", record.plan.task),
                Status::Unfinished(plan) => format!("{name}: unfinished {}", plan.task),
                Status::Failed(_, message) => format!("{name}: failed {message:?}"),
                Status::NewerFormat { found } => format!("{name}: newer {found}"),
                Status::Unreadable { why } => {
                    format!(
                        "{name}: unreadable {}",
                        told(&root, why).replace(&key(&plan(name)), "KEY")
                    )
                }
            }
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    a-done: finished imagenet1k/knn
    b-begun: unfinished imagenet1k/knn
    c-failed: failed "the card caught fire\nbadly"
    d-newer: newer 7
    e-cut: unreadable ROOT/runs/imagenet1k/knn/e-cut-KEY/record.json cannot be read: EOF while parsing an object at line L column C
    f-empty: unreadable ROOT/runs/imagenet1k/knn/f-empty-KEY holds neither plan.json nor record.json
    "#);
    assert!(files(&done).iter().all(|name| !name.starts_with('.')));
}

#[test]
fn what_training_keeps_in_a_run_folder_is_neither_read_nor_touched() {
    let (_root, store) = store();
    let mut record = dense_record("pixio-b", "nyuv2", "dpt", 0.5);
    record.outcome.curve = vec![
        EpochRecord { epoch: 0, ..EpochRecord::default() },
        EpochRecord {
            epoch: 1,
            loss: Some(0.1 + 0.2),
            skipped_groups: 3,
            metrics: [("rmse".to_owned(), 1.0 / 3.0)].into(),
        },
    ];
    let kept = [
        "best.safetensors",
        "checkpoint-0001.json",
        "checkpoint-0001.safetensors",
        "head.safetensors",
        "pictures",
    ];
    let folder = store.begin(&record.plan).unwrap().folder().to_owned();
    fs::create_dir_all(folder.join("pictures/scene-0123456789ab")).unwrap();
    fs::write(folder.join("pictures/record.json"), "no record").unwrap();
    for name in &kept[..4] {
        fs::write(folder.join(name), "{").unwrap();
    }
    assert_eq!(store.finished(&record.plan).unwrap(), None);
    let listed = store.list().unwrap();
    assert!(matches!(listed.as_slice(), [Listed { status: Status::Unfinished(_), .. }]));

    let run = store.begin(&record.plan).unwrap();
    assert_eq!(run.folder(), folder);
    let rows = SampleRows::Depth(depth_rows(3));
    let written = run.finish(&record.outcome, &rows).unwrap();
    assert_eq!(store.finished(&record.plan).unwrap(), Some(written.clone()));
    assert_eq!(written.outcome, record.outcome);
    assert_eq!(read_rows(&folder.join("predictions.parquet")).unwrap(), rows);
    let listed = store.list().unwrap();
    assert!(matches!(listed.as_slice(), [Listed { status: Status::Finished(_), .. }]));
    let ours = ["plan.json", "predictions.parquet", "record.json"];
    assert_eq!(files(&folder), kept.iter().chain(&ours).map(ToString::to_string).collect());
}

#[test]
fn starting_again_forgets_the_failure_and_keeps_the_folder() {
    let (_root, store) = store();
    let run = store.begin(&plan("pixio-b")).unwrap();
    run.fail("no").unwrap();
    let again = store.begin(&plan("pixio-b")).unwrap();
    assert_eq!(again.folder(), run.folder());
    assert_eq!(files(run.folder()), ["plan.json".to_owned()].into());
}

#[test]
fn a_record_that_cannot_be_used_is_an_error_not_a_rerun() {
    let (root, store) = store();
    let plan = plan("pixio-b");
    let folder = finish(&store, &plan);
    let path = folder.join("record.json");
    let good = fs::read_to_string(&path).unwrap();
    let told = |error| told(&root, &error).replace(&key(&plan), "KEY");

    fs::write(&path, &good[..300]).unwrap();
    insta::assert_snapshot!(told(store.finished(&plan).unwrap_err()), @"ROOT/runs/imagenet1k/knn/pixio-b-KEY/record.json cannot be read: EOF while parsing a value at line L column C");
    fs::write(&path, good.replacen("\"format\": 1", "\"format\": 2", 1)).unwrap();
    insta::assert_snapshot!(told(store.finished(&plan).unwrap_err()), @"ROOT/runs/imagenet1k/knn/pixio-b-KEY/record.json has record format 2, this version reads up to 1: use a newer pixio-eval");
    assert!(matches!(store.begin(&plan), Err(StoreError::NewerFormat { found: 2, .. })));
    fs::write(&path, good.replacen("\"format\": 1", "\"format\": 0", 1)).unwrap();
    insta::assert_snapshot!(told(store.finished(&plan).unwrap_err()), @"ROOT/runs/imagenet1k/knn/pixio-b-KEY/record.json has record format 0, expected 1 to 1");

    // A record of another run under this run's name.
    fs::write(&path, good.replacen("\"seed\": 0", "\"seed\": 1", 1)).unwrap();
    let error = store.finished(&plan).unwrap_err();
    assert!(matches!(error, StoreError::KeyMismatch { .. }), "{error}");
}

#[test]
fn an_unreadable_plan_is_written_again() {
    let (_root, store) = store();
    let plan = plan("pixio-b");
    let folder = store.begin(&plan).unwrap().folder().to_owned();
    fs::write(folder.join("plan.json"), "{\"format\": 1,").unwrap();
    assert_eq!(store.finished(&plan).unwrap(), None);
    finish(&store, &plan);
    assert!(store.finished(&plan).unwrap().is_some());
}

#[test]
fn an_out_folder_that_is_none_is_refused() {
    // A file stands in the way: a read-only folder would not stop a superuser.
    let root = tempdir().unwrap();
    let file = root.path().join("runs");
    fs::write(&file, "").unwrap();
    insta::assert_snapshot!(told(&root, &Store::open(&file).unwrap_err()), @"ROOT/runs is not a folder: the out folder must be one, or not be there yet");
    insta::assert_snapshot!(told(&root, &Store::open(&file.join("deeper")).unwrap_err()), @"ROOT/runs/deeper is not a folder: the out folder must be one, or not be there yet");

    let late = Store::open(&root.path().join("later")).unwrap();
    fs::write(late.out(), "").unwrap();
    insta::assert_snapshot!(told(&root, &late.check_writable().unwrap_err()), @"cannot write to the out folder ROOT/later: File exists (os error 17)");
    let error = late.begin(&plan("pixio-b")).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
}

#[test]
fn a_folder_that_cannot_be_read_is_listed() {
    let (_root, store) = store();
    let folder = finish(&store, &plan("pixio-b"));
    fs::remove_file(folder.join("record.json")).unwrap();
    fs::create_dir(folder.join("record.json")).unwrap();
    let listed = store.list().unwrap();
    assert!(
        matches!(&listed[0].status, Status::Unreadable { why } if why.contains("record.json")),
        "{listed:?}"
    );
}

#[test]
fn the_record_comes_last_and_a_failed_write_leaves_nothing_behind() {
    let (_root, store) = store();
    let run = store.begin(&plan("pixio-b")).unwrap();
    // A folder in the record's place: the rename fails, whoever runs the test.
    fs::create_dir_all(run.folder().join("record.json/in-the-way")).unwrap();
    let error = run.finish(&outcome(40.0), &knn_rows()).unwrap_err();
    assert!(matches!(&error, StoreError::Io { action: "write", .. }), "{error}");
    assert_eq!(
        files(run.folder()),
        ["plan.json", "predictions.parquet", "record.json"].map(str::to_owned).into()
    );

    fs::remove_dir_all(run.folder().join("record.json")).unwrap();
    assert!(matches!(store.list().unwrap()[0].status, Status::Unfinished(_)));
    run.finish(&outcome(40.0), &knn_rows()).unwrap();
    assert!(matches!(store.list().unwrap()[0].status, Status::Finished(_)));
}

#[test]
fn a_number_json_cannot_hold_is_refused_before_it_is_written() {
    let (_root, store) = store();
    let mut hot = plan("pixio-b");
    let schema::Stages::Knn(knn) = &mut hot.protocol.stages else { unreachable!() };
    knn.vote.temperature = f64::NAN;
    let error = store.begin(&hot).unwrap_err();
    assert!(matches!(error, StoreError::NotRepresentable { .. }), "{error}");
}

/// The aim is a table over 5,000 runs in under 3 s on two cores; the bound leaves room for a busy
/// machine. The runs lie in two out folders.
#[test]
fn a_table_over_thousands_of_runs_takes_seconds() {
    let (root, _) = store();
    let outs = ["first", "second"].map(|name| root.path().join(name));
    for i in 0..5000_u64 {
        let (dataset, head) =
            [("nyuv2", "linear"), ("nyuv2", "dpt"), ("ade20k", "linear"), ("ade20k", "dpt")]
                [i as usize % 4];
        let mut record = dense_record(&format!("backbone-{}", i / 4 % 250), dataset, head, 0.5);
        record.plan.seed = i / 1000;
        record.plan.backbone.identity = schema::fingerprint(&(i / 4 % 250));
        let epoch = |epoch| EpochRecord {
            epoch,
            loss: Some(1.0 / epoch as f64),
            skipped_groups: 0,
            metrics: record.outcome.metrics.iter().map(|m| (m.name.clone(), m.value)).collect(),
        };
        record.outcome.curve = (1..=60).map(epoch).collect();
        let name = format!("backbone-{}", record.plan.key().short());
        let folder = outs[i as usize % 2].join(dataset).join(head).join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("record.json"), serde_json::to_vec(&record).unwrap()).unwrap();
    }
    let began = std::time::Instant::now();
    let records: Vec<RunRecord> = (Store::list_all(&outs).unwrap().into_iter())
        .filter_map(|listed| match listed.status {
            Status::Finished(record) => Some(*record),
            _ => None,
        })
        .collect();
    assert_eq!(records.len(), 5000);
    println!("5,000 records: {:.2} s", began.elapsed().as_secs_f64());
    for format in [crate::Format::Text, crate::Format::Csv] {
        let table = crate::render(&records, format, &crate::TableOptions::default()).unwrap();
        assert!(String::from_utf8(table).unwrap().lines().count() > 1000);
        println!("and {format}: {:.2} s", began.elapsed().as_secs_f64());
    }
    let seconds = began.elapsed().as_secs_f64();
    assert!(seconds < 10.0, "{seconds} s");
}

fn hostile_name() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[./\\\\:]{0,12}",
        Just("../../../outside".to_owned()),
        Just("/outside".to_owned()),
        Just("\0".to_owned()),
        "x{250,400}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_names_and_numbers_come_back_and_stay_inside(
        backbone in hostile_name(),
        dataset in hostile_name(),
        head in hostile_name(),
        metrics in proptest::collection::vec((any::<String>(), any::<f64>(), any::<Option<f64>>()), 0..6),
        bits in any::<u64>(),
    ) {
        let (root, store) = store();
        let mut record = record(&backbone, 1.0);
        record.plan.task = schema::TaskHead { dataset, head };
        record.outcome.metrics = metrics
            .into_iter()
            .chain([("bits".to_owned(), f64::from_bits(bits), None)])
            .map(|(name, value, ci_low)| MetricValue {
                name,
                value,
                ci_low,
                ci_high: ci_low,
                selection: Selection::Last,
            })
            .collect();
        let run = store.begin(&record.plan).unwrap();
        run.finish(&record.outcome, &SampleRows::Knn(Vec::new())).unwrap();

        let back = store.finished(&record.plan).unwrap().unwrap();
        prop_assert_eq!(&back.plan, &record.plan);
        prop_assert_eq!(back.outcome.metrics.len(), record.outcome.metrics.len());
        for (back, metric) in back.outcome.metrics.iter().zip(&record.outcome.metrics) {
            prop_assert_eq!(&back.name, &metric.name);
            let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            prop_assert!(same(back.value, metric.value));
            prop_assert_eq!(back.ci_low.is_some(), metric.ci_low.is_some());
            prop_assert!(back.ci_low.zip(metric.ci_low).is_none_or(|(a, b)| same(a, b)));
        }

        prop_assert_eq!(files(root.path()), ["runs".to_owned()].into());
        let inside = run.folder().canonicalize().unwrap();
        let out = store.out().canonicalize().unwrap();
        prop_assert_eq!(inside.strip_prefix(out).unwrap().components().count(), 3);
        prop_assert_eq!(store.list().unwrap().len(), 1);
    }
}

#[test]
fn the_best_epochs_rows_give_its_intervals_and_rows_of_another_epoch_go() {
    let rows = |rmse: f64| {
        let mut rows = depth_rows(20);
        for (i, row) in rows.iter_mut().enumerate() {
            row.metrics.as_mut().unwrap().rmse = rmse + i as f64 / 100.0;
        }
        SampleRows::Depth(rows)
    };
    // rmse of 20 images: the first, and half of the last one's excess.
    let outcome = |record: &RunRecord| {
        let metric = |value, selection| MetricValue {
            name: "rmse".to_owned(),
            value,
            ci_low: None,
            ci_high: None,
            selection,
        };
        let metrics =
            [(0.595, Selection::Last), (0.495, Selection::Best), (0.495, Selection::BestEach)];
        let metrics = metrics.map(|(value, selection)| metric(value, selection)).into();
        Outcome { metrics, ..record.outcome.clone() }
    };
    let (_root, store) = store();
    let record = dense_record("pixio-b", "nyuv2", "dpt", 0.5);
    let run = store.begin(&record.plan).unwrap();
    run.keep_best(&rows(0.6)).unwrap();
    run.keep_best(&rows(0.4)).unwrap();
    let written = run.finish(&outcome(&record), &rows(0.5)).unwrap();
    for metric in &written.outcome.metrics {
        let (low, high) = (metric.ci_low.unwrap(), metric.ci_high.unwrap());
        assert!(low < metric.value && metric.value < high && high - low < 0.1, "{metric:?}");
    }
    assert_eq!(read_rows(&run.folder().join("predictions-best.parquet")).unwrap(), rows(0.4));

    for damage in [true, false] {
        let mut other = record.clone();
        other.plan.seed = if damage { 1 } else { 2 };
        let run = store.begin(&other.plan).unwrap();
        run.keep_best(&rows(0.3)).unwrap();
        let file = run.folder().join("predictions-best.parquet");
        if damage {
            let bytes = fs::read(&file).unwrap();
            fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        }
        let written = run.finish(&outcome(&other), &rows(0.5)).unwrap();
        let with: Vec<_> = written.outcome.metrics.iter().map(|m| m.ci_low.is_some()).collect();
        assert_eq!(with, [true, false, false]);
        let [warning] = written.outcome.warnings.as_slice() else { panic!("{written:?}") };
        let words = if damage { "is not a complete predictions file" } else { "of another epoch" };
        assert!(warning.contains(words), "{warning}");
        assert!(!file.exists());
    }
}
