use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::*;

#[test]
fn bash_reads_a_quoted_word_back_whatever_its_bytes() {
    let mut all: Vec<OsString> = (1..=255u8).map(|byte| OsString::from_vec(vec![byte])).collect();
    all.push(OsString::from_vec((1..=255).collect()));
    all.extend(words(&[
        "",
        "plain",
        "A=b",
        "two words",
        "it's",
        "$HOME `id` $(id) \"x\" \\ !",
        "a\nb'c\\d\r\n",
        "1\t2",
        "-n",
        "~/x",
        "*",
        "[a]",
        "{a,b}",
        "#no",
        "é'ü",
        "日本",
        "\u{1}1",
        "\n7",
    ]));
    let mut script = String::from("printf '%s\\0'");
    for word in &all {
        script.push(' ');
        script.push_str(&script::quote(word));
    }
    assert!(!script.contains(['\n', '\r']), "sbatch looks at line breaks");
    let ran = Command::new("bash").arg("-c").arg(&script).output().unwrap();
    let back: Vec<&[u8]> = ran.stdout.strip_suffix(b"\0").unwrap().split(|b| *b == 0).collect();
    assert_eq!(back.len(), all.len());
    for (word, back) in all.iter().zip(back) {
        assert_eq!(word.as_bytes(), back);
    }
}

fn shown(world: &World, path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.replace(&*world.root.path().to_string_lossy(), "/there")
}

const CONFIG: &str = r#"
[slurm]
account = "vision lab"
partition = "gpu"
cpus-per-task = 8
constraint = "a100&nvme"
mail-user = "someone@example.org"
extra = ["--reservation=x", "--comment=\"two words\""]
setup = ["module load cuda", "source venv/bin/activate"]
"#;

fn config(world: &World) -> Config {
    let path = world.root.path().join("slurm.toml");
    fs::write(&path, CONFIG).unwrap();
    Config::read(&path).unwrap()
}

#[test]
fn the_script_for_slurm() {
    let world = World::new(&PROGRAMS);
    let slurm = Slurm { config: config(&world), ..world.slurm() };
    let launched = slurm.launch(&world.launch_of("20260102-030405"), &three()).unwrap();
    insta::assert_snapshot!(shown(&world, &launched.scripts[1]));
}

#[test]
fn the_script_for_another_scheduler() {
    let world = World::new(&[]);
    let print = Print { config: config(&world) };
    let launched = print.launch(&world.launch_of("20260102-030405"), &three()).unwrap();
    assert_eq!(launched.ids, Vec::<String>::new());
    insta::assert_snapshot!(shown(&world, &launched.scripts[1]));
}

#[test]
fn a_printed_script_runs_the_task_that_it_is_given() {
    let world = World::new(&[]);
    let mut jobs = three();
    jobs[1].command = words(&["bash", "-c", "pwd; echo \"<$1>\"; exit 7", "_", "it's $here\n"]);
    let print = Print { config: Config::default() };
    let launched = print.launch(&world.launch_of("p1"), &jobs).unwrap();
    let run = |words: &[&str]| {
        Command::new("bash").arg(&launched.scripts[1]).args(words).output().unwrap()
    };
    for wrong in [&[][..], &["12"], &["-1"], &["x"], &["1 2"]] {
        let ran = run(wrong);
        assert_eq!(ran.status.code(), Some(2), "{wrong:?}");
        assert!(String::from_utf8_lossy(&ran.stderr).starts_with("usage: 2-probe.sh TASK"));
    }
    // Octal to a careless reader.
    for task in ["11", "08"] {
        assert_eq!(run(&[task]).status.code(), Some(7));
        let log = world.state().join(format!("logs/p1.2-probe.{task}.log"));
        let said = fs::read_to_string(log).unwrap();
        let directory = fs::canonicalize(world.root.path()).unwrap();
        assert_eq!(said, format!("{}\n<it's $here\n>\n", directory.display()));
    }
}

/// A batch script that runs, as Slurm runs it, and its program.
struct Turn {
    script: Child,
}

