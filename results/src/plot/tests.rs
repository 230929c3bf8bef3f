use std::fs;

use proptest::prelude::*;
use schema::{EpochRecord, SampleRows, Stages};

use super::scene::Area;
use super::*;
use crate::fixtures::{
    dense_record, depth_rows, mixed_records, on_sample_data, policy_record, record,
    segmentation_rows, untrained,
};
use crate::write_rows;

/// Runs that lie nowhere, or in folders of their own with per-image rows.
fn runs(records: Vec<RunRecord>) -> Runs {
    let folders = records.iter().map(|_| PathBuf::from("nowhere")).collect();
    Runs { records, folders }
}

fn with_rows(records: Vec<RunRecord>, root: &Path) -> Runs {
    let mut runs = Runs::default();
    for (i, record) in records.into_iter().enumerate() {
        let folder = root.join(i.to_string());
        fs::create_dir_all(&folder).unwrap();
        let rows = match record.plan.task.dataset.as_str() {
            "nyuv2" => {
                let mut rows = depth_rows(40);
                for (at, row) in rows.iter_mut().enumerate() {
                    let metrics = row.metrics.as_mut().unwrap();
                    metrics.rmse = 0.3 + ((at * 7 + i * 3) % 11) as f64 / 10.0;
                }
                SampleRows::Depth(rows)
            }
            "ade20k" => SampleRows::Segmentation(segmentation_rows(30, 2 + i as u64)),
            "metaworld" => SampleRows::Policy(rollouts(1 + i as u32)),
            _ => SampleRows::Knn(crate::fixtures::prediction_rows(20 + i as u32)),
        };
        let mut bytes = Vec::new();
        write_rows(&mut bytes, &rows).unwrap();
        fs::write(folder.join("predictions.parquet"), bytes).unwrap();
        runs.records.push(record);
        runs.folders.push(folder);
    }
    runs
}

fn curved(mut record: RunRecord) -> RunRecord {
    let best = record.outcome.metrics.clone();
    record.outcome.curve = (0..=8)
        .map(|epoch| EpochRecord {
            epoch,
            loss: (epoch > 0).then_some(2.0 / epoch as f64),
            skipped_groups: 0,
            metrics: best
                .iter()
                .map(|m| {
                    (
                        m.name.clone(),
                        if epoch == 4 { f64::NAN } else { m.value + 1.0 / (epoch + 1) as f64 },
                    )
                })
                .collect(),
        })
        .collect();
    record
}

/// Seven evaluations of two tasks and three seeds, better later.
fn rollouts(more: u32) -> Vec<schema::EpisodeRow> {
    let mut rows = Vec::new();
    for (at, task) in ["drawer-open", "assembly"].into_iter().enumerate() {
        for (seed, epoch) in
            [100, 200, 300].into_iter().flat_map(|seed| (1..8).map(move |e| (seed, e)))
        {
            rows.extend((0..10).map(|episode| schema::EpisodeRow {
                task: task.to_owned(),
                seed,
                epoch: epoch * 5 + 1,
                episode,
                score: if episode * 4 < epoch * (6 - at as u32) + more + seed as u32 / 100 {
                    100.0
                } else {
                    0.0
                },
                reward: 1.0,
                success: None,
                steps: 500,
            }));
        }
    }
    rows
}

/// Policies of two backbones, their curves and their rollouts.
fn cloned() -> Vec<RunRecord> {
    let run = |(name, more): (&str, u32)| {
        let mut record = policy_record(name, "metaworld", 80.0);
        record.outcome.metrics = crate::fixtures::policy_metrics(&rollouts(more));
        record.outcome.curve = (0..8)
            .map(|at| EpochRecord {
                epoch: if at == 0 { 1 } else { at * 5 + 1 },
                loss: Some(1.0 / (at + 1) as f64),
                metrics: match at {
                    0 => Default::default(),
                    _ => [("score".to_owned(), 10.0 * at as f64 + more as f64)].into(),
                },
                ..EpochRecord::default()
            })
            .collect();
        record
    };
    told_apart([("pixio-b", 1), ("pixio-l", 2)].map(run).into())
}

/// Every backbone an identity and a size of its own, intervals around everything.
fn told_apart(mut records: Vec<RunRecord>) -> Vec<RunRecord> {
    for record in &mut records {
        let backbone = &mut record.plan.backbone;
        backbone.identity = schema::fingerprint(&backbone.name);
        backbone.parameters = 20_000_000 + 7_000_000 * backbone.name.len() as u64;
        record.outcome.images_per_second = Some(500.0 / backbone.name.len() as f64);
        for metric in &mut record.outcome.metrics {
            metric.ci_low = Some(metric.value * 0.97);
            metric.ci_high = Some(metric.value * 1.02);
        }
    }
    records
}

