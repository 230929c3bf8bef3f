//! Cells share passes of the encoder, and are what they would be alone.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;

/// 5 blocks, 2 heads, 3 rates, 2 seeds.
const GRID: &str = r#"
[grid]
backbone = ["random:pixio-nano"]
task = ["nyuv2"]
head = ["linear", "dpt"]
block = [4, 6, 8, 10, 12]
learning-rate = [1e-4, 2e-4, 4e-4]
seed = [0, 1]
"#;

const ALONE: &str = r#"
[fixed]
backbone = "random:pixio-nano"
[grid]
task = ["nyuv2/dpt"]
"#;

fn sweep<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let args = ["sweep", "sweep.toml", "--sample", "--pictures", "0", "--out", out];
    [&args, more].concat()
}

/// The dry run's cells.
fn cells(world: &World, out: &str) -> Vec<serde_json::Value> {
    let ran = world.run(&sweep(out, &["--dry-run", "--json"]));
    good(&ran);
    serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap().as_array().unwrap().clone()
}

/// The files of the run with this key, by name.
fn run_of(results: &BTreeMap<PathBuf, Vec<u8>>, key: &str) -> BTreeMap<String, Vec<u8>> {
    let of_it = results.iter().filter(|(path, _)| {
        let folder = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
        folder.ends_with(&format!("-{}", &key[..12]))
    });
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    of_it.map(|(path, bytes)| (name(path), bytes.clone())).collect()
}

/// The command that runs a cell alone.
fn alone<'a>(cell: &'a serde_json::Value, out: &'a str) -> Vec<&'a str> {
    let command = cell["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
    command.chain(["--sample", "--pictures", "0", "--out", out]).collect()
}

#[test]
fn sixty_cells_take_the_passes_of_one() {
    let world = world(ALONE);
    good(&world.run(&sweep("one", &["--cache-gb", "0"])));
    let one = units(&world, "one");
    assert_eq!(one.len(), 1);
    fs::write(world.path("sweep.toml"), GRID).unwrap();
    let cells = cells(&world, "all");
    assert_eq!(cells.len(), 60);
    good(&world.run(&sweep("all", &["--cache-gb", "0"])));
    let all = units(&world, "all");
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].0, all[0].1), (one[0].0, one[0].1));

    // Each head's own time, and what all share, is the whole.
    let results = world.results("all");
    let mut parts = 0.0;
    let mut shared: f64 = 0.0;
    let mut records = 0;
    let mut folders = vec![world.path("all")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if entry.file_name() == "record.json" {
                let text = fs::read(entry.path()).unwrap();
                let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
                let seconds = |name: &str| record["outcome"]["seconds"][name].as_f64().unwrap();
                parts += seconds("train") + seconds("write");
                shared = shared.max(seconds("encode") + seconds("validate") + seconds("load"));
                records += 1;
            }
        }
    }
    assert_eq!(records, 60);
    println!("{:.1} s, of which {:.1} s are accounted for", all[0].2, parts + shared);
    assert!(all[0].2 < 1.1 * (parts + shared), "{} of {}", all[0].2, parts + shared);

    // What each is alone, to the bit: one of each block and head, of any rate and seed.
    for at in [0, 13, 26, 37, 44, 59] {
        let cell = &cells[at];
        let key = cell["key"].as_str().unwrap();
        good(&world.run(&alone(cell, "alone")));
        let (together, alone) = (run_of(&results, key), run_of(&world.results("alone"), key));
        assert!(together.len() >= 4 && together == alone, "{cell}");
    }

    // Nothing that is done is done again.
    let again = world.run(&sweep("all", &[]));
    good(&again);
    assert!(again.stderr.contains("everything was done before"), "{}", again.stderr);
    assert_eq!(units(&world, "all").len(), 1);
}

#[test]
fn k_nn_of_several_blocks_and_tokens_takes_one_pass() {
    let world = world(
        r#"
[grid]
backbone = ["mini"]
task = ["imagenet1k", "voc2012/linear"]
block = [2, 3, 4]
tokens = ["patch", "both"]
seed = [0, 1]
"#,
    );
    let cells = cells(&world, "all");
    // Six of k-NN, whatever the seed, and twelve of a linear head.
    assert_eq!(cells.len(), 18);
    good(&world.run(&sweep("all", &[])));
    let results = world.results("all");
    let mut passes: Vec<u64> = units(&world, "all").iter().map(|unit| unit.0).collect();
    passes.sort_unstable();
    assert_eq!(passes.len(), 2);
    for cell in cells.iter().filter(|cell| cell["task"] == "imagenet1k/knn").chain(&cells[16..]) {
        let key = cell["key"].as_str().unwrap();
        // Features that others have kept are not to be found.
        fs::remove_dir_all(world.path("cache/features-v2")).ok();
        good(&world.run(&alone(cell, "alone")));
        let (together, alone) = (run_of(&results, key), run_of(&world.results("alone"), key));
        assert!(together.len() >= 2 && together == alone, "{cell}");
    }
}
