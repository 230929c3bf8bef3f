"""The requests of the protocol, over the environments of a worker.

Every environment has a slot, a number that the client chooses. A request is checked whole before any
environment moves. Where a simulator fails within a request, its slot must be reset before it can be
stepped again; what the request had already done to other slots stands.
"""

import os
import platform
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from typing import Optional

import numpy as np

from . import PROTOCOL
from .suites import Environment, Render, Spec, open_environment
from .wire import BadRequest, Broken, Channel, describe

LIBRARIES = (
    "numpy",
    "mujoco",
    "dm_control",
    "metaworld",
    "gymnasium",
    "gymnasium-robotics",
    "trifinger_simulation",
    "pybullet",
)
MAX_SLOTS = 1024
MIN_SIDE, MAX_SIDE = 16, 1024
MAX_SAMPLES = 16
MAX_REPEAT = 1000
MAX_SEED = 2**32 - 1
NUMBER = np.dtype("<f8")

Answer = tuple[dict, list[bytes]]


@dataclass
class Slot:
    """An open environment and how far its episode is: `steps` is None where it must be reset first."""

    environment: Environment
    steps: Optional[int] = None


@dataclass
class Seconds:
    """Where a request's time went; opening and the pipe are not counted."""

    physics: float = 0.0
    render: float = 0.0


class Worker:
    """Answers requests one by one."""

    def __init__(self):
        self._slots: dict[int, Slot] = {}
        self._does = {
            "hello": self._hello,
            "open": self._open,
            "reset": self._reset,
            "step": self._step,
            "replay": self._replay,
            "expert": self._expert,
            "close": self._close,
        }

    def serve(self, channel: Channel) -> None:
        """Answers until the input ends; raises `Broken` where it cannot be followed."""
        while True:
            try:
                received = channel.receive()
                if received is None:
                    return
                channel.answer(*self._do(*received))
            except BrokenPipeError:
                raise
            except Broken as error:
                channel.fault(str(error))
                raise
            except Exception as error:
                channel.fault(describe(error))

    def close(self) -> None:
        """Closes every environment and the rendering behind them."""
        for number in list(self._slots):
            self._slots.pop(number).environment.close()
        rendering = sys.modules.get(f"{__package__}.rendering")
        if rendering is not None:
            rendering.shut_down()

    def _do(self, request: dict, payload: bytes) -> Answer:
        name = request.get("do")
        if name not in self._does:
            raise BadRequest(f"do {name!r}; expected one of {', '.join(self._does)}")
        return self._does[name](request, payload)

    def _hello(self, request: dict, payload: bytes) -> Answer:
        _sized(payload, 0)
        versions = {"python": platform.python_version()}
        for library in LIBRARIES:
            try:
                versions[library] = metadata.version(library)
            except metadata.PackageNotFoundError:
                continue
        return {"protocol": PROTOCOL, "versions": versions, "gl": os.environ.get("MUJOCO_GL", "")}, []

    def _open(self, request: dict, payload: bytes) -> Answer:
        _sized(payload, 0)
        number = _integer(request, "slot", 0, MAX_SLOTS - 1)
        settings = _field(request, "render", dict)
        render = Render(
            side=_integer(settings, "side", MIN_SIDE, MAX_SIDE),
            shadows=_field(settings, "shadows", bool),
            reflections=_field(settings, "reflections", bool),
            samples=_integer(settings, "samples", 0, MAX_SAMPLES),
        )
        suite, task = _field(request, "suite", str), _field(request, "task", str)
        repeat = _integer(request, "repeat", 1, MAX_REPEAT)
        if number in self._slots:
            self._slots.pop(number).environment.close()
        environment = open_environment(suite, task, render, repeat)
        self._slots[number] = Slot(environment)
        return _describe_spec(environment.spec), []

    def _reset(self, request: dict, payload: bytes) -> Answer:
        _sized(payload, 0)
        items = _items(request)
        work = [(self._slot(item), *_beginning(item), _field(item, "render", bool)) for item in items]
        seconds, outcomes, parts = Seconds(), [], []
        for slot, seed, start, render in work:
            _begin(slot, seed, start, seconds)
            outcomes.append(_observe(slot, render, seconds, parts))
        return {"items": outcomes, "seconds": vars(seconds)}, parts

    def _step(self, request: dict, payload: bytes) -> Answer:
        items = _items(request)
        slots = [self._slot(item) for item in items]
        renders = [_field(item, "render", bool) for item in items]
        for item, slot in zip(items, slots):
            _may_step(item["slot"], slot)
        widths = [slot.environment.spec.low.size for slot in slots]
        numbers = _actions(payload, sum(widths))
        seconds, outcomes, parts = Seconds(), [], []
        for slot, render, action in zip(slots, renders, np.split(numbers, np.cumsum(widths)[:-1])):
            _advance(slot, action, seconds)
            outcomes.append(_observe(slot, render, seconds, parts))
        return {"items": outcomes, "seconds": vars(seconds)}, parts

    def _replay(self, request: dict, payload: bytes) -> Answer:
        slot = self._slot(request)
        seed, start = _beginning(request)
        spec = slot.environment.spec
        steps = _integer(request, "steps", 0, spec.horizon)
        actions = _actions(payload, steps * spec.low.size).reshape(steps, spec.low.size)
        seconds, parts = Seconds(), []
        _begin(slot, seed, start, seconds)
        for action in actions:
            _advance(slot, action, seconds)
        outcome = _observe(slot, True, seconds, parts)
        return {**outcome, "seconds": vars(seconds)}, parts

    def _expert(self, request: dict, payload: bytes) -> Answer:
        _sized(payload, 0)
        slot = self._slot(request)
        _may_step(request["slot"], slot)
        spec = slot.environment.spec
        action = np.clip(slot.environment.expert(), spec.low, spec.high)
        return {"actions": action.size}, [action.astype(NUMBER).tobytes()]

    def _close(self, request: dict, payload: bytes) -> Answer:
        _sized(payload, 0)
        slot = self._slot(request)
        del self._slots[request["slot"]]
        slot.environment.close()
        return {}, []

    def _slot(self, item: dict) -> Slot:
        number = _integer(item, "slot", 0, MAX_SLOTS - 1)
        if number not in self._slots:
            raise BadRequest(f"slot {number} is not open")
        return self._slots[number]


