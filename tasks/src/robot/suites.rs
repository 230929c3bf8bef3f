//! The suites and their tasks, by protocol.

use schema::{PolicyTask, PolicyTraining, Render};

/// A suite of tasks in one simulator.
#[derive(Debug)]
pub struct Suite {
    /// Name, of the data set too.
    pub name: &'static str,
    /// Height and width of its camera's images, in pixels.
    pub side: usize,
    /// Numbers of proprioception that demonstrations and policies use.
    pub proprio: bool,
    /// Frames of history.
    pub frames: usize,
    /// Name of the published demonstrations' folder.
    pub(super) folder: &'static str,
    tasks: &'static [Task],
}

/// A task, in the published protocol.
#[derive(Debug)]
struct Task {
    name: &'static str,
    /// Its file, without `.pickle`; TriFinger's folder.
    file: &'static str,
    demonstrations: usize,
    epochs: usize,
    episodes: usize,
    horizon: usize,
    goal: bool,
    /// Numbers of proprioception.
    proprio: usize,
    /// Numbers of an action.
    actions: usize,
}

/// How much of a suite is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// As published.
    Published,
    /// Reduced for a laptop.
    Lite,
    /// As small as it can be, for generated sample data.
    Sample,
}

/// What a variant of a suite runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// The tasks.
    pub tasks: Vec<PolicyTask>,
    /// The policy and its training.
    pub training: PolicyTraining,
    /// A policy each.
    pub seeds: Vec<u64>,
}

const fn mujoco(name: &'static str, file: &'static str, horizon: usize) -> Task {
    Task {
        name,
        file,
        demonstrations: 100,
        epochs: 100,
        episodes: 25,
        horizon,
        goal: false,
        proprio: 0,
        actions: 0,
    }
}

const fn metaworld(name: &'static str, file: &'static str) -> Task {
    Task { demonstrations: 25, proprio: 4, actions: 4, ..mujoco(name, file, 500) }
}

const fn dmc(name: &'static str, file: &'static str, actions: usize) -> Task {
    Task { episodes: 10, actions, ..mujoco(name, file, 1000) }
}

/// The suites, in the paper's order.
pub static SUITES: &[Suite] = &[
    Suite {
        name: "adroit",
        side: 256,
        proprio: true,
        frames: 3,
        folder: "adroit-expert-v1.0",
        tasks: &[
            Task { proprio: 24, actions: 24, ..mujoco("pen", "pen-v0", 100) },
            Task { proprio: 30, actions: 30, ..mujoco("relocate", "relocate-v0", 200) },
        ],
    },
    Suite {
        name: "dmc",
        side: 256,
        proprio: false,
        frames: 3,
        folder: "dmc-expert-v1.0",
        tasks: &[
            dmc("walker_stand", "dmc_walker_stand-v1", 6),
            dmc("walker_walk", "dmc_walker_walk-v1", 6),
            dmc("reacher_easy", "dmc_reacher_easy-v1", 2),
            dmc("cheetah_run", "dmc_cheetah_run-v1", 6),
            dmc("finger_spin", "dmc_finger_spin-v1", 2),
        ],
    },
    Suite {
        name: "metaworld",
        side: 256,
        proprio: true,
        frames: 3,
        folder: "metaworld-expert-v1.0",
        tasks: &[
            metaworld("assembly", "assembly-v2-goal-observable"),
            metaworld("bin-picking", "bin-picking-v2-goal-observable"),
            metaworld("button-press-topdown", "button-press-topdown-v2-goal-observable"),
            metaworld("drawer-open", "drawer-open-v2-goal-observable"),
            metaworld("hammer", "hammer-v2-goal-observable"),
        ],
    },
    Suite {
        name: "trifinger",
        side: 270,
        proprio: true,
        frames: 1,
        folder: "trifinger-demos",
        tasks: &[
            Task { proprio: 9, actions: 3, ..mujoco("reach_cube", "reach_cube", 5) },
            Task {
                proprio: 9,
                actions: 9,
                epochs: 1000,
                goal: true,
                ..mujoco("move_cube", "move_cube", 10)
            },
        ],
    },
];

/// The suite of a name.
pub fn suite(name: &str) -> Option<&'static Suite> {
    SUITES.iter().find(|suite| suite.name == name)
}

impl Suite {
    /// Its tasks' names, in order.
    pub fn tasks(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.tasks.iter().map(|task| task.name)
    }

