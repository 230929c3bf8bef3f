//! Every family against the reference's model of it (transformers; VC-1 timm's; R3M torchvision's), on weights and
//! images made from a formula (`harness/scripts/make_family_vectors.py`), and through k-NN and dense tasks.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;
#[path = "common/vectors.rs"]
mod vectors;

use std::collections::{BTreeMap, HashMap};
use std::fs;

use candle_core::{DType, Device, Tensor};
use common::World;
use pixio_eval::backbone::{Backbone, Placement, Tap, Wanted};
use pixio_eval::weights::Expected;
use serde_json::{Value, json};
use vectors::{BOUND, EVERY, case, cases, data, image, load, resolve, vectors};

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn error(found: &Tensor, expected: &Tensor) -> f32 {
    let (found, expected) = (flat(found), flat(expected));
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    let furthest = found.iter().zip(&expected).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    furthest / largest
}

fn kept(patches: &Tensor) -> Tensor {
    let every: Vec<u32> = (0..patches.dim(1).unwrap() as u32).step_by(EVERY).collect();
    patches.index_select(&Tensor::new(every, &Device::Cpu).unwrap(), 1).unwrap()
}

/// The largest error over three taps, final tokens and pooled output of one image.
fn compare(backbone: &dyn Backbone, name: &str, size: (usize, usize), all: &Vectors) -> f32 {
    let last = backbone.dimensions().blocks - 1;
    let taps = backbone.forward(&image(size.0, size.1), &[0, last / 2, last], Wanted::ALL).unwrap();
    let mut worst = 0f32;
    let mut compared = 0;
    let mut check = |tap: &str, part: &str, found: Option<&Tensor>| {
        let key = format!("{name}.{tap}.{part}").replace("..", ".");
        let (Some(expected), Some(found)) = (all.get(&key), found) else {
            assert!(all.get(&key).is_none() || found.is_some(), "{key} is not computed");
            return;
        };
        compared += 1;
        worst = worst.max(error(found, expected));
    };
    for tap in &taps {
        let block = format!("block{}", tap.block);
        check(&block, "patches", tap.patches.as_ref().map(kept).as_ref());
        check(&block, "class", tap.summary.as_ref());
    }
    let Tap { patches_norm, summary_norm, pooled, .. } = taps.last().unwrap();
    check("final", "patches", patches_norm.as_ref().map(kept).as_ref());
    check("final", "class", summary_norm.as_ref());
    // What transformers calls pooled is the class token after the final norm, without a head.
    check("", "pooled", pooled.as_ref().or(summary_norm.as_ref()));
    let least = if backbone.dimensions().patches { 5 } else { 4 };
    assert!(compared >= least, "{name}: {compared}");
    worst
}

type Vectors = HashMap<String, Tensor>;

/// Ways to resize positions, the default first, and how the vectors of each are called.
fn ways(family: &str) -> &'static [(&'static str, &'static str)] {
    match family {
        "dinov2" | "depth_anything" | "theia" => &[("original", ".original"), ("transformers", "")],
        "vit" | "siglip" => &[("original", ".original"), ("transformers", ""), ("timm", ".timm")],
        "clip" => &[("transformers", ""), ("timm", ".timm")],
        _ => &[("original", "")],
    }
}

#[test]
fn every_family_agrees_with_its_reference() {
    let (world, all) = (World::new(), vectors());
    for case in cases() {
        for (way, suffix) in ways(&case.family) {
            let config = json!({ "position_resize": way });
            let backbone = load(&case.folder(&world, &format!("{}{suffix}", case.name), config));
            for &(height, width) in &case.images {
                let name = format!("{}.{height}x{width}{suffix}", case.name);
                let found = compare(&*backbone, &name, (height, width), &all);
                println!("{name}: {found:.1e}");
                assert!(found <= BOUND, "{name}: {found:e}");
            }
        }
    }
}

/// In half precision every family is near what it is in full.
#[test]
fn every_family_runs_in_half_precision() {
    let (world, all) = (World::new(), vectors());
    for case in cases().into_iter().filter(|case| case.name.ends_with(".1")) {
        let folder = case.folder(&world, &case.name, json!({}));
        let (_, suffix) = ways(&case.family)[0];
        let &(height, width) = case.images.last().unwrap();
        for (dtype, bound) in [(DType::BF16, 4e-2), (DType::F16, 4e-3)] {
            let placement = Placement { device: Device::Cpu, dtype };
            let backbone = resolve(&folder, None).load(&placement).unwrap();
            let name = format!("{}.{height}x{width}{suffix}", case.name);
            let found = compare(&*backbone, &name, (height, width), &all);
            println!("{name} {dtype:?}: {found:.1e}");
            assert!(found <= bound, "{name} {dtype:?}: {found:e}");
        }
    }
}

