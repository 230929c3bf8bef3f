//! A user's own backbones: tables, overrides, renamed tensors.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::HashMap;
use std::fs;

use candle_core::{Device, Tensor};
use common::{Ran, World, golden};

/// Checks a backbone and returns what is said of it.
fn check(world: &World, args: &[&str]) -> Result<serde_json::Value, Ran> {
    let mut all = vec!["backbones", "check", "--json", "--seconds", "0", "--batch-size", "1"];
    all.extend(args);
    let ran = world.run(&all);
    if ran.status == Some(0) { Ok(serde_json::from_str(&ran.stdout).unwrap()) } else { Err(ran) }
}

fn passes(world: &World, args: &[&str]) -> serde_json::Value {
    check(world, args).unwrap_or_else(|ran| panic!("{}", ran.stderr))
}

/// The golden encoder under names that no family knows.
fn renamed(world: &World) {
    let tensors = candle_core::safetensors::load(golden().join("model.safetensors"), &Device::Cpu);
    let other: HashMap<String, Tensor> = tensors
        .unwrap()
        .into_iter()
        .map(|(name, tensor)| {
            let name = name.replace("blocks.", "stages.").replace("layer", "unit");
            (format!("student.{name}"), tensor)
        })
        .chain([("head.weight".to_owned(), Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap())])
        .collect();
    candle_core::safetensors::save(&other, world.path("own.safetensors")).unwrap();
    world.copy(&golden(), "golden");
}

const RULES: [&str; 6] =
    ["--rename", "student.*=*", "--rename", "head.*=", "--rename", "*stages.*=*blocks.*"];

#[test]
fn a_folder_a_file_and_a_renamed_file_of_the_same_weights_are_one_backbone() {
    let world = World::new();
    renamed(&world);
    let folder = passes(&world, &["golden"]);
    let features = |found: &serde_json::Value| found["features"].clone();
    let config = ["--arch", "golden/config.json"];
    let pth = passes(&world, &[&["golden/pixio_mini.pth"][..], &config].concat());
    let names: Vec<String> =
        candle_core::safetensors::load(golden().join("model.safetensors"), &Device::Cpu)
            .unwrap()
            .into_keys()
            .collect();
    assert!(names.iter().any(|name| name.contains("layer")), "{names:?}");
    let unit = ["--rename", "*unit*=*layer*"];
    let mut rules = RULES.to_vec();
    // transformers' names have `layer` once or not at all.
    if !names.iter().any(|name| name.contains("blocks.")) {
        rules.truncate(4);
    }
    let file = [&["own.safetensors"][..], &config, &rules, &unit].concat();
    let renamed = passes(&world, &file);
    for other in [&pth, &renamed] {
        assert_eq!(other["identity"], folder["identity"]);
        assert_eq!(features(other), features(&folder));
    }

    // The same by a name of one's own, from anywhere.
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(golden().join("config.json")).unwrap()).unwrap();
    let fields: Vec<String> = config
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, value)| value.is_number() || value.is_boolean())
        .map(|(key, value)| format!("{key} = {value}"))
        .collect();
    let pairs = rules.chunks(2).map(|rule| rule[1]).chain(["*unit*=*layer*"]).map(|rule| {
        let (from, to) = rule.split_once('=').unwrap();
        format!("[{from:?}, {to:?}]")
    });
    let table = format!(
        "[backbone.mine]\nfamily = \"pixio\"\npath = \"own.safetensors\"\nresolution = 256\n\
         rename = [{}]\nconfig = {{ {} }}\n",
        pairs.collect::<Vec<_>>().join(", "),
        fields.join(", "),
    );
    fs::write(world.path("own.toml"), table).unwrap();
    let mine = passes(&world, &["mine", "--backbones", "own.toml"]);
    assert_eq!((&mine["identity"], &mine["name"]), (&folder["identity"], &"mine".into()));
    let list = world.run(&["backbones", "list", "--backbones", "own.toml"]).stdout;
    assert!(list.lines().any(|line| line.starts_with("mine ")), "{list}");
    let shown = world.run(&["backbones", "show", "mine", "--backbones", "own.toml"]).stdout;
    assert!(shown.contains("weights        own.safetensors"), "{shown}");
}

