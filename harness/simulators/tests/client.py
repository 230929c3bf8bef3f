"""The client's side of the protocol, for the tests and the soak."""

import json
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Optional

import numpy as np

PACKAGE = Path(__file__).resolve().parent.parent

TASKS = {
    "adroit": ("pen", "relocate"),
    "dmc": ("walker_stand", "walker_walk", "reacher_easy", "cheetah_run", "finger_spin"),
    "metaworld": ("assembly", "bin-picking", "button-press-topdown", "drawer-open", "hammer"),
    "trifinger": ("reach_cube", "move_cube"),
}


def render(suite: str, side: int = 64, fast: bool = True) -> dict:
    """Render settings: small and plain for the tests' sake; TriFinger's camera has one size."""
    side = 270 if suite == "trifinger" else side
    return {"side": side, "shadows": not fast, "reflections": not fast, "samples": 0 if fast else 4}


class Fault(Exception):
    """A fault that the worker answered."""


class Client:
    """A worker of its own, killed after `limit` seconds; `before` is Python run in it at its start."""

    def __init__(self, before: str = "", limit: float = 300.0):
        program = f"{before}\nimport sys\nfrom pixio_simulators.__main__ import main\nsys.exit(main())"
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self.specs: dict[int, dict] = {}
        # A pipe out of step would leave both sides waiting.
        self.watch = threading.Timer(limit, self.process.kill)
        self.watch.daemon = True
        self.watch.start()

    def send(self, text: bytes, payload: bytes = b"") -> None:
        self.process.stdin.write(struct.pack("<I", len(text)) + text + payload)
        self.process.stdin.flush()

    def receive(self) -> tuple[dict, bytes]:
        (length,) = struct.unpack("<I", self.process.stdout.read(4))
        answer = json.loads(self.process.stdout.read(length))
        payload = self.process.stdout.read(answer.get("bytes", 0))
        if "fault" in answer:
            raise Fault(answer["fault"])
        return answer["ok"], payload

    def ask(self, payload: bytes = b"", **request) -> tuple[dict, bytes]:
        if payload:
            request["bytes"] = len(payload)
        self.send(json.dumps(request).encode(), payload)
        return self.receive()

    def open(self, slot: int, suite: str, task: str, settings: Optional[dict] = None, repeat: int = 1) -> dict:
        settings = settings or render(suite)
        ok, _ = self.ask(do="open", slot=slot, suite=suite, task=task, render=settings, repeat=repeat)
        self.specs[slot] = ok
        return ok

    def reset(self, slot: int, seed: int, start: Optional[dict] = None, image: bool = True) -> tuple[dict, bytes]:
        item = {"slot": slot, "seed": seed, "start": start, "render": image}
        ok, payload = self.ask(do="reset", items=[item])
        return ok["items"][0], payload

    def step(self, slot: int, action: np.ndarray, image: bool = True) -> tuple[dict, bytes]:
        item = {"slot": slot, "render": image}
        ok, payload = self.ask(np.asarray(action, "<f8").tobytes(), do="step", items=[item])
        return ok["items"][0], payload

    def replay(self, slot: int, seed: int, actions: np.ndarray, start: Optional[dict] = None) -> tuple[dict, bytes]:
        payload = np.asarray(actions, "<f8").tobytes()
        return self.ask(payload, do="replay", slot=slot, seed=seed, start=start, steps=len(actions))

    def expert(self, slot: int) -> np.ndarray:
        _, payload = self.ask(do="expert", slot=slot)
        return np.frombuffer(payload, "<f8")

    def split(self, slot: int, payload: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """An observation's image, proprioception and state."""
        spec = self.specs[slot]
        pixels = int(np.prod(spec["image"]))
        numbers = np.frombuffer(payload[pixels:], "<f8")
        image = np.frombuffer(payload[:pixels], np.uint8).reshape(spec["image"])
        assert numbers.size == spec["proprio"] + spec["state"], (numbers.size, spec)
        return image, numbers[: spec["proprio"]], numbers[spec["proprio"] :]

    def actions(self, slot: int, count: int, seed: int = 0) -> np.ndarray:
        """Actions drawn evenly from the slot's bounds, or from a tenth of them where they are wide."""
        spec = self.specs[slot]
        low, high = np.array(spec["low"]), np.array(spec["high"])
        shrink = np.minimum(1.0, 1.0 / np.abs(high))
        return np.random.default_rng(seed).uniform(low * shrink, high * shrink, (count, low.size))

    def resident(self) -> float:
        """The worker's resident memory in MiB."""
        with open(f"/proc/{self.process.pid}/status") as status:
            line = next(line for line in status if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def end(self) -> int:
        """Ends the worker's input and gives its exit status."""
        self.watch.cancel()
        self.process.stdin.close()
        try:
            return self.process.wait(timeout=60)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
