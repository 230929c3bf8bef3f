use super::*;
use crate::Format;
use crate::fixtures::{
    dense_record, on_sample_data, policy_record, record, records, untrained, without_epochs,
};

fn one_section(records: &[RunRecord]) -> Section {
    let mut sections = sections(&records.iter().collect::<Vec<_>>(), Layout::Backbones);
    assert_eq!(sections.len(), 1);
    sections.remove(0)
}

fn ranks(section: &Section) -> Vec<(&str, Rank)> {
    let first = |row: &Row| row.cells[0].as_ref().unwrap().rank;
    section.rows.iter().map(|row| (row.backbone.as_str(), first(row))).collect()
}

#[test]
fn sample_runs_have_a_section_of_their_own() {
    let records = records();
    let sections = sections(&records.iter().collect::<Vec<_>>(), Layout::Backbones);
    let rows = |s: &Section| s.rows.iter().map(|r| r.backbone.clone()).collect::<Vec<_>>();
    assert_eq!(rows(&sections[0]), ["pixio-b", "pixio-l", "random:pixio-nano (untrained)"]);
    assert_eq!(rows(&sections[1]), ["random:pixio-nano (untrained)"]);
    assert_eq!((sections[0].sample, sections[1].sample), (false, true));
}

#[test]
fn only_trained_rows_of_one_protocol_and_data_set_are_ranked() {
    let mut short = record("pixio-h", 99.0);
    short.plan.protocol.name = "pixio+limit=100".to_owned();
    let mut elsewhere = record("pixio-own", 98.0);
    elsewhere.plan.data.fingerprint = Fingerprint("e".repeat(64));
    let section = one_section(&[
        record("pixio-b", 40.0),
        record("pixio-l", 50.0),
        record("pixio-s", 30.0),
        untrained(record("random:pixio-l", 90.0)),
        record("pixio-broken", f64::NAN),
        short,
        elsewhere,
    ]);
    assert_eq!(
        ranks(&section),
        [
            ("pixio-b", Rank::Second),
            ("pixio-broken", Rank::Unranked),
            ("pixio-l", Rank::First),
            ("pixio-own", Rank::Unranked),
            ("pixio-s", Rank::Unranked),
            ("random:pixio-l (untrained)", Rank::Unranked),
            ("pixio-h", Rank::Unranked),
        ]
    );
    assert_eq!(section.notes, ["departs from the protocol pixio: limit=100"]);
}

#[test]
fn values_that_look_alike_share_a_place() {
    let close = [record("a", 40.001), record("b", 40.002), record("c", 39.0)];
    let section = one_section(&close);
    assert_eq!(ranks(&section), [("a", Rank::First), ("b", Rank::First), ("c", Rank::Second)]);
    assert_eq!(ranks(&one_section(&close[..2]))[0].1, Rank::Unranked);
    assert!(!one_section(&close[..1]).ranked());
}

#[test]
fn tasks_of_one_backbone_share_a_row_and_variants_of_one_run_do_not() {
    let mut other_task = record("pixio-b", 60.0);
    other_task.plan.task.dataset = "another".to_owned();
    let mut half = record("pixio-b", 39.0);
    half.plan.protocol_fingerprint = Fingerprint("b".repeat(64));
    let section = one_section(&[record("pixio-b", 40.0), other_task.clone()]);
    assert_eq!((section.rows.len(), section.notes.len()), (1, 0));
    assert_eq!(section.rows[0].cells.iter().flatten().count(), 16);

    let section = one_section(&[record("pixio-b", 40.0), half, other_task]);
    assert_eq!(section.rows.len(), 2);
    assert_eq!(section.notes.len(), 2);
    assert!(
        section.notes.iter().any(|n| n.contains("protocol bbbbbbbbbbbb")),
        "{:?}",
        section.notes
    );
}

#[test]
fn lists_of_k_are_joined_in_ascending_order() {
    let mut few = record("pixio-l", 50.0);
    for (metric, name) in few.outcome.metrics.iter_mut().zip(["top1@5", "top5@5", "top1@50"]) {
        metric.name = name.to_owned();
    }
    few.outcome.metrics.truncate(3);
    let section = one_section(&[record("pixio-b", 40.0), few]);
    let names: Vec<_> = section.columns().map(|(_, metric)| metric).collect();
    assert_eq!(names[..5], ["top1@5", "top5@5", "top1@10", "top5@10", "top1@20"]);
    assert_eq!(section.rows[1].cells.iter().flatten().count(), 3);
}