impl Turn {
    /// `program` is what the program does once it is `ready`.
    fn new(world: &World, program: &str, setup: &str) -> Self {
        let ready = world.root.path().join("ready");
        let program = format!("{program}\ntouch \"$0\"; while :; do sleep 0.02; done");
        let mut jobs = three();
        jobs[1].command = words(&["bash", "-c", &program]);
        jobs[1].command.push(ready.clone().into());
        let path = world.root.path().join("slurm.toml");
        fs::write(&path, format!("[slurm]\nsetup = ['''{setup}''']\n")).unwrap();
        let slurm = Slurm { config: Config::read(&path).unwrap(), ..world.slurm() };
        let launched = slurm.launch(&world.launch_of("t1"), &jobs).unwrap();
        world.asked();
        let search = format!("{}:{}", world.bin().display(), std::env::var("PATH").unwrap());
        let script = Command::new("bash")
            .arg(&launched.scripts[1])
            .env("PATH", search)
            .env("SLURM_JOB_ID", "102")
            .env("SLURM_ARRAY_JOB_ID", "102")
            .env("SLURM_ARRAY_TASK_ID", "11")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while !ready.exists() {
            assert!(began.elapsed() < Duration::from_secs(20), "the program does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { script }
    }

    fn signal(&self, name: &str, pid: u32) {
        let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
        assert!(sent.unwrap().success());
    }

    fn end(mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.script.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "the script does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

const KEEPS: &str = "trap 'exit 130' TERM";
const BACK: &str = "scontrol requeue 102_11\n";

#[test]
fn told_ahead_of_its_end_a_task_goes_back_into_the_queue() {
    for (program, status, back) in [
        (KEEPS, 130, true),
        // Signals of both kinds while it is ending, when it does not listen any more.
        (
            "trap 'trap \"\" TERM; for i in 1 2 3 4 5 6 7; do kill -USR1 $PPID; kill -TERM $PPID; done; exit 130' TERM",
            130,
            true,
        ),
        // It did not listen yet.
        ("", 143, true),
        // It was done, or failed, at that very moment.
        ("trap 'exit 0' TERM", 0, false),
        ("trap 'exit 1' TERM", 1, false),
    ] {
        let world = World::new(&PROGRAMS);
        let turn = Turn::new(&world, program, ":");
        turn.signal("USR1", turn.script.id());
        assert_eq!(turn.end().code(), Some(status), "{program}");
        assert_eq!(world.asked(), if back { BACK } else { "" }, "{program}");
    }
}

#[test]
fn a_task_told_before_its_program_is_there_goes_back_too() {
    let world = World::new(&PROGRAMS);
    let turn = Turn::new(&world, KEEPS, "touch ready; sleep 0.3");
    turn.signal("USR1", turn.script.id());
    assert!([130, 143].contains(&turn.end().code().unwrap()));
    assert_eq!(world.asked(), BACK);
}

#[test]
fn a_cancelled_sweep_stays_cancelled() {
    let world = World::new(&PROGRAMS);
    fs::write(world.state().join(CANCELLED), "").unwrap();
    let turn = Turn::new(&world, KEEPS, ":");
    turn.signal("USR1", turn.script.id());
    assert_eq!(turn.end().code(), Some(130));
    assert_eq!(world.asked(), "");
}

#[test]
fn on_sigterm_the_script_outlives_its_program_and_leaves_the_queue_to_slurm() {
    let world = World::new(&PROGRAMS);
    let turn = Turn::new(&world, "echo $$ >\"$0.pid\"; trap 'sleep 0.3; exit 130' TERM", ":");
    let pid = fs::read_to_string(world.root.path().join("ready.pid")).unwrap();
    // To every process, in any order.
    turn.signal("TERM", turn.script.id());
    turn.signal("TERM", pid.trim().parse().unwrap());
    assert_eq!(turn.end().code(), Some(130));
    assert_eq!(world.asked(), "");
    // Before there is a program, none is started.
    let world = World::new(&PROGRAMS);
    let turn = Turn::new(&world, "touch \"$0.started\"", "touch ready; sleep 0.3");
    turn.signal("TERM", turn.script.id());
    assert_eq!(turn.end().code(), Some(143));
    assert!(!world.root.path().join("ready.started").exists());
}

#[test]
fn a_task_ends_as_its_program_does() {
    for (program, status) in [("exec true", 0), ("exit 3", 3), ("kill -KILL $$", 137)] {
        let world = World::new(&PROGRAMS);
        let program = format!("touch \"$0\"; {program}");
        assert_eq!(Turn::new(&world, &program, ":").end().code(), Some(status));
        assert_eq!(world.asked(), "");
    }
}