fn mixed() -> Vec<RunRecord> {
    let mut records = mixed_records();
    records.push(dense_record(
        "a backbone with a name that is longer than most",
        "nyuv2",
        "dpt",
        0.33,
    ));
    records.push(untrained(dense_record("random:pixio-b", "nyuv2", "linear", f64::NAN)));
    records.push(on_sample_data(untrained(dense_record("random:pixio-nano", "nyuv2", "dpt", 2.0))));
    told_apart(
        records
            .into_iter()
            .map(|r| if r.plan.task.head == "knn" { r } else { curved(r) })
            .collect(),
    )
}

/// Depth with the linear head on several blocks and learning rates.
fn sweep() -> Vec<RunRecord> {
    let mut records = Vec::new();
    for backbone in ["pixio-b", "mae-b"] {
        for block in [2_usize, 5, 8, 11] {
            for rate in [1e-5, 1e-4, 1e-3] {
                let by_rate = (rate * 1e4_f64).log10();
                let by_backbone = if backbone == "mae-b" { 0.04 } else { 0.0 };
                let value = 0.3
                    + (11 - block) as f64 / 20.0
                    + by_rate * by_rate / 9.0
                    + by_rate / 30.0
                    + by_backbone;
                let mut record = dense_record(backbone, "nyuv2", "linear", value);
                record.plan.protocol.name = format!("pixio+block={block}+lr={rate}");
                if let Stages::Dense(dense) = &mut record.plan.protocol.stages {
                    dense.feature.blocks = vec![block];
                    dense.training.learning_rate = rate;
                }
                record.plan.protocol_fingerprint = record.plan.protocol.fingerprint();
                records.push(record);
            }
        }
    }
    told_apart(records)
}

fn at(width: Width) -> PlotOptions {
    PlotOptions { width, ..PlotOptions::default() }
}

/// Every label inside the figure, and none on another.
fn check(plot: &Plot) -> Result<(), String> {
    let whole = Area { x0: 0.0, y0: 0.0, x1: plot.scene.width, y1: plot.scene.height };
    let texts: Vec<_> = plot.scene.texts().collect();
    if texts.is_empty() {
        return Err("no label at all".to_owned());
    }
    for (i, text) in texts.iter().enumerate() {
        let area = text.area();
        let measured = plot.fonts.face(text.bold).width(&text.text, text.size);
        if (measured - text.width).abs() > 1e-3 {
            return Err(format!("{:?} is {measured} wide, said {}", text.text, text.width));
        }
        if !area.inside(&whole) {
            return Err(format!("{:?} at {area:?} leaves {whole:?}", text.text));
        }
        if let Some(other) = texts[..i].iter().find(|other| other.area().overlaps(&area)) {
            return Err(format!("{:?} covers {:?}", text.text, other.text));
        }
    }
    Ok(())
}

#[test]
fn golden_figures() {
    let root = tempfile::tempdir().unwrap();
    let (mixed, sweep) = (with_rows(mixed(), root.path()), runs(sweep()));
    let cloned = with_rows(cloned(), &root.path().join("policies"));
    let only = |head: &str| PlotOptions {
        runs: TableOptions { heads: vec![head.to_owned()], ..TableOptions::default() },
        ..PlotOptions::default()
    };
    let rate = PlotOptions {
        x: Some("learning_rate".to_owned()),
        y: Some("block".to_owned()),
        ..PlotOptions::default()
    };
    for (name, runs, kind, options) in [
        ("bars", &mixed, Kind::Bars, at(Width::Double)),
        ("blocks", &sweep, Kind::Blocks, at(Width::Single)),
        (
            "setting_line",
            &mixed,
            Kind::Setting,
            PlotOptions { x: Some("k".to_owned()), ..only("knn") },
        ),
        ("setting_map", &sweep, Kind::Setting, rate),
        ("pareto", &mixed, Kind::Pareto, at(Width::Double)),
        ("curves", &mixed, Kind::Curves, only("dpt")),
        ("policies", &cloned, Kind::Curves, at(Width::Double)),
        ("classes", &mixed, Kind::Classes, at(Width::Single)),
        ("errors", &mixed, Kind::Errors, at(Width::Double)),
        ("wins", &mixed, Kind::Wins, at(Width::Single)),
    ] {
        let plot = plot(runs, kind, &options).unwrap();
        check(&plot).unwrap_or_else(|why| panic!("{name}: {why}"));
        let svg = plot.svg().unwrap();
        insta::assert_snapshot!(name, svg);
        // The same data, the same bytes, in every format.
        let again = super::plot(runs, kind, &options).unwrap();
        assert_eq!(again.svg().unwrap(), svg);
        let (png, pdf) = (plot.png().unwrap(), plot.pdf().unwrap());
        assert!(png.starts_with(b"\x89PNG") && pdf.starts_with(b"%PDF"), "{name}");
        if name == "bars" || name == "wins" {
            assert!(again.png().unwrap() == png);
            assert!(again.pdf().unwrap() == pdf, "two PDFs differ");
        }
        if let Some(folder) = std::env::var_os("PIXIO_EVAL_PLOTS") {
            let folder = PathBuf::from(folder);
            fs::write(folder.join(format!("{name}.svg")), &svg).unwrap();
            fs::write(folder.join(format!("{name}.png")), png).unwrap();
            fs::write(folder.join(format!("{name}.pdf")), pdf).unwrap();
        }
    }
}

