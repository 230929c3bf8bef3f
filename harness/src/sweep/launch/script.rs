//! The scripts: for Slurm, and for anyone else.

use std::ffi::OsStr;
use std::fmt::Write;

use super::config::time;
use super::{CANCELLED, Gpus, Job, Launch, LaunchError, Resources, absolute, stem};

/// A word as bash reads it back, whatever bytes it has.
pub(super) fn quote(word: &OsStr) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:,+@%".contains(&b);
    let bytes = word.as_encoded_bytes();
    if !bytes.is_empty() && bytes.iter().copied().all(plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    match word.to_str() {
        Some(text) if !text.contains(char::is_control) => {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
        // sbatch refuses a script with a carriage return before a line break.
        _ => {
            let mut quoted = String::from("$'");
            for &byte in bytes {
                match byte {
                    b'\'' | b'\\' => quoted.extend(['\\', char::from(byte)]),
                    b' '..=b'~' => quoted.push(char::from(byte)),
                    _ => drop(write!(quoted, "\\{byte:03o}")),
                }
            }
            quoted.push('\'');
            quoted
        }
    }
}

/// An option's value as sbatch reads it back from a `#SBATCH` line.
fn option(value: &str) -> String {
    if value.bytes().all(|b| b.is_ascii_graphic() && !b"\"'\\#".contains(&b)) {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('\\', r"\\").replace('"', "\\\""))
}

fn command(job: &Job) -> String {
    job.command.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

fn title(launch: &Launch, jobs: &[Job], index: usize) -> String {
    let name = super::plain(&launch.name);
    format!(
        "# Job {} of {} of the sweep {name}: {}.",
        index + 1,
        jobs.len(),
        jobs[index].kind.name()
    )
}

fn start(launch: &Launch, resources: &Resources) -> Result<String, LaunchError> {
    let mut text = format!("cd {} || exit\n", quote(absolute(&launch.directory)?.as_os_str()));
    for line in &resources.setup {
        text.push_str(line);
        text.push('\n');
    }
    Ok(text)
}

/// A job's array script. sbatch is to be run in the state folder, with `name` not in use.
pub(super) fn sbatch(
    launch: &Launch,
    jobs: &[Job],
    index: usize,
    name: &str,
    resources: &Resources,
) -> Result<Vec<u8>, LaunchError> {
    let job = &jobs[index];
    let stem_of = |index: usize| stem(index, jobs[index].kind);
    let most = job.most.map(|most| format!("%{most}")).unwrap_or_default();
    // Relative, so that no path has to pass through the rules of these lines.
    let log = format!("logs/{}.{}.%A_%a.log", launch.id, stem_of(index));
    let mut lines = vec![
        format!("--job-name={name}"),
        format!("--array=0-{}{most}", job.tasks - 1),
        "--nodes=1".to_owned(),
        "--ntasks=1".to_owned(),
        format!("--output={log}"),
        "--open-mode=append".to_owned(),
        "--requeue".to_owned(),
        format!("--signal=B:USR1@{}", resources.warning),
    ];
    let mut add = |key: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("--{key}={}", option(&value))));
    };
    add("account", resources.account.clone());
    add("partition", resources.partition.clone());
    add("qos", resources.qos.clone());
    add("gres", resources.gpus.as_ref().map(gres));
    add("cpus-per-task", resources.cpus.map(|n| n.to_string()));
    add("mem", resources.memory_gb.map(|gb| format!("{gb}G")));
    add("time", resources.time.map(time));
    add("constraint", resources.constraint.clone());
    add("mail-user", resources.mail_user.clone());
    add("mail-type", resources.mail_user.as_ref().map(|_| "END,FAIL".to_owned()));
    lines.extend(resources.extra.iter().cloned());

    let mut text = format!("#!/usr/bin/env bash\n{}\n", title(launch, jobs, index));
    text.push_str("# Submitted by pixio-eval in the sweep's state folder");
    if let Some(after) = job.after {
        let _ = write!(text, ", with --dependency=afterany:ID of {}", stem_of(after));
    }
    text.push_str(".\n");
    for line in lines {
        let _ = writeln!(text, "#SBATCH {line}");
    }
    let cancelled = absolute(&launch.state)?.join(CANCELLED);
    let fills = [
        ("START\n", start(launch, resources)?),
        ("COMMAND", command(job)),
        ("CANCELLED", quote(cancelled.as_os_str())),
    ];
    text.push_str(&filled(SBATCH, &fills));
    Ok(text.into_bytes())
}

