//! The published forms, from files that `scripts/make_demonstrations.py` makes; and what of all three
//! forms is refused.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::robot::suite;

const SIDE: usize = 8;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/robot").join(name)
}

fn small(name: &str) -> Suite {
    suite(name).unwrap().with_side(SIDE)
}

/// A folder with files of the test data under other names.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (from, to) in files {
        put(&root, to, fs::read(data(from)).unwrap());
    }
    root
}

fn put(root: &TempDir, name: &str, bytes: impl AsRef<[u8]>) {
    let path = root.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn pixels(demo: usize, t: usize) -> Vec<u8> {
    let at = |i: usize| [i / (3 * SIDE), i / 3 % SIDE, i % 3];
    let value = |[h, w, c]: [usize; 3]| (demo * 50 + t * 13 + h * 7 + w * 3 + c) as u8;
    (0..SIDE * SIDE * 3).map(|i| value(at(i))).collect()
}

fn number(demo: usize, t: usize, i: usize, scale: usize) -> f32 {
    (demo * 16 + t * 4 + i * scale) as f32 / 8.0
}

fn rows(demo: usize, steps: usize, width: usize, scale: usize) -> Array2<f32> {
    Array2::from_shape_fn((steps, width), |(t, i)| number(demo, t, i, scale))
}

fn check_images(all: &Demonstrations, at: usize, demo: usize, steps: usize) {
    assert_eq!(all.frames(at), steps);
    let images = all.images(at).unwrap();
    assert_eq!(images.len(), steps);
    for (t, image) in images.iter().enumerate() {
        assert_eq!(image.dim(), (SIDE, SIDE, 3));
        assert_eq!(image.iter().copied().collect::<Vec<_>>(), pixels(demo, t), "{at}, {t}");
    }
}

fn opened(suite: &Suite, task: &str, root: &TempDir) -> Demonstrations {
    Demonstrations::open(suite, task, root.path()).unwrap().unwrap()
}

fn refused(suite: &Suite, task: &str, root: &TempDir) -> String {
    let error = Demonstrations::open(suite, task, root.path()).err().unwrap();
    error.to_string().replace(&root.path().display().to_string(), "ROOT")
}

const DRAWER: &str = "drawer-open-v2-goal-observable.pickle";

#[test]
fn pickles_of_every_protocol_are_read() {
    let metaworld = small("metaworld");
    for protocol in 2..=5 {
        let from = format!("metaworld_p{protocol}.pickle");
        let root = folder(&[(&from, &format!("metaworld-expert-v1.0/{DRAWER}"))]);
        let all = opened(&metaworld, "drawer-open", &root);
        assert_eq!((all.len(), all.repeat(), all.origin()), (2, 1, Origin::Published));
        for (at, steps) in [(0, 3), (1, 4)] {
            check_images(&all, at, at, steps);
            let expected = Demonstration {
                actions: rows(at, steps, 4, 1),
                rewards: (0..steps).map(|t| number(at, t, 0, 0).into()).collect(),
                proprio: rows(at, steps, 4, 2),
                state: None,
                start: Value::Null,
                seed: None,
            };
            assert_eq!(all.load(at).unwrap(), expected, "protocol {protocol}");
        }
        assert!(Demonstrations::open(&metaworld, "hammer", root.path()).unwrap().is_none());
    }
}

#[test]
fn a_control_suites_frames_tell_its_repeat_and_start() {
    let dmc = small("dmc");
    let root = folder(&[("dmc.pickle", "dmc_reacher_easy-v1.pickle")]);
    let all = opened(&dmc, "reacher_easy", &root);
    assert_eq!((all.len(), all.repeat()), (2, 250));
    let one = all.load(1).unwrap();
    assert_eq!(one.proprio.dim(), (4, 0));
    assert_eq!(one.start, json!({"state": [2.0, 2.375, 2.75, 3.125, 3.5, 3.875]}));

    let root = folder(&[("dmc_uneven.pickle", "dmc_reacher_easy-v1.pickle")]);
    assert_eq!(
        refused(&dmc, "reacher_easy", &root),
        "ROOT/dmc_reacher_easy-v1.pickle: the whole: 5 frames of demonstration 1; expected a divisor of 1000, the same \
         for all (4 of the first)"
    );
}

#[test]
fn column_major_images_and_big_endian_numbers_are_read() {
    let root = folder(&[("adroit.pickle", "pen-v0.pickle")]);
    let all = opened(&small("adroit"), "pen", &root);
    check_images(&all, 0, 0, 3);
    let one = all.load(0).unwrap();
    assert_eq!((one.actions, one.proprio), (rows(0, 3, 24, 1), rows(0, 3, 24, 2)));
    assert_eq!(one.rewards, [0.0, 1.0, 2.0]);
    assert_eq!(one.start["qpos"].as_array().unwrap().len(), 30);
    assert_eq!(one.start["desired_orien"], json!([1.0, 0.0, 0.0, 0.5]));
}

#[test]
fn every_byte_counts_in_a_fingerprint() {
    let metaworld = small("metaworld");
    let print = |root: &TempDir| opened(&metaworld, "drawer-open", root).fingerprint();
    let root = folder(&[("metaworld_p4.pickle", DRAWER)]);
    let (first, again) = (print(&root), print(&root));
    assert_eq!(first, again);
    let mut bytes = fs::read(root.path().join(DRAWER)).unwrap();
    let image = pixels(0, 1);
    let at = bytes.windows(image.len()).position(|window| window == image).unwrap();
    bytes[at + 5] ^= 1;
    put(&root, DRAWER, &bytes);
    assert_ne!(print(&root), first);
}

/// What is said of pickles with one thing wrong.
#[test]
fn damaged_pickles_are_refused() {
    let metaworld = small("metaworld");
    let mut said = String::new();
    let mut names: Vec<String> = fs::read_dir(data("."))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("damaged_"))
        .collect();
    names.sort();
    assert_eq!(names.len(), 19);
    for name in names {
        let root = folder(&[(&name, DRAWER)]);
        let why = refused(&metaworld, "drawer-open", &root);
        said.push_str(&format!("{name}: {}\n", why.replace(DRAWER, "FILE")));
    }
    insta::assert_snapshot!(said);
    let root = folder(&[("metaworld_p4.pickle", "reach.pickle"), ("dmc.pickle", DRAWER)]);
    assert_eq!(
        refused(&metaworld, "drawer-open", &root),
        format!("ROOT/{DRAWER}: demonstration 0, env_infos: it has no gripper_proprio")
    );
}

