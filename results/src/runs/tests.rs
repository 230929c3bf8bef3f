use super::*;
use crate::fixtures::{dense_record, plan, policy_record, record};

fn finished(folder: &str, record: RunRecord) -> Listed {
    Listed { folder: folder.into(), status: Status::Finished(Box::new(record)) }
}

fn listed() -> Vec<Listed> {
    let mut later = dense_record("pixio-b", "nyuv2", "dpt", 0.25);
    if let schema::Stages::Dense(dense) = &mut later.plan.protocol.stages {
        dense.training.learning_rate = 3e-4;
        dense.training.epochs = 30;
    }
    later.plan.protocol.name = "pixio+epochs=30".to_owned();
    later.outcome.host.version = "0.2.0".to_owned();
    later.outcome.warnings = vec!["odd \u{1b}[2J".to_owned()];
    let mut first = dense_record("pixio-b", "nyuv2", "dpt", 0.5);
    first.outcome.metrics[5].ci_low = Some(0.6);
    first.outcome.metrics[5].ci_high = Some(0.75);
    vec![
        finished("runs/imagenet1k/knn/pixio-l-0123456789ab", record("pixio-l", 50.0)),
        finished("runs/nyuv2/dpt/pixio-b-0123aaaaaaaa", first),
        finished("runs/nyuv2/dpt/pixio-b-ffffffffffff", later),
        Listed {
            folder: "runs/imagenet1k/knn/pixio-h-aaaaaaaaaaaa".into(),
            status: Status::Failed(Box::new(plan("pixio-h")), "out of memory".to_owned()),
        },
        Listed {
            folder: "runs/imagenet1k/knn/pixio-x-bbbbbbbbbbbb".into(),
            status: Status::NewerFormat { found: 7 },
        },
    ]
}

#[test]
fn filters_choose_runs() {
    let listed = listed();
    let ids = |filter: &RunFilter| -> Vec<String> {
        listed.iter().filter(|run| filter.passes(run)).map(Listed::id).collect()
    };
    let some = |word: &str| vec![word.to_owned()];
    let all = RunFilter::default;
    assert!(all().is_empty() && ids(&all()).len() == 5);
    assert_eq!(ids(&RunFilter { heads: some("dpt"), ..all() }), ["0123aaaaaaaa", "ffffffffffff"]);
    assert_eq!(ids(&RunFilter { backbones: some("pixio-h"), ..all() }), ["aaaaaaaaaaaa"]);
    let data = RunFilter { datasets: some("imagenet1k"), ..all() };
    assert_eq!(ids(&data), ["0123456789ab", "aaaaaaaaaaaa"]);
    assert_eq!(ids(&RunFilter { states: some("failed"), ..data }), ["aaaaaaaaaaaa"]);
    assert_eq!(ids(&RunFilter { states: some("newer-format"), ..all() }), ["bbbbbbbbbbbb"]);
}

#[test]
fn an_id_names_one_run() {
    let listed = listed();
    let find = |id: &str| find_run(&listed, id, "runs").map(Listed::id);
    assert_eq!(find("f").unwrap(), "ffffffffffff");
    assert_eq!(find("0123a").unwrap(), "0123aaaaaaaa");
    assert_eq!(find("runs/nyuv2/dpt/pixio-b-ffffffffffff/").unwrap(), "ffffffffffff");
    insta::assert_snapshot!(find("0123").unwrap_err(), @r#""0123" is the beginning of 2 runs: runs/imagenet1k/knn/pixio-l-0123456789ab, runs/nyuv2/dpt/pixio-b-0123aaaaaaaa"#);
    insta::assert_snapshot!(find("e").unwrap_err(), @r#"there is no run "e" under runs"#);
    assert!(find("").is_err());
}

#[test]
fn two_runs_are_told_apart_by_what_differs() {
    let listed = listed();
    let diff = diff_runs(&listed[1], &listed[2]);
    insta::assert_snapshot!("diff", diff.text());
    let json = serde_json::to_value(&diff).unwrap();
    let keys: Vec<&str> = json["configuration"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["key"].as_str().unwrap())
        .collect();
    assert!(keys.iter().any(|key| key.ends_with("training.learning_rate")), "{keys:?}");
    assert!(!keys.iter().any(|key| key.starts_with("backbone")), "{keys:?}");
    assert_eq!(json["metrics"][5]["difference"], -0.25);
    let same = diff_runs(&listed[1], &listed[1]);
    assert!(same.text().contains("The plans are the same."), "{}", same.text());
    // A run that failed has a plan and no numbers; one of a newer format has neither.
    let other = diff_runs(&listed[1], &listed[3]);
    assert!(other.metrics.is_empty() && !other.configuration.is_empty());
    assert!(diff_runs(&listed[4], &listed[4]).configuration.is_empty());
}

#[test]
fn one_run_in_full() {
    let listed = listed();
    insta::assert_snapshot!("show", show_run(&listed[1]));
    assert!(show_run(&listed[2]).contains("note: odd \u{fffd}[2J"));
    assert!(
        show_run(&listed[3])
            .starts_with("failed: runs/imagenet1k/knn/pixio-h-aaaaaaaaaaaa\n  out of memory\n")
    );
    insta::assert_snapshot!(show_run(&listed[4]), @"
    newer-format: runs/imagenet1k/knn/pixio-x-bbbbbbbbbbbb
      record format 7, this version reads up to 1
    ");
}

#[test]
fn a_run_of_policies_shows_its_tasks() {
    let mut record = policy_record("pixio-b", "metaworld", 80.0);
    (record.outcome.metrics[3].ci_low, record.outcome.metrics[3].ci_high) =
        (Some(62.5), Some(86.0));
    let shown = show_run(&finished("runs/metaworld/policy/pixio-b-0123456789ab", record));
    let from = shown.find("95% interval over episodes").unwrap();
    let outcome: Vec<&str> = shown[from..].lines().skip(1).map(str::trim_end).collect();
    insta::assert_snapshot!(outcome.join("\n"), @r"
    score              last       71.00                           –
    score/drawer-open  last       76.00                           –
    score/assembly     last       66.00                           –
    score              best-each  75.00                 62.50 86.00
    score/drawer-open  best-each  80.00                           –
    score/assembly     best-each  70.00                           –
    ");
}
