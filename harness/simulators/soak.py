"""Steps environments for long and reports their worker's memory.

Each suite's tasks run side by side in one worker, with an image at every step and the episodes
starting over. Memory is measured after each tenth of the steps and may grow by a twentieth at most.
"""

import argparse
import sys
import time

from tests.client import TASKS, Client, render

TENTHS = 10
GROWTH = 1.05


def soak(suite: str, steps: int) -> bool:
    """Runs one suite for the steps, over all its tasks; True where its memory stayed flat."""
    client = Client(limit=7200.0)
    slots = range(len(TASKS[suite]))
    for slot, task in zip(slots, TASKS[suite]):
        client.open(slot, suite, task, render(suite, side=256))
        client.reset(slot, slot, image=False)
    actions = [client.actions(slot, 64) for slot in slots]
    memory, taken, seed = [], 0, len(slots)
    begun = time.monotonic()
    while taken < steps:
        slot = taken % len(slots)
        outcome, _ = client.step(slot, actions[slot][taken % 64])
        taken += 1
        if outcome["done"]:
            client.reset(slot, seed)
            seed += 1
        if taken % (steps // TENTHS) == 0:
            memory.append(client.resident())
    seconds = time.monotonic() - begun
    status = client.end()
    flat = max(memory[1:]) <= GROWTH * memory[0] and status == 0
    course = " ".join(f"{each:.0f}" for each in memory)
    print(f"{suite}: {taken} steps, {taken / seconds:.0f} a second, {seed} episodes, MiB {course}, exit {status}")
    return flat


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", default=list(TASKS), help="all four by default")
    parser.add_argument("--steps", type=int, default=10_000)
    wanted = parser.parse_args()
    sys.exit(0 if all([soak(suite, wanted.steps) for suite in wanted.suites]) else 1)