    /// The published file or folder of a task.
    pub(super) fn file(&self, task: &str) -> Option<&'static str> {
        self.of(task).map(|task| task.file)
    }

    /// Numbers of proprioception and of an action of a task.
    pub fn widths(&self, task: &str) -> Option<(usize, usize)> {
        self.of(task).map(|task| (task.proprio, task.actions))
    }

    /// The same suite with another camera.
    #[cfg(test)]
    pub(super) fn with_side(&self, side: usize) -> Self {
        let &Self { name, proprio, frames, folder, tasks, .. } = self;
        Self { name, side, proprio, frames, folder, tasks }
    }

    fn of(&self, task: &str) -> Option<&'static Task> {
        self.tasks.iter().find(|known| known.name == task)
    }

    /// The simulators' own defaults, with which the published demonstrations were made.
    pub fn render(&self) -> Render {
        // TriFinger's were made without shadows.
        let shadows = !self.tests_on_demonstrations();
        Render { side: self.side, shadows, reflections: true, samples: 4 }
    }

    /// Without shadows, reflections and antialiasing: several times faster.
    pub fn fast(&self) -> Render {
        Render { side: self.side, shadows: false, reflections: false, samples: 0 }
    }

    /// Whether its policies are evaluated from the starts of further demonstrations.
    pub fn tests_on_demonstrations(&self) -> bool {
        self.name == "trifinger"
    }

    /// What a variant runs. The published numbers are CortexBench's; a policy is evaluated after the
    /// sixth, eleventh, ... and the last epoch (TriFinger: every 5, move every 25).
    pub fn setup(&self, variant: Variant) -> Setup {
        let wanted = |task: &&Task| match variant {
            Variant::Published => true,
            Variant::Lite => matches!(
                task.name,
                "pen" | "reacher_easy" | "button-press-topdown" | "drawer-open" | "reach_cube"
            ),
            Variant::Sample => {
                matches!(task.name, "pen" | "reacher_easy" | "drawer-open" | "reach_cube")
            }
        };
        let tasks = self.tasks.iter().filter(wanted).map(|task| self.task(task, variant)).collect();
        let mujoco = self.frames > 1;
        let training = PolicyTraining {
            revision: 1,
            hidden: if mujoco { vec![256; 3] } else { vec![2000; 2] },
            input_norm: mujoco.then_some(0.01),
            rate: if mujoco { 1e-3 } else { 1e-4 },
            weight_decay: 0.0,
            betas: [0.9, 0.999],
            eps: 1e-8,
            batch: if mujoco { 256 } else { 32 },
        };
        let seeds = if variant == Variant::Published { vec![100, 200, 300] } else { vec![100] };
        Setup { tasks, training, seeds }
    }

    fn task(&self, task: &Task, variant: Variant) -> PolicyTask {
        let &Task { name, demonstrations, epochs, episodes, horizon, goal, .. } = task;
        let every = match (self.name, name) {
            ("trifinger", "move_cube") => 25,
            _ => 5,
        };
        let (demonstrations, epochs, episodes, horizon) = match variant {
            Variant::Published => (demonstrations, epochs, episodes, horizon),
            // 16 episodes are one batch of the encoder.
            Variant::Lite => (demonstrations.min(25), epochs.min(100), 16, horizon),
            Variant::Sample => (2, 3, 4, horizon.min(25)),
        };
        PolicyTask {
            name: name.to_owned(),
            demonstrations,
            epochs,
            evaluations: match variant {
                Variant::Published => self.evaluations(epochs, every),
                Variant::Lite | Variant::Sample => reduced(epochs),
            },
            episodes,
            horizon,
            goal,
        }
    }

    /// Epochs trained at each evaluation of the published protocol.
    fn evaluations(&self, epochs: usize, every: usize) -> Vec<usize> {
        if self.name == "trifinger" {
            return (1..=epochs / every).map(|at| at * every).collect();
        }
        // Epochs count from 0: those that `every` divides, but not the first, and the last.
        let due = |&epoch: &usize| (epoch % every == 0 && epoch > 0) || epoch + 1 == epochs;
        (0..epochs).filter(due).map(|epoch| epoch + 1).collect()
    }
}

/// Two evaluations: after two thirds of the epochs, and at the end.
fn reduced(epochs: usize) -> Vec<usize> {
    let mut evaluations = vec![(2 * epochs).div_ceil(3), epochs];
    evaluations.dedup();
    evaluations
}

impl Setup {
    /// The same with other numbers of epochs, evaluated after two thirds of them and at the end.
    pub fn with_epochs(mut self, epochs: usize) -> Self {
        for task in &mut self.tasks {
            task.epochs = epochs;
            task.evaluations = reduced(epochs);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archives_unpack_to_the_suites_folders() {
        let registry = crate::data::Registry::builtin().unwrap();
        for suite in SUITES {
            let files = &registry.get(suite.name).unwrap().source.files;
            let rules: Vec<&str> =
                files.iter().flat_map(|file| &file.unpack).map(|rule| rule.from.as_str()).collect();
            assert_eq!(rules, [format!("{}/", suite.folder)]);
        }
    }

    #[test]
    fn the_published_protocol_is_evaluated_as_the_original_does() {
        let metaworld = suite("metaworld").unwrap().setup(Variant::Published);
        assert_eq!(metaworld.tasks.len(), 5);
        assert_eq!(metaworld.seeds, [100, 200, 300]);
        let evaluations = &metaworld.tasks[0].evaluations;
        assert_eq!((evaluations.len(), evaluations[0], evaluations[18]), (20, 6, 96));
        assert_eq!(evaluations[19], 100);
        let trifinger = suite("trifinger").unwrap().setup(Variant::Published);
        assert_eq!(trifinger.tasks[0].evaluations[..2], [5, 10]);
        assert_eq!(trifinger.tasks[1].evaluations.last(), Some(&1000));
        assert_eq!(trifinger.tasks[1].evaluations.len(), 40);
        assert_eq!(SUITES.iter().map(|suite| suite.tasks().count()).sum::<usize>(), 14);
    }

    #[test]
    fn every_variant_ends_with_an_evaluation() {
        for suite in SUITES {
            for variant in [Variant::Published, Variant::Lite, Variant::Sample] {
                let setup = suite.setup(variant);
                assert!(!setup.tasks.is_empty() && !setup.seeds.is_empty());
                for task in setup.with_epochs(1).tasks.iter().chain(&suite.setup(variant).tasks) {
                    assert_eq!(task.evaluations.last(), Some(&task.epochs), "{}", task.name);
                    assert!(task.evaluations.is_sorted() && task.episodes > 0);
                }
            }
        }
    }
}
