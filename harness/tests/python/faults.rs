use super::{Ran, World, files, has, run};

const KNN: [&str; 4] = ["run", "imagenet1k/knn", "--sample", "--backbone"];

fn knn(world: &World, function: &str) -> Ran {
    let backbone = format!("py:faulty.py:{function}");
    run(world, &[&KNN[..], &[&backbone]].concat())
}

fn world() -> Option<World> {
    has("numpy").then(|| {
        let world = World::new();
        files(&world);
        world
    })
}

/// What each fault is told as.
#[test]
fn every_fault_is_a_clear_error() {
    let Some(world) = world() else { return };
    let faults = [
        ("raises", 2),
        ("raises_later", 1),
        ("wide", 1),
        ("fewer", 1),
        ("not_finite", 1),
        ("no_norm", 1),
        ("misspelt", 2),
        ("nothing", 2),
        ("incomplete", 2),
        ("fit_for_nothing", 2),
        ("without_class", 2),
        ("no_such_function", 2),
    ];
    let mut told = String::new();
    for (function, status) in faults {
        let ran = knn(&world, function);
        assert_eq!(ran.status, Some(status), "{function}: {}", ran.stderr);
        let error = ran.stderr.find("error:").map_or("", |at| &ran.stderr[at..]);
        told.push_str(&format!("## {function}\n{error}\n"));
    }
    insta::with_settings!({ filters => vec![
        (r#"File ".*[/\\]([a-z]+\.py)", line \d+"#, r#"File "$1", line N"#),
        (r#"File "<string>", line \d+"#, r#"File "<string>", line N"#),
        // Underlines that newer Pythons add.
        (r"\n +[\^~]+\n", "\n"),
        // Frames of the worker and of Python itself.
        (r#"(  File "<(string|frozen [a-z._]+)>".*\n(    .*\n)?)+"#, "  ...\n"),
    ]}, { insta::assert_snapshot!("faults", told) });
}

#[test]
fn a_worker_that_dies_is_said_and_the_same_command_continues() {
    let Some(world) = world() else { return };
    std::fs::write(world.path("die"), "").unwrap();
    let died = knn(&world, "dies");
    assert_eq!(died.status, Some(1), "{}", died.stderr);
    assert!(
        died.stderr.contains("ended while encoding a batch (exit status: 9)"),
        "{}",
        died.stderr
    );
    assert!(died.stderr.contains("out of memory, so to speak"), "{}", died.stderr);
    assert!(died.stderr.contains("the same command continues"), "{}", died.stderr);
    assert_eq!(std::fs::read_dir(world.path("runs/imagenet1k/knn")).unwrap().count(), 1);

    std::fs::remove_file(world.path("die")).unwrap();
    let continued = knn(&world, "dies");
    assert_eq!(continued.status, Some(0), "{}", continued.stderr);
    let Some(other) = self::world() else { return };
    let whole = knn(&other, "dies");
    assert_eq!(continued.stdout, whole.stdout);
    assert_eq!(world.kept_features("val"), other.kept_features("val"));
}

#[test]
fn a_worker_that_hangs_is_ended() {
    let Some(world) = world() else { return };
    let mut command = world.command(&[&KNN[..], &["py:faulty.py:hangs"]].concat());
    command.env("PIXIO_EVAL_PYTHON_TIMEOUT", "3");
    let began = std::time::Instant::now();
    let ran = world.finish(command);
    assert_eq!(ran.status, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("gave no answer in 3 s while encoding a batch"), "{}", ran.stderr);
    assert!(ran.stderr.contains("PIXIO_EVAL_PYTHON_TIMEOUT=SECONDS"), "{}", ran.stderr);
    assert!(began.elapsed().as_secs() < 120);
}

#[test]
fn an_interpreter_that_is_not_there_is_named() {
    let Some(world) = world() else { return };
    let mut command = world.command(&[&KNN[..], &["py:faulty.py:good"]].concat());
    command.env("PIXIO_EVAL_PYTHON", "no-such-python");
    let ran = world.finish(command);
    assert_eq!(ran.status, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("cannot start no-such-python"), "{}", ran.stderr);
    let missing = run(&world, &[&KNN[..], &["py:missing.py:good"]].concat());
    assert!(missing.stderr.contains("missing.py is not a Python file"), "{}", missing.stderr);
    let misspelt = run(&world, &[&KNN[..], &["py:faulty.py"]].concat());
    assert!(misspelt.stderr.contains("expected py:FILE.py:FUNCTION"), "{}", misspelt.stderr);
}

/// Dense heads are left out where there is no grid of patches, k-NN is not.
#[test]
fn a_backbone_without_a_grid_has_no_dense_runs() {
    let Some(world) = world() else { return };
    let args = ["run", "imagenet1k/knn", "nyuv2/linear", "--sample", "--backbone"];
    let ran = run(&world, &[&args[..], &["py:faulty.py:without_grid"]].concat());
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert!(world.path("runs/imagenet1k").is_dir() && !world.path("runs/nyuv2").exists());
}