def _begin(slot: Slot, seed: int, start: Optional[dict], seconds: Seconds) -> None:
    slot.steps = None
    before = time.perf_counter()
    slot.environment.reset(seed, start)
    seconds.physics += time.perf_counter() - before
    slot.steps = 0


def _advance(slot: Slot, action: np.ndarray, seconds: Seconds) -> None:
    spec = slot.environment.spec
    steps, slot.steps = slot.steps, None
    before = time.perf_counter()
    slot.environment.step(np.clip(action, spec.low, spec.high))
    seconds.physics += time.perf_counter() - before
    slot.steps = steps + 1


def _observe(slot: Slot, render: bool, seconds: Seconds, parts: list[bytes]) -> dict:
    """Appends what an environment shows to an answer's payload; returns the outcome beside it."""
    environment = slot.environment
    if render:
        before = time.perf_counter()
        parts.append(environment.image().tobytes())
        seconds.render += time.perf_counter() - before
    parts.append(environment.proprio().astype(NUMBER).tobytes())
    parts.append(environment.state().astype(NUMBER).tobytes())
    outcome = environment.outcome()
    return {
        "reward": outcome.reward,
        "score": outcome.score,
        "success": outcome.success,
        "done": slot.steps == environment.spec.horizon,
    }


def _describe_spec(spec: Spec) -> dict:
    return {
        "actions": spec.low.size,
        "low": spec.low.tolist(),
        "high": spec.high.tolist(),
        "proprio": spec.proprio,
        "state": spec.state,
        "image": list(spec.image),
        "horizon": spec.horizon,
    }


def _beginning(item: dict) -> tuple[int, Optional[dict]]:
    start = item.get("start")
    if start is not None and not isinstance(start, dict):
        raise BadRequest(f"start is a {type(start).__name__}; expected an object or null")
    return _integer(item, "seed", 0, MAX_SEED), start


def _may_step(number: int, slot: Slot) -> None:
    if slot.steps is None:
        raise BadRequest(f"slot {number} has no episode: reset it first")
    if slot.steps >= slot.environment.spec.horizon:
        raise BadRequest(f"the episode of slot {number} is over after {slot.steps} steps: reset it first")


def _items(request: dict) -> list[dict]:
    items = _field(request, "items", list)
    if not items or not all(isinstance(item, dict) for item in items):
        raise BadRequest("items must be a list of at least one object")
    numbers = [item.get("slot") for item in items]
    if any(numbers.count(number) > 1 for number in numbers):
        raise BadRequest("items name a slot twice")
    return items


def _actions(payload: bytes, count: int) -> np.ndarray:
    _sized(payload, count * NUMBER.itemsize)
    numbers = np.frombuffer(payload, NUMBER).astype(np.float64)
    if not np.isfinite(numbers).all():
        raise BadRequest(f"action number {int(np.argmin(np.isfinite(numbers)))} is not finite")
    return numbers


def _sized(payload: bytes, size: int) -> None:
    if len(payload) != size:
        raise BadRequest(f"a payload of {len(payload)} bytes; expected {size}")


def _field(request: dict, key: str, kind: type):
    value = request.get(key)
    if type(value) is not kind:
        raise BadRequest(f"{key} is {value!r}; expected {kind.__name__}")
    return value


def _integer(request: dict, key: str, low: int, high: int) -> int:
    value = _field(request, key, int)
    if not low <= value <= high:
        raise BadRequest(f"{key} is {value}; expected {low} to {high}")
    return value
