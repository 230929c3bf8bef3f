"""The worker's manners: faults, limits, prints, missing libraries and ends."""

import json
import signal
import struct
import unittest

import numpy as np

from .client import Client, Fault, render
from .test_simulators import needs

OPEN = {"do": "open", "slot": 0, "suite": "dmc", "task": "reacher_easy", "render": render("dmc"), "repeat": 1}


class TestWire(unittest.TestCase):
    def start(self, before: str = "") -> Client:
        client = Client(before, limit=120.0)
        self.addCleanup(client.watch.cancel)
        self.addCleanup(client.process.kill)
        return client

    def test_hello_names_protocol_and_versions_without_a_simulator(self):
        client = self.start("import sys; sys.modules['mujoco'] = None")
        ok, _ = client.ask(do="hello")
        self.assertEqual(ok["protocol"], 1)
        self.assertIn("python", ok["versions"])
        self.assertEqual(client.end(), 0)

    def test_bad_requests_are_faults_and_the_worker_goes_on(self):
        client = self.start()
        bad = [
            (b"{", b"", "not JSON"),
            (b"\xff\xfe", b"", "not JSON"),
            (b"[" * 100_000, b"", "not JSON"),
            (b"[]", b"", "a list; expected an object"),
            (json.dumps({}).encode(), b"", "do None; expected one of hello"),
            (json.dumps({"do": "hello", "bytes": 3}).encode(), b"abc", "payload of 3 bytes; expected 0"),
            (json.dumps({**OPEN, "suite": "atari"}).encode(), b"", "suite 'atari'; expected one of adroit"),
            (json.dumps({**OPEN, "slot": -1}).encode(), b"", "slot is -1; expected 0 to"),
            (json.dumps({**OPEN, "slot": True}).encode(), b"", "slot is True; expected int"),
            (json.dumps({**OPEN, "render": {"side": 1}}).encode(), b"", "side is 1; expected 16 to"),
            (json.dumps({"do": "reset", "items": []}).encode(), b"", "at least one object"),
            (json.dumps({"do": "reset", "items": [{"slot": 5}]}).encode(), b"", "slot 5 is not open"),
            (json.dumps({"do": "close", "slot": 0}).encode(), b"", "slot 0 is not open"),
        ]
        for text, payload, reason in bad:
            with self.subTest(reason=reason):
                client.send(text, payload)
                with self.assertRaises(Fault) as fault:
                    client.receive()
                self.assertIn(reason, str(fault.exception))
        self.assertEqual(client.ask(do="hello")[0]["protocol"], 1)
        self.assertEqual(client.end(), 0)

    @needs("dmc")
    def test_bad_steps_are_faults_and_move_nothing(self):
        client = self.start()
        client.open(0, "dmc", "reacher_easy")
        client.open(1, "dmc", "reacher_easy")
        for request, reason in (
            ({**OPEN, "slot": 2, "task": "dog_run"}, "task 'dog_run' of dmc; expected one of walker_stand"),
            ({**OPEN, "slot": 2, "repeat": 3}, "repeat 3; expected a divisor of 1000"),
            ({"do": "expert", "slot": 0}, "slot 0 has no episode"),
            ({"do": "reset", "items": [{"slot": 0, "seed": 0, "render": 1}]}, "render is 1; expected bool"),
            ({"do": "reset", "items": [{"slot": 0, "seed": -1, "render": True}]}, "seed is -1"),
            ({"do": "reset", "items": [{"slot": 0, "seed": 0, "start": [], "render": True}]}, "start is a list"),
            (
                {"do": "reset", "items": [{"slot": 0, "seed": 0, "start": {"state": [0]}, "render": True}]},
                r"'state' has shape \(1,\); expected \(4,\)",
            ),
        ):
            with self.subTest(reason=reason), self.assertRaisesRegex(Fault, reason):
                client.ask(**request)
        actions = client.actions(0, 2)
        for slot in (0, 1):
            client.reset(slot, 8)
        items = [{"slot": 0, "render": False}, {"slot": 1, "render": False}]
        both = actions.astype("<f8").tobytes()
        for payload, faulty, reason in (
            (both[:-8], items, "payload of 24 bytes; expected 32"),
            (both, [items[0], {"slot": 9, "render": False}], "slot 9 is not open"),
            (both, [items[0], items[0]], "name a slot twice"),
            (np.array([0, 0, np.nan, 0]).tobytes(), items, "action number 2 is not finite"),
        ):
            with self.subTest(reason=reason), self.assertRaisesRegex(Fault, reason):
                client.ask(payload, do="step", items=faulty)
        _, stepped = client.step(0, actions[0])
        _, replayed = client.replay(1, 8, actions[:1])
        self.assertEqual(stepped, replayed)
        self.assertEqual(client.end(), 0)

    @needs("dmc")
    def test_a_failing_simulator_is_a_fault_with_its_traceback(self):
        client = self.start(
            "from pixio_simulators.suites.dmc import ControlSuite\n"
            "def step(self, action):\n"
            "    raise ArithmeticError('diverged')\n"
            "ControlSuite.step = step"
        )
        client.open(0, "dmc", "reacher_easy")
        client.reset(0, 0)
        with self.assertRaisesRegex(Fault, "(?s)ArithmeticError: diverged.*File .*in step"):
            client.step(0, np.zeros(2))
        with self.assertRaisesRegex(Fault, "slot 0 has no episode: reset it first"):
            client.step(0, np.zeros(2))
        client.reset(0, 0)
        self.assertEqual(client.end(), 0)

    @needs("dmc")
    def test_prints_do_not_reach_the_pipe(self):
        client = self.start(
            "import os\n"
            "from pixio_simulators.suites.dmc import ControlSuite\n"
            "plain = ControlSuite.step\n"
            "def step(self, action):\n"
            "    print('a line that a simulator prints', flush=True)\n"
            "    os.write(1, b'and one past Python')\n"
            "    os.system('echo and one from a child')\n"
            "    assert os.read(0, 1) == b''\n"
            "    plain(self, action)\n"
            "ControlSuite.step = step"
        )
        quiet = self.start()
        for each in (client, quiet):
            each.open(0, "dmc", "reacher_easy")
            each.reset(0, 1)
        for action in client.actions(0, 3):
            self.assertEqual(client.step(0, action), quiet.step(0, action))
        self.assertEqual((client.end(), quiet.end()), (0, 0))

    @needs("dmc")
    def test_a_missing_library_takes_only_its_suite(self):
        client = self.start("import sys; sys.modules['metaworld'] = None")
        with self.assertRaisesRegex(Fault, "ModuleNotFoundError: .*metaworld"):
            client.open(0, "metaworld", "hammer")
        client.open(0, "dmc", "reacher_easy")
        client.reset(0, 0)
        self.assertEqual(client.end(), 0)

    def test_what_cannot_be_followed_ends_the_worker(self):
        long = struct.pack("<I", (1 << 20) + 1)
        vast = json.dumps({"do": "hello", "bytes": 1 << 40}).encode()
        for data, reason in (
            (long, "the limit is 1048576"),
            (struct.pack("<I", len(vast)) + vast, "with bytes 1099511627776"),
        ):
            with self.subTest(reason=reason):
                client = self.start()
                client.process.stdin.write(data)
                client.process.stdin.flush()
                with self.assertRaisesRegex(Fault, reason):
                    client.receive()
                self.assertEqual(client.end(), 1)

    def test_an_input_cut_short_ends_the_worker(self):
        for data in (b"\x01", struct.pack("<I", 9) + b"{}"):
            client = self.start()
            client.process.stdin.write(data)
            client.process.stdin.flush()
            self.assertEqual(client.end(), 1)

    @needs("dmc")
    def test_an_interrupt_is_left_to_the_client(self):
        client = self.start()
        client.open(0, "dmc", "reacher_easy")
        client.process.send_signal(signal.SIGINT)
        client.reset(0, 0)
        self.assertEqual(client.end(), 0)

    @needs("dmc")
    def test_a_client_that_is_gone_ends_the_worker_quietly(self):
        client = self.start()
        client.open(0, "dmc", "reacher_easy")
        client.send(json.dumps({"do": "hello"}).encode())
        client.process.stdout.close()
        for _ in range(4):
            try:
                client.send(json.dumps({"do": "hello"}).encode())
            except BrokenPipeError:
                break
        self.assertEqual(client.process.wait(timeout=60), 0)


if __name__ == "__main__":
    unittest.main()