#[test]
fn the_order_of_the_runs_does_not_matter() {
    let mut turned = mixed();
    turned.reverse();
    for kind in [Kind::Bars, Kind::Pareto, Kind::Curves, Kind::Classes] {
        let svg = |records| plot(&runs(records), kind, &at(Width::Double)).unwrap().svg().unwrap();
        assert_eq!(svg(mixed()), svg(turned.clone()), "{kind:?}");
    }
}

#[test]
fn what_cannot_be_plotted_says_why() {
    let told = |records: Vec<RunRecord>, kind, options: &PlotOptions| {
        plot(&runs(records), kind, options).err().unwrap().to_string()
    };
    let none = PlotOptions::default();
    insta::assert_snapshot!(told(Vec::new(), Kind::Bars, &none), @"there is no finished run to show; `pixio-eval all --sample` makes one");
    insta::assert_snapshot!(told(mixed_records(), Kind::Blocks, &none), @"no backbone has runs that differ in block (it is 12): one point makes no plot");
    insta::assert_snapshot!(told(vec![record("pixio-b", 40.0)], Kind::Curves, &none), @"curves has nothing to plot: no chosen run trained a head for an epoch or more");
    insta::assert_snapshot!(told(vec![record("pixio-b", 40.0)], Kind::Classes, &none), @"classes has nothing to plot: no chosen run is of a segmentation task");
    insta::assert_snapshot!(told(sweep(), Kind::Setting, &PlotOptions { x: Some("lr".to_owned()), ..none.clone() }), @"no chosen run has the setting `lr`; runs differ in: block, training.learning_rate");
    insta::assert_snapshot!(told(mixed_records(), Kind::Setting, &none), @"the runs differ in nothing: which is the axis?");
    let nan = || vec![dense_record("pixio-b", "nyuv2", "dpt", f64::NAN)];
    insta::assert_snapshot!(told(nan(), Kind::Pareto, &none), @"pareto has nothing to plot: no chosen run has a finite value of the metric");
    insta::assert_snapshot!(told(vec![record("pixio-b", 40.0)], Kind::Pareto, &none), @"pareto has nothing to plot: one backbone is one point: a front takes two or more of one task");
    let metric = PlotOptions { metric: Some("miou".to_owned()), ..none.clone() };
    insta::assert_snapshot!(told(nan(), Kind::Bars, &metric), @"no finished run has metric `miou`; there are: delta1, delta2, delta3, abs_rel, sq_rel, rmse, rmse_log, log10, silog");
    insta::assert_snapshot!(told(nan(), Kind::Errors, &none), @"errors has nothing to plot: per-image values of depth and segmentation are needed (a k-NN vote is right or wrong); left out: cannot read nowhere/predictions.parquet: No such file or directory (os error 2)");
    insta::assert_snapshot!(told(nan(), Kind::Wins, &none), @"wins has nothing to plot: no two backbones have per-image values of the same task, protocol, seed and data; left out: cannot read nowhere/predictions.parquet: No such file or directory (os error 2)");
    // A value that is no number is shown as such where there is a place for it.
    let svg = plot(&runs(nan()), Kind::Bars, &none).unwrap().svg().unwrap();
    assert!(svg.contains(">NaN<"), "{svg}");
}

#[test]
fn one_task_of_policies_is_drawn_alone() {
    let root = tempfile::tempdir().unwrap();
    let cloned = with_rows(cloned(), root.path());
    let svg = |metric: Option<&str>, kind| {
        let options = PlotOptions { metric: metric.map(str::to_owned), ..at(Width::Double) };
        plot(&cloned, kind, &options).unwrap().svg().unwrap()
    };
    let all = svg(None, Kind::Curves);
    assert!(all.contains(">assembly<") && all.matches("fill-opacity").count() == 4, "{all}");
    let one = svg(Some("score/drawer-open"), Kind::Curves);
    assert!(!one.contains(">assembly<") && one.matches("fill-opacity").count() == 2, "{one}");
    // The other kinds take policies as they take images.
    for kind in [Kind::Bars, Kind::Errors, Kind::Wins] {
        assert!(svg(None, kind).contains("metaworld"), "{kind:?}");
        assert!(svg(None, kind).to_lowercase().contains("episodes"), "{kind:?}");
    }
}