/// Where a family's own code and transformers (or timm) resize positions differently, the own code's way
/// is the default, and the difference is one that is noticed.
#[test]
fn positions_are_resized_as_by_the_authors_unless_asked() {
    let (world, all) = (World::new(), vectors());
    let names = ["dinov2.0", "depth_anything.0", "theia.0", "vit.0", "siglip.0", "clip.0"];
    for case in names.map(case) {
        let default = load(&case.folder(&world, &case.name, json!({})));
        let &(height, width) = case.images.last().unwrap();
        let ways = ways(&case.family);
        assert!(ways.len() > 1);
        for (i, (_, suffix)) in ways.iter().enumerate() {
            let name = format!("{}.{height}x{width}{suffix}", case.name);
            let found = compare(&*default, &name, (height, width), &all);
            assert!(if i == 0 { found <= BOUND } else { found > 1e-3 }, "{name}: {found:e}");
        }
    }
}

/// Masked or shuffled patches, exact GELU, and positions rescaled at random, as in training: what
/// transformers gives for each is stored, and is far from what the encoder gives.
#[test]
fn no_encoder_falls_into_its_familys_trap() {
    let (world, all) = (World::new(), vectors());
    for (name, size) in [("mae.1", (48, 96)), ("clip.1", (48, 96)), ("dinov3_vit.1", (48, 96))] {
        let backbone = load(&case(name).folder(&world, name, json!({})));
        let key = format!("{name}.{}x{}", size.0, size.1);
        let last = backbone.dimensions().blocks - 1;
        let forward = || {
            let taps = backbone.forward(&image(size.0, size.1), &[last], Wanted::ALL).unwrap();
            taps.into_iter().next().unwrap().patches_norm.unwrap()
        };
        let found = forward();
        assert_eq!(found.dim(1).unwrap(), size.0 / 16 * (size.1 / 16), "{name}");
        assert_eq!(flat(&found), flat(&forward()), "{name}: a random pass");
        let (right, wrong) = (&all[&format!("{key}.final.patches")], &all[&format!("{key}.trap")]);
        assert!(error(&kept(&found), right) <= BOUND, "{name}");
        assert!(error(&kept(&found), wrong) > 1e-3, "{name}");
    }
    // Exact GELU in place of quick GELU is another encoder, and is noticed.
    let clip = case("clip.1");
    let exact = load(&clip.folder(&world, "exact", json!({ "hidden_act": "gelu" })));
    assert!(compare(&*exact, "clip.1.48x96", (48, 96), &all) > 1e-3);
}

/// Counted by the reference from the same configuration, to the last one.
#[test]
fn every_named_backbone_has_the_parameters_its_reference_counts() {
    let counted: BTreeMap<String, u64> =
        serde_json::from_str(&fs::read_to_string(data("parameters.json")).unwrap()).unwrap();
    let registry = pixio_eval::registry::builtin().unwrap();
    assert_eq!(
        counted.keys().collect::<Vec<_>>(),
        registry.backbones.keys().collect::<Vec<_>>(),
        "run harness/scripts/make_family_vectors.py"
    );
    for (name, entry) in &registry.backbones {
        let expected = entry.architecture().unwrap().expected();
        let found: u64 = expected.iter().map(Expected::parameters).sum();
        assert_eq!(found, counted[name], "{name}");
    }
}

