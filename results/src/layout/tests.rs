use super::*;
use crate::fixtures::{dense_record, mixed_records, on_sample_data, untrained};

fn render(name: &str, records: &[RunRecord], published: bool, format: Format) -> String {
    let layout = Layout::open(name).unwrap();
    String::from_utf8(layout.render(records, published, format).unwrap()).unwrap()
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
    let text = |format| String::from_utf8(layout.render(&records, false, format).unwrap()).unwrap();
    insta::assert_snapshot!("own_html", text(Format::Html));
    let error = layout.render(&records, false, Format::Csv).unwrap_err();
    insta::assert_snapshot!(error, @"--layout and --published arrange text, md, latex and html; csv is the long form");
}

#[test]
fn what_is_no_layout_is_said() {
    let told = |text: &str| text.parse::<Layout>().unwrap_err().to_string();
    insta::assert_snapshot!(told("caption = 'x'\ncolumn = []"), @"the layout has no [[column]]");
    assert!(told("caption = 'x'\ncolour = 1\ncolumn = []").contains("unknown field `colour`"));
    let unknown = Layout::open("tables").unwrap_err();
    insta::assert_snapshot!(unknown, @"there is no layout `tables` and no such file; there are wide, depth, segmentation, cortexbench, sizes, blocks and ablation");
    let empty = Layout::open("depth").unwrap().render(&[], false, Format::Text).unwrap_err();
    insta::assert_snapshot!(empty, @"no finished run has a cell of this layout; --published shows the paper's figures");
    for (name, _) in BUILTIN {
        Layout::open(name).unwrap();
    }
}
