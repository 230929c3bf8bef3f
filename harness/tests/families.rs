//! Every family against transformers' model of it, on weights and images made from a formula
//! (`harness/scripts/make_family_vectors.py`), and through k-NN and dense tasks.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use common::World;
use pixio_eval::backbone::{Backbone, Placement, Tap, Wanted};
use pixio_eval::progress::{Reporter, Verbosity};
use pixio_eval::resolve::{Resolved, Resolver, SourceOptions};
use serde_json::{Value, json};

/// max|difference| / max|value|.
const BOUND: f32 = 5e-5;
/// Of the patch tokens, one in so many is stored.
const EVERY: usize = 4;

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    family: String,
    config: Value,
    tensors: BTreeMap<String, Vec<usize>>,
    images: Vec<(usize, usize)>,
}

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families").join(file)
}

fn cases() -> Vec<Case> {
    serde_json::from_str(&fs::read_to_string(data("cases.json")).unwrap()).unwrap()
}

fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name == name).unwrap()
}

fn vectors() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(data("vectors.safetensors"), &Device::Cpu).unwrap()
}

/// Values in -1..1 from counters `tensor * 2^32 + i`, by SplitMix64.
fn uniform(tensor: u64, count: usize) -> impl Iterator<Item = f64> {
    (0..count as u64).map(move |i| {
        let mut x = ((tensor << 32) + i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^= x >> 31;
        (x >> 11) as f64 / 2f64.powi(52) - 1.0
    })
}

fn weight(index: usize, name: &str, shape: &[usize]) -> Tensor {
    let leaf = name.rsplit('.').next().unwrap();
    let inputs: usize = shape[1..].iter().product();
    let (offset, scale) = if leaf == "lambda1" {
        (0.6, 0.3)
    } else if shape.len() == 1 && leaf == "weight" {
        (1.0, 0.2)
    } else if shape.len() == 1 {
        (0.0, 0.1)
    } else if ["token", "position", "probe"].iter().any(|part| name.contains(part)) {
        (0.0, 0.5)
    } else {
        (0.0, (3.0 / inputs as f64).sqrt())
    };
    let values: Vec<f32> = uniform(index as u64, shape.iter().product())
        .map(|u| (offset + scale * u) as f32)
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn image(height: usize, width: usize) -> Tensor {
    let values: Vec<f32> = uniform(1 << 31, 3 * height * width).map(|u| 2.0 * (u as f32)).collect();
    Tensor::from_vec(values, (1, 3, height, width), &Device::Cpu).unwrap()
}

impl Case {
    fn weights(&self) -> HashMap<String, Tensor> {
        let all = self.tensors.iter().enumerate();
        all.map(|(i, (name, shape))| (name.clone(), weight(i, name, shape))).collect()
    }

    /// Writes config.json and model.safetensors; `config` replaces fields of the configuration.
    fn folder(&self, world: &World, name: &str, config: Value) -> PathBuf {
        let folder = world.path(name);
        fs::create_dir_all(&folder).unwrap();
        let mut whole = self.config.clone();
        whole.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        fs::write(folder.join("config.json"), whole.to_string()).unwrap();
        candle_core::safetensors::save(&self.weights(), folder.join("model.safetensors")).unwrap();
        folder
    }
}

fn resolve(path: &Path, arch: Option<&Path>) -> Resolved {
    let reporter = Reporter::new(Verbosity::Quiet);
    let arch = arch.map(|arch| arch.to_str().unwrap().to_owned());
    let options = SourceOptions { arch, offline: true, ..SourceOptions::default() };
    Resolver::new(options, &reporter).unwrap().resolve(path.to_str().unwrap()).unwrap()
}

fn load(path: &Path) -> Box<dyn Backbone> {
    resolve(path, None).load(&Placement { device: Device::Cpu, dtype: DType::F32 }).unwrap()
}

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
    assert!(compared >= 5, "{name}: {compared}");
    worst
}

type Vectors = HashMap<String, Tensor>;

#[test]
fn every_family_agrees_with_transformers() {
    let (world, all) = (World::new(), vectors());
    for case in cases() {
        // DINOv2's positions are resized as its authors do unless transformers' way is asked for.
        let ways = match case.family.as_str() {
            "dinov2" => vec![("transformers", ""), ("original", ".original")],
            _ => vec![("original", "")],
        };
        for (way, suffix) in ways {
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

/// DINOv2's two ways to resize positions differ, and its authors' is the default.
#[test]
fn dinov2_resizes_positions_as_its_authors_unless_asked() {
    let (world, all, case) = (World::new(), vectors(), case("dinov2.0"));
    let default = load(&case.folder(&world, "default", json!({})));
    let size = (42, 84);
    assert!(compare(&*default, "dinov2.0.42x84.original", size, &all) <= BOUND);
    assert!(compare(&*default, "dinov2.0.42x84", size, &all) > 1e-3);
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

/// From transformers' names to those of the authors' checkpoints, qkv packed.
fn originals(tensors: HashMap<String, Tensor>) -> HashMap<String, Tensor> {
    let mut packed: BTreeMap<(String, String), [Option<Tensor>; 3]> = BTreeMap::new();
    let mut all = HashMap::new();
    for (name, tensor) in tensors {
        if let Some((front, leaf)) = name.rsplit_once(".attention.attention.") {
            let (part, leaf) = leaf.split_once('.').unwrap();
            let third = ["query", "key", "value"].iter().position(|p| *p == part).unwrap();
            packed.entry((front.to_owned(), leaf.to_owned())).or_default()[third] = Some(tensor);
            continue;
        }
        all.insert(name, tensor);
    }
    for ((front, leaf), parts) in packed {
        let parts: Vec<Tensor> = parts.into_iter().map(Option::unwrap).collect();
        all.insert(format!("{front}.attn.qkv.{leaf}"), Tensor::cat(&parts, 0).unwrap());
    }
    let renamed = [
        ("encoder.layer.", "blocks."),
        ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
        ("embeddings.position_embeddings", "pos_embed"),
        ("embeddings.", ""),
        ("attention.output.dense", "attn.proj"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
        ("layernorm_before", "norm1"),
        ("layernorm_after", "norm2"),
        ("layernorm", "norm"),
        ("layer_scale1.lambda1", "ls1.gamma"),
        ("layer_scale2.lambda1", "ls2.gamma"),
        ("weights_in", "w12"),
        ("weights_out", "w3"),
    ];
    let rename =
        |name: String| renamed.iter().fold(name, |name, (from, to)| name.replace(from, to));
    all.into_iter().map(|(name, tensor)| (rename(name), tensor)).collect()
}

#[test]
fn names_of_the_authors_and_of_transformers_are_one_encoder() {
    let world = World::new();
    for name in ["mae.0", "dinov2.0", "dinov2.1", "dinov2_with_registers.1"] {
        let case = case(name);
        let folder = case.folder(&world, name, json!({}));
        let of_folder = resolve(&folder, None).identity().unwrap();
        let config = folder.join("config.json");
        let file = |name: &str, tensors: &HashMap<String, Tensor>| {
            let path = world.path(name);
            candle_core::safetensors::save(tensors, &path).unwrap();
            resolve(&path, Some(&config)).identity().unwrap()
        };
        let theirs = originals(case.weights());
        assert!(theirs.contains_key("blocks.0.attn.qkv.weight"), "{name}");
        assert_eq!(file("original.safetensors", &theirs), of_folder, "{name}");
        assert_eq!(file("renamed.safetensors", &case.weights()), of_folder, "{name}");
    }
    // As pre-trained, with a decoder beside the encoder.
    let case_of_mae = case("mae.1");
    let alone = resolve(&case_of_mae.folder(&world, "mae", json!({})), None).identity().unwrap();
    let inside = |(name, tensor): (String, Tensor)| (format!("vit.{name}"), tensor);
    let mut whole: HashMap<String, Tensor> =
        case_of_mae.weights().into_iter().map(inside).collect();
    let token = Tensor::zeros((1, 1, 8), DType::F32, &Device::Cpu).unwrap();
    whole.insert("decoder.mask_token".to_owned(), token.clone());
    whole.insert("decoder.decoder_embed.weight".to_owned(), token);
    let file = world.path("mae/model.safetensors");
    candle_core::safetensors::save(&whole, file).unwrap();
    assert_eq!(resolve(&world.path("mae"), None).identity().unwrap(), alone);
    // The same, inside a model of images and texts, as the hub has CLIP and SigLIP.
    for (name, family) in [("clip.0", "clip"), ("siglip.0", "siglip")] {
        let case = case(name);
        let alone = resolve(&case.folder(&world, name, json!({})), None).identity().unwrap();
        let whole = world.path(&format!("whole-{name}"));
        fs::create_dir_all(&whole).unwrap();
        let config = json!({ "model_type": family, "vision_config": case.config });
        fs::write(whole.join("config.json"), config.to_string()).unwrap();
        let inside = |(name, tensor): (String, Tensor)| (format!("vision_model.{name}"), tensor);
        let mut tensors: HashMap<String, Tensor> = case.weights().into_iter().map(inside).collect();
        let scale = Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
        tensors.insert("text_model.final_layer_norm.weight".to_owned(), scale.clone());
        tensors.insert("logit_scale".to_owned(), scale);
        candle_core::safetensors::save(&tensors, whole.join("model.safetensors")).unwrap();
        assert_eq!(resolve(&whole, None).identity().unwrap(), alone, "{name}");
    }
}

/// Counted by transformers from the same configuration, to the last one.
#[test]
fn every_named_backbone_has_the_parameters_transformers_counts() {
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
        let found: usize = expected.iter().map(|e| e.shape.iter().product::<usize>()).sum();
        assert_eq!(found as u64, counted[name], "{name}");
    }
}

/// Every family runs k-NN and a dense task end to end, patch 14 at 224 pixels and SigLIP without a
/// class token among them.
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
            assert!(!values.is_empty(), "{name}/{head}");
            assert!(values.iter().all(|value| value.is_finite()), "{name}/{head}: {values:?}");
        }
    }
    // Windows and crops follow the patch: 224 with stride 149 for 14, 256 with 170 for 16.
    let plans = world.plans("runs/nyuv2/linear");
    assert_eq!(plans.len(), specs.len());
    for plan in plans {
        let stages = &plan["protocol"];
        let window = |key: &str| find(stages, key).unwrap().as_u64().unwrap();
        let family = plan["backbone"]["family"].as_str().unwrap();
        let fourteen = ["dinov2", "dinov2_with_registers", "siglip"].contains(&family);
        let expected = if fourteen { (224, 149) } else { (256, 170) };
        assert_eq!((window("window"), window("stride")), expected, "{family}");
        let joined = !["siglip", "dinov3_vit"].contains(&family);
        assert_eq!(find(stages, "summary").unwrap().as_bool(), Some(joined), "{family}");
    }
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
