"""The simulators by suite.

A suite's module is imported when its first environment is opened, so a simulator that is missing or
broken takes only its own suite with it. Each module has `TASKS`, the names of its tasks, and
`open_environment(task, render, repeat)`.
"""

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Optional

import numpy as np

from ..wire import BadRequest

SUITES = ("adroit", "dmc", "metaworld", "trifinger")


@dataclass(frozen=True)
class Render:
    """How images are drawn; the same settings must hold for demonstrations and rollouts."""

    side: int
    shadows: bool
    reflections: bool
    samples: int


@dataclass(frozen=True)
class Spec:
    """The sizes of an environment.

    `low` and `high` bound the actions; `proprio` and `state` are lengths; `image` is height, width,
    channels; `horizon` counts policy steps.
    """

    low: np.ndarray
    high: np.ndarray
    proprio: int
    state: int
    image: tuple[int, int, int]
    horizon: int


@dataclass(frozen=True)
class Outcome:
    """What the last step gave: its reward, and the episode's score (0 to 100) and success so far."""

    reward: float
    score: float
    success: Optional[bool]


class Environment(ABC):
    """One simulated task. Same seed, start and actions give the same states and images, bit by bit."""

    spec: Spec

    @abstractmethod
    def reset(self, seed: int, start: Optional[dict]) -> None:
        """Starts an episode; `start` overrides what the seed would draw, as the suite defines."""

    @abstractmethod
    def step(self, action: np.ndarray) -> None:
        """Advances by one policy step; the action (f64) lies within the bounds."""

    @abstractmethod
    def outcome(self) -> Outcome:
        """The outcome of the last step, or of the reset."""

    @abstractmethod
    def proprio(self) -> np.ndarray:
        """What the robot knows of its own pose: f64 of the spec's length."""

    @abstractmethod
    def state(self) -> np.ndarray:
        """The true state, for policies that calibrate the cloning: f64 of the spec's length."""

    @abstractmethod
    def image(self) -> np.ndarray:
        """The camera's image, u8 in height, width, channel order."""

    @abstractmethod
    def expert(self) -> np.ndarray:
        """A scripted expert's action in the current state; `BadRequest` with the reason without one."""

    @abstractmethod
    def close(self) -> None:
        """Gives back what the environment holds."""


def open_environment(suite: str, task: str, render: Render, repeat: int) -> Environment:
    """Opens a task; imports its simulator at the first use."""
    if suite not in SUITES:
        raise BadRequest(f"suite {suite!r}; expected one of {', '.join(SUITES)}")
    module = importlib.import_module(f".{suite}", __name__)
    if task not in module.TASKS:
        raise BadRequest(f"task {task!r} of {suite}; expected one of {', '.join(module.TASKS)}")
    if repeat != 1 and suite != "dmc":
        raise BadRequest(f"repeat {repeat} for {suite}; only dmc repeats actions")
    return module.open_environment(task, render, repeat)


def no_start(suite: str, start: Optional[dict]) -> None:
    """Refuses a start in a suite that draws every start from the seed."""
    if start is not None:
        raise BadRequest(f"a start was given; {suite} draws its starts from the seed")


def start_array(start: dict, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """A start's array of finite numbers, of the given shape."""
    if key not in start:
        raise BadRequest(f"the start has no {key!r}; it has {', '.join(sorted(start)) or 'nothing'}")
    try:
        array = np.asarray(start[key], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadRequest(f"the start's {key!r} is no array of numbers: {error}") from None
    if array.shape != shape or not np.isfinite(array).all():
        raise BadRequest(f"the start's {key!r} has shape {array.shape}; expected {shape}, all finite")
    return array
