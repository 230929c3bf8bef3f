"""Adroit's two tasks: a dexterous hand that turns a pen, or carries a ball."""

from typing import Optional

import numpy as np
from gymnasium_robotics.envs.adroit_hand.adroit_pen import AdroitHandPenEnv
from gymnasium_robotics.envs.adroit_hand.adroit_relocate import AdroitHandRelocateEnv

from ..rendering import Camera
from ..wire import BadRequest
from . import Environment, Outcome, Render, Spec, start_array

CAMERA = "vil_camera"

# By task: the class, the horizon, the joints of hand and arm, the steps at the goal that an episode
# must exceed to be solved, and what a start holds beside positions and velocities.
TASKS = {
    "pen": (AdroitHandPenEnv, 100, 24, 20, {"desired_orien": (4,)}),
    "relocate": (AdroitHandRelocateEnv, 200, 30, 25, {"obj_pos": (3,), "target_pos": (3,)}),
}

NO_EXPERT = {
    "pen": "planning solves 3 of 5 episodes, too few to learn from",
    "relocate": "none is known that needs no downloaded policy",
}


class Adroit(Environment):
    """One Adroit task; an episode goes on after the goal, and is solved by holding it."""

    def __init__(self, task: str, render: Render):
        kind, horizon, joints, self._needed, self._placed = TASKS[task]
        self._task = task
        self._simulator = kind()
        model = self._simulator.model
        self._built = {name: getattr(model, name).copy() for name in ("body_pos", "body_quat", "site_pos")}
        self._camera = Camera(model, self._simulator.data, model.camera(CAMERA).id, f"adroit/{task}", render)
        space = self._simulator.action_space
        self.spec = Spec(
            low=space.low.astype(np.float64),
            high=space.high.astype(np.float64),
            proprio=joints,
            state=self._simulator.observation_space.shape[0],
            image=(render.side, render.side, 3),
            horizon=horizon,
        )

    def reset(self, seed: int, start: Optional[dict]) -> None:
        """A start holds `qpos`, `qvel` and the task's poses, as the simulator's own states do."""
        state = None
        if start is not None:
            model = self._simulator.model
            shapes = {"qpos": (model.nq,), "qvel": (model.nv,), **self._placed}
            state = {key: start_array(start, key, shape) for key, shape in shapes.items()}
        # The simulator draws some coordinates of these and leaves the others as a start set them.
        for name, built in self._built.items():
            getattr(self._simulator.model, name)[:] = built
        options = None if state is None else {"initial_state_dict": state}
        self._observation, _ = self._simulator.reset(seed=seed, options=options)
        self._reward = 0.0
        self._at_goal = 0

    def step(self, action: np.ndarray) -> None:
        self._observation, reward, _, _, info = self._simulator.step(action)
        self._reward = float(reward)
        self._at_goal += bool(info["success"])

    def outcome(self) -> Outcome:
        solved = self._at_goal > self._needed
        return Outcome(self._reward, 100.0 * solved, solved)

    def proprio(self) -> np.ndarray:
        return self._observation[: self.spec.proprio]

    def state(self) -> np.ndarray:
        return self._observation

    def image(self) -> np.ndarray:
        return self._camera.image()

    def expert(self) -> np.ndarray:
        raise BadRequest(f"adroit/{self._task} has no expert: {NO_EXPERT[self._task]}")

    def close(self) -> None:
        self._camera.close()
        self._simulator.close()


def open_environment(task: str, render: Render, repeat: int) -> Adroit:
    """Opens a task of Adroit; actions are never repeated."""
    return Adroit(task, render)
