use polars::prelude::{ParquetReader, SerReader};

use super::*;
use crate::fixtures::{dense_record, mixed_records, on_sample_data, policy_record, untrained};

fn render(name: &str, records: &[RunRecord], published: bool, format: Format) -> String {
    let options = LayoutOptions { published, ..LayoutOptions::default() };
    shown(&Layout::open(name).unwrap(), records, options, format)
}

fn shown(layout: &Layout, records: &[RunRecord], options: LayoutOptions, format: Format) -> String {
    String::from_utf8(layout.render(records, options, format).unwrap()).unwrap()
}

/// The paper's Tables 1, 4, 5, 8, 11 and 12 from the published figures alone.
#[test]
fn the_tables_of_the_paper() {
    for name in ["depth", "segmentation", "cortexbench", "sizes", "blocks"] {
        insta::assert_snapshot!(format!("{name}_md"), render(name, &[], true, Format::Markdown));
        insta::assert_snapshot!(format!("{name}_latex"), render(name, &[], true, Format::Latex));
    }
    assert!(render("ablation", &[], true, Format::Text).lines().count() > 40);
}

/// Every published figure of a layout's tables is a cell of it, and every cell is one of them.
#[test]
fn each_published_figure_is_in_its_row() {
    let csv = include_str!("../../reference/pixio_paper.csv");
    for (name, tables) in [
        ("depth", &["1"][..]),
        ("segmentation", &["4"]),
        ("cortexbench", &["5"]),
        ("sizes", &["8"]),
        ("blocks", &["11", "12"]),
        ("ablation", &["6", "7", "13", "14", "15"]),
    ] {
        let mut expected: Vec<(String, String)> = Vec::new();
        for line in csv.lines().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            if tables.contains(&fields[0]) {
                let value: f64 = fields[7].parse().unwrap();
                expected.push((fields[1].to_owned(), value.to_string()));
            }
        }
        let mut found = Vec::new();
        for line in render(name, &[], true, Format::Html).lines() {
            let Some((_, row)) = line.split_once("<th scope=\"row\">") else { continue };
            let (backbone, cells) = row.split_once("</th>").unwrap();
            let plain = ["<b>", "</b>", "<u>", "</u>", "</tr>"];
            let cells = plain.iter().fold(cells.to_owned(), |text, tag| text.replace(tag, ""));
            for cell in cells.split("<td>").skip(3) {
                if let Ok(value) = cell.trim_end_matches("</td>").parse::<f64>() {
                    found.push((backbone.to_owned(), value.to_string()));
                }
            }
        }
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn our_runs_stand_below_with_the_difference_and_what_departs() {
    let mut records = mixed_records();
    let mut ours = dense_record("pixio-h", "nyuv2", "dpt", 0.27);
    ours.plan.backbone.blocks = 32;
    records.push(ours);
    let mut cut = dense_record("pixio-b", "nyuv2", "linear", 0.01);
    cut.plan.protocol.name = "pixio+limit=100".to_owned();
    records.push(cut);
    records.push(untrained(dense_record("random:pixio-b", "nyuv2", "dpt", 0.001)));
    records.push(on_sample_data(dense_record("pixio-b", "nyuv2", "dpt", 0.001)));
    for (format, name) in
        [(Format::Text, "text"), (Format::Markdown, "md"), (Format::Latex, "latex")]
    {
        insta::assert_snapshot!(format!("ours_{name}"), render("depth", &records, true, format));
    }
    let alone = render("depth", &records, false, Format::Html);
    assert!(!alone.contains("MAE-H") && alone.matches("<table>").count() == 2, "{alone}");
}

#[test]
fn a_layout_of_ones_own() {
    let layout: Layout = r#"
        caption = "Two & <three>"
        backbones = ["pixio-l", "pixio-b"]
        [[column]]
        heading = "k-NN"
        dataset = "imagenet1k"
        head = "knn"
        metric = "top1@20"
        decimals = 2
    "#
    .parse()
    .unwrap();
    let mut records = mixed_records();
    records[0].outcome.warnings = vec!["=cmd|<b>".to_owned()];
    let html = shown(&layout, &records, LayoutOptions::default(), Format::Html);
    insta::assert_snapshot!("own_html", html);
}

#[test]
fn what_is_no_layout_is_said() {
    let told = |text: &str| text.parse::<Layout>().unwrap_err().to_string();
    insta::assert_snapshot!(told("caption = 'x'\ncolumn = []"), @"the layout has no [[column]]");
    assert!(told("caption = 'x'\ncolour = 1\ncolumn = []").contains("unknown field `colour`"));
    let unknown = Layout::open("tables").unwrap_err();
    insta::assert_snapshot!(unknown, @"there is no layout `tables` and no such file; there are wide, depth, segmentation, cortexbench, sizes, blocks and ablation");
    let metric = "caption = 'x'\n[[column]]\nheading = 'x'\ndataset = 'nyuv2'\nhead = 'dpt'\nmetric = 'rsme'\ndecimals = 1";
    insta::assert_snapshot!(told(metric), @r#"the layout has a column of the metric "rsme"; there are top1 and top5 (or top1@K), delta1 to delta3, abs_rel, sq_rel, rmse, rmse_log, log10, silog, miou, pixel_acc, iou/CLASS and score"#);
    let layout = Layout::open("depth").unwrap();
    let empty = layout.render(&[], LayoutOptions::default(), Format::Text).unwrap_err();
    insta::assert_snapshot!(empty, @"no finished run has a cell of this layout; --published shows the paper's figures");
    for (name, _) in BUILTIN {
        Layout::open(name).unwrap();
    }
}

/// Every figure of the paper stands in the LaTeX and the Markdown table with the digits of its
/// column, in the row of its backbone, and nothing else does.
#[test]
fn latex_and_markdown_have_the_papers_cells() {
    let csv = include_str!("../../reference/pixio_paper.csv");
    for (name, tables) in [
        ("depth", &["1"][..]),
        ("segmentation", &["4"]),
        ("cortexbench", &["5"]),
        ("sizes", &["8"]),
        ("blocks", &["11", "12"]),
    ] {
        let layout = Layout::open(name).unwrap();
        // By table, in the order of the paper: a backbone and its cells, column by column.
        let mut expected: Vec<(&str, &str, Vec<String>)> = Vec::new();
        for line in csv.lines().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            let [table, backbone, .., dataset, head, metric, value] = fields[..] else { panic!() };
            if !tables.contains(&table) {
                continue;
            }
            if expected.last().is_none_or(|row| (row.0, row.1) != (table, backbone)) {
                expected.push((table, backbone, vec!["none".to_owned(); layout.columns.len()]));
            }
            let is =
                |c: &LayoutColumn| (&*c.dataset, &*c.head, &*c.metric) == (dataset, head, metric);
            let column = layout.columns.iter().position(is).unwrap();
            let value: f64 = value.parse().unwrap();
            expected.last_mut().unwrap().2[column] =
                format!("{value:.*}", layout.columns[column].decimals);
        }
        assert!(expected.len() >= 5, "{name}");
        for (format, split, none) in [(Format::Latex, " & ", "--"), (Format::Markdown, " | ", "–")]
        {
            let found: Vec<(String, Vec<String>)> = (render(name, &[], true, format).lines())
                .filter_map(|line| {
                    let line = line.trim_start_matches("| ").trim_end_matches([' ', '|', '\\']);
                    let cells: Vec<String> = line.split(split).map(plain).collect();
                    let parameters = cells.get(2).is_some_and(|cell| cell.ends_with('M'));
                    parameters.then(|| (cells[0].clone(), cells[3..].to_vec()))
                })
                .collect();
            let expected: Vec<(String, Vec<String>)> = (expected.iter())
                .map(|(_, backbone, cells)| {
                    let cell = |cell: &String| cell.replace("none", none);
                    ((*backbone).to_owned(), cells.iter().map(cell).collect())
                })
                .collect();
            assert_eq!(found, expected, "{name} {format}");
        }
    }
}

/// A cell without bold, underline, braces and escapes.
fn plain(cell: &str) -> String {
    let marks = ["\\textbf", "\\underline", "**", "<u>", "</u>", "{", "}", "\\"];
    marks.iter().fold(cell.to_owned(), |text, mark| text.replace(mark, "")).trim().to_owned()
}

/// Intervals around some numbers of a few runs.
fn with_intervals() -> Vec<RunRecord> {
    let mut records = mixed_records();
    for record in &mut records {
        let pixio_b = record.plan.backbone.name == "pixio-b";
        for metric in record.outcome.metrics.iter_mut().filter(|_| pixio_b) {
            if metric.selection != Selection::Last {
                metric.ci_low = Some(metric.value - metric.value / 20.0);
                metric.ci_high = Some(metric.value + metric.value / 10.0);
            }
        }
    }
    records
}

#[test]
fn intervals_stand_behind_their_numbers_and_a_cell_without_one_says_so() {
    let records = with_intervals();
    let layout = Layout::open("depth").unwrap();
    let options = LayoutOptions { intervals: true, ..LayoutOptions::default() };
    for (format, name) in
        [(Format::Text, "text"), (Format::Markdown, "md"), (Format::Latex, "latex")]
    {
        insta::assert_snapshot!(
            format!("intervals_{name}"),
            shown(&layout, &records, options, format)
        );
    }
    let html = shown(&layout, &records, options, Format::Html);
    assert!(html.contains("<b>0.312</b>") && html.contains("<small>["), "{html}");
    let best = LayoutOptions { selection: Some(Selection::Best), ..options };
    let last = LayoutOptions { selection: Some(Selection::Last), ..options };
    let [best, last] = [best, last].map(|options| shown(&layout, &records, options, Format::Text));
    assert!(
        best.contains("the epoch chosen by rmse or mIoU") && best.contains("[0.356,"),
        "{best}"
    );
    assert!(last.contains("the last epoch.") && last.contains("88.8 [a]"), "{last}");
}

#[test]
fn seeds_have_a_row_each_or_their_mean_and_deviation() {
    let mut records = mixed_records();
    for (seed, rmse) in [(1, 0.385), (2, 0.365)] {
        let mut record = dense_record("pixio-b", "nyuv2", "dpt", rmse);
        record.plan.seed = seed;
        records.push(record);
    }
    let layout = Layout::open("depth").unwrap();
    let each = shown(&layout, &records, LayoutOptions::default(), Format::Markdown);
    assert!(each.contains("pixio-b, seed 2") && each.contains("| <u>0.365</u> |"), "{each}");
    let options = LayoutOptions { mean_over_seeds: true, ..LayoutOptions::default() };
    insta::assert_snapshot!("seeds_md", shown(&layout, &records, options, Format::Markdown));
}

#[test]
fn blocks_are_rows_beside_the_papers() {
    let mut records = Vec::new();
    for (block, rmse) in [(19, 0.5), (8, 0.75), (31, 0.625)] {
        let mut record = dense_record("mae-h", "nyuv2", "linear", rmse);
        if let schema::Stages::Dense(dense) = &mut record.plan.protocol.stages {
            dense.feature.blocks = vec![block];
        }
        record.plan.protocol.name = format!("pixio+block={}", block + 1);
        records.push(record);
    }
    let layout = Layout::open("blocks").unwrap();
    let options = LayoutOptions { published: true, ..LayoutOptions::default() };
    let table = shown(&layout, &records, options, Format::Markdown);
    let ours: Vec<&str> = table.lines().filter(|line| line.contains("ours")).collect();
    insta::assert_snapshot!(ours.join("\n"), @r"
    | mae-h@block9, ours | pixio, 12 blocks | 86M | – | 0.750 | – | – | – |
    | mae-h@block20, ours | pixio, 12 blocks | 86M | – | **0.500** (-0.064) | – | – | – |
    | mae-h@block32, ours | pixio, 12 blocks | 86M | – | <u>0.625</u> (+0.032) | – | – | – |
    ");
    assert!(!table.contains("protocol pixio"), "{table}");
}

#[test]
fn the_long_form_of_a_layout_has_its_cells_at_full_precision() {
    let mut records = with_intervals();
    let mut ours = dense_record("pixio-h", "nyuv2", "dpt", 0.27);
    ours.outcome.warnings = vec!["=cmd".to_owned()];
    records.push(ours);
    let layout = Layout::open("depth").unwrap();
    let options = LayoutOptions { published: true, ..LayoutOptions::default() };
    let csv = shown(&layout, &records, options, Format::Csv);
    let lines: Vec<&str> = csv.lines().collect();
    let wanted = |line: &&&str| {
        line.starts_with("backbone,")
            || !line.contains(",published,")
            || line.contains("Pixio-H,nyuv2,dpt")
    };
    let kept: Vec<&str> = lines.iter().filter(wanted).copied().collect();
    insta::assert_snapshot!("long_csv", kept.join("\n"));
    let json = shown(&layout, &records, options, Format::Json);
    let json: Vec<serde_json::Map<String, serde_json::Value>> =
        serde_json::from_str(&json).unwrap();
    assert_eq!(json.len() + 1, lines.len());
    let header: Vec<&str> = lines[0].split(',').collect();
    assert!(header.iter().all(|name| json[0].contains_key(*name)), "{header:?}");
    let bytes = layout.render(&records, options, Format::Parquet).unwrap();
    let frame = ParquetReader::new(std::io::Cursor::new(bytes)).finish().unwrap();
    assert_eq!(frame.height(), json.len());
    assert_eq!(frame.get_column_names(), header);
}

#[test]
fn a_name_of_ones_own_and_runs_that_differ_in_what_no_row_shows() {
    let layout: Layout = r#"
        caption = "x"
        names = { pixio-l = "Large" }
        selection = "last"
        [[column]]
        heading = "RMSE"
        dataset = "nyuv2"
        head = "dpt"
        metric = "rmse"
        decimals = 2
    "#
    .parse()
    .unwrap();
    let mut records = vec![untrained(dense_record("pixio-l", "nyuv2", "dpt", 0.5))];
    let mut again = records[0].clone();
    again.plan.data.fingerprint = schema::fingerprint(&"other");
    again.outcome.finished = "2026-02-01T00:00:00Z".to_owned();
    again.outcome.metrics.iter_mut().for_each(|metric| metric.value += 1.0);
    records.push(again);
    let table = shown(&layout, &records, LayoutOptions::default(), Format::Markdown);
    insta::assert_snapshot!(table, @r"
    x Heads that are trained: the last epoch.

    | backbone | architecture | parameters | RMSE ↓ |
    | :-- | :-- | --: | --: |
    | Large (untrained) | pixio, 12 blocks | 86M | 1.62 <sup>a</sup> |

    <sup>a</sup> the last finished of 2 runs that differ in data or options
    ");
}

const SUITES: [&str; 4] = ["adroit", "dmc", "metaworld", "trifinger"];

/// All suites of a backbone under one protocol, each with the score of its place.
fn suites(backbone: &str, protocol: Option<&str>, scores: [f64; 4]) -> Vec<RunRecord> {
    let run = |(suite, score): (&str, f64)| {
        let mut record = policy_record(backbone, suite, score);
        if let Some(protocol) = protocol {
            record.plan.protocol.name = protocol.to_owned();
        }
        record
    };
    SUITES.into_iter().zip(scores).map(run).collect()
}

#[test]
fn policies_stand_below_the_papers_with_what_sets_them_apart() {
    let mut records = suites("pixio-h", None, [70.0, 80.5, 95.0, 60.0]);
    records.extend(suites("pixio-h", Some("cortexbench-made"), [40.0, 50.0, 60.0, 70.0]));
    let mut three = suites("pixio-b", Some("cortexbench-lite+made"), [40.0, 50.0, 60.0, 70.0]);
    three.remove(1);
    records.extend(three);
    let mut state = policy_record("state", "metaworld", 99.0);
    state.plan.protocol.name = "cortexbench-made+tasks=drawer-open".to_owned();
    records.push(state);
    records.push(on_sample_data(policy_record("pixio-b", "metaworld", 30.0)));
    for (format, name) in
        [(Format::Text, "text"), (Format::Markdown, "md"), (Format::Latex, "latex")]
    {
        insta::assert_snapshot!(
            format!("cortexbench_ours_{name}"),
            render("cortexbench", &records, true, format)
        );
    }
    let last = LayoutOptions { selection: Some(Selection::Last), ..LayoutOptions::default() };
    let layout = Layout::open("cortexbench").unwrap();
    let csv = shown(&layout, &records, last, Format::Csv);
    let averages: Vec<&str> = csv.lines().filter(|l| l.contains("-average")).collect();
    assert_eq!(averages.len(), 2, "{csv}");
    // Each suite 9 below its first task's best: 5 by the second task, 4 by the last evaluation.
    assert!(
        averages[1].contains(",score,67.375,") || averages[0].contains(",score,67.375,"),
        "{csv}"
    );
}

#[test]
fn what_no_published_figure_is_shown_beside_without_a_word() {
    let layout = Layout::open("cortexbench").unwrap();
    let options = LayoutOptions { published: true, ..LayoutOptions::default() };
    let cells = |protocol: &str| -> Vec<serde_json::Value> {
        let records = suites("pixio-h", Some(protocol), [99.5; 4]);
        let json = shown(&layout, &records, options, Format::Json);
        let all: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
        all.into_iter().filter(|cell| cell["source"] == "run").collect()
    };
    for protocol in [
        "cortexbench-made",
        "cortexbench-lite",
        "cortexbench-lite+made+tasks=reacher_easy",
        "sample",
        "pixio+simulators=metaworld-3.1.1",
        "pixio+simulators=metaworld-3.1.1+epochs=5",
    ] {
        let ours = cells(protocol);
        assert_eq!(ours.len(), 5, "{protocol}");
        for cell in ours {
            let notes = cell["notes"].as_str().unwrap();
            assert!(notes.contains("not comparable with published figures"), "{protocol}: {notes}");
            assert!(cell["published"].is_null() && cell["difference"].is_null(), "{protocol}");
        }
        let records = suites("pixio-h", Some(protocol), [99.5; 4]);
        let table = shown(&layout, &records, options, Format::Markdown);
        assert!(!table.contains("**94.5**"), "{protocol} is ranked:\n{table}");
    }
    // The protocol as published: set against the paper's figures.
    for cell in cells("pixio") {
        assert!(cell["difference"].is_number() && cell["notes"] == "", "{cell}");
    }
    let records = suites("pixio-h", Some("pixio"), [99.5; 4]);
    let table = shown(&layout, &records, options, Format::Markdown);
    assert_eq!(table.matches("**94.5**").count(), 5, "{table}");
}

#[test]
fn intervals_of_policies_are_over_episodes() {
    let mut records = suites("pixio-h", Some("cortexbench-made"), [40.0, 50.0, 60.0, 70.0]);
    for record in &mut records[1..] {
        for metric in &mut record.outcome.metrics {
            (metric.ci_low, metric.ci_high) = (Some(metric.value - 8.0), Some(metric.value + 6.0));
        }
    }
    let layout = Layout::open("cortexbench").unwrap();
    let options = LayoutOptions { intervals: true, ..LayoutOptions::default() };
    insta::assert_snapshot!(
        "cortexbench_intervals",
        shown(&layout, &records, options, Format::Text)
    );
}
