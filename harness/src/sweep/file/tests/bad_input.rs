use super::*;

/// A good file, to which each bad line is added.
const GOOD: &str = "[fixed]\nbackbone = 'a'\ntask = 'nyuv2'\nhead = 'dpt'\n";

const BAD: [(&str, &str); 18] = [
    ("no TOML", "[grid]\nseed = [0, 1\nblock = 6\n"),
    ("twice in TOML", "[grid]\nseed = 1\nseed = 2\n"),
    ("unknown table", "[gird]\nseed = [0, 1]\n"),
    ("axis in no table", "epochs = 5\n"),
    ("a table that is a value", "grid = 3\n"),
    ("cells that are no list", "[cell]\nbackbone = 'a'\n"),
    ("a name", "name = 'my sweep'\n"),
    ("a name of another type", "name = 7\n"),
    ("nothing", ""),
    ("no task", "[grid]\nbackbone = 'a'\n"),
    ("no task in a cell", "[grid]\nbackbone='a'\ntask='dmc'\n\n[[cell]]\nbackbone = 'b'\n"),
    ("no head", "[fixed]\nbackbone = 'a'\n[grid]\ntask = ['imagenet1k', 'kitti']\n"),
    (
        "no such head",
        "[fixed]\nbackbone = 'a'\nhead = 'knn'\n[grid]\ntask = ['imagenet1k', 'kitti']\n",
    ),
    (
        "no such head beside it",
        "[fixed]\nbackbone = 'a'\n[zip]\ntask = ['nyuv2', 'kitti']\nhead = ['dpt', 'knn']\n",
    ),
    (
        "lists of different length",
        "[fixed]\nbackbone = 'a'\ntask = 'nyuv2/dpt'\n[zip]\nseed = [0, 1, 2]\nepochs = [5, 6, 7]\nlimit = [8, 9]\n",
    ),
    (
        "rules that leave nothing",
        "[grid]\nbackbone = 'a'\ntask = 'imagenet1k'\nblock = [6, 12]\n\n[[exclude]]\nblock = 6\n[[include]]\nblock = 24\n",
    ),
    ("an empty rule", "[fixed]\nbackbone = 'a'\ntask = 'dmc'\n\n[[exclude]]\n"),
    (
        "too many",
        "[grid]\nbackbone='a'\ntask='dmc'\nseed={from=0,to=99999}\nlimit={from=1,to=1000}\n",
    ),
];

/// Lines in `[grid]` of a good file, from its sixth line on.
const LINES: [&str; 38] = [
    "sead = [0, 1]",
    "learning_rate = 0.1",
    "seeed = { from = 0, to = 1 }",
    "bogus = 1",
    "trainig.warmup = 0",
    "'training.' = 1",
    "training = 1",
    "overide.mean = 1",
    "override.patch = 1",
    "head = 'linear'",
    "'override.resolution' = 64\nresolution = 96",
    "task = 'nyuv2'",
    "seed = []",
    "seed = 'zero'",
    "seed = [0, 1.5]",
    "seed = -1",
    "seed = { from = 3, to = 1 }",
    "seed = { from = 0, to = 1, by = 2 }",
    "seed = { from = 0, to = 1000000 }",
    "limit = { from = 0, to = 5 }",
    "block = [6, 0]",
    "block = 6\ntaps = 3",
    "block = [\n  6,\n  'last',\n]",
    "taps = [[2, 'x']]",
    "taps = [[]]",
    "k = { from = 1, to = 3 }",
    "k = [[10, 0]]",
    "learning-rate = [1e-4, 0]",
    "learning-rate = nan",
    "weight-decay = -0.1",
    "temperature = '0.07'",
    "tokens = ['patch', 'clas']",
    "protocol = 'pixioo'",
    "training.warmup = 1979-05-27",
    "[zip]\nepochs = 3\n[[exclude]]\nhead = 'lienar'",
    "[[exclude]]\ntask = ['nyuv2', 'nyu']",
    "[[exclude]]\ntask = 'cortexbench'",
    "limit = [[5]]",
];

/// Lines in `[fixed]`, in the second line of a file.
const FIXED: [&str; 7] = [
    "seed = [0, 1]",
    "seed = { from = 0, to = 1 }",
    "task = 'nyuv2/knn'",
    "task = 'kity/dpt'",
    "backbone = 7",
    "backbone = ''",
    "backbone = 'absent/*.pth'",
];

fn error(text: &str) -> String {
    let error = match parse(text).map(|sweep| sweep.cells()) {
        Err(error) | Ok(Err(error)) => error,
        Ok(Ok(_)) => panic!("{text} is taken"),
    };
    let mut told = format!("{error}\n");
    if !error.near().is_empty() {
        told.push_str(&format!("near: {}\n", error.near().join(", ")));
    }
    told
}

#[test]
fn what_is_wrong_and_where() {
    let mut all = String::new();
    for (what, text) in BAD {
        all.push_str(&format!("== {what}\n{}\n", error(text)));
    }
    for line in LINES {
        all.push_str(&format!("== {line}\n{}\n", error(&format!("{GOOD}[grid]\n{line}\n"))));
    }
    for line in FIXED {
        all.push_str(&format!("== [fixed] {line}\n{}\n", error(&format!("[fixed]\n{line}\n"))));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn backbones_of_the_command_line_are_zipped_with_nothing() {
    let text =
        "[fixed]\ntask='nyuv2/dpt'\n[zip]\nbackbone=['a','b']\nresolution=[64,96]\nseed=[0,1]\n";
    let error = Sweep::parse(text, "x.toml", &given(&["c"])).unwrap_err();
    let want = "x.toml:4: backbone is zipped with resolution, seed: --backbone cannot replace it";
    assert_eq!(error.to_string(), want);
}
