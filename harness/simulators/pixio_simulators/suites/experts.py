"""Experts for tasks of the control suite, which need nothing but the model.

MetaWorld ships its own scripted experts; TriFinger's is a line in its module.
"""

from typing import Callable

import mujoco
import numpy as np
from dm_control.mujoco import Physics
from dm_control.utils.rewards import tolerance
from mujoco import rollout

PLANS = 24
"""Plans tried at a step, the one at hand among them."""

KNOTS = 6
"""Points of a plan between which the controls are interpolated."""

HORIZON_SECONDS = 0.75
NOISE = 0.4

STAND_HEIGHT = 1.2
WALK_SPEED = 1.0
STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS


class Reacher:
    """Inverse kinematics of the two links, then proportional and derivative control of the joints.

    The gains, in shares of the largest torque, are low enough to hold with actions repeated eight times.
    """

    STIFFNESS = 1.0
    DAMPING = 0.15

    def __init__(self, physics: Physics):
        self._physics = physics
        self._upper = physics.named.model.body_pos["hand", "x"]
        self._lower = physics.named.model.body_pos["finger", "x"]

    def action(self) -> np.ndarray:
        x, y = self._physics.named.data.geom_xpos["target", :2]
        squared = x * x + y * y
        links = self._upper**2 + self._lower**2
        bend = np.arccos(np.clip((squared - links) / (2 * self._upper * self._lower), -1.0, 1.0))
        shoulder, wrist = self._physics.position()
        errors = []
        for elbow in (bend, -bend):
            inner = np.arctan2(self._lower * np.sin(elbow), self._upper + self._lower * np.cos(elbow))
            turn = np.arctan2(y, x) - inner - shoulder
            # The shoulder turns freely; the wrist stops short of a full turn.
            errors.append(np.array([(turn + np.pi) % (2 * np.pi) - np.pi, elbow - wrist]))
        error = min(errors, key=lambda each: np.abs(each).max())
        return self.STIFFNESS * error - self.DAMPING * self._physics.velocity()


class PredictiveSampling:
    """Tries noisy variants of a plan in the model itself and follows the best one for one step.

    A plan is a piecewise linear course of the controls over the horizon. Every call to `action`
    improves the plan at hand, so the same actions follow from the same calls since the reset.
    """

    def __init__(self, physics: Physics, step_seconds: float, reward: Callable, seed: int):
        """`reward` maps states and sensor data, [plan, step, value], to rewards [plan, step]."""
        self._physics = physics
        self._model = physics.model.ptr
        self._scratch = mujoco.MjData(self._model)
        self._reward = reward
        self._random = np.random.default_rng(seed)
        self._bounds = self._model.actuator_ctrlrange.T
        self._plan = np.zeros((KNOTS, self._model.nu))
        knots = np.linspace(0.0, HORIZON_SECONDS, KNOTS)
        timestep = self._model.opt.timestep
        self._courses = _interpolation(knots, np.arange(0.0, HORIZON_SECONDS, timestep))
        self._ahead = _interpolation(knots, knots + step_seconds)

    def action(self) -> np.ndarray:
        noise = NOISE * self._random.standard_normal((PLANS, *self._plan.shape))
        noise[0] = 0.0
        plans = np.clip(self._plan + noise, *self._bounds)
        state = np.empty(mujoco.mj_stateSize(self._model, STATE))
        mujoco.mj_getState(self._model, self._physics.data.ptr, state, STATE)
        states, sensors = rollout.rollout(
            self._model, self._scratch, np.tile(state, (PLANS, 1)), self._courses @ plans
        )
        best = plans[np.argmax(self._reward(self._model, states, sensors).sum(axis=1))]
        self._plan = self._ahead @ best
        return best[0]


def _interpolation(knots: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Weights [time, knot] of the knots at given times; the last knot holds from there on."""
    return np.stack([np.interp(at, knots, unit) for unit in np.eye(len(knots))], axis=1)


def walker_reward(speed: float) -> Callable:
    """The walker's reward, from planned states; `speed` 0 asks it to stand."""

    def reward(model: mujoco.MjModel, states: np.ndarray, sensors: np.ndarray) -> np.ndarray:
        # A full state begins with the time; the walker's first joints are its root's.
        height = states[..., 1 + model.joint("rootz").qposadr[0]] + model.body("torso").pos[2]
        upright = (1.0 + np.cos(states[..., 1 + model.joint("rooty").qposadr[0]])) / 2.0
        standing = tolerance(height, (STAND_HEIGHT, np.inf), margin=STAND_HEIGHT / 2)
        stand = (3.0 * standing + upright) / 4.0
        if speed == 0.0:
            return stand
        along = sensors[..., model.sensor("torso_subtreelinvel").adr[0]]
        move = tolerance(along, (speed, np.inf), margin=speed / 2, value_at_margin=0.5, sigmoid="linear")
        return stand * (5.0 * move + 1.0) / 6.0

    return reward
