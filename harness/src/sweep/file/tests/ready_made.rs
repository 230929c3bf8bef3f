use std::collections::BTreeSet;

use super::*;

fn ready(name: &str, backbones: &[&str]) -> Expanded {
    let Source { text, origin } = source(name).unwrap();
    let sweep = Sweep::parse(&text, &origin, &given(backbones)).unwrap();
    assert_eq!(sweep.name, name);
    sweep.cells().unwrap()
}

#[test]
fn each_has_a_title_no_warning_and_as_many_cells_as_it_says() {
    for (name, text) in READY {
        let expanded = ready(name, &[]);
        assert!(title(text).ends_with(['?', ')']), "{name}");
        assert!(expanded.warnings.is_empty(), "{name}");
        let said = format!("# {} cells: ", expanded.cells.len());
        assert!(text.lines().any(|line| line.starts_with(&said)), "{name}: {said}");
        let registry = crate::registry::builtin().unwrap();
        for cell in &expanded.cells {
            let entry = &registry.backbones[&cell.backbone];
            let dimensions = entry.architecture().unwrap().dimensions();
            assert!(cell.settings.block.is_none_or(|block| block <= dimensions.blocks), "{name}");
            let count = cell.settings.class_tokens;
            assert!(count.is_none_or(|count| count <= dimensions.summary_tokens), "{name}");
        }
        // Any backbone can be measured in place of the file's.
        let other = ready(name, &["random:pixio-nano"]);
        assert_eq!(other.cells.len(), expanded.cells.len());
        assert!(other.cells.iter().all(|cell| cell.backbone == "random:pixio-nano"));
    }
}

/// The rows of Tables 11 and 12 of arXiv 2512.15715: backbone and blocks, each with five tasks.
#[test]
fn blocks_are_those_of_the_papers_tables() {
    let tasks =
        ["imagenet1k/knn", "nyuv2/linear", "kitti/linear", "ade20k/linear", "voc2012/linear"];
    for (name, backbone, blocks) in [
        ("blocks-mae-h", "mae-h", [32, 28, 24, 20, 16]),
        ("blocks-mae-l", "mae-l", [24, 21, 18, 15, 12]),
        ("blocks-pixio-5b", "pixio-5b", [48, 42, 36, 30, 24]),
    ] {
        let rows = blocks.into_iter().flat_map(|block| tasks.map(|task| (task.to_owned(), block)));
        let rows: BTreeSet<(String, usize)> = rows.collect();
        let cells = ready(name, &[]).cells;
        let found: BTreeSet<(String, usize)> =
            cells.iter().map(|c| (c.task.to_string(), c.settings.block.unwrap())).collect();
        assert_eq!(found, rows);
        assert_eq!(cells.len(), rows.len());
        for cell in cells {
            let arguments = cell.arguments();
            // Nothing but the block departs from the published protocol.
            let flags = arguments.iter().filter(|word| word.starts_with("--"));
            assert!(flags.eq(["--backbone", "--protocol", "--block"]), "{arguments:?}");
            assert_eq!(
                (cell.backbone.as_str(), cell.settings.protocol.as_str()),
                (backbone, "pixio")
            );
        }
    }
}

#[test]
fn rates_are_around_the_published_ones() {
    let cells = ready("rates", &[]).cells;
    for (head, published) in [("linear", 2e-4), ("dpt", 1e-4)] {
        let of = cells.iter().filter(|cell| cell.task.head == head);
        let mut factors: Vec<f64> = of
            .map(|cell| (cell.settings.learning_rate.unwrap() / published * 100.0).round())
            .collect();
        factors.sort_by(f64::total_cmp);
        factors.dedup();
        assert_eq!(factors, [25.0, 50.0, 100.0, 200.0, 400.0]);
    }
}

#[test]
fn a_name_or_a_file() {
    let told = |given: &str| source(given).unwrap_err();
    let error = told("block");
    insta::assert_snapshot!(error, @r#"block: unknown sweep "block"; there are blocks-mae-l, blocks-mae-h, blocks-pixio-5b, tokens, heads, rates; or a file"#);
    assert_eq!(error.near()[0], "blocks-mae-h");
    assert!(matches!(told("absent.toml").problem, Problem::Io(_)));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml").display().to_string();
    std::fs::write(&path, "[grid]\n").unwrap();
    assert_eq!(source(&path).unwrap(), Source { text: "[grid]\n".to_owned(), origin: path });
}
