//! What a user sees when something is wrong: each message, its hints and its exit status.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;
use std::path::Path;

use common::{Ran, World, golden};

/// Exit status and stderr as one text; nothing may have gone to stdout.
fn seen(ran: &Ran) -> String {
    assert_eq!(ran.stdout, "", "an error must not print data");
    format!("exit {}\n{}", ran.status.unwrap(), ran.stderr)
}

fn config(folder: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let path = folder.join("config.json");
    let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(path, serde_json::to_vec(&config).unwrap()).unwrap();
}

/// A world with a copy of the golden encoder in `mini` and the golden images in `imagenet`.
fn world() -> World {
    let world = World::new();
    let mini = world.path("mini");
    fs::create_dir(&mini).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden().join(file), mini.join(file)).unwrap();
    }
    world.copy(&golden().join("imagenet"), "imagenet");
    world
}

const KNN: [&str; 7] =
    ["run", "imagenet1k/knn", "--backbone", "mini", "--data", "imagenet1k=imagenet", "--k=5"];

fn knn(world: &World, more: &[&str]) -> Ran {
    world.run(&[&KNN, more].concat())
}

#[test]
fn an_unknown_backbone_is_answered_with_the_near_name() {
    let ran = World::new().run(&["all", "--sample", "--backbone", "pixio-xl"]);
    insta::assert_snapshot!(seen(&ran));
}

#[test]
fn a_folder_without_config() {
    let world = world();
    fs::remove_file(world.path("mini/config.json")).unwrap();
    insta::assert_snapshot!(seen(&knn(&world, &[])));
}

#[test]
fn a_config_of_an_unsupported_family() {
    let world = world();
    config(&world.path("mini"), |c| c["model_type"] = "vit_msn".into());
    insta::assert_snapshot!(seen(&knn(&world, &[])));
}

#[test]
fn a_config_with_a_wrong_field() {
    let world = world();
    config(&world.path("mini"), |c| c["num_attention_heads"] = 5.into());
    insta::assert_snapshot!(seen(&knn(&world, &[])));
}

#[test]
fn truncated_safetensors() {
    let world = world();
    let path = world.path("mini/model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    insta::assert_snapshot!(seen(&knn(&world, &[])));
}

#[test]
fn tensors_that_are_missing_unexpected_and_mis_shaped() {
    let world = world();
    config(&world.path("mini"), |c| {
        c["mlp_ratio"] = 3.into();
        c["num_hidden_layers"] = 7.into();
        c["n_cls_tokens"] = 9.into();
    });
    insta::assert_snapshot!(seen(&knn(&world, &[])));
}

#[test]
fn tensors_of_one_block_too_few() {
    let world = world();
    config(&world.path("mini"), |c| c["num_hidden_layers"] = 9.into());
    insta::assert_snapshot!(seen(&knn(&world, &[])));
}

#[test]
fn a_checkpoint_that_is_no_checkpoint() {
    let world = world();
    fs::write(world.path("broken.pth"), b"not a zip").unwrap();
    let args = ["--backbone", "broken.pth", "--arch", "pixio-nano"];
    insta::assert_snapshot!(seen(&world.run(&[&["all", "--sample"][..], &args].concat())));
}

#[test]
fn a_weights_file_without_an_architecture() {
    let world = world();
    let spec = golden().join("pixio_mini.pth");
    let args = ["features", "imagenet/val", "--out", "x", "--backbone", spec.to_str().unwrap()];
    insta::assert_snapshot!(seen(&world.run(&args)));
}

#[test]
fn an_image_that_is_not_an_image_ends_the_run_before_a_number() {
    let world = world();
    fs::write(world.path("imagenet/val/n00000003/n00000003_1.JPEG"), "<html>gone</html>").unwrap();
    insta::assert_snapshot!(seen(&knn(&world, &[])));
    assert!(world.run(&["runs"]).stdout.contains("failed"));
    assert!(!world.run(&["table"]).stderr.is_empty());
}

#[test]
fn a_truncated_image_is_named_or_left_out_and_recorded() {
    let world = world();
    let path = world.path("imagenet/train/n00000002/n00000002_4.JPEG");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() * 2 / 3]).unwrap();
    insta::assert_snapshot!("a_truncated_image", seen(&knn(&world, &[])));

    let ran = knn(&world, &["--skip-bad-images"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("1 unreadable image left out"), "{}", ran.stdout);
    let records: Vec<_> = fs::read_dir(world.path("runs/imagenet1k/knn"))
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.unwrap().path().join("record.json")).ok())
        .collect();
    assert_eq!(records.len(), 1);
    let record: serde_json::Value = serde_json::from_str(&records[0]).unwrap();
    let skipped = &record["outcome"]["skipped_images"];
    assert_eq!(skipped, &serde_json::json!(["train/n00000002/n00000002_4.JPEG"]));
    assert_eq!(record["plan"]["protocol"]["name"], "pixio+k=5+skip-bad-images");
    assert_eq!(ran.stdout.matches("left out").count(), 1, "{}", ran.stdout);

    // Once the file is whole again, nothing that was kept leaves it out.
    fs::write(&path, &bytes).unwrap();
    let ran = knn(&world, &["--skip-bad-images", "--json"]);
    let clean = knn(&world, &["--json"]);
    assert_eq!((ran.status, clean.status), (Some(0), Some(0)), "{}", clean.stderr);
    let values = |ran: &Ran| -> Vec<f64> {
        let rows: Vec<serde_json::Value> = serde_json::from_str(&ran.stdout).unwrap();
        rows.iter().map(|row| row["value"].as_f64().unwrap()).collect()
    };
    assert_eq!(values(&ran), values(&clean));
}

