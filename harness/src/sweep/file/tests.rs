use proptest::prelude::*;

use super::*;
use crate::run::Cell;

mod bad_input;
mod ready_made;

fn given(backbones: &[&str]) -> Given {
    Given {
        backbones: backbones.iter().map(|&name| name.to_owned()).collect(),
        protocol: "pixio".to_owned(),
    }
}

fn parse(text: &str) -> Result<Sweep, FileError> {
    Sweep::parse(text, "folder/x.toml", &given(&[]))
}

fn expand(text: &str) -> Expanded {
    let sweep = parse(text).unwrap();
    let expanded = sweep.cells().unwrap();
    let Expanded { cells, combinations, without_head, excluded, merged, .. } = &expanded;
    assert_eq!(cells.len() + without_head + excluded + merged, *combinations);
    assert_eq!(sweep.combinations(), *combinations as u128);
    expanded
}

/// As on the command line, without what is the same everywhere.
fn told(cells: &[Cell]) -> Vec<String> {
    let told = |cell: &Cell| {
        let text = cell.arguments().join(" ");
        text.replace("run ", "").replace(" --protocol pixio", "").replace("--backbone ", "")
    };
    cells.iter().map(told).collect()
}

fn cells(text: &str) -> Vec<String> {
    told(&expand(text).cells)
}

#[test]
fn a_grid_is_every_combination_and_the_first_axis_the_slowest() {
    let text = "[grid]\ntask = 'nyuv2/dpt'\nseed = [0, 1]\nbackbone = ['b', 'a']\n";
    assert_eq!(
        cells(text),
        [
            "nyuv2/dpt b",
            "nyuv2/dpt a",
            "nyuv2/dpt b --seed 1 --stream-seed 0",
            "nyuv2/dpt a --seed 1 --stream-seed 0",
        ]
    );
    let sweep = parse(text).unwrap();
    assert_eq!((sweep.name.as_str(), sweep.combinations()), ("x", 4));
}

#[test]
fn zipped_lists_are_one_axis_where_they_stand() {
    let zip = "[zip]\nepochs = [5, 6]\nlearning-rate = [0.1, 0.2]\n";
    let grid = "[grid]\ntask = 'kitti/linear'\nbackbone = ['a', 'b']\n";
    let slow = ["0.1 --epochs 5", "0.2 --epochs 6"];
    let cell = |name: &str, at: &str| format!("kitti/linear {name} --learning-rate {at}");
    let want = [cell("a", slow[0]), cell("b", slow[0]), cell("a", slow[1]), cell("b", slow[1])];
    assert_eq!(cells(&format!("{zip}{grid}")), want);
    let want = [cell("a", slow[0]), cell("a", slow[1]), cell("b", slow[0]), cell("b", slow[1])];
    assert_eq!(cells(&format!("{grid}{zip}")), want);
}

#[test]
fn every_axis_reaches_its_setting() {
    let text = r#"
        name = "all-of-it"
        [fixed]
        backbone = "pixio-l"
        task = "imagenet1k"
        protocol = "sample"
        taps = 3
        tokens = "both"
        class-tokens = 2
        resolution = 0xE0
        limit = 1_000
        k = [10, 20]
        temperature = 0.1
        stream-seed = 7
        vote.k = [5, 50.0]
        "feature.final_norm" = true
        "override.mean" = [0.5, 0.5, 0.5]
    "#;
    assert_eq!(
        cells(text),
        ["imagenet1k/knn pixio-l --override mean=[0.5,0.5,0.5] --override resolution=224 \
          --protocol sample --taps 3 --tokens both --class-tokens 2 --k 10,20 --temperature 0.1 \
          --limit 1000 --set feature.final_norm=true --set vote.k=[5,50] --seed 7"]
    );
    assert_eq!(parse(text).unwrap().name, "all-of-it");
    let text = r#"
        [fixed]
        backbone = "a"
        task = "nyuv2/dpt"
        block = 12
        learning-rate = 1
        weight-decay = 0
        epochs = 0
        head.norm = "batch"
        seed = 4
    "#;
    assert_eq!(
        cells(text),
        [
            "nyuv2/dpt a --block 12 --learning-rate 1 --weight-decay 0 --epochs 0 --set head.norm=batch \
          --seed 4 --stream-seed 0"
        ]
    );
}