const SBATCH: &str = r#"
# Slurm sends SIGUSR1 to this script alone, ahead of the time limit and, on clusters that are set so, of a
# preemption. The program is told in its place and ends with what is done kept, status 130; then the task goes
# back into the queue and continues in its next turn.
# SIGTERM (scancel, requeueing, the time limit itself) reaches the program without help: Slurm sends it to every
# process of the job. The script only has to outlive it, or Slurm would take the job for ended. Slurm then knows
# by itself whether the task runs again, so nothing is requeued here.
program='' told=''
trap 'told=yes; [ -z "$program" ] || kill -TERM "$program" 2>/dev/null' USR1
trap '[ -n "$program" ] || exit 143' TERM

START
COMMAND &
program=$!
# Told before there was anyone to tell.
[ -z "$told" ] || kill -TERM "$program" 2>/dev/null
# Not `wait` in a loop: a signal ends it early, and bash may then lose the program's status.
while kill -0 "$program" 2>/dev/null; do sleep 0.5; done
wait "$program"
status=$?

# 143: it was told before it could listen.
if [ -n "$told" ] && { [ "$status" -eq 130 ] || [ "$status" -eq 143 ]; } && [ ! -e CANCELLED ]; then
    # Not $SLURM_JOB_ID: that of the last task is the id of the array, and would restart every task.
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" ||
        echo "could not go back into the queue: launch the sweep again to continue"
fi
exit "$status"
"#;

fn gres(gpus: &Gpus) -> String {
    match gpus {
        Gpus::Number(number) => format!("gpu:{number}"),
        Gpus::Resource(text) => text.clone(),
    }
}

/// A job's script for any scheduler: it runs the task whose index it is given.
pub(super) fn plain(
    launch: &Launch,
    jobs: &[Job],
    index: usize,
    resources: &Resources,
) -> Result<Vec<u8>, LaunchError> {
    let job = &jobs[index];
    let script = |index: usize| format!("{}.sh", stem(index, jobs[index].kind));
    let most = job.most.map(|most| format!(", at most {most} at once")).unwrap_or_default();
    let after = job.after.map(|after| {
        format!(", after every task of {} has ended, however it ended", script(after))
    });
    let needs = [
        resources.gpus.as_ref().map(gres),
        resources.cpus.map(|n| format!("CPUs {n}")),
        resources.memory_gb.map(|gb| format!("memory {gb} GB")),
        resources.time.map(|seconds| format!("time {}", time(seconds))),
    ];
    let needs: Vec<String> = needs.into_iter().flatten().collect();
    let log = format!("{}.{}.", launch.id, stem(index, job.kind));
    let logs = absolute(&launch.state)?.join("logs").join(log);
    let fills = [
        ("TITLE", title(launch, jobs, index)),
        ("LAST", (job.tasks - 1).to_string()),
        ("MOST", most),
        ("AFTER", after.unwrap_or_default()),
        ("SCRIPT", script(index)),
        ("NEEDS", if needs.is_empty() { "nothing special".to_owned() } else { needs.join(", ") }),
        ("TASKS", job.tasks.to_string()),
        ("START\n", start(launch, resources)?),
        ("COMMAND", command(job)),
        ("LOG", quote(logs.as_os_str())),
    ];
    Ok(filled(PLAIN, &fills).into_bytes())
}

const PLAIN: &str = r#"#!/usr/bin/env bash
TITLE
# Run it once for each task, 0 to LASTMOSTAFTER:
#     SCRIPT TASK
# A task needs: NEEDS.
# On SIGTERM it keeps what is done and ends with status 130; run again, it continues there. Tasks take work that
# nobody else has taken, so a task that was lost costs nothing but its time.
if ! [[ "${1:-}" =~ ^[0-9]{1,9}$ ]] || ((10#$1 >= TASKS)); then
    echo "usage: SCRIPT TASK, a number from 0 to LAST" >&2
    exit 2
fi
START
exec COMMAND >>LOG"$1".log 2>&1
"#;

/// Puts texts in the place of names in capitals; what was put in is not looked at again.
fn filled(template: &str, fills: &[(&str, String)]) -> String {
    let mut text = String::new();
    let mut rest = template;
    loop {
        let next = fills.iter().filter_map(|fill| Some((rest.find(fill.0)?, fill)));
        let Some((at, (name, value))) = next.min_by_key(|(at, _)| *at) else { break };
        text.push_str(&rest[..at]);
        text.push_str(value);
        rest = &rest[at + name.len()..];
    }
    text.push_str(rest);
    text
}