#[test]
fn a_damaged_record_fails_its_run_and_not_the_others() {
    let world = world();
    let args = [&KNN[..], &["--backbone", "pixels"]].concat();
    assert_eq!(world.run(&args).status, Some(0));
    let runs = fs::read_dir(world.path("runs/imagenet1k/knn")).unwrap();
    let mini = runs.map(|e| e.unwrap().path()).find(|p| p.to_str().unwrap().contains("mini-"));
    fs::write(mini.unwrap().join("record.json"), "{").unwrap();
    let ran = world.run(&args);
    assert_eq!(ran.status, Some(1));
    assert!(ran.stdout.contains("pixels") && !ran.stdout.contains("mini"), "{}", ran.stdout);
    assert!(ran.stderr.contains("record.json cannot be read"), "{}", ran.stderr);
}

#[test]
fn a_temperature_that_is_none_stops_before_any_work() {
    let world = world();
    for temperature in ["0", "-1", "nan", "1e-5"] {
        let ran = knn(&world, &[&format!("--temperature={temperature}")]);
        assert_eq!(ran.status, Some(2), "{temperature}: {}", ran.stderr);
        assert!(!world.path("cache/features-v2").exists());
    }
    assert_eq!(knn(&world, &["--sample"]).status, Some(2), "--data beside --sample");
}

#[test]
fn a_cache_that_cannot_be_written() {
    let world = world();
    fs::write(world.path("cache"), "a file").unwrap();
    insta::assert_snapshot!(seen(&knn(&world, &[])));
}

#[test]
fn features_needs_a_folder_to_write_to_and_images_to_read() {
    let world = world();
    let image = "imagenet/val/n00000000/n00000000_0.JPEG";
    let args = |out| ["features", image, "--backbone", "mini", "--out", out];
    insta::assert_snapshot!("features_out", seen(&world.run(&args("missing/x"))));
    let ran = world.run(&["features", "mini/config.json", "--backbone", "mini", "--out", "x"]);
    insta::assert_snapshot!("features_no_image", seen(&ran));
    assert!(!world.path("x").exists());
}

#[test]
fn a_class_folder_missing_in_val() {
    let world = world();
    fs::remove_dir_all(world.path("imagenet/val/n00000006")).unwrap();
    insta::assert_snapshot!(seen(&knn(&world, &[])));
}

#[test]
fn an_empty_data_set() {
    let world = world();
    fs::remove_dir_all(world.path("imagenet")).unwrap();
    fs::create_dir_all(world.path("imagenet/train")).unwrap();
    fs::create_dir_all(world.path("imagenet/val")).unwrap();
    insta::assert_snapshot!(seen(&knn(&world, &[])));
}

#[test]
fn more_neighbours_than_train_samples() {
    insta::assert_snapshot!(seen(&knn(&world(), &["--k", "20,81"])));
}

#[test]
fn an_out_folder_that_cannot_be_written() {
    let world = world();
    fs::write(world.path("file"), "").unwrap();
    insta::assert_snapshot!(seen(&knn(&world, &["--out", "file/runs"])));
}

#[test]
fn a_gpu_in_a_build_without_gpu_support() {
    if cfg!(feature = "cuda") {
        return;
    }
    insta::assert_snapshot!(seen(&knn(&world(), &["--device", "cuda:1"])));
}

#[test]
fn data_that_is_not_there_stops_before_any_work_when_it_was_asked_for() {
    let world = world();
    let ran = world.run(&["all", "--backbone", "mini", "--tasks", "imagenet1k"]);
    insta::assert_snapshot!("data_not_there", seen(&ran));
    let ran = world.run(&["all", "--backbone", "mini", "--data", "nyuv2=nowhere"]);
    insta::assert_snapshot!("named_data_not_there", seen(&ran));
    let ran = world.run(&["all", "--backbone", "mini"]);
    insta::assert_snapshot!("no_data_at_all", seen(&ran));
}

#[test]
fn words_that_are_not_names() {
    let world = world();
    insta::assert_snapshot!("unknown_task", seen(&world.run(&["run", "imagenet/knn"])));
    let ran = knn(&world, &["--data", "imagenet=imagenet"]);
    insta::assert_snapshot!("unknown_data_set", seen(&ran));
    insta::assert_snapshot!("unknown_card", seen(&world.run(&["backbones", "show", "pixio"])));
    insta::assert_snapshot!("no_backbone", seen(&world.run(&["all"])));
    let ran = world.run(&["all", "--sample", "--backbone", "pixio-nano"]);
    insta::assert_snapshot!("no_weights", seen(&ran));
}

#[test]
fn a_size_that_does_not_divide_into_patches() {
    let world = world();
    let image = "imagenet/val/n00000000/n00000000_0.JPEG";
    let args = ["features", image, "--backbone", "mini", "--size", "250x256", "--out", "x"];
    insta::assert_snapshot!(seen(&world.run(&args)));
    assert!(!world.path("x").exists());
}

#[test]
fn no_results_yet() {
    insta::assert_snapshot!(seen(&World::new().run(&["table"])));
}

#[test]
fn plots_and_reports_of_nothing() {
    let world = World::new();
    insta::assert_snapshot!(seen(&world.run(&["plot", "bars", "--output", "bars.svg"])));
    insta::assert_snapshot!(seen(&world.run(&["plot", "bars", "--output", "bars.jpg"])));
    insta::assert_snapshot!(seen(&world.run(&["report"])));
}
