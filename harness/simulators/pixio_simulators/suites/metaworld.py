"""MetaWorld's five tasks: a Sawyer arm, 500 steps, with the goal in the observation."""

from typing import Optional

import mujoco
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP

from ..rendering import Camera
from . import Environment, Outcome, Render, Spec, no_start

TASKS = ("assembly", "bin-picking", "button-press-topdown", "drawer-open", "hammer")
HORIZON = 500
PROPRIO = 4
CAMERA = "top_cap2"


def _with_camera(kind: type) -> type:
    """The environment class with CortexBench's camera, which the published models lack."""

    class WithCamera(kind):
        def _initialize_simulation(self):
            spec = mujoco.MjSpec.from_file(self.fullpath)
            spec.worldbody.add_camera(
                name=CAMERA,
                pos=[0.0, 0.9, 0.6],
                mode=mujoco.mjtCamLight.mjCAMLIGHT_TARGETBODY,
                targetbody="tablelink",
            )
            model = spec.compile()
            return model, mujoco.MjData(model)

    return WithCamera


class MetaWorld(Environment):
    """One MetaWorld task; the seed draws the positions of the object and the goal."""

    def __init__(self, task: str, render: Render):
        name = f"{task}-v3"
        self._simulator = _with_camera(ALL_V3_ENVIRONMENTS[name])()
        # Without a set task, positions are drawn at every reset, from the environment's own seed.
        self._simulator._set_task_called = True
        self._simulator._freeze_rand_vec = False
        self._simulator.seeded_rand_vec = True
        self._simulator._partially_observable = False
        self._simulator.__dict__.pop("sawyer_observation_space", None)
        self._simulator.max_path_length = HORIZON
        model = self._simulator.model
        self._camera = Camera(model, self._simulator.data, model.camera(CAMERA).id, f"metaworld/{task}", render)
        self._policy = ENV_POLICY_MAP[name]()
        space = self._simulator.action_space
        self.spec = Spec(
            low=space.low.astype(np.float64),
            high=space.high.astype(np.float64),
            proprio=PROPRIO,
            state=self._simulator.sawyer_observation_space.shape[0],
            image=(render.side, render.side, 3),
            horizon=HORIZON,
        )

    def reset(self, seed: int, start: Optional[dict]) -> None:
        no_start("metaworld", start)
        self._simulator.seed(seed)
        self._simulator.reset()
        self._settle()
        self._reward = 0.0
        self._success = False

    def step(self, action: np.ndarray) -> None:
        self._observation, reward, _, _, info = self._simulator.step(action)
        self._reward = float(reward)
        self._success = bool(info["success"])

    def _settle(self) -> None:
        """Brings what is seen up to the reset.

        Some tasks move a body last of all in their reset, so that poses, images and observations
        show where it was before. The kinematics alone are run, which no later step depends on.
        """
        simulator = self._simulator
        mujoco.mj_kinematics(simulator.model, simulator.data)
        mujoco.mj_comPos(simulator.model, simulator.data)
        mujoco.mj_camlight(simulator.model, simulator.data)
        simulator._prev_obs = simulator._get_curr_obs_combined_no_goal()
        self._observation = simulator._get_obs()

    def outcome(self) -> Outcome:
        return Outcome(self._reward, 100.0 * self._success, self._success)

    def proprio(self) -> np.ndarray:
        return self._observation[:PROPRIO]

    def state(self) -> np.ndarray:
        return self._observation

    def image(self) -> np.ndarray:
        return self._camera.image()

    def expert(self) -> np.ndarray:
        return np.asarray(self._policy.get_action(self._observation), dtype=np.float64)

    def close(self) -> None:
        self._camera.close()
        self._simulator.close()


def open_environment(task: str, render: Render, repeat: int) -> MetaWorld:
    """Opens a task of MetaWorld; actions are never repeated."""
    return MetaWorld(task, render)
