use super::*;

fn jobs_json(world: &World, id: &str) -> serde_json::Value {
    let bytes = fs::read(world.state().join("slurm").join(id).join("jobs.json")).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn ids(record: &serde_json::Value) -> Vec<Option<&str>> {
    record["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str()).collect()
}

#[test]
fn jobs_are_submitted_in_order_with_their_dependencies() {
    let world = World::new(&PROGRAMS);
    let launched = world.slurm().launch(&world.launch_of("a1"), &three()).unwrap();
    assert_eq!(launched.ids, ["101", "102", "103"]);
    let names = ["1-extract.sbatch", "2-probe.sbatch", "3-table.sbatch"];
    assert_eq!(launched.scripts, names.map(|name| world.state().join("slurm/a1").join(name)));
    assert!(launched.scripts.iter().all(|script| script.is_file()));
    assert!(world.state().join("logs").is_dir());
    insta::assert_snapshot!(world.asked(), @r"
    sbatch --parsable [ROOT]/state/slurm/a1/1-extract.sbatch
    sbatch --parsable --dependency=afterany:101 [ROOT]/state/slurm/a1/2-probe.sbatch
    sbatch --parsable --dependency=afterany:102 [ROOT]/state/slurm/a1/3-table.sbatch
    ");
    let record = jobs_json(&world, "a1");
    assert_eq!(ids(&record), [Some("101"), Some("102"), Some("103")]);
    assert_eq!(record["jobs"][1]["name"], "blocks-and-heads.a1.2-probe");
    let again = world.slurm().launch(&world.launch_of("a1"), &three()).unwrap_err();
    assert!(matches!(again, LaunchError::Taken(_)), "{again}");
    assert_eq!(world.asked(), "", "nothing of a launch that is there is submitted again");
}

#[test]
fn a_refused_job_takes_the_earlier_ones_back() {
    let world = World::new(&PROGRAMS);
    world.say("refuse", "103");
    // It is not this user's to cancel, say.
    world.say("deny", "--name=blocks-and-heads.a1.1-extract 101");
    let error = world.slurm().launch(&world.launch_of("a1"), &three()).unwrap_err();
    insta::assert_snapshot!(error, @"job 3-table was not submitted: sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified; cancelled again: 102; still in the queue: 101");
    assert_eq!(error.hints().last().unwrap(), "scancel 101");
    let asked = world.asked();
    // sbatch may fail after its job was taken: that is looked for by name.
    insta::assert_snapshot!(asked.lines().skip(3).collect::<Vec<_>>().join("\n"), @r"
    scancel --name=blocks-and-heads.a1.1-extract 101
    scancel --name=blocks-and-heads.a1.2-probe 102
    scancel --name=blocks-and-heads.a1.3-table
    ");
    // Still known, so that `cancel` tries again.
    assert_eq!(ids(&jobs_json(&world, "a1")), [Some("101"), Some("102"), None]);
}

#[test]
fn an_answer_that_is_no_id_is_an_error() {
    let world = World::new(&PROGRAMS);
    world.say("cluster", " of the best kind");
    let error = world.slurm().launch(&world.launch_of("a1"), &three()).unwrap_err();
    assert!(error.to_string().contains("expected a job's id"), "{error}");
}

#[test]
fn without_slurm_it_is_said_what_else_there_is() {
    let world = World::new(&["squeue"]);
    let error = world.slurm().launch(&world.launch_of("a1"), &three()).unwrap_err();
    assert!(matches!(error, LaunchError::Missing("sbatch")), "{error}");
    let hints = error.hints().join("\n");
    assert!(hints.contains("--launcher local") && hints.contains("--launcher print"), "{hints}");
    assert!(!world.state().join("slurm").exists(), "nothing is left behind");
}

#[test]
fn jobs_that_cannot_be_are_refused_before_anything_is_written() {
    let world = World::new(&PROGRAMS);
    let mut cases = vec![three(); 4];
    cases[0][1].command.clear();
    cases[1][1].tasks = 0;
    cases[2][1].most = Some(0);
    cases[3][1].after = Some(1);
    let print = Print { config: Config::default() };
    for jobs in cases {
        for launcher in [&world.slurm() as &dyn Launcher, &print] {
            let error = launcher.launch(&world.launch_of("a1"), &jobs).unwrap_err();
            assert!(error.to_string().starts_with("job 2-probe: "), "{error}");
        }
    }
    for id in ["", "..", "a/b", "a b", &"x".repeat(41)] {
        let error = world.slurm().launch(&world.launch_of(id), &three()).unwrap_err();
        assert!(matches!(error, LaunchError::Id(_)), "{id:?}: {error}");
    }
    for folder in ["a%jb", "a\\b", "a\nb"] {
        let state = world.root.path().join(folder);
        let launch = Launch { state, ..world.launch_of("a1") };
        let error = world.slurm().launch(&launch, &three()).unwrap_err();
        assert!(matches!(error, LaunchError::State(_)), "{error}");
    }
    assert!(!world.state().join("slurm").exists() && !world.state().join("print").exists());
    assert_eq!(world.asked(), "");
}

#[test]
fn the_queue_is_told_by_job_state_and_place() {
    let world = World::new(&PROGRAMS);
    assert_eq!(queue(&world.state(), world.bin().as_os_str()).unwrap(), []);
    assert_eq!(world.asked(), "", "nothing was submitted, so nobody is asked");
    world.slurm().launch(&world.launch_of("a1"), &three()).unwrap();
    world.asked();
    let line = |state, place: &str, tasks| QueueLine {
        launch: "a1".to_owned(),
        id: "102".to_owned(),
        kind: JobKind::Probe,
        state: String::from(state),
        place: place.to_owned(),
        tasks,
    };
    let task =
        |rest: &str| format!("102|{}\n", rest.replace("NAME", "blocks-and-heads.a1.2-probe"));
    let answer = [
        "CLUSTER: far\n".to_owned(),
        task("PENDING|NAME||Priority"),
        task("PENDING|NAME||Priority"),
        task("PENDING|NAME||BeginTime"),
        task("RUNNING|NAME|node1|None"),
        task("RUNNING|NAME|node1|None"),
        task("RUNNING|NAME|node2|None"),
        "77|RUNNING|of somebody else|node2|None\n".to_owned(),
    ];
    world.say("queue", &answer.concat());
    let expected = [
        line("PENDING", "BeginTime", 1),
        line("PENDING", "Priority", 2),
        line("RUNNING", "node1", 2),
        line("RUNNING", "node2", 1),
    ];
    assert_eq!(queue(&world.state(), world.bin().as_os_str()).unwrap(), expected);
    insta::assert_snapshot!(world.asked(), @"squeue --noheader --array --format=%F|%T|%j|%N|%r --name=blocks-and-heads.a1.1-extract,blocks-and-heads.a1.2-probe,blocks-and-heads.a1.3-table");
    world.say("down", "");
    let error = queue(&world.state(), world.bin().as_os_str()).unwrap_err();
    assert!(error.to_string().contains("Unable to contact slurm controller"), "{error}");
    fs::remove_file(world.bin().join("squeue")).unwrap();
    assert_eq!(queue(&world.state(), world.bin().as_os_str()).unwrap(), []);
}

#[test]
fn cancelling_asks_for_what_is_still_there() {
    let world = World::new(&PROGRAMS);
    let bin = world.bin();
    assert_eq!(cancel(&world.state(), bin.as_os_str()).unwrap(), []);
    world.say("cluster", ";far");
    world.slurm().launch(&world.launch_of("a1"), &three()).unwrap();
    world.slurm().launch(&world.launch_of("a2"), &three()[..1]).unwrap();
    world.asked();
    world.say(
        "queue",
        "102|PENDING|blocks-and-heads.a1.2-probe||Priority\n\
         102|RUNNING|blocks-and-heads.a1.2-probe|node1|None\n\
         104|RUNNING|blocks-and-heads.a2.1-extract|node1|None\n",
    );
    world.say("deny", "--clusters=far --name=blocks-and-heads.a2.1-extract 104");
    let cancelled = |launch: &str, kind, id: &str, tasks, refused: Option<&str>| Cancelled {
        launch: launch.to_owned(),
        kind,
        id: id.to_owned(),
        tasks,
        refused: refused.map(str::to_owned),
    };
    let denied = "scancel: error: Access/permission denied";
    assert_eq!(
        cancel(&world.state(), bin.as_os_str()).unwrap(),
        [
            cancelled("a1", JobKind::Probe, "102", 2, None),
            cancelled("a2", JobKind::Extract, "104", 1, Some(denied)),
        ]
    );
    let asked = world.asked();
    insta::assert_snapshot!(asked.lines().skip(1).collect::<Vec<_>>().join("\n"), @r"
    scancel --clusters=far --name=blocks-and-heads.a1.2-probe 102
    scancel --clusters=far --name=blocks-and-heads.a2.1-extract 104
    ");
    let path = world.state().join("slurm/a2/jobs.json");
    let newer = fs::read_to_string(&path).unwrap().replace("\"format\": 1", "\"format\": 2");
    fs::write(&path, newer).unwrap();
    let error = cancel(&world.state(), bin.as_os_str()).unwrap_err();
    assert!(error.to_string().ends_with("expected format 1, found 2"), "{error}");
    fs::write(&path, "{").unwrap();
    let error = cancel(&world.state(), bin.as_os_str()).unwrap_err();
    assert!(matches!(error, LaunchError::Record { .. }), "{error}");
}