/// Cut short at any byte, or with any byte changed, a file is refused or read without harm.
#[test]
fn no_damage_does_harm() {
    for (name, suite, task, to) in [
        ("metaworld_p2.pickle", "metaworld", "drawer-open", DRAWER),
        ("metaworld_p5.pickle", "metaworld", "drawer-open", DRAWER),
        ("trifinger_1.pth", "trifinger", "reach_cube", "reach_cube/a/downsample.pth"),
        ("trifinger_2.pth", "trifinger", "reach_cube", "reach_cube/a/downsample.pth"),
    ] {
        let suite = small(suite);
        let root = folder(&[(name, to)]);
        let bytes = fs::read(data(name)).unwrap();
        for cut in (0..bytes.len()).step_by(7) {
            put(&root, to, &bytes[..cut]);
            let error = Demonstrations::open(&suite, task, root.path()).err().unwrap();
            assert!(error.to_string().contains("downsample.pth") || to == DRAWER, "{error}");
        }
        for at in (0..bytes.len()).step_by(3) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x55;
            put(&root, to, &changed);
            let Ok(Some(all)) = Demonstrations::open(&suite, task, root.path()) else { continue };
            for at in 0..all.len() {
                assert_eq!(all.load(at).unwrap().actions.nrows(), all.frames(at));
                assert_eq!(all.images(at).unwrap().len(), all.frames(at));
            }
        }
        put(&root, to, [&bytes[..], b"more"].concat());
        assert!(Demonstrations::open(&suite, task, root.path()).is_err(), "{name}");
    }
}

