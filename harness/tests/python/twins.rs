use std::collections::{BTreeMap, HashMap};

use candle_core::{Device, Tensor};

use super::{World, files, has, run};

const WIDTH: usize = 32;
const BLOCKS: usize = 4;

/// Writes a small CLIP encoder in transformers' form.
fn write(world: &World) {
    let folder = world.path("twin");
    std::fs::create_dir_all(&folder).unwrap();
    let config = serde_json::json!({
        "model_type": "clip_vision_model", "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": BLOCKS, "num_attention_heads": 4, "image_size": 256, "patch_size": 16,
        "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "projection_dim": WIDTH,
        "architectures": ["CLIPVisionModel"], "torch_dtype": "float32",
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut shapes = vec![
        ("embeddings.class_embedding".to_owned(), vec![WIDTH]),
        ("embeddings.patch_embedding.weight".to_owned(), vec![WIDTH, 3, 16, 16]),
        ("embeddings.position_embedding.weight".to_owned(), vec![257, WIDTH]),
    ];
    let mut pair = |name: String, shape: Vec<usize>| {
        shapes.push((format!("{name}.bias"), vec![shape[0]]));
        shapes.push((format!("{name}.weight"), shape));
    };
    pair("pre_layrnorm".to_owned(), vec![WIDTH]);
    pair("post_layernorm".to_owned(), vec![WIDTH]);
    for i in 0..BLOCKS {
        let at = format!("encoder.layers.{i}");
        for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            pair(format!("{at}.self_attn.{name}"), vec![WIDTH, WIDTH]);
        }
        pair(format!("{at}.mlp.fc1"), vec![4 * WIDTH, WIDTH]);
        pair(format!("{at}.mlp.fc2"), vec![WIDTH, 4 * WIDTH]);
        pair(format!("{at}.layer_norm1"), vec![WIDTH]);
        pair(format!("{at}.layer_norm2"), vec![WIDTH]);
    }
    let tensors: HashMap<String, Tensor> = shapes
        .into_iter()
        .enumerate()
        .map(|(seed, (name, shape))| {
            // Patches weigh more than places, so that images differ.
            let scale = match name.split('.').nth(1) {
                Some("patch_embedding") => 1.0,
                Some("position_embedding" | "class_embedding") => 0.02,
                _ => 0.4,
            };
            let base = if name.contains("norm") && name.ends_with("weight") { 1.0 } else { 0.0 };
            let count: usize = shape.iter().product();
            // Values of a fixed sequence without order to the eye.
            let value = |i: usize| ((i * 7919 + seed * 104_729) % 10_007) as f32 / 10_007.0 - 0.5;
            let values: Vec<f32> = (0..count).map(|i| base + scale * value(i)).collect();
            (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
        })
        .collect();
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
}

/// Every value of the runs' table, by task and metric.
fn table(json: &str) -> BTreeMap<String, f64> {
    let rows: Vec<serde_json::Value> = serde_json::from_str(json).unwrap();
    assert!(!rows.is_empty());
    rows.iter()
        .map(|row| {
            let text = |key: &str| row[key].to_string();
            let keys = ["dataset", "head", "metric", "selection", "threshold", "epoch"];
            let name: Vec<String> = keys.iter().map(|key| text(key)).collect();
            (name.join(" "), row["value"].as_f64().unwrap())
        })
        .collect()
}

fn features(world: &World) -> Vec<Vec<f32>> {
    world.kept_features("val")
}

/// A Python backbone against the native one on k-NN and depth.
fn equals_the_native(function: &str) {
    let world = World::new();
    files(&world);
    write(&world);
    let tasks = ["imagenet1k/knn", "nyuv2/linear", "nyuv2/dpt"];
    let of = |backbone: &str, out: &str| {
        let mut args = vec!["run"];
        args.extend(tasks);
        args.extend(["--sample", "--json", "--out", out, "--backbone", backbone]);
        let ran = run(&world, &args);
        assert_eq!(ran.status, Some(0), "{}", ran.stderr);
        table(&ran.stdout)
    };
    let native = of("twin", "native");
    let python = of(&format!("py:twin.py:{function}"), "python");
    assert_eq!(native.keys().collect::<Vec<_>>(), python.keys().collect::<Vec<_>>());
    for (name, expected) in &native {
        let found = python[name];
        let bound = 1e-3 * expected.abs().max(1e-2);
        assert!((found - expected).abs() <= bound, "{name}: {found}, native {expected}");
    }
    // The features themselves, whichever bank is whose.
    let banks = features(&world);
    assert_eq!(banks.len(), 2);
    let largest = banks[0].iter().fold(0f32, |m, x| m.max(x.abs()));
    let furthest = banks[0].iter().zip(&banks[1]).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(furthest / largest < 5e-6, "{}", furthest / largest);

    // Its record says what it is, and a second time nothing runs.
    let plan = &world.plans("python/imagenet1k/knn")[0]["backbone"];
    assert_eq!((plan["family"].as_str(), plan["trained"].as_bool()), (Some("python"), Some(false)));
    assert!(plan["versions"]["numpy"].is_string(), "{plan}");
    let again = run(
        &world,
        &[
            "run",
            "nyuv2/dpt",
            "--sample",
            "--out",
            "python",
            "--backbone",
            &format!("py:twin.py:{function}"),
        ],
    );
    assert!(again.stderr.contains("everything was done before"), "{}", again.stderr);
}

#[test]
fn a_backbone_of_arrays_equals_its_native_twin() {
    if has("numpy") {
        equals_the_native("arrays");
    }
}

#[test]
fn a_torch_module_equals_its_native_twin() {
    if has("numpy, torch, transformers") {
        equals_the_native("torch_model");
    }
}
