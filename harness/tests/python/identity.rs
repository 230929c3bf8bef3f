use super::{World, files, has, run};

fn identity(world: &World, backbone: &str) -> String {
    let ran = run(
        world,
        &["backbones", "check", backbone, "--json", "--seconds", "0", "--batch-size", "1"],
    );
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["parameters"], 1);
    json["identity"].as_str().unwrap().to_owned()
}

#[test]
fn the_identity_is_of_state_and_source_and_not_of_the_files_name() {
    if !has("numpy") {
        return;
    }
    let world = World::new();
    files(&world);
    let first = identity(&world, "py:faulty.py:good");
    assert_eq!(identity(&world, "py:faulty.py:good"), first);
    std::fs::copy(world.path("faulty.py"), world.path("renamed.py")).unwrap();
    assert_eq!(identity(&world, "py:renamed.py:good"), first);

    // What it imports from beside it belongs to it.
    std::fs::write(world.path("beside.py"), "SCALE = 2.0\n").unwrap();
    assert_ne!(identity(&world, "py:faulty.py:good"), first);
    std::fs::write(world.path("beside.py"), "SCALE = 1.0\n").unwrap();
    let text = std::fs::read_to_string(world.path("faulty.py")).unwrap();
    std::fs::write(world.path("state.py"), text.replace("np.ones(1", "np.zeros(1")).unwrap();
    assert_ne!(identity(&world, "py:state.py:good"), first);

    // By a name of the user's own.
    let own = "[backbone.mine]\npython = \"faulty.py:good\"\ntitle = \"Mine\"\n";
    std::fs::write(world.path("own.toml"), own).unwrap();
    let args =
        ["backbones", "check", "mine", "--backbones", "own.toml", "--json", "--seconds", "0"];
    let ran = run(&world, &args);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((json["identity"].as_str(), json["name"].as_str()), (Some(&*first), Some("mine")));
}
