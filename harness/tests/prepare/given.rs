//! Files that a person fetched, and what is said of those that are not there yet.

use super::*;

fn refused(world: &World, args: &[&str]) -> String {
    let server = Server::new();
    let ran = run(world, &server, args);
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""), "{}", ran.stderr);
    assert!(server.with(|state| state.seen.is_empty()));
    ran.stderr
}

#[test]
fn what_a_person_must_fetch_is_listed_at_once() {
    let world = World::new();
    assert_snapshot!(refused(&world, &["nyuv2"]), @r"
    error: nyuv2 needs files that only a person can get; nothing was fetched

      sync.zip
        https://github.com/cleinc/bts
        Download sync.zip, the training images, from the Google Drive address in its README, section NYU Depth V2.

      official_splits.zip
        https://github.com/cleinc/bts
        Download nyu_depth_v2_labeled.mat (2.8 GB) from the data set's page, make the folder official_splits of it with utils/extract_official_train_test_set_from_mat.py of that repository, and zip that folder.

    hint: then continue with: pixio-eval data prepare nyuv2 --from FOLDER
    ");
    assert_snapshot!(refused(&world, &["imagenet1k", "--set", "archives", "--to", "my data/in"]), @r"
    error: imagenet1k needs files that only a person can get; nothing was fetched

      ILSVRC2012_img_train.tar
        https://www.image-net.org/challenges/LSVRC/2012/2012-downloads.php
        Log in, ask for access, accept the terms and download 'Training images (Task 1 & 2)'.
        md5:1d675b47d978889d74fa0da5fadfb00e

      ILSVRC2012_img_val.tar
        https://www.image-net.org/challenges/LSVRC/2012/2012-downloads.php
        On the same page: 'Validation images (all tasks)'.
        md5:29b22e2961454d5413ddabcf34fc5622

      ILSVRC2012_devkit_t12.tar.gz
        https://www.image-net.org/challenges/LSVRC/2012/2012-downloads.php
        On the same page: 'Development kit (Task 1 & 2)'. It says which class each validation image has.
        md5:fa75699e90414af021442c21a62c3abf

    hint: then continue with: pixio-eval data prepare imagenet1k --set archives --to 'my data/in' --from FOLDER
    ");
    assert_snapshot!(refused(&world, &["voc2012", "--set", "masks"]), @r"
    error: voc2012 needs files that only a person can get; nothing was fetched

      SegmentationClassAug.zip
        https://github.com/DrSleep/tensorflow-deeplab-resnet
        Download SegmentationClassAug.zip, the augmented masks, from the address in its README (Dropbox).

    Once they are there, this is fetched: VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar

    hint: then continue with: pixio-eval data prepare voc2012 --set masks --from FOLDER
    ");
    std::fs::create_dir(world.path("here")).unwrap();
    std::fs::write(world.path("here/official_splits.zip"), "").unwrap();
    assert_snapshot!(refused(&world, &["nyuv2", "--from", "here"]), @r"
    error: nyuv2 needs files that only a person can get; nothing was fetched

      sync.zip
        https://github.com/cleinc/bts
        Download sync.zip, the training images, from the Google Drive address in its README, section NYU Depth V2.

    hint: then continue with: pixio-eval data prepare nyuv2 --from here --from FOLDER
    ");
    assert!(!world.path("data").exists());
}

#[test]
fn drives_are_named_by_the_lists() {
    let world = World::new();
    let mut dataset = unchecked("kitti");
    for (split, drive) in [("train", 1), ("val", 20)] {
        let line = |frame: usize| {
            let name = format!("2011_09_26_drive_{drive:04}_sync");
            format!("images/2011_09_26/{name}/image_02/data/{frame:010}.png annotations/x.png\n")
        };
        let text: String = (0..3).map(line).collect();
        let entry = dataset.list.pinned.get_mut(split).unwrap();
        (entry.sha256, entry.lines, entry.bytes) = (sha256(text.as_bytes()), 3, text.len() as u64);
        let folder = world.path("cache/splits-v1");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{}.txt", entry.sha256)), text).unwrap();
    }
    std::fs::create_dir(world.path("here")).unwrap();
    // One that is needed, and one that is not.
    for drive in ["0001", "0002"] {
        let name = format!("here/2011_09_26_drive_{drive}_sync.zip");
        std::fs::write(world.path(&name), "").unwrap();
    }
    let mut request = request(&world, &dataset);
    request.from = vec![world.path("here")];
    let message = made(&request).unwrap_err().to_string();
    assert_snapshot!(message, @r"
    kitti needs files that only a person can get; nothing was fetched

      data_depth_annotated.zip
        https://www.cvlibs.net/datasets/kitti/eval_depth.php?benchmark=depth_prediction
        Log in and download 'annotated depth maps data set' (14 GB).

      2011_09_26_drive_0020_sync.zip
        https://www.cvlibs.net/datasets/kitti/raw_data.php
        Log in and download '[synced+rectified data]' of the 61 drives that the split lists name: 45 of 2011_09_26, 2 of 2011_09_28, 3 of 2011_09_29, 7 of 2011_09_30, 4 of 2011_10_03. Calibration and tracklets are not needed.
    ");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let world = World::new();
    assert_snapshot!(refused(&world, &["nyuv3"]), @r#"
    error: unknown data set "nyuv3"
    hint: did you mean "nyuv2"?
    hint: `pixio-eval data list` shows every data set
    "#);
    assert_snapshot!(refused(&world, &["imagenet1k", "--set", "zip"]), @r#"error: imagenet1k has no set "zip" of files: expected parquet or webdataset or archives"#);
    assert_snapshot!(refused(&world, &["ade20k", "--offline"]), @r"
    error: this run is offline, and ade20k needs ADEChallengeData2016.zip from http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip
    hint: --from FILE_OR_FOLDER gives files that were fetched elsewhere
    ");
    std::fs::write(world.path("holiday.zip"), "").unwrap();
    assert_snapshot!(refused(&world, &["nyuv2", "--from", "holiday.zip"]), @r"
    error: holiday.zip is none of the files that nyuv2 is made from: sync.zip, official_splits.zip
    hint: a folder given with --from may hold other files, too
    ");
    assert_snapshot!(refused(&world, &["nyuv2", "--from", "absent"]), @"error: cannot use absent, given with --from: No such file or directory (os error 2)");

    let sample = ["data", "sample", "ade20k", "--to", "data"];
    assert_eq!(world.run(&sample).status, Some(0));
    let before = tree(&world.path("data/ade20k"));
    assert_snapshot!(refused(&world, &["ade20k"]), @r"
    error: WORLD/data/ade20k is there, not empty and not what this command made (generated sample data); nothing was changed
    hint: --to DIR makes it elsewhere
    ");
    std::fs::create_dir_all(world.path("data/loveda/Train")).unwrap();
    assert_snapshot!(refused(&world, &["loveda"]), @r"
    error: WORLD/data/loveda is there, not empty and not what this command made (it has Train); nothing was changed
    hint: --to DIR makes it elsewhere
    ");
    assert_eq!(tree(&world.path("data/ade20k")), before);
    assert_eq!(listed(&world), ["ade20k", "loveda"]);
}

#[test]
fn a_given_file_of_other_bytes_is_refused_and_left_alone() {
    let world = World::new();
    let name = "ADEChallengeData2016.zip";
    std::fs::write(world.path(name), make::zip(&[("ADEChallengeData2016/a", vec![1])])).unwrap();
    let ran = run(&world, &Server::new(), &["ade20k", "--from", name]);
    assert_eq!(ran.status, Some(1), "{}", ran.stderr);
    let stderr = ran.stderr.split(", found ").next().unwrap();
    assert_snapshot!(stderr, @"error: ADEChallengeData2016.zip is not the published file: expected SHA-1 219e1696abb36c8ba3a3afe7fb2f4b4606a897c7");
    assert!(world.path(name).exists() && listed(&world).is_empty());
}

#[test]
#[cfg(unix)]
fn a_folder_of_another_set_or_no_folder_is_refused() {
    let (world, dataset) = (World::new(), unchecked("imagenet1k"));
    let folder = world.path("data/imagenet1k");
    std::fs::create_dir_all(&folder).unwrap();
    let record = r#"{"dataset":"imagenet1k","set":"parquet","version":"1","at":"","from":[],"files":0,"bytes":0}"#;
    std::fs::write(folder.join("prepared.json"), record).unwrap();
    let asked = |set: Option<&str>| {
        let mut request = request(&world, &dataset);
        request.set = set.map(str::to_owned);
        made(&request)
    };
    for set in [None, Some("parquet")] {
        assert!(matches!(asked(set), Ok(Outcome::Already { .. })));
    }
    let message = asked(Some("archives")).unwrap_err().to_string();
    assert!(message.contains("was prepared from the set parquet, not archives"), "{message}");

    std::fs::remove_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink(world.path("absent"), &folder).unwrap();
    let message = asked(None).unwrap_err().to_string();
    assert!(message.ends_with("imagenet1k: a link to what is not there"), "{message}");
    assert_eq!(listed(&world), ["imagenet1k"]);
}