#[test]
fn in_lists_a_value_that_is_a_list_has_its_own_brackets() {
    let text = |k: &str| format!("[grid]\nbackbone='a'\ntask='imagenet1k'\nk={k}\n");
    let knn = |k: &str| format!("imagenet1k/knn a --k {k}");
    assert_eq!(cells(&text("[10, 20]")), [knn("10"), knn("20")]);
    assert_eq!(cells(&text("[[10, 20], 200]")), [knn("10,20"), knn("200")]);
    let fixed = text("[10, 20]").replace("grid", "fixed");
    assert_eq!(cells(&fixed), [knn("10,20")]);
    let set = text("[[5], [6, 7]]").replace("\nk=", "\nvote.k=");
    assert_eq!(
        cells(&set),
        ["imagenet1k/knn a --set vote.k=[5]", "imagenet1k/knn a --set vote.k=[6,7]"]
    );
}

#[test]
fn ranges_have_both_ends() {
    let blocks = |range: &str| {
        let text = format!("[grid]\nbackbone='a'\ntask='nyuv2/linear'\nblock={range}\n");
        let blocks = expand(&text).cells.into_iter().map(|cell| cell.settings.block.unwrap());
        blocks.collect::<Vec<_>>()
    };
    assert_eq!(blocks("{ from = 3, to = 5 }"), [3, 4, 5]);
    assert_eq!(blocks("{ from = 6, to = 24, step = 6 }"), [6, 12, 18, 24]);
    assert_eq!(blocks("{ from = 6, to = 23, step = 6 }"), [6, 12, 18]);
    assert_eq!(blocks("{ from = 9, to = 9 }"), [9]);
}

#[test]
fn heads_go_to_the_data_sets_that_have_them() {
    let text = |tasks: &str, heads: &str| {
        format!("[grid]\nbackbone='a'\ntask={tasks}\nhead={heads}\nseed=[0,1]\n")
    };
    let of = |tasks: &str, heads: &str| {
        let mut found: Vec<String> =
            expand(&text(tasks, heads)).cells.iter().map(|cell| cell.task.to_string()).collect();
        found.dedup();
        found.join(" ")
    };
    assert_eq!(of("['imagenet1k', 'nyuv2']", "['knn', 'dpt']"), "imagenet1k/knn nyuv2/dpt");
    assert_eq!(of("['imagenet1k', 'nyuv2']", "['dpt']"), "imagenet1k/knn nyuv2/dpt");
    assert_eq!(of("['nyuv2/linear', 'kitti']", "['dpt']"), "nyuv2/linear kitti/dpt");
    assert_eq!(of("['nyuv2/linear']", "['dpt', 'linear']"), "nyuv2/linear");
    assert_eq!(of("['cortexbench/adroit', 'dmc']", "['dpt']"), "adroit/policy dmc/policy");
    // What a head would multiply is no cell twice.
    let expanded = expand(&text("['imagenet1k']", "['linear', 'dpt']"));
    assert_eq!((expanded.cells.len(), expanded.merged, expanded.without_head), (1, 3, 0));
    let expanded = expand(&text("['imagenet1k', 'kitti']", "['knn', 'dpt']"));
    assert_eq!((expanded.cells.len(), expanded.merged, expanded.without_head), (3, 1, 4));
}

