//! A miniature of each data set, packed as the real one is published, becomes the folder that it was
//! packed from.

use std::collections::BTreeSet;

use tasks::sample;

use super::*;

/// The files of a generated data set, without what only generated ones have.
fn miniature(world: &World, name: &str) -> Tree {
    let mut files = tree(&sample::write(name, &world.path("samples")).unwrap());
    for own in ["sample.json", "train.txt", "val.txt"] {
        files.remove(own);
    }
    files
}

/// The files with a beginning, which becomes another.
fn renamed(files: &Tree, from: &str, to: &str) -> Vec<(String, Vec<u8>)> {
    let inside = files.iter().filter_map(|(name, bytes)| Some((name.strip_prefix(from)?, bytes)));
    inside.map(|(name, bytes)| (format!("{to}{name}"), bytes.clone())).collect()
}

fn packed(pack: impl Fn(&make::Members<'_>) -> Vec<u8>, members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let members: Vec<(&str, Vec<u8>)> =
        members.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    pack(&members)
}

/// The folder that is made of these files.
fn prepared(
    world: &World,
    dataset: &Dataset,
    set: Option<&str>,
    given: &[(&str, Vec<u8>)],
) -> Tree {
    let folder = world.path("given");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, bytes) in given {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    let mut request = request(world, dataset);
    request.from = vec![folder];
    request.set = set.map(str::to_owned);
    let outcome = made(&request).unwrap_or_else(|error| panic!("{error}"));
    let Outcome::Prepared { folder, record } = outcome else { panic!("{outcome:?}") };
    let files = tree(&folder);
    assert_eq!(record.files, files.len() as u64);
    assert_eq!(record.from.len(), given.len());
    files
}

fn differences(found: &Tree, expected: &Tree) -> Vec<String> {
    let names: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    names.into_iter().filter(|name| found.get(*name) != expected.get(*name)).cloned().collect()
}

#[test]
fn ade20k_and_loveda() {
    let (world, dataset) = (World::new(), unchecked("ade20k"));
    let files = miniature(&world, "ade20k");
    let mut members = renamed(&files, "", "ADEChallengeData2016/");
    members.push(("ADEChallengeData2016/objectInfo150.txt".to_owned(), b"Idx".to_vec()));
    let zip = packed(make::zip, &members);
    let found = prepared(&world, &dataset, None, &[("ADEChallengeData2016.zip", zip)]);
    assert_eq!(differences(&found, &files), ["objectInfo150.txt"]);

    let (world, dataset) = (World::new(), unchecked("loveda"));
    let files = miniature(&world, "loveda");
    let zips = ["Train", "Val"].map(|split| {
        packed(make::zip, &renamed(&files, &format!("{split}/"), &format!("{split}/")))
    });
    let [train, val] = zips;
    let found = prepared(&world, &dataset, None, &[("Train.zip", train), ("Val.zip", val)]);
    assert_eq!(differences(&found, &files), [""; 0]);
}

#[test]
fn nyuv2() {
    let (world, dataset) = (World::new(), unchecked("nyuv2"));
    let files = miniature(&world, "nyuv2");
    let train = packed(make::zip, &renamed(&files, "sync/", "sync/"));
    let val = packed(make::zip, &renamed(&files, "official_splits/", "official_splits/"));
    let given = [("sync.zip", train), ("official_splits.zip", val)];
    let found = prepared(&world, &dataset, None, &given);
    assert_eq!(differences(&found, &files), [""; 0]);
}

#[test]
fn kitti() {
    let (world, mut dataset) = (World::new(), unchecked("kitti"));
    let root = sample::write("kitti", &world.path("samples")).unwrap();
    let files = miniature(&world, "kitti");
    for split in ["train", "val"] {
        let text = std::fs::read(root.join(format!("{split}.txt"))).unwrap();
        let entry = dataset.list.pinned.get_mut(split).unwrap();
        (entry.sha256, entry.bytes) = (sha256(&text), text.len() as u64);
        entry.lines = text.iter().filter(|&&byte| byte == b'\n').count();
        let folder = world.path("cache/splits-v1");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{}.txt", entry.sha256)), text).unwrap();
    }
    let mut maps = Vec::new();
    for (name, bytes) in renamed(&files, "annotations/", "") {
        let split = if name.contains("_drive_005") { "val" } else { "train" };
        // The other camera's maps come with them.
        let other = name.replace("image_02", "image_03");
        maps.push((format!("{split}/{name}"), bytes.clone()));
        maps.push((format!("{split}/{other}"), bytes));
    }
    let mut given = vec![("data_depth_annotated.zip".to_owned(), packed(make::zip, &maps))];
    let drives: BTreeSet<&str> =
        files.keys().filter_map(|name| name.strip_prefix("images/")?.split('/').nth(1)).collect();
    for drive in drives {
        let day = "2011_09_26";
        let inside = format!("{day}/{drive}/");
        let mut members = renamed(&files, &format!("images/{inside}"), &inside);
        members.push((format!("{inside}oxts/data/0000000000.txt"), b"1".to_vec()));
        members.push((format!("{inside}image_03/data/0000000000.png"), b"1".to_vec()));
        given.push((format!("{drive}.zip"), packed(make::zip, &members)));
    }
    assert_eq!(given.len(), 13);
    let given: Vec<(&str, Vec<u8>)> =
        given.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let found = prepared(&world, &dataset, None, &given);
    let more = differences(&found, &files);
    assert!(more.iter().all(|name| name.contains("image_03")), "{more:?}");
    assert_eq!(more.len(), 12);
}

/// The labels of a PNG mask, and its width.
fn labels(bytes: &[u8]) -> (Vec<u8>, usize) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
    let mut labels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut labels).unwrap();
    (labels, info.width as usize)
}