const TRIFINGER: [(&str, &str); 3] = [
    ("trifinger_0.pth", "trifinger-demos/reach/demo-0002/dts-0p4/downsample.pth"),
    ("trifinger_1.pth", "trifinger-demos/reach/demo-0001/dts-0p4/downsample.pth"),
    ("trifinger_2.pth", "trifinger-demos/reach/demo-0000/dts-0p4/downsample.pth"),
];

fn list(train: &[&str], test: &[&str]) -> String {
    let stats = |paths: &[&str]| -> Vec<Value> {
        paths.iter().map(|path| json!({"path": path, "diff": 110, "id": 0})).collect()
    };
    json!({"train_demo_stats": stats(train), "test_demo_stats": stats(test), "max_a": 5.0})
        .to_string()
}

#[test]
fn trifingers_folders_are_read_in_their_order_or_the_lists() {
    let trifinger = small("trifinger");
    let root = folder(&TRIFINGER);
    // The three have 3, 4 and 2 frames.
    let order = |all: &Demonstrations| -> Vec<usize> {
        (0..all.len()).map(|at| [9, 9, 2, 0, 1][all.frames(at)]).collect()
    };
    let all = opened(&trifinger, "reach_cube", &root);
    assert_eq!((order(&all), all.origin(), all.repeat()), (vec![2, 1, 0], Origin::Published, 1));
    let by_name = all.fingerprint();

    let paths = ["reach/demo-0001/dts-0p4", "reach/demo-0002/dts-0p4"];
    put(&root, "trifinger-demos/reach.json", list(&paths[..1], &paths[1..]));
    put(&root, "trifinger-demos/move.json", list(&["move/demo-0000"], &[]));
    put(&root, "trifinger-demos/notes.json", "[1, 2]");
    let all = opened(&trifinger, "reach_cube", &root);
    assert_eq!(order(&all), [1, 0]);
    assert_ne!(all.fingerprint(), by_name);
    for (at, demo, steps) in [(0, 1, 4), (1, 0, 3)] {
        check_images(&all, at, demo, steps);
        let one = all.load(at).unwrap();
        let mut actions = rows(demo, steps, 3, 4);
        actions.row_mut(steps - 1).fill(0.0);
        assert_eq!(one.actions, actions);
        assert_eq!(one.proprio, rows(demo, steps, 9, 3));
        let values = |t: usize, width: usize, scale: usize, of: f64| -> Vec<f64> {
            (0..width).map(|i| f64::from(number(demo, t, i, scale)) / of).collect()
        };
        let start = json!({
            "cube": values(0, 3, 1, 100.0),
            "cube_orientation": values(0, 4, 2, 1.0),
            "goal": values(steps - 1, 3, 1, 100.0),
            "goal_orientation": values(steps - 1, 4, 2, 1.0),
            "joints": values(0, 9, 5, 1.0),
        });
        assert_eq!(one.start, start);
    }
    assert!(Demonstrations::open(&trifinger, "move_cube", root.path()).unwrap().is_none());

    let root = folder(&[("trifinger_1.pth", "move_cube/a/downsample.pth")]);
    let all = opened(&trifinger, "move_cube", &root);
    assert_eq!(all.load(0).unwrap().actions.dim(), (4, 9));
    put(&root, "move_cube/a/downsample.pth", fs::read(data("trifinger_0.pth")).unwrap());
    let why = all.images(0).unwrap_err().to_string();
    assert!(why.ends_with("the whole: it was changed since it was opened"), "{why}");
}