#[test]
fn zipped_heads_keep_what_stands_beside_them() {
    let text = "[grid]\nbackbone='a'\ntask=['nyuv2', 'kitti/linear', 'imagenet1k']\n\
                [zip]\nhead=['linear', 'dpt']\nlearning-rate=[2e-4, 1e-4]\n";
    assert_eq!(
        cells(text),
        [
            "nyuv2/linear a --learning-rate 0.0002",
            "nyuv2/dpt a --learning-rate 0.0001",
            "kitti/linear a --learning-rate 0.0002",
            "imagenet1k/knn a",
        ]
    );
    let pairs =
        "[fixed]\nbackbone='a'\n[zip]\ntask=['nyuv2', 'kitti', 'dmc']\nhead=['dpt','linear','dpt']";
    assert_eq!(cells(pairs), ["nyuv2/dpt a", "kitti/linear a", "cortexbench/dmc a"]);
}

#[test]
fn settings_that_a_head_lacks_make_no_second_cell() {
    let text = r#"
        [grid]
        backbone = "a"
        task = ["imagenet1k", "nyuv2"]
        head = ["knn", "linear"]
        block = [4, 8, 12, 16, 20]
        learning-rate = [1e-4, 2e-4, 4e-4]
        seed = { from = 0, to = 1 }
    "#;
    let expanded = expand(text);
    let of = |head: &str| expanded.cells.iter().filter(|cell| cell.task.head == head).count();
    assert_eq!((of("knn"), of("linear")), (5, 30));
    assert_eq!((expanded.combinations, expanded.without_head, expanded.merged), (120, 60, 25));
}

#[test]
fn equal_values_in_another_spelling_are_one_cell() {
    let text = "[grid]\nbackbone='a'\ntask='nyuv2/dpt'\n'training.warmup'=[0, 0.0, 0.1, 0.10]\n";
    assert_eq!(expand(text).cells.len(), 2);
    let order = "[fixed]\ntask='nyuv2/dpt'\n[[cell]]\nbackbone='a'\ntraining.warmup=0\nresolution=64\n\
                 head.norm='x'\n[[cell]]\nresolution=64.0\nhead.norm='x'\ntraining.warmup=0\nbackbone='a'\n";
    assert_eq!(expand(&order.replace("64.0", "64")).cells.len(), 1);
}

#[test]
fn further_cells_stand_on_top_of_the_fixed_values() {
    let text = "[fixed]\nepochs=5\nbackbone='a'\n[grid]\ntask='nyuv2/dpt'\nseed=[1]\n\
                [[cell]]\ntask='kitti'\nhead='linear'\n[[cell]]\nepochs=6\nbackbone='b'\ntask='dmc'\n\
                seed=3\n";
    assert_eq!(
        cells(text),
        [
            "nyuv2/dpt a --epochs 5 --seed 1 --stream-seed 0",
            "kitti/linear a --epochs 5",
            "cortexbench/dmc b --epochs 6 --seed 3",
        ]
    );
}

#[test]
fn rules_leave_out_or_keep() {
    let grid = "[grid]\nbackbone=['mae-l', 'x/step-2.pth']\ntask=['imagenet1k', 'nyuv2']\n\
                head=['knn', 'linear', 'dpt']\nblock=[6, 12]\n";
    let with = |rules: &str| cells(&format!("{grid}{rules}"));
    assert_eq!(with("").len(), 12);
    let out = with(
        "[[exclude]]\nhead='knn'\nblock=6\n[[exclude]]\nhead=['linear','dpt']\nblock=[12,7]\n",
    );
    let knn = |name: &str| format!("imagenet1k/knn {name} --block 12");
    assert_eq!(out.len(), 6);
    assert_eq!([&out[0], &out[3]], [&knn("mae-l"), &knn("x/step-2.pth")]);
    assert_eq!(with("[[include]]\nbackbone='x/*'\ntask='nyuv2'\n").len(), 4);
    assert_eq!(with("[[include]]\ntask='nyuv2/dpt'\n[[include]]\nhead='knn'\n").len(), 8);
    assert_eq!(with("[[include]]\nhead='knn'\n[[exclude]]\nbackbone='mae-?'\n").len(), 2);
}

