//! A name, a folder and a renamed checkpoint of the same weights are one encoder, of every family; and a
//! checkpoint of another family is told from them.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;
#[path = "common/vectors.rs"]
mod vectors;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use common::World;
use insta::assert_snapshot;
use serde_json::{Value, json};
use vectors::{Case, case, cases, resolve};

type Tensors = HashMap<String, Tensor>;

/// Parts of transformers' names of queries, keys and values.
const THIRDS: [[&str; 3]; 3] = [
    [".attention.attention.query.", ".attention.attention.key.", ".attention.attention.value."],
    [".attention.q_proj.", ".attention.k_proj.", ".attention.v_proj."],
    [".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj."],
];

/// Puts queries, keys and values into one tensor `.attn.qkv.`, with zeros for a bias that is not there.
fn packed(tensors: Tensors) -> Tensors {
    let mut parts: BTreeMap<String, [Option<Tensor>; 3]> = BTreeMap::new();
    let mut all = Tensors::new();
    for (name, tensor) in tensors {
        let third = THIRDS.iter().find_map(|names| {
            let third = names.iter().position(|part| name.contains(part))?;
            Some((name.replace(names[third], ".attn.qkv."), third))
        });
        match third {
            Some((name, third)) => parts.entry(name).or_default()[third] = Some(tensor),
            None => drop(all.insert(name, tensor)),
        }
    }
    for (name, parts) in parts {
        let zeros = parts[0].as_ref().unwrap().zeros_like().unwrap();
        let parts = parts.map(|part| part.unwrap_or(zeros.clone()));
        all.insert(name, Tensor::cat(&parts, 0).unwrap());
    }
    all
}

fn renamed(tensors: Tensors, rules: &[(&str, &str)]) -> Tensors {
    let rename = |name: String| rules.iter().fold(name, |name, (from, to)| name.replace(from, to));
    tensors.into_iter().map(|(name, tensor)| (rename(name), tensor)).collect()
}