/// Every family runs k-NN and, where it has a token grid, a dense task end to end; patch 14 at 224 pixels and
/// encoders without a class token are among them.
#[test]
fn every_family_runs_knn_and_dense_tasks() {
    let world = World::new();
    let mut args = vec!["run", "imagenet1k/knn", "nyuv2/linear", "nyuv2/dpt", "--sample", "--json"];
    args.extend(["--epochs", "1", "--limit", "4", "--pictures", "0", "--k", "1"]);
    let mut specs = Vec::new();
    for case in cases().into_iter().filter(|case| case.name.ends_with(".1")) {
        let config = world.path(&format!("{}.json", case.family));
        fs::write(config, case.config.to_string()).unwrap();
        specs.push(format!("random:{}.json", case.family));
    }
    args.extend(specs.iter().flat_map(|spec| ["--backbone", spec]));
    let ran = world.run(&args);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let rows: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap();
    for spec in &specs {
        let name = spec.trim_end_matches(".json");
        let values = |head: &str| -> Vec<f64> {
            let mine = rows.iter().filter(|r| r["backbone"] == name && r["head"] == head);
            mine.map(|row| row["value"].as_f64().unwrap()).collect()
        };
        for head in ["knn", "linear", "dpt"] {
            let values = values(head);
            let offered = head == "knn" || name != "random:r3m";
            assert_eq!(!values.is_empty(), offered, "{name}/{head}");
            assert!(values.iter().all(|value| value.is_finite()), "{name}/{head}: {values:?}");
        }
    }
    // Windows and crops follow the patch: 224 with stride 149 for 14, 256 with 170 for 16.
    let plans = world.plans("runs/nyuv2/linear");
    assert_eq!(plans.len(), specs.len() - 1);
    assert!(ran.stderr.contains("random:r3m: nyuv2/linear, nyuv2/dpt skipped"), "{}", ran.stderr);
    for plan in plans {
        let stages = &plan["protocol"];
        let window = |key: &str| find(stages, key).unwrap().as_u64().unwrap();
        let family = plan["backbone"]["family"].as_str().unwrap();
        let fourteen =
            ["dinov2", "dinov2_with_registers", "siglip", "depth_anything"].contains(&family);
        let expected = if fourteen { (224, 149) } else { (256, 170) };
        assert_eq!((window("window"), window("stride")), expected, "{family}");
        let joined = !["siglip", "dinov3_vit", "theia", "sam"].contains(&family);
        assert_eq!(find(stages, "summary").unwrap().as_bool(), Some(joined), "{family}");
        // The record says how positions were fitted.
        let positions = plan["backbone"]["positions"].as_str().unwrap();
        let way = match family {
            "dinov3_vit" => "rotary",
            "vit" | "siglip" => "linear between corners",
            "dinov2" | "depth_anything" | "theia" => "(new + 0.1) / old",
            "dinov2_with_registers" => "antialiased",
            _ => "bicubic by size",
        };
        assert!(positions.contains(way), "{family}: {positions}");
    }
}

/// Dense tasks alone are refused before any work where there is no token grid; beside k-NN they are
/// left out (above).
#[test]
fn dense_tasks_are_refused_without_a_token_grid() {
    let world = World::new();
    let args = ["run", "nyuv2/linear", "nyuv2/dpt", "--sample", "--backbone", "random:r3m-18"];
    let ran = world.run(&args);
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""));
    insta::assert_snapshot!(ran.stderr, @r"
    error: random:r3m-18 has no token grid, which nyuv2/linear, nyuv2/dpt needs
    hint: dense heads need a token grid; imagenet1k/knn and CortexBench take any backbone
    ");
}

/// The first value under that key, at any depth.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    let object = value.as_object()?;
    object.get(key).or_else(|| object.values().find_map(|inner| find(inner, key)))
}

#[test]
fn a_config_that_does_not_fit_names_its_field() {
    let world = World::new();
    for (family, field, value) in [
        ("mae.0", "hidden_act", json!("silu")),
        ("dinov2.0", "image_size", json!(71)),
        ("dinov2.0", "position_resize", json!("nearest")),
        ("clip.0", "num_attention_heads", json!(5)),
        ("siglip.0", "num_hidden_layers", json!(0)),
        ("vit.0", "num_channels", json!(4)),
        ("dinov3_vit.0", "mlp_bias", json!(false)),
        ("vit.0", "position_resize", json!("nearest")),
        ("sam.0", "use_rel_pos", json!(false)),
        ("sam.0", "global_attn_indexes", json!([3])),
        ("r3m.0", "depths", json!([1, 2, 3])),
        ("r3m.0", "layer_type", json!("wide")),
        ("theia.0", "num_reg_tokens", json!(7)),
        ("theia.0", "backbone", json!("facebook/deit-huge-patch16-224")),
        ("depth_anything.0", "backbone_config", json!({ "model_type": "swin" })),
    ] {
        let case = case(family);
        let mut config = case.config.clone();
        config[field] = value;
        fs::write(world.path("config.json"), config.to_string()).unwrap();
        let args = ["features", "a.jpg", "--backbone", "random:config.json", "--out", "a"];
        let ran = world.run(&args);
        assert_eq!(ran.status, Some(2), "{family} {field}: {}", ran.stderr);
        let named = ran.stderr.contains(field) || ran.stderr.contains("heads");
        assert!(named && ran.stderr.contains("config.json"), "{field}: {}", ran.stderr);
    }
}