#[test]
fn a_rule_matches_what_the_file_leaves_out_too_and_tells_when_it_matches_nothing() {
    let text = "[fixed]\nbackbone='a'\ntask='nyuv2/dpt'\n[grid]\nresolution=[64, 96]\n\
                [[exclude]]\nprotocol='pixio'\nseed=0\noverride.resolution=64\n[[exclude]]\nblock=6\n";
    let expanded = expand(text);
    assert_eq!(told(&expanded.cells), ["nyuv2/dpt a --override resolution=96"]);
    let warnings: Vec<String> = expanded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["folder/x.toml:10: the rule [[exclude]] matches no cell"]);
}

#[test]
fn the_command_line_replaces_every_backbone_of_the_file() {
    let text = "[fixed]\ntask='nyuv2/dpt'\n[grid]\nseed=[0,1]\nbackbone=['a', 'absent/*.pth', 'c']\n\
                [[cell]]\nbackbone='d'\nhead='knn'\n";
    let sweep = Sweep::parse(text, "x", &given(&["b", "e"])).unwrap();
    assert_eq!(sweep.combinations(), 6);
    let cells = sweep.cells().unwrap().cells;
    let names: Vec<&str> = cells.iter().map(|cell| cell.backbone.as_str()).collect();
    assert_eq!(names, ["b", "e", "b", "e"]);
    // None in the file: the slowest axis.
    let text = "[grid]\ntask='nyuv2/dpt'\nseed=[0,1]\n";
    let cells = Sweep::parse(text, "x", &given(&["b", "e"])).unwrap().cells().unwrap().cells;
    assert_eq!(cells.iter().filter(|cell| cell.settings.seed == 0).count(), 2);
    assert_eq!((cells[0].backbone.as_str(), cells[1].backbone.as_str()), ("b", "b"));
    let error = Sweep::parse(text, "x", &given(&["absent/*"])).unwrap_err();
    assert_eq!(error.to_string(), "--backbone: no file or folder fits absent/*");
}

#[test]
fn a_pattern_stands_for_checkpoints_in_the_order_of_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["ckpt-10", "ckpt-2", "ckpt-1.tmp"] {
        std::fs::write(folder.path().join(name), name).unwrap();
    }
    let at = |name: &str| folder.path().join(name).display().to_string();
    let text = format!("[grid]\ntask='nyuv2/dpt'\nbackbone=['mae-l', '{}']\n", at("ckpt-*"));
    let names =
        |text: &str| expand(text).cells.into_iter().map(|cell| cell.backbone).collect::<Vec<_>>();
    assert_eq!(names(&text), ["mae-l".to_owned(), at("ckpt-1.tmp"), at("ckpt-2"), at("ckpt-10")]);
    let text = format!("{text}[[exclude]]\nbackbone='{}'\n", at("*.tmp"));
    assert_eq!(names(&text).len(), 3);
    let zip = format!(
        "[zip]\nbackbone='{}'\nresolution=[64, 96]\n[fixed]\ntask='nyuv2/dpt'\n",
        at("ckpt-?*[!]").replace("[!]", "")
    );
    let error = parse(&zip).unwrap_err();
    assert!(matches!(error.problem, Problem::Lengths { first_length: 3, second_length: 2, .. }));
}