/// To the names that the authors of MAE and DINOv2 share, qkv packed.
fn original(tensors: Tensors) -> Tensors {
    let rules = [
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
    renamed(packed(tensors), &rules)
}

/// To the names of DINOv3's authors.
fn dinov3(tensors: Tensors) -> Tensors {
    let rules = [
        ("layer.", "blocks."),
        ("embeddings.patch_embeddings", "patch_embed.proj"),
        ("embeddings.register_tokens", "storage_tokens"),
        ("embeddings.", ""),
        ("attention.o_proj", "attn.proj"),
        ("layer_scale1.lambda1", "ls1.gamma"),
        ("layer_scale2.lambda1", "ls2.gamma"),
    ];
    let gated = tensors.keys().any(|name| name.contains("gate_proj"));
    let mlp: &[(&str, &str)] = match gated {
        true => &[("gate_proj", "w1"), ("up_proj", "w2"), ("down_proj", "w3")],
        false => &[("up_proj", "fc1"), ("down_proj", "fc2")],
    };
    let mut all = renamed(packed(tensors), &[&rules[..], mlp].concat());
    let width = all["norm.bias"].dim(0).unwrap();
    let zeros = |count| Tensor::zeros(count, DType::F32, &Device::Cpu).unwrap();
    all.insert("rope_embed.periods".to_owned(), zeros(3));
    all.insert("blocks.0.attn.qkv.bias_mask".to_owned(), zeros(3 * width));
    all
}

/// From transformers' CLIP to the parts that its authors' and timm's names have in common.
fn clip(tensors: Tensors, rules: &[(&str, &str)]) -> Tensors {
    let own = [
        ("embeddings.patch_embedding", "patch"),
        ("embeddings.class_embedding", "class"),
        ("embeddings.position_embedding.weight", "position"),
        ("pre_layrnorm", "before"),
        ("post_layernorm", "after"),
        ("layer_norm", "norm"),
        ("self_attn.out_proj", "attn.proj"),
    ];
    renamed(renamed(packed(tensors), &own), rules)
}

fn clip_original(tensors: Tensors) -> Tensors {
    let rules = [
        ("patch", "visual.conv1"),
        ("class", "visual.class_embedding"),
        ("position", "visual.positional_embedding"),
        ("before", "visual.ln_pre"),
        ("after", "visual.ln_post"),
        ("encoder.layers.", "visual.transformer.resblocks."),
        (".norm", ".ln_"),
        ("attn.proj", "attn.out_proj"),
        ("attn.qkv.", "attn.in_proj_"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
    ];
    let mut all = clip(tensors, &rules);
    for texts in ["positional_embedding", "transformer.resblocks.0.ln_1.bias", "visual.proj"] {
        all.insert(texts.to_owned(), Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap());
    }
    all
}

fn clip_timm(tensors: Tensors) -> Tensors {
    let rules = [
        ("patch", "patch_embed.proj"),
        ("class", "cls_token"),
        ("position", "pos_embed"),
        ("before", "norm_pre"),
        ("after", "norm"),
        ("encoder.layers.", "blocks."),
    ];
    let flat = |(name, tensor): (String, Tensor)| match name.as_str() {
        "cls_token" => (name, tensor.reshape((1, 1, ())).unwrap()),
        "pos_embed" => (name, tensor.unsqueeze(0).unwrap()),
        _ => (name, tensor),
    };
    clip(tensors, &rules).into_iter().map(flat).collect()
}

/// To the names of SAM's authors.
fn sam(tensors: Tensors) -> Tensors {
    let rules = [
        ("vision_encoder", "image_encoder"),
        ("layers.", "blocks."),
        ("patch_embed.projection", "patch_embed.proj"),
        ("neck.conv1", "neck.0"),
        ("neck.layer_norm1", "neck.1"),
        ("neck.conv2", "neck.2"),
        ("neck.layer_norm2", "neck.3"),
        ("layer_norm", "norm"),
        ("mlp.lin", "mlp.fc"),
    ];
    renamed(tensors, &rules)
}

/// The names that a case's weights have elsewhere.
fn elsewhere(case: &Case) -> Vec<Tensors> {
    let weights = case.weights();
    let inside = |prefix: &str, tensors: Tensors| -> Tensors {
        tensors.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect()
    };
    let without = |prefix: &str| renamed(weights.clone(), &[(prefix, "")]);
    match case.family.as_str() {
        "mae" => vec![original(weights.clone()), inside("vit.", weights)],
        "dinov2" => vec![original(weights.clone()), inside("dinov2.", weights)],
        "dinov2_with_registers" => vec![original(weights)],
        "vit" => {
            let alone =
                weights.clone().into_iter().filter(|(name, _)| !name.starts_with("pooler."));
            vec![original(alone.collect()), inside("vit.", weights)]
        }
        "dinov3_vit" => vec![dinov3(weights)],
        "clip" => vec![
            clip_original(weights.clone()),
            clip_timm(weights.clone()),
            inside("vision_model.", weights),
        ],
        "siglip" => vec![inside("vision_model.", weights)],
        "vc1" => vec![inside("module.", weights)],
        "r3m" => vec![without("module.convnet."), without("module.")],
        "theia" => vec![without("backbone.model."), original(without("backbone.model."))],
        "sam" => vec![sam(weights.clone()), without("vision_encoder.")],
        "depth_anything" => {
            let alone = weights.into_iter().filter(|(name, _)| name.starts_with("backbone."));
            let alone = renamed(original(alone.collect()), &[("backbone.", "pretrained.")]);
            let head = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
            let head = ("depth_head.projects.0.bias".to_owned(), head);
            vec![alone.into_iter().chain([head]).collect()]
        }
        other => panic!("no other names of {other}"),
    }
}

fn saved(world: &World, name: &str, tensors: &Tensors) -> PathBuf {
    let path = world.path(name);
    candle_core::safetensors::save(tensors, &path).unwrap();
    path
}

#[test]
fn a_name_a_folder_and_a_renamed_checkpoint_are_one_encoder() {
    let world = World::new();
    for case in cases() {
        let name = &case.name;
        let folder = case.folder(&world, name, json!({}));
        let of_folder = resolve(&folder, None).identity().unwrap();
        let config = folder.join("config.json");
        let others = elsewhere(&case);
        for (i, tensors) in [case.weights()].iter().chain(&others).enumerate() {
            let file = saved(&world, "renamed.safetensors", tensors);
            assert_eq!(resolve(&file, Some(&config)).identity().unwrap(), of_folder, "{name} {i}");
        }
        // The hub's name, as its cache has it.
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let repository = world.path(&format!("hf/hub/models--test--{name}"));
        fs::create_dir_all(repository.join("refs")).unwrap();
        fs::create_dir_all(repository.join("snapshots")).unwrap();
        fs::write(repository.join("refs/main"), commit).unwrap();
        fs::rename(&folder, repository.join("snapshots").join(commit)).unwrap();
        let mut command = world.command(&["backbones", "pull", &format!("hf:test/{name}")]);
        command.env("HF_HUB_OFFLINE", "1");
        let ran = world.finish(command);
        let expected = format!("revision {commit}, identity {}", of_folder.short());
        assert!(ran.stdout.contains(&expected), "{name}: {} {}", ran.stdout, ran.stderr);
    }
}

#[test]
fn names_of_timm_are_those_of_timm() {
    let shapes = |tensors: Tensors| -> BTreeMap<String, Vec<usize>> {
        tensors.into_iter().map(|(name, tensor)| (name, tensor.dims().to_vec())).collect()
    };
    let world = World::new();
    let mut seen = 0;
    for case in cases() {
        let Some(timm) = &case.timm else { continue };
        let mut weights = case.weights();
        weights.retain(|name, _| !name.contains("pooler.") && !name.contains("mask_token"));
        let tensors = match case.family.as_str() {
            "clip" => clip_timm(weights),
            // timm calls the layers of SwiGLU as those of any other MLP.
            _ => renamed(original(weights), &[("mlp.w12", "mlp.fc1"), ("mlp.w3", "mlp.fc2")]),
        };
        assert_eq!(&shapes(tensors.clone()), timm, "{}", case.name);
        let folder = case.folder(&world, &case.name, json!({}));
        let config = folder.join("config.json");
        let file = saved(&world, "timm.safetensors", &tensors);
        let found = resolve(&file, Some(&config)).identity().unwrap();
        assert_eq!(found, resolve(&folder, None).identity().unwrap(), "{}", case.name);
        seen += 1;
    }
    assert_eq!(seen, 8);
}

#[test]
fn what_stands_beside_an_encoder_is_left_out() {
    let world = World::new();
    let token = Tensor::zeros((1, 1, 8), DType::F32, &Device::Cpu).unwrap();
    for (name, prefix, beside) in [
        ("mae.1", "vit.", &["decoder.mask_token", "decoder.decoder_embed.weight"][..]),
        ("clip.0", "vision_model.", &["text_model.final_layer_norm.weight", "logit_scale"]),
        ("siglip.0", "vision_model.", &["text_model.final_layer_norm.weight", "logit_bias"]),
        ("theia.0", "", &["translator.translator_heads.x.weight"]),
        ("sam.0", "", &["mask_decoder.x.weight", "prompt_encoder.x.weight", "pixel_mean"]),
        ("r3m.0", "", &["module.lang_rew.x.weight", "module.convnet.fc.weight"]),
        ("dinov3_vit.0", "", &["local_cls_norm.weight"]),
    ] {
        let case = case(name);
        let alone = resolve(&case.folder(&world, name, json!({})), None).identity().unwrap();
        let inside = |(name, tensor): (String, Tensor)| (format!("{prefix}{name}"), tensor);
        let mut whole: Tensors = case.weights().into_iter().map(inside).collect();
        whole.extend(beside.iter().map(|name| ((*name).to_owned(), token.clone())));
        saved(&world, &format!("{name}/model.safetensors"), &whole);
        assert_eq!(resolve(&world.path(name), None).identity().unwrap(), alone, "{name}");
    }
    // The configuration of a model of images and texts, or of a depth head over an encoder.
    for (name, family) in [("clip.0", "clip"), ("siglip.0", "siglip"), ("sam.0", "sam")] {
        let case = case(name);
        let alone = resolve(&case.folder(&world, name, json!({})), None).identity().unwrap();
        let config = json!({ "model_type": family, "vision_config": case.config });
        fs::write(world.path(name).join("config.json"), config.to_string()).unwrap();
        assert_eq!(resolve(&world.path(name), None).identity().unwrap(), alone, "{name}");
    }
    // The authors of Theia name a class and a DeiT in place of a model type and sizes.
    let config =
        json!({ "architectures": ["TheiaModel"], "backbone": "facebook/deit-tiny-patch16-224" });
    fs::write(world.path("theia.json"), config.to_string()).unwrap();
    let named = pixio_eval::registry::builtin().unwrap().backbones["theia-t"].architecture();
    let file = saved(&world, "theia.safetensors", &case("theia.0").weights());
    let args = ["features", "a.jpg", "--out", "a", "--arch", "theia.json", "--backbone"];
    let ran = world.run(&[&args[..], &[file.to_str().unwrap()]].concat());
    assert!(ran.stderr.contains("expected 12 blocks of width 192, patch 16"), "{}", ran.stderr);
    assert_eq!(named.unwrap().dimensions().width, 192);
}

/// What is said of one family's weights under another's configuration.
#[test]
fn a_checkpoint_of_another_family_is_told() {
    let world = World::new();
    let said = |config: &Value, tensors: &Tensors| {
        fs::write(world.path("asked.json"), config.to_string()).unwrap();
        saved(&world, "own.safetensors", tensors);
        let args = ["features", "a.jpg", "--out", "a", "--arch", "asked.json"];
        let ran = world.run(&[&args[..], &["--backbone", "own.safetensors"]].concat());
        assert_eq!(ran.status, Some(2), "{}", ran.stderr);
        ran.stderr.lines().next().unwrap().to_owned()
    };
    let mae = case("mae.1").config;
    let found: Vec<String> = cases()
        .iter()
        .filter(|case| case.name.ends_with(".0") && case.family != "mae")
        .map(|case| said(&mae, &case.weights()))
        .collect();
    assert_snapshot!("weights_of_each_family_for_mae", found.join("\n"));
    let builtin = pixio_eval::registry::builtin().unwrap();
    let mut pixio = builtin.backbones["pixio-nano"].config.clone();
    pixio["model_type"] = json!("pixio");
    let strangers = ["model.embed_tokens.weight", "down_blocks.0.attentions.0.norm.weight", "x.y"];
    let found: Vec<String> = strangers
        .iter()
        .map(|name| {
            let tensor = Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
            said(&pixio, &HashMap::from([((*name).to_owned(), tensor)]))
        })
        .collect();
    assert_snapshot!("weights_of_strangers_for_pixio", found.join("\n"));
}

/// A repository without a config.json of transformers is built as backbones.toml says when its name is
/// given, and is an error as `hf:`.
#[test]
fn a_named_repository_needs_no_config() {
    let world = World::new();
    let snapshot =
        "hf/hub/models--facebook--vc1-base/snapshots/0123456789abcdef0123456789abcdef01234567";
    fs::create_dir_all(world.path(snapshot)).unwrap();
    fs::create_dir_all(world.path("hf/hub/models--facebook--vc1-base/refs")).unwrap();
    let note = world.path("hf/hub/models--facebook--vc1-base/refs/main");
    fs::write(note, "0123456789abcdef0123456789abcdef01234567").unwrap();
    saved(&world, &format!("{snapshot}/model.safetensors"), &case("vc1.0").weights());
    let pull = |name| {
        let mut command = world.command(&["backbones", "pull", name]);
        command.env("HF_HUB_OFFLINE", "1");
        let ran = world.finish(command);
        assert_eq!(ran.status, Some(2), "{}", ran.stdout);
        ran.stderr.lines().next().unwrap().replace(snapshot, "SNAPSHOT")
    };
    assert_snapshot!("a_name_without_config", pull("vc1-b"));
    assert_snapshot!("a_repository_without_config", pull("hf:facebook/vc1-base"));
}
