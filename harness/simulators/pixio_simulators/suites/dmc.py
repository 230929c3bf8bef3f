"""Five tasks of the DeepMind Control Suite: 1000 simulator steps, the suite's own camera."""

from typing import Optional

import numpy as np
from dm_control import suite

from ..rendering import Camera
from ..wire import BadRequest
from . import Environment, Outcome, Render, Spec, experts, start_array

TASKS = ("walker_stand", "walker_walk", "reacher_easy", "cheetah_run", "finger_spin")
SIMULATOR_STEPS = 1000
CAMERA = 0

WALKERS = {"walker_stand": 0.0, "walker_walk": experts.WALK_SPEED}
"""The walker's tasks, by the speed that they ask for."""

NO_EXPERT = {
    "cheetah_run": "planning reaches 65 to 70 of 100 where the published demonstrations have 76",
    "finger_spin": "planning reaches 55 of 100 where the published demonstrations have 74",
}


class ControlSuite(Environment):
    """One task; an action in [-1, 1] is scaled to the actuators' ranges and held for `repeat` steps."""

    def __init__(self, task: str, render: Render, repeat: int):
        if SIMULATOR_STEPS % repeat:
            raise BadRequest(f"repeat {repeat}; expected a divisor of {SIMULATOR_STEPS}")
        domain, name = task.split("_")
        self._task = task
        self._repeat = repeat
        self._simulator = suite.load(domain, name, task_kwargs={"random": 0})
        self._physics = self._simulator.physics
        self._camera = Camera(
            self._physics.model.ptr, self._physics.data.ptr, CAMERA, f"dmc/{task}", render
        )
        actions = self._simulator.action_spec()
        self._low, self._high = actions.minimum, actions.maximum
        observations = self._simulator.observation_spec()
        self.spec = Spec(
            low=-np.ones(actions.shape),
            high=np.ones(actions.shape),
            proprio=0,
            state=self._numbers({name: np.zeros(part.shape) for name, part in observations.items()}).size,
            image=(render.side, render.side, 3),
            horizon=SIMULATOR_STEPS // repeat,
        )

    def reset(self, seed: int, start: Optional[dict]) -> None:
        """A start's `state` holds the physics state (positions, velocities)."""
        self._simulator.task.random.seed(seed)
        self._observation = self._simulator.reset().observation
        if start is not None:
            state = start_array(start, "state", self._physics.get_state().shape)
            with self._physics.reset_context():
                self._physics.set_state(state)
            self._observation = self._simulator.task.get_observation(self._physics)
        self._expert = self._make_expert(seed)
        self._reward = 0.0
        self._return = 0.0

    def step(self, action: np.ndarray) -> None:
        scaled = self._low + (action + 1.0) * 0.5 * (self._high - self._low)
        self._reward = 0.0
        for _ in range(self._repeat):
            now = self._simulator.step(scaled)
            self._reward += float(now.reward)
        self._observation = now.observation
        self._return += self._reward

    def outcome(self) -> Outcome:
        return Outcome(self._reward, 100.0 * self._return / SIMULATOR_STEPS, None)

    def proprio(self) -> np.ndarray:
        return np.empty(0)

    def state(self) -> np.ndarray:
        return self._numbers(self._observation)

    def _numbers(self, observation: dict) -> np.ndarray:
        """The observation, flat; the reacher's angles, which turn without end, as cosines and sines."""
        parts = dict(observation)
        if self._task == "reacher_easy":
            angles = parts["position"]
            parts["position"] = np.concatenate([np.cos(angles), np.sin(angles)])
        return np.concatenate([np.ravel(part) for part in parts.values()])

    def image(self) -> np.ndarray:
        return self._camera.image()

    def expert(self) -> np.ndarray:
        if self._expert is None:
            raise BadRequest(f"dmc/{self._task} has no expert: {NO_EXPERT[self._task]}")
        action = self._expert.action()
        return 2.0 * (action - self._low) / (self._high - self._low) - 1.0

    def _make_expert(self, seed: int):
        seconds = self._repeat * self._simulator.control_timestep()
        if self._task == "reacher_easy":
            return experts.Reacher(self._physics)
        if self._task in WALKERS:
            reward = experts.walker_reward(WALKERS[self._task])
            return experts.PredictiveSampling(self._physics, seconds, reward, seed)
        return None

    def close(self) -> None:
        self._camera.close()
        self._simulator.close()


def open_environment(task: str, render: Render, repeat: int) -> ControlSuite:
    """Opens a task of the control suite."""
    return ControlSuite(task, render, repeat)