#[test]
fn what_is_wrong_with_trifingers_files_and_lists_is_said() {
    let trifinger = small("trifinger");
    let root = folder(&TRIFINGER);
    let json = "trifinger-demos/reach.json";
    let one = "reach/demo-0001/dts-0p4";
    let mut said = String::new();
    for text in [
        list(&[one, one], &[]),
        list(&[one], &["../demo-0001"]),
        list(&[one], &["reach/demo-0009/dts-0p4"]),
        "{\"train_demo_stats\": [{}], \"test_demo_stats\": []}".to_owned(),
        "{\"train_demo_stats\": [".to_owned(),
    ] {
        put(&root, json, text);
        said.push_str(&refused(&trifinger, "reach_cube", &root));
        said.push('\n');
    }
    put(&root, json, list(&[one], &[]));
    put(&root, "trifinger-demos/another.json", list(&[], &[one]));
    said.push_str(&refused(&trifinger, "reach_cube", &root));
    said.push('\n');
    for (from, task) in
        [("trifinger_damaged.pth", "reach_cube"), ("damaged_call.pickle", "move_cube")]
    {
        let root = folder(&[(from, &format!("{task}/a/downsample.pth"))]);
        said.push_str(&refused(&trifinger, task, &root));
        said.push('\n');
    }
    let mut bytes = fs::read(data("trifinger_0.pth")).unwrap();
    let at = bytes.windows(5).position(|window| window == b"image").unwrap();
    bytes[at] ^= 1;
    put(&root, "reach_cube/a/downsample.pth", &bytes);
    said.push_str(&refused(&trifinger, "reach_cube", &root));
    insta::assert_snapshot!(said);
}

fn record(steps: usize, widths: [usize; 2], value: f32) -> Recorded {
    Recorded {
        images: (0..steps).map(|t| pixels(0, t)).collect(),
        actions: vec![vec![value; widths[0]]; steps],
        rewards: vec![0.0; steps],
        proprio: vec![vec![0.5; widths[1]]; steps],
        state: vec![vec![0.5; 39]; steps],
        ..Recorded::default()
    }
}

#[test]
fn generated_demonstrations_that_do_not_fit_the_task_are_refused() {
    let metaworld = small("metaworld");
    let render = Render { side: SIDE, shadows: false, reflections: false, samples: 0 };
    let by = MadeBy {
        generator: "test".to_owned(),
        seed: 0,
        versions: Vec::new(),
        render,
        repeat: 1,
        mean_score: 0.0,
    };
    let root = tempfile::tempdir().unwrap();
    let begin = || Writer::begin(&metaworld, "drawer-open", root.path(), by.clone()).unwrap();
    for (recorded, expected) in [
        (record(2, [3, 4], 0.5), "demo-000.safetensors: actions: found [2, 3]; expected [2, 4]"),
        (record(2, [4, 9], 0.5), "demo-000.safetensors: proprio: found [2, 9]; expected [2, 4]"),
        (record(2, [4, 4], f32::NAN), "demo-000.safetensors: actions: a number that is not finite"),
    ] {
        let mut writer = begin();
        writer.add(&recorded).unwrap();
        writer.finish().unwrap();
        let all = opened(&metaworld, "drawer-open", &root);
        assert_eq!(all.images(0).unwrap().len(), 2);
        let why = all.load(0).unwrap_err().to_string();
        assert!(why.ends_with(expected), "{why}");
    }

    let mut ragged = record(2, [4, 4], 0.5);
    ragged.actions[1].pop();
    let mut short = record(2, [4, 4], 0.5);
    short.proprio.pop();
    let mut narrow = record(2, [4, 4], 0.5);
    narrow.images[1].pop();
    let mut writer = begin();
    for recorded in [ragged, short, narrow, record(0, [4, 4], 0.5)] {
        writer.add(&recorded).unwrap_err();
    }
    writer.add(&record(2, [4, 4], 0.5)).unwrap();
    let folder = writer.finish().unwrap();
    // The picture of another demonstration, with the hash that was written for it.
    let mut manifest: Value =
        serde_json::from_slice(&fs::read(folder.join("demos.json")).unwrap()).unwrap();
    manifest["demos"][0]["steps"] = json!(3);
    put(&root, "drawer-open/demos.json", manifest.to_string());
    let all = opened(&metaworld, "drawer-open", &root);
    let why = all.images(0).unwrap_err().to_string();
    assert!(why.ends_with("demo-000.png: 2 frames; expected 3"), "{why}");
    assert!(all.load(0).is_err());
}
