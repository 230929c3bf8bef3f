//! `runs` and `card` as a user types them, over the sample's k-NN runs.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;

use common::{Ran, World};

fn good(ran: Ran) -> String {
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    ran.stdout
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

/// The ids of the listed runs.
fn ids(world: &World, args: &[&str]) -> Vec<String> {
    let listed = json(&good(world.run(&[&["runs", "list", "--json"], args].concat())));
    let folder = |line: &serde_json::Value| line["folder"].as_str().unwrap().to_owned();
    let id = |folder: String| folder.rsplit_once('-').unwrap().1.to_owned();
    listed.as_array().unwrap().iter().map(|line| id(folder(line))).collect()
}

#[test]
fn runs_are_listed_shown_told_apart_archived_and_deleted() {
    let world = World::new();
    good(world.run(&["all", "--sample", "--tasks", "imagenet1k"]));
    let both = ids(&world, &[]);
    assert_eq!(both.len(), 2);
    assert_eq!(world.run(&["runs"]).stdout, world.run(&["runs", "list"]).stdout);
    let [floor] = &ids(&world, &["--backbone", "pixels"])[..] else { panic!("{both:?}") };
    assert_eq!(
        ids(&world, &["--data", "imagenet1k", "--head", "knn", "--state", "finished"]),
        both
    );
    assert!(ids(&world, &["--state", "failed,unfinished"]).is_empty());
    let none = good(world.run(&["runs", "--data", "nyuv2"]));
    assert_eq!(none, "None of 2 runs passes the filters.\n");

    let shown = good(world.run(&["runs", "show", &floor[..6]]));
    assert!(shown.starts_with("finished: runs/imagenet1k/knn/pixels-"), "{shown}");
    assert!(shown.contains("protocol.vote.temperature") && shown.contains("top1@10"), "{shown}");
    let record = json(&good(world.run(&["runs", "show", floor, "--json"])));
    assert_eq!(record["plan"]["backbone"]["name"], "pixels");
    let diff = good(world.run(&["runs", "diff", &both[0], &both[1]]));
    assert!(diff.contains("backbone.name") && !diff.contains("vote.temperature"), "{diff}");
    let diff = json(&good(world.run(&["runs", "diff", &both[0], &both[1], "--json"])));
    assert_eq!(diff["metrics"].as_array().unwrap().len(), 8);
    let unknown = world.run(&["runs", "show", "zzz"]);
    assert_eq!(unknown.status, Some(2));
    insta::assert_snapshot!(unknown.stderr, @r#"
    error: there is no run "zzz" under runs
    hint: `pixio-eval runs` lists every run; its id ends its folder's name
    "#);

    let export = [&["runs", "export", &both[0], &both[1], "--output", "both.tar.gz"][..]].concat();
    good(world.run(&export));
    let table = good(world.run(&["table"]));
    let imported = good(world.run(&["runs", "import", "both.tar.gz", "--out", "elsewhere"]));
    assert_eq!(imported.lines().count(), 2);
    assert_eq!(good(world.run(&["table", "--out", "elsewhere"])), table);
    // What was imported counts as done: nothing runs.
    let again = world.run(&["all", "--sample", "--tasks", "imagenet1k", "--out", "elsewhere"]);
    assert!(again.stderr.contains("everything was done before"), "{}", again.stderr);
    // A run given twice is in the table once.
    assert_eq!(good(world.run(&["table", "--out", "runs", "--out", "elsewhere"])), table);
    let bytes = fs::read(world.path("both.tar.gz")).unwrap();
    fs::write(world.path("cut.tar.gz"), &bytes[..bytes.len() / 2]).unwrap();
    let cut = world.run(&["runs", "import", "cut.tar.gz", "--out", "third"]);
    assert_eq!(cut.status, Some(1));
    assert!(cut.stderr.contains("cut.tar.gz is no whole archive of runs"), "{}", cut.stderr);
    assert_eq!(ids(&world, &["--out", "third"]).len(), 0);
    let small = world.run(&["runs", "import", "both.tar.gz", "--out", "third", "--max-gb", "0"]);
    assert!(small.stderr.contains("more than the 0 that are taken"), "{}", small.stderr);

    // Nobody can be asked here.
    let asked = world.run(&["runs", "delete", floor]);
    assert_eq!(asked.status, Some(2));
    insta::assert_snapshot!(asked.stderr, @"error: deleting runs needs --yes where there is no terminal to ask at");
    let folder = fs::read_dir(world.path("runs/imagenet1k/knn")).unwrap();
    let mut folder = folder.map(|entry| entry.unwrap().path());
    let folder = folder.find(|path| path.to_str().unwrap().ends_with(floor.as_str())).unwrap();
    let held = fs::File::options().create(true).append(true).open(folder.join(".lock")).unwrap();
    held.lock_shared().unwrap();
    let busy = world.run(&["runs", "delete", floor, "--yes"]);
    assert_eq!(busy.status, Some(1));
    assert!(busy.stderr.contains("is being worked on by another process"), "{}", busy.stderr);
    drop(held);
    good(world.run(&["runs", "delete", floor, "--yes"]));
    assert_eq!(ids(&world, &[]).len(), 1);
    assert!(!folder.exists());

    // Sample runs of random weights are no results to publish.
    let card = world.run(&["card", "random:pixio-nano"]);
    assert_eq!(card.status, Some(2));
    assert!(card.stderr.contains("none is a result to publish"), "{}", card.stderr);
    // A layout over them: a table of its own, marked, in every format.
    for format in ["text", "md", "latex", "html", "csv", "json"] {
        let args = ["table", "--layout", "sizes", "--intervals", "--published", "--format", format];
        let told = good(world.run(&args));
        assert!(told.contains("random:pixio-nano") && told.contains("Pixio-5B"), "{told}");
    }
    let csv = good(world.run(&["table", "--layout", "sizes", "--format", "csv"]));
    let [header, row] = &csv.lines().collect::<Vec<_>>()[..] else { panic!("{csv}") };
    assert!(header.starts_with(
        "backbone,dataset,head,protocol,seed,metric,value,ci_low,ci_high,selection,sd,source"
    ));
    assert!(row.starts_with("random:pixio-nano,imagenet1k,knn,sample,0,top1@"), "{row}");
    let wide = good(world.run(&["table", "--intervals"]));
    assert!(wide.contains("In square brackets: 95% interval"), "{wide}");
}