#[test]
fn voc2012_with_masks_of_either_origin() {
    let world = World::new();
    let dataset = unchecked("voc2012");
    let files = miniature(&world, "voc2012");
    let masks = renamed(&files, "SegmentationClassAug/", "");
    // The official archive has the masks of the validation, and of one image of the training.
    let is_official = |name: &str| name.starts_with("2012_0001") || name.starts_with("2012_000001");
    let official: Vec<_> = masks.iter().filter(|(name, _)| is_official(name)).cloned().collect();
    assert_eq!(official.len(), 5);
    let folder = "VOCdevkit/VOC2012/";
    let mut members = renamed(&files, "JPEGImages/", &format!("{folder}JPEGImages/"));
    members.extend(renamed(&files, "ImageSets/", &format!("{folder}ImageSets/")));
    members.extend(
        official
            .iter()
            .map(|(name, bytes)| (format!("{folder}SegmentationClass/{name}"), bytes.clone())),
    );
    let kit = ("VOCtrainval_11-May-2012.tar", packed(make::tar, &members));
    let own: Vec<String> =
        official.iter().map(|(name, _)| format!("SegmentationClass/{name}")).collect();

    let zip = packed(make::zip, &renamed(&files, "SegmentationClassAug/", "SegmentationClassAug/"));
    let given = [kit.clone(), ("SegmentationClassAug.zip", zip)];
    let found = prepared(&world, &dataset, Some("masks"), &given);
    assert_eq!(differences(&found, &files), own);

    // The Boundaries Dataset has masks of most images, official ones among them with other labels.
    let world = World::new();
    let mut members = vec![("benchmark_RELEASE/README".to_owned(), b"x".to_vec())];
    for (name, bytes) in &masks {
        let (mut labels, width) = labels(bytes);
        if is_official(name) {
            labels.fill(7);
        }
        let name = name.replace(".png", ".mat");
        let mat = make::boundary_mask(&labels, width);
        members.push((format!("benchmark_RELEASE/dataset/cls/{name}"), mat));
        members.push((format!("benchmark_RELEASE/dataset/inst/{name}"), b"x".to_vec()));
    }
    let tgz = make::gz(&packed(make::tar, &members));
    let given = [kit, ("benchmark.tgz", tgz)];
    let found = prepared(&world, &dataset, Some("sbd"), &given);
    let mut differing = differences(&found, &files);
    differing.retain(|name| !own.contains(name));
    assert_eq!(differing.len(), masks.len() - official.len());
    for name in differing {
        assert_eq!(labels(&found[&name]), labels(&files[&name]), "{name}");
    }
}

#[test]
fn imagenet_from_its_archives() {
    let (world, dataset) = (World::new(), unchecked("imagenet1k"));
    let files = miniature(&world, "imagenet1k");
    let classes: BTreeSet<&str> =
        files.keys().filter_map(|name| name.strip_prefix("train/")?.split('/').next()).collect();
    let of_class = |class: &&str| {
        let inner = packed(make::tar, &renamed(&files, &format!("train/{class}/"), ""));
        (format!("{class}.tar"), inner)
    };
    let train: Vec<_> = classes.iter().map(of_class).collect();
    let mut val: Vec<(String, Vec<u8>, &str)> = renamed(&files, "val/", "")
        .into_iter()
        .map(|(name, bytes)| {
            let (class, image) = name.split_once('/').unwrap();
            (image.to_owned(), bytes, *classes.get(class).unwrap())
        })
        .collect();
    val.sort();
    let flat: Vec<_> = val.iter().map(|(name, bytes, _)| (name.clone(), bytes.clone())).collect();
    // Numbers of classes are in no order of their names.
    let numbered: Vec<&str> = classes.iter().rev().copied().collect();
    let number = |class: &str| 1 + numbered.iter().position(|known| *known == class).unwrap();
    let truth: String = val.iter().map(|(_, _, class)| format!("{}\n", number(class))).collect();
    let kit = |classes: &[&str]| {
        make::gz(&make::tar(&[
            ("ILSVRC2012_devkit_t12/data/meta.mat", make::synsets(classes)),
            (
                "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt",
                truth.clone().into_bytes(),
            ),
        ]))
    };
    let given = [
        ("ILSVRC2012_img_train.tar", packed(make::tar, &train)),
        ("ILSVRC2012_img_val.tar", packed(make::tar, &flat)),
        ("ILSVRC2012_devkit_t12.tar.gz", kit(&numbered)),
    ];
    // Given, they decide the set.
    let found = prepared(&world, &dataset, None, &given);
    assert_eq!(differences(&found, &files), [""; 0]);

    let world = World::new();
    std::fs::create_dir(world.path("given")).unwrap();
    for (name, bytes) in &given[..2] {
        std::fs::write(world.path("given").join(name), bytes).unwrap();
    }
    let bad = kit(&["n00000001", "../../out"]);
    let mut request = request(&world, &dataset);
    request.from = vec![world.path("given")];
    // Without the kit it is the kit that is missing, not another set.
    let Err(PrepareError::ByHand { items, .. }) = made(&request) else { panic!() };
    assert_eq!(items[0].names, ["ILSVRC2012_devkit_t12.tar.gz"]);
    std::fs::write(world.path("given/ILSVRC2012_devkit_t12.tar.gz"), bad).unwrap();
    let message = made(&request).unwrap_err().to_string();
    assert!(
        message.ends_with(r#"synset 2: expected a WNID such as n01440764, found "../../out""#),
        "{message}"
    );
    assert_eq!(listed(&world), [""; 0]);
}