#[test]
fn a_grid_is_counted_without_being_expanded() {
    let axes = ["seed", "stream-seed", "epochs", "limit", "block", "class-tokens"];
    let range = "{ from = 1, to = 1000000 }";
    let text = |n: usize| {
        let lines: String = axes[..n].iter().map(|axis| format!("{axis} = {range}\n")).collect();
        format!("[grid]\nbackbone='a'\ntask='nyuv2/dpt'\n{lines}")
    };
    let sweep = parse(&text(1).replace("1000000", "100000")).unwrap();
    assert_eq!(sweep.cells().unwrap().cells.len(), 100_000);
    let sweep = parse(&text(2)).unwrap();
    assert_eq!(sweep.combinations(), 1_000_000_000_000);
    assert!(matches!(sweep.cells().unwrap_err().problem, Problem::TooMany { .. }));
    let list = "7, ".repeat(1000);
    let sweep = parse(&format!("{}k = [{list}]\n", text(6))).unwrap();
    assert_eq!(sweep.combinations(), u128::MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_grid_has_as_many_cells_as_the_product_of_its_lengths(
        seeds in 1_usize..5,
        rates in 1_usize..4,
        blocks in 1_usize..5,
        zipped in 0_usize..4,
        order in Just(vec![0_usize, 1, 2, 3]).prop_shuffle(),
        other in Just(vec![0_usize, 1, 2, 3]).prop_shuffle(),
        dropped in 1_usize..5,
    ) {
        let list = |n: usize| (1..=n).map(|i| i.to_string()).collect::<Vec<_>>().join(", ");
        let lines = [
            format!("seed = [{}]\n", list(seeds)),
            format!("learning-rate = [{}]\n", list(rates)),
            format!("block = [{}]\n", list(blocks)),
            "backbone = 'a'\ntask = 'nyuv2/linear'\n".to_owned(),
        ];
        let zip = format!("[zip]\nepochs = [{0}]\nlimit = [{0}]\n", list(zipped));
        let text = |order: &[usize]| {
            let grid: String = order.iter().map(|&i| lines[i].as_str()).collect();
            format!("[grid]\n{grid}{}", if zipped > 0 { &zip } else { "" })
        };
        let (text, other) = (text(&order), text(&other));
        let expanded = expand(&text);
        let all = seeds * rates * blocks * zipped.max(1);
        prop_assert_eq!((expanded.cells.len(), expanded.merged), (all, 0));
        prop_assert_eq!(told(&expanded.cells), cells(&text));
        // Another order of the lines is another order of the same cells.
        let mut sorted = told(&expanded.cells);
        sorted.sort();
        let mut others = cells(&other);
        others.sort();
        prop_assert_eq!(sorted, others);
        // A rule takes what has its value; all rules take everything.
        let rule = format!("[[exclude]]\nblock = [{}]\n", list(dropped));
        match parse(&format!("{text}{rule}")).unwrap().cells() {
            Ok(left) => {
                prop_assert!(dropped < blocks);
                prop_assert_eq!(left.excluded, all / blocks * dropped);
            }
            Err(error) => {
                prop_assert!(dropped >= blocks);
                let nothing = matches!(error.problem, Problem::NothingLeft { .. });
                prop_assert!(nothing, "{}", error);
            }
        }
    }

    #[test]
    fn no_text_panics(
        lines in proptest::collection::vec(
            prop_oneof![
                Just("[grid]"), Just("[zip]"), Just("[fixed]"), Just("[[cell]]"), Just("[[exclude]]"),
                Just("backbone = 'a'"), Just("task = ['nyuv2', 'imagenet1k']"), Just("head = 'dpt'"),
                Just("seed = {from=0, to=3}"), Just("seed = []"), Just("k = [[1], 2]"), Just("[grid.grid]"),
                Just("training.warmup = {}"), Just("head.x = 1"), Just("override = 3"), Just("name = 'ä'"),
                Just("taps = [[]]"), Just("block = 1e3"), Just("'a.b' = 1"), Just("\"\" = 2"), Just("x"),
            ],
            0..9,
        ),
        noise in "\\PC{0,12}",
    ) {
        for text in [lines.join("\n"), format!("{}\n{noise}", lines.join("\n"))] {
            match parse(&text).map(|sweep| sweep.cells()) {
                Ok(Ok(expanded)) => prop_assert!(!expanded.cells.is_empty()),
                Ok(Err(error)) | Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}