#[test]
fn more_backbones_than_looks_have_their_front_all_the_same() {
    let records = (0..60_usize).map(|i| {
        let mut record =
            record(&format!("backbone-{i}"), [50.0, 20.0, 30.0][i % 3] + i as f64 / 9.0);
        record.plan.backbone.parameters = 1_000_000 * (i as u64 + 1);
        record
    });
    let runs = runs(records.collect());
    let svg = plot(&runs, Kind::Pareto, &at(Width::Single)).unwrap().svg().unwrap();
    // Every third is on the front and named; the others are grey circles.
    assert_eq!(svg.matches(">backbone-").count(), 20);
    assert!(svg.contains(">backbone-57<") && !svg.contains(">backbone-58<"));
    assert!(svg.contains("on no front"));
    let curves = runs.records.iter().cloned().map(curved).collect();
    let svg = plot(&self::runs(curves), Kind::Curves, &at(Width::Single)).unwrap().svg().unwrap();
    assert!(svg.contains("40 of 60 backbones"), "{svg}");
}

#[test]
fn names_are_no_markup() {
    let hostile = "</text><script>alert(1)</script>&\u{1b}\"'";
    let records = told_apart(vec![record(hostile, 40.0), record("b", 30.0)]);
    for kind in [Kind::Bars, Kind::Pareto] {
        let plot = plot(&runs(records.clone()), kind, &at(Width::Double)).unwrap();
        let svg = plot.svg().unwrap();
        assert!(!svg.contains("<script") && !svg.contains('\u{1b}'), "{svg}");
        assert!(plot.pdf().is_ok());
    }
}

fn backbone() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,6}-[bl]", "[a-zA-Z0-9/_.@:-]{1,90}", "([a-z]{1,8} ){1,12}", "\\PC{1,30}",]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_label_is_clipped_or_covered(
        names in proptest::collection::btree_set(backbone(), 1..=40),
        value in 0.01..90.0_f64,
        spread in prop_oneof![Just(0.0), Just(1e-7), 0.01..9.0_f64],
        double in any::<bool>(),
    ) {
        let mut records = Vec::new();
        for (i, name) in names.iter().enumerate() {
            let first = value + spread * i as f64;
            records.push(record(name, first));
            records.push(curved(dense_record(name, "nyuv2", "linear", first)));
            records.push(curved(dense_record(name, "nyuv2", "dpt", first / 3.0)));
            records.push(dense_record(name, "ade20k", "dpt", first));
        }
        let records = told_apart(records);
        let width = if double { Width::Double } else { Width::Single };
        for kind in [Kind::Bars, Kind::Pareto, Kind::Curves, Kind::Classes, Kind::Setting] {
            let x = (kind == Kind::Setting).then(|| "k".to_owned());
            let heads = if kind == Kind::Setting { vec!["knn".to_owned()] } else { Vec::new() };
            let runs_of = TableOptions { heads, ..TableOptions::default() };
            let options = PlotOptions { x, runs: runs_of, ..at(width) };
            let plot = plot(&runs(records.clone()), kind, &options);
            if names.len() == 1 && kind == Kind::Pareto {
                prop_assert!(plot.is_err(), "a front of one");
                continue;
            }
            let plot = plot.unwrap();
            if let Err(why) = check(&plot) {
                prop_assert!(false, "{kind:?}, {} backbones: {why}", names.len());
            }
        }
    }

    #[test]
    fn matrices_have_room_for_their_labels(
        names in proptest::collection::btree_set(backbone(), 2..=40),
        columns in 1..40_usize,
        double in any::<bool>(),
    ) {
        let matrix = matrix::Matrix {
            title: "a matrix".to_owned(),
            below: names.iter().take(2).cloned().collect(),
            rows: names.iter().cloned().collect(),
            columns: (1..=columns).map(|i| i.to_string()).collect(),
            cells: (0..names.len()).map(|i| (0..columns).map(|j| Some((i * 7 + j) as f64)).collect()).collect(),
            ends: (0.0, 100.0),
            number: |value| format!("{value:.0}"),
        };
        let figure = Figure {
            title: String::new(),
            panels: vec![figure::Panel::Matrix(matrix)],
            columns: 1,
            legend: Vec::new(),
            key: figure::Key::Bar,
            notes: names.iter().take(3).cloned().collect(),
        };
        let fonts = Fonts::load().unwrap();
        let width = if double { Width::Double } else { Width::Single };
        let scene = figure.layout(&fonts, width.points(), double);
        if let Err(why) = check(&Plot { scene, fonts }) {
            prop_assert!(false, "{why}");
        }
    }
}
