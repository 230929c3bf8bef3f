use super::*;

fn read(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slurm.toml");
    fs::write(&path, text).unwrap();
    Config::find(None, &folder.path().join("sweep.toml"))
}

/// The error's words from the file's name on, and its first near name.
fn wrong(text: &str) -> String {
    let error = read(text).unwrap_err();
    let near = match &error {
        ConfigError::Unknown { near, .. } => near.first().cloned(),
        _ => None,
    };
    let words = error.to_string();
    let words = words.split_once("slurm.toml").unwrap().1.to_owned();
    words + &near.map(|near| format!(" -> {near}")).unwrap_or_default()
}

const FULL: &str = r#"
[slurm]
account = "vision"
partition = "gpu"
qos = "normal"
gpus-per-task = "gpu:a100:1"
cpus-per-task = 8
memory-gb = 64
time = "1-12:30:00"
warning = 300
constraint = "a100&nvme"
mail-user = "someone@example.org"
extra = ["--reservation=x"]
setup = ["module load cuda", "source venv/bin/activate"]

[slurm.table]
partition = "cpu"
gpus-per-task = 0
time = "00:10:00"
extra = []
"#;

#[test]
fn a_table_of_one_kind_is_over_the_general_one() {
    let config = read(FULL).unwrap();
    let [extract, probe, table] = three().try_into().unwrap();
    let general = config.resources(&extract);
    let text = |text: &str| Some(text.to_owned());
    let expected = Resources {
        account: text("vision"),
        partition: text("gpu"),
        qos: text("normal"),
        gpus: Some(Gpus::Resource("gpu:a100:1".to_owned())),
        cpus: Some(8),
        memory_gb: Some(64),
        time: Some(((24 + 12) * 60 + 30) * 60),
        warning: 300,
        constraint: text("a100&nvme"),
        mail_user: text("someone@example.org"),
        extra: vec!["--reservation=x".to_owned()],
        setup: vec!["module load cuda".to_owned(), "source venv/bin/activate".to_owned()],
    };
    assert_eq!(general, expected);
    assert_eq!(config.resources(&probe), expected);
    let table = config.resources(&table);
    let own = Resources {
        partition: text("cpu"),
        gpus: None,
        time: Some(600),
        extra: Vec::new(),
        ..expected
    };
    assert_eq!(table, own);
}

#[test]
fn without_a_file_a_job_asks_for_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::find(None, &folder.path().join("sweep.toml")).unwrap();
    let [extract, probe, table] = three().try_into().unwrap();
    let probe = config.resources(&probe);
    assert_eq!((probe.gpus, probe.memory_gb), (Some(Gpus::Number(1)), Some(24)));
    assert_eq!(probe.time, Some(100 * 60), "twice the estimate");
    assert_eq!((config.resources(&extract).time, config.resources(&table).gpus), (None, None));
    // GPUs in general are for the jobs that need one.
    let config = read("[slurm]\ngpus-per-task = 2\n").unwrap();
    assert_eq!(config.resources(&extract).gpus, Some(Gpus::Number(2)));
    assert_eq!(config.resources(&table).gpus, None);
    let missing = Config::find(Some(&folder.path().join("none.toml")), folder.path()).unwrap_err();
    assert!(matches!(missing, ConfigError::Read { .. }), "{missing}");
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let cases = [
        "[slurm]\nacount = \"x\"\n",
        "[slurm]\n\n[slurm.prob]\ntime = \"01:00:00\"\n",
        "[slurm.probe]\n\n\npartitions = \"x\"\n",
        "[slurm.probe]\nprobe = 1\n",
        "[slrum]\naccount = \"x\"\n",
        "account = \"x\"\n",
        "slurm = 3\n",
        "[slurm]\ntable = 3\n",
        "[slurm]\naccount = 3\n",
        "[slurm]\naccount = \"\"\n",
        "[slurm]\naccount = \"a\\nb\"\n",
        "[slurm]\ncpus-per-task = \"8\"\n",
        "[slurm]\ncpus-per-task = 0\n",
        "[slurm]\nmemory-gb = 1.5\n",
        "[slurm]\ngpus-per-task = -1\n",
        "[slurm]\ngpus-per-task = true\n",
        "[slurm]\ntime = 10:00:00\n",
        "[slurm]\ntime = 600\n",
        "[slurm]\ntime = \"90\"\n",
        "[slurm]\ntime = \"1-24:00:00\"\n",
        "[slurm]\ntime = \"01:60:00\"\n",
        "[slurm]\ntime = \"00:03:00\"\n",
        "[slurm]\ntime = \"01:00:00\"\n[slurm.probe]\nwarning = 3600\n",
        "[slurm]\nextra = \"--x\"\n",
        "[slurm]\nextra = [\n  \"--x\",\n  3,\n]\n",
        "[slurm]\nextra = [\"reservation=x\"]\n",
        "[slurm]\nextra = [\"--array=0-3\"]\n",
        "[slurm]\nextra = [\"-J name\"]\n",
        "[slurm]\nsetup = \"module load cuda\"\n",
        "[slurm]\naccount = \"x\"\naccount = \"y\"\n",
        "[slurm\n",
    ];
    let said: Vec<String> = cases
        .iter()
        .map(|text| format!("{}\n  => {}", text.trim().replace('\n', " ⏎ "), wrong(text)))
        .collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn times_are_slurms() {
    let time = |text: &str| {
        read(&format!("[slurm]\ntime = \"{text}\"\n")).unwrap().resources(&three()[0]).time.unwrap()
    };
    for (text, seconds) in
        [("00:03:01", 181), ("100:00:00", 360_000), ("4-00:00:00", 345_600), ("0-23:59:59", 86_399)]
    {
        assert_eq!(time(text), seconds, "{text}");
        assert_eq!(time(&super::super::config::time(seconds)), seconds, "{text}");
    }
}
