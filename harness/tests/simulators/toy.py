"""A simulator of one point on a plane, which stands in for the real ones behind the same pipe.

It needs Python alone. The point must reach the goal that the seed draws; the image shows both. A
fault is done once, by the first worker that gets as far: FAULT says which, FAULT_MARK is a file that
says it was done, FAULT_AFTER how many batches of episodes it spares. With FAULT_ALWAYS it is done by every worker.
"""

import json
import os
import random
import struct
import sys
import time

SIDE = 32
HORIZON = 500
FAULT = os.environ.get("FAULT", "")
MARK = os.environ.get("FAULT_MARK", "")


AFTER = int(os.environ.get("FAULT_AFTER", "0"))
resets = 0


def due(fault):
    if FAULT != fault or resets < AFTER:
        return False
    if os.environ.get("FAULT_ALWAYS"):
        return True
    try:
        os.close(os.open(MARK, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


class Point:
    def __init__(self, side):
        self.side = side

    def reset(self, seed):
        draw = random.Random(seed)
        self.at = [draw.uniform(-1, 1), draw.uniform(-1, 1)]
        self.goal = [draw.uniform(-1, 1), draw.uniform(-1, 1)]
        self.steps = 0
        self.reward = 0.0

    def step(self, action):
        self.at = [min(1.0, max(-1.0, x + 0.1 * min(1.0, max(-1.0, a)))) for x, a in zip(self.at, action)]
        self.steps += 1
        self.reward = -self.distance()

    def distance(self):
        return sum((x - g) ** 2 for x, g in zip(self.at, self.goal)) ** 0.5

    def expert(self):
        return [min(1.0, max(-1.0, 10 * (g - x))) for x, g in zip(self.at, self.goal)] + [0.0, 0.0]

    def image(self):
        pixels = bytearray(3 * self.side * self.side)
        for channel, (x, y) in enumerate((self.at, self.goal)):
            column = int((x + 1) / 2 * (self.side - 9))
            row = int((y + 1) / 2 * (self.side - 9))
            for line in range(row, row + 8):
                for place in range(column, column + 8):
                    pixels[3 * (line * self.side + place) + channel] = 255
        return bytes(pixels)

    def seen(self):
        solved = self.distance() < 0.1
        numbers = [*self.at, 0.0, 0.0] + [*self.at, *self.goal]
        if self.steps == 3 and due("nan"):
            numbers[0] = float("nan")
        outcome = {
            "reward": self.reward,
            "score": 100.0 * solved,
            "success": solved,
            "done": self.steps == HORIZON,
        }
        return outcome, struct.pack("<8d", *numbers)


def main():
    if due("start"):
        print("no GL here", file=sys.stderr)
        sys.exit(1)
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    slots = {}

    def answer(header, payload=b""):
        text = json.dumps({**header, "bytes": len(payload)}).encode()
        writer.write(struct.pack("<I", len(text)) + text + payload)
        writer.flush()

    while head := reader.read(4):
        request = json.loads(reader.read(struct.unpack("<I", head)[0]))
        payload = reader.read(request.get("bytes", 0))
        actions = [struct.unpack("<4d", payload[at : at + 32]) for at in range(0, len(payload), 32)]
        does = request["do"]
        if does == "hello":
            answer({"ok": {"protocol": 1, "versions": {"toy": "1"}, "gl": "none"}})
        elif does == "open":
            slots[request["slot"]] = Point(request["render"]["side"])
            side = request["render"]["side"]
            answer({"ok": {"actions": 4, "low": [-1.0] * 4, "high": [1.0] * 4, "proprio": 4, "state": 4,
                           "image": [side, side, 3], "horizon": HORIZON}})
        elif does in ("reset", "step"):
            outcomes, parts = [], b""
            if does == "reset":
                global resets
                resets += 1
            for at, item in enumerate(request["items"]):
                point = slots[item["slot"]]
                point.reset(item["seed"]) if does == "reset" else point.step(actions[at])
                outcome, numbers = point.seen()
                outcomes.append(outcome)
                parts += (point.image() if item["render"] else b"") + numbers
            steps = slots[request["items"][0]["slot"]].steps
            if steps == 5 and due("die"):
                os._exit(3)
            if steps == 5 and due("hang"):
                time.sleep(600)
            if steps == 5 and due("shape"):
                parts = parts[:-8]
            if steps == 5 and due("print"):
                print("a simulator talks on stdout", flush=True)
            if steps == 5 and due("raise"):
                answer({"fault": "ValueError: the simulation is unstable"})
                continue
            answer({"ok": {"items": outcomes, "seconds": {"physics": 0.0, "render": 0.0}}}, parts)
        elif does == "replay":
            point = slots[request["slot"]]
            point.reset(request["seed"])
            for action in actions:
                point.step(action)
            outcome, numbers = point.seen()
            answer({"ok": outcome}, point.image() + numbers)
        elif does == "expert":
            answer({"ok": {"actions": 4}}, struct.pack("<4d", *slots[request["slot"]].expert()))


main()