#[test]
fn what_a_reader_must_know_is_a_footnote() {
    let mut odd = on_sample_data(record("pixio-b", 40.0));
    odd.outcome.skipped_images = vec!["a.png".to_owned(), "b.png".to_owned()];
    odd.outcome.warnings = vec!["one class has no image".to_owned()];
    odd.plan.head_weights = Some(Fingerprint("f".repeat(64)));
    odd.plan.data.splits.get_mut("val").unwrap().published = Some(50_000);
    insta::assert_snapshot!(one_section(&[odd]).notes.join("\n"), @r"
    imagenet1k/knn: val has 40 samples, published 50000
    imagenet1k/knn: head file ffffffffffff
    imagenet1k/knn: 2 unreadable images left out
    imagenet1k/knn: one class has no image
    ");
}

#[test]
fn footnotes_are_lettered_beyond_z() {
    assert_eq!([0, 25, 26, 27, 701, 702].map(letter), ["a", "z", "aa", "ab", "zz", "aaa"]);
}

/// The record with the metrics of one selection, as [`super::super::render`] gives it.
fn at(selection: Selection, mut record: RunRecord) -> RunRecord {
    record.outcome.metrics.retain(|metric| metric.selection == selection);
    record
}

#[test]
fn a_smaller_error_is_the_better_one_and_heads_are_not_compared() {
    let dpt = |backbone, rmse| at(Selection::Best, dense_record(backbone, "nyuv2", "dpt", rmse));
    let linear = at(Selection::Best, dense_record("pixio-b", "nyuv2", "linear", 0.1));
    let records = [linear, dpt("pixio-b", 0.5), dpt("pixio-l", 0.4), dpt("pixio-h", 0.3)];
    let sections = sections(&records.iter().collect::<Vec<_>>(), Layout::Heads);
    let section = &sections[0];
    let (rmse, _) =
        section.columns().enumerate().find(|(_, (_, metric))| *metric == "rmse").unwrap();
    let ranks: Vec<_> = section
        .rows
        .iter()
        .map(|row| {
            let cell = row.cells[rmse].as_ref().unwrap();
            (row.backbone.as_str(), row.head.as_str(), cell.text.as_str(), cell.rank)
        })
        .collect();
    assert_eq!(
        ranks,
        [
            ("pixio-b", "dpt", "0.500", Rank::Unranked),
            ("pixio-b", "linear", "0.100", Rank::Unranked),
            ("pixio-h", "dpt", "0.300", Rank::First),
            ("pixio-l", "dpt", "0.400", Rank::Second),
        ]
    );
}

#[test]
fn the_caption_tells_the_selection_and_a_footnote_the_odd_one() {
    let depth = dense_record("pixio-b", "nyuv2", "dpt", 0.5);
    let masks = dense_record("pixio-b", "ade20k", "dpt", 40.0);
    let told = |records: &[RunRecord]| {
        let section = one_section(records);
        (section.selection.unwrap_or_default(), section.notes)
    };
    for (selection, caption) in [
        (Selection::Best, "selection best: epoch chosen by miou/rmse"),
        (Selection::BestEach, "selection best-each: each metric at its own best epoch"),
        (Selection::Last, "selection last: the last epoch"),
    ] {
        let records = [at(selection, depth.clone()), at(selection, masks.clone())];
        assert_eq!(told(&records), (caption.to_owned(), Vec::new()));
    }
    assert_eq!(told(&[record("pixio-b", 40.0)]), Default::default());

    let odd = [at(Selection::Best, depth), without_epochs(masks), record("pixio-b", 40.0)];
    let (caption, notes) = told(&odd);
    assert_eq!(caption, "selection best: epoch chosen by rmse");
    assert_eq!(
        notes,
        ["departs from the protocol pixio: epochs=0", "ade20k/dpt: selection last: the last epoch",]
    );
}

/// Behind values where they are asked for and there; ranks go by the values alone.
#[test]
fn intervals_stand_behind_values() {
    let mut with = dense_record("pixio-b", "nyuv2", "dpt", 0.5);
    for metric in &mut with.outcome.metrics {
        (metric.ci_low, metric.ci_high) = (Some(metric.value - 0.012), Some(metric.value + 0.02));
    }
    let records = [with, dense_record("pixio-l", "nyuv2", "dpt", 0.25)];
    let rendered = |intervals| {
        let options = crate::TableOptions { intervals, ..crate::TableOptions::default() };
        let formats = [Format::Text, Format::Markdown, Format::Latex, Format::Html].map(|format| {
            String::from_utf8(crate::render(&records, format, &options).unwrap()).unwrap()
        });
        formats.join("\n")
    };
    let text = rendered(true);
    assert!(!rendered(false).contains("0.488") && text.contains("0.488"));
    insta::assert_snapshot!("wide_with_intervals", text);
}

#[test]
fn policies_have_a_caption_and_footnotes_of_their_own() {
    let mut record = policy_record("pixio-b", "metaworld", 80.0);
    record.plan.protocol.name = "cortexbench-made".to_owned();
    let last = record.outcome.metrics.len() / 2;
    for metric in &mut record.outcome.metrics[last..] {
        (metric.ci_low, metric.ci_high) = (Some(60.0), Some(85.0));
    }
    let text = |records: &[RunRecord]| {
        let options = crate::TableOptions { intervals: true, ..crate::TableOptions::default() };
        String::from_utf8(crate::render(records, Format::Text, &options).unwrap()).unwrap()
    };
    insta::assert_snapshot!(text(&[record]), @r"
    metaworld/policy
    ┌─────────────┬────────────────┐
    │ backbone    ┆          score │
    ╞═════════════╪════════════════╡
    │ pixio-b [a] ┆          75.00 │
    │             ┆ [60.00, 85.00] │
    └─────────────┴────────────────┘
    protocol cortexbench-made, seed 0. Values in %, higher is better. selection best-each: each policy
    at its best evaluation. In square brackets: 95% interval over episodes of the evaluation shown,
    whose choice is not in it.
    [a] metaworld/policy: cloned from generated demonstrations, not from the published ones; not
    comparable with published figures
    ");
}