#[test]
fn overrides_are_told_by_the_protocols_name() {
    let world = World::new();
    world.copy(&golden(), "golden");
    let args = ["run", "imagenet1k/knn", "--sample", "--backbone", "golden", "--limit", "16"];
    let plain = world.run(&args);
    assert_eq!(plain.status, Some(0), "{}", plain.stderr);
    let smaller = [&args[..], &["--override", "resolution=128"]].concat();
    let smaller = world.run(&smaller);
    assert_eq!(smaller.status, Some(0), "{}", smaller.stderr);
    assert!(smaller.stderr.contains("+limit=16+resolution=128"), "{}", smaller.stderr);
    let plans = world.plans("runs/imagenet1k/knn");
    assert_eq!(plans.len(), 2);
    let mut sides: Vec<_> =
        plans.iter().map(|p| p["protocol"]["image"]["crop"].to_string()).collect();
    sides.sort();
    assert_eq!(
        sides.iter().filter(|side| *side == "128").count(),
        1,
        "{sides:?} {}",
        plans[0]["protocol"]
    );
}

/// Overrides spare the floor, `pixels`, and not what a user calls so.
#[test]
fn overrides_hold_for_a_folder_of_the_floors_name() {
    let world = World::new();
    world.copy(&golden(), "pixels");
    assert_eq!(passes(&world, &["./pixels", "--override", "resolution=128"])["resolution"], 128);
    assert_eq!(passes(&world, &["pixels", "--override", "resolution=128"])["resolution"], 256);
}

#[test]
fn what_does_not_fit_is_told() {
    let world = World::new();
    renamed(&world);
    let own = |text: &str| fs::write(world.path("own.toml"), text).unwrap();
    let mut told = String::new();
    let mut tell = |what: &str, found: Result<serde_json::Value, Ran>| {
        let Err(ran) = found else { panic!("{what} passed") };
        assert_eq!(ran.status, Some(2), "{}", ran.stderr);
        let lines: Vec<&str> = ran.stderr.lines().take(12).collect();
        told.push_str(&format!("## {what}\n{}\n\n", lines.join("\n")));
    };
    let tables = [
        ("a name that is taken", "[backbone.mae-b]\nfamily = \"mae\"\n"),
        ("a key that is not known", "[backbone.mine]\nfamily = \"mae\"\nresolutoin = 3\n"),
        ("a base that is not known", "[backbone.mine]\nbase = \"dinov2-xl\"\n"),
        ("a family that is not known", "[backbone.mine]\nfamily = \"dino2\"\n"),
        ("neither family nor base", "[backbone.mine]\npath = \"own.safetensors\"\n"),
        ("two sources", "[backbone.mine]\nbase = \"mae-b\"\npath = \"x\"\nrepository = \"a/b\"\n"),
        ("a rule that is none", "[backbone.mine]\nbase = \"mae-b\"\nrename = [[\"a*\", \"b\"]]\n"),
        ("a recipe for Python", "[backbone.mine]\npython = \"a.py:f\"\nresolution = 224\n"),
        (
            "a configuration that does not fit",
            "[backbone.mine]\nbase = \"mae-b\"\nconfig = { hidden_size = 100 }\n",
        ),
        ("no table of backbones", "[backbones.mine]\nbase = \"mae-b\"\n"),
        ("no TOML", "[backbone.mine\n"),
    ];
    for (what, table) in tables {
        own(table);
        tell(what, check(&world, &["mine", "--backbones", "own.toml"]));
    }
    tell("a file that is not there", check(&world, &["mine", "--backbones", "none.toml"]));
    let golden = |more: &[&str]| check(&world, &[&["golden"][..], more].concat());
    tell("an unknown key", golden(&["--override", "resolutoin=224"]));
    tell("a resolution that is none", golden(&["--override", "resolution=250"]));
    tell("another patch", golden(&["--override", "config.patch_size=32"]));
    tell("another width", golden(&["--override", "config.hidden_size=48"]));
    tell("a rule without use", golden(&["--rename", "student.*=*"]));
    tell("two of a name", golden(&["--rename", "*.key.*=*.query.*"]));
    tell(
        "an architecture that is not known",
        check(&world, &["own.safetensors", "--arch", "mae-xl"]),
    );
    insta::assert_snapshot!("own_backbones_that_do_not_fit", told);
}
