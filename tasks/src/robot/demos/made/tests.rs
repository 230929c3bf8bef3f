use super::*;
use crate::robot::suite;

fn by(side: usize) -> MadeBy {
    MadeBy {
        generator: "test".to_owned(),
        seed: 7,
        versions: vec!["mujoco 3.3.0".to_owned()],
        render: Render { side, shadows: false, reflections: false, samples: 0 },
        repeat: 1,
        mean_score: 0.0,
    }
}

fn recorded(steps: usize, side: usize, score: f64) -> Recorded {
    let image = |t: usize| (0..3 * side * side).map(|i| (i * 7 + t * 13) as u8).collect();
    let row = |t: usize, width: usize| (0..width).map(|i| (t * 10 + i) as f32 / 3.0).collect();
    Recorded {
        images: (0..steps).map(image).collect(),
        actions: (0..steps).map(|t| row(t, 4)).collect(),
        rewards: (0..steps).map(|t| t as f32).collect(),
        proprio: (0..steps).map(|t| row(t, 4)).collect(),
        state: (0..steps).map(|t| row(t, 39)).collect(),
        score,
        seed: 3,
        start: Value::Null,
    }
}

fn write_two(root: &Path) {
    let suite = suite("metaworld").unwrap();
    let mut writer = Writer::begin(suite, "drawer-open", root, by(16)).unwrap();
    writer.add(&recorded(5, 16, 100.0)).unwrap();
    writer.add(&recorded(1, 16, 0.0)).unwrap();
    writer.finish().unwrap();
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    write_two(folder.path());
    let suite = suite("metaworld").unwrap();
    let made = Made::open(suite, "drawer-open", folder.path()).unwrap().unwrap();
    assert_eq!((made.len(), made.frames(0), made.frames(1)), (2, 5, 1));
    let Origin::Made(by) = made.origin() else { panic!() };
    assert_eq!(by.mean_score, 50.0);
    for (at, steps) in [(0, 5), (1, 1)] {
        let expected = recorded(steps, 16, 0.0);
        let images = made.images(at).unwrap();
        assert_eq!(images.len(), steps);
        for (image, expected) in images.iter().zip(&expected.images) {
            assert_eq!(image.as_slice().unwrap(), expected);
        }
        let one = made.load(at).unwrap();
        assert_eq!(one.actions.as_slice().unwrap(), expected.actions.concat());
        assert_eq!(one.state.unwrap().dim(), (steps, 39));
    }
    assert!(Made::open(suite, "hammer", folder.path()).unwrap().is_none());
}

#[test]
fn until_the_end_nothing_changes() {
    let folder = tempfile::tempdir().unwrap();
    let suite = suite("metaworld").unwrap();
    write_two(folder.path());
    let mut writer = Writer::begin(suite, "drawer-open", folder.path(), by(16)).unwrap();
    writer.add(&recorded(2, 16, 1.0)).unwrap();
    drop(writer);
    // What was there before still is, and nothing else.
    assert_eq!(Made::open(suite, "drawer-open", folder.path()).unwrap().unwrap().len(), 2);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn damage_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let suite = suite("metaworld").unwrap();
    let open = || Made::open(suite, "drawer-open", folder.path());
    let task = folder.path().join("drawer-open");
    write_two(folder.path());
    let mut bytes = fs::read(task.join("demo-000.png")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(task.join("demo-000.png"), &bytes).unwrap();
    let told = open().unwrap().unwrap().images(0).unwrap_err().to_string();
    assert!(told.contains("not the file that demos.json was written for"), "{told}");

    let manifest = fs::read_to_string(task.join(MANIFEST)).unwrap();
    for (from, to, expected) in [
        ("\"demo-000\"", "\"../demo-000\"", "expected a plain name"),
        ("\"format\": 1", "\"format\": 2", "format 2; expected 1"),
        ("\"drawer-open\"", "\"hammer\"", "expected metaworld/drawer-open"),
        ("\"demo-001\"", "\"demo-002\"", "demo-002"),
    ] {
        assert!(manifest.contains(from), "{from}");
        fs::write(task.join(MANIFEST), manifest.replace(from, to)).unwrap();
        let told = open().err().unwrap().to_string();
        assert!(told.contains(expected), "{told}");
    }
}
