"""The simulators through the pipe, against the same simulators called in this process."""

import importlib.util
import os
import sys
import unittest

import numpy as np

os.environ.setdefault("MUJOCO_GL", "egl")

from pixio_simulators import suites

from .client import TASKS, Client, Fault, render

IMPORTED = {
    "adroit": "gymnasium_robotics",
    "dmc": "dm_control",
    "metaworld": "metaworld",
    "trifinger": "trifinger_simulation",
}
STEPS = 4


def tearDownModule():
    rendering = sys.modules.get("pixio_simulators.rendering")
    if rendering is not None:
        rendering.shut_down()


def has(suite: str) -> bool:
    return importlib.util.find_spec(IMPORTED[suite]) is not None


def needs(suite: str):
    return unittest.skipUnless(has(suite), f"{IMPORTED[suite]} is not installed")


def seen(environment: suites.Environment) -> bytes:
    """What an environment shows, as the worker's payload has it."""
    numbers = np.concatenate([environment.proprio(), environment.state()]).astype("<f8")
    return environment.image().tobytes() + numbers.tobytes()


class EveryTask:
    """The tests of one suite; its subclasses name it."""

    suite: str

    @classmethod
    def setUpClass(cls):
        if not has(cls.suite):
            raise unittest.SkipTest(f"{IMPORTED[cls.suite]} is not installed")
        cls.client = Client()
        for slot, task in enumerate(TASKS[cls.suite]):
            cls.client.open(slot, cls.suite, task)

    @classmethod
    def tearDownClass(cls):
        status = cls.client.end()
        assert status == 0, f"the worker ended with {status}"

    def each(self):
        for slot, task in enumerate(TASKS[self.suite]):
            with self.subTest(task=task):
                yield slot, task

    def test_answers_have_the_announced_shapes(self):
        for slot, _ in self.each():
            spec = self.client.specs[slot]
            self.assertEqual(len(spec["low"]), spec["actions"])
            outcome, payload = self.client.reset(slot, 3)
            image, proprio, state = self.client.split(slot, payload)
            self.assertEqual(outcome["reward"], 0.0)
            self.assertFalse(outcome["done"])
            self.assertGreater(image.std(), 5.0, "an image of one colour")
            self.assertTrue(np.isfinite(proprio).all() and np.isfinite(state).all())
            outcome, payload = self.client.step(slot, self.client.actions(slot, 1)[0], image=False)
            self.assertEqual(len(payload), 8 * (spec["proprio"] + spec["state"]))
            self.assertTrue(0.0 <= outcome["score"] <= 100.0)

    def test_the_pipe_shows_what_a_direct_call_shows_whatever_ran_before(self):
        for slot, task in self.each():
            settings = suites.Render(**render(self.suite))
            environment = suites.open_environment(self.suite, task, settings, 1)
            self.addCleanup(environment.close)
            actions = self.client.actions(slot, STEPS, seed=1)
            self.client.replay(slot, 99, self.client.actions(slot, STEPS, seed=2))

            environment.reset(7, None)
            _, payload = self.client.reset(slot, 7)
            self.assertEqual(payload, seen(environment))
            for action in actions:
                environment.step(action)
                _, payload = self.client.step(slot, action)
                self.assertEqual(payload, seen(environment))

    def test_replay_equals_stepping(self):
        for slot, _ in self.each():
            actions = self.client.actions(slot, STEPS, seed=3)
            self.client.reset(slot, 5, image=False)
            for action in actions:
                outcome, payload = self.client.step(slot, action)
            replayed, again = self.client.replay(slot, 5, actions)
            self.assertEqual(payload, again)
            self.assertEqual(outcome, {key: replayed[key] for key in outcome})

    def test_seeds_and_actions_matter(self):
        for slot, _ in self.each():
            one, two = self.client.actions(slot, STEPS, seed=1), self.client.actions(slot, STEPS, seed=2)
            payloads = {
                self.client.replay(slot, seed, actions)[1] for seed, actions in ((1, one), (2, one), (1, two))
            }
            self.assertEqual(len(payloads), 3)

    def test_actions_are_clipped_to_the_bounds(self):
        for slot, _ in self.each():
            high = np.array(self.client.specs[slot]["high"])
            _, far = self.client.replay(slot, 1, [high * 3.0])
            _, bound = self.client.replay(slot, 1, [high])
            self.assertEqual(far, bound)

    def test_an_episode_ends_at_its_horizon(self):
        slot = 0
        spec = self.client.specs[slot]
        outcome, _ = self.client.replay(slot, 1, np.zeros((spec["horizon"], spec["actions"])))
        self.assertTrue(outcome["done"])
        with self.assertRaisesRegex(Fault, "is over"):
            self.client.step(slot, np.zeros(spec["actions"]))

    def test_a_slot_is_replaced_and_closed(self):
        slot = len(TASKS[self.suite])
        task = TASKS[self.suite][0]
        for _ in range(2):
            self.client.open(slot, self.suite, task)
            self.client.reset(slot, 0)
        self.client.ask(do="close", slot=slot)
        with self.assertRaisesRegex(Fault, f"slot {slot} is not open"):
            self.client.reset(slot, 0)


class TestAdroit(EveryTask, unittest.TestCase):
    suite = "adroit"

    def test_a_start_holds_for_one_episode(self):
        from gymnasium_robotics.envs.adroit_hand.adroit_relocate import AdroitHandRelocateEnv

        slot = TASKS["adroit"].index("relocate")
        plain = AdroitHandRelocateEnv()
        self.addCleanup(plain.close)
        plain.reset(seed=4)
        start = {key: value.tolist() for key, value in plain.get_env_state().items()}
        start["obj_pos"] = [0.1, -0.1, 0.2]
        start["target_pos"] = [0.0, 0.1, 0.3]
        arrays = {key: np.array(start[key]) for key in ("qpos", "qvel", "obj_pos", "target_pos")}

        _, before = self.client.reset(slot, 11)
        _, payload = self.client.reset(slot, 11, start)
        expected, _ = plain.reset(seed=11, options={"initial_state_dict": arrays})
        np.testing.assert_array_equal(self.client.split(slot, payload)[2], expected)
        _, after = self.client.reset(slot, 11)
        self.assertEqual(before, after)

    def test_states_are_the_library_s_own(self):
        from gymnasium_robotics.envs.adroit_hand.adroit_pen import AdroitHandPenEnv

        plain = AdroitHandPenEnv()
        self.addCleanup(plain.close)
        plain.reset(seed=6)
        self.client.reset(0, 6)
        for action in self.client.actions(0, 10, seed=5):
            expected, reward, _, _, _ = plain.step(action)
            outcome, payload = self.client.step(0, action)
            np.testing.assert_array_equal(self.client.split(0, payload)[2], expected)
            self.assertEqual(outcome["reward"], reward)

    def test_no_expert_and_why(self):
        self.client.reset(0, 0, image=False)
        with self.assertRaisesRegex(Fault, "adroit/pen has no expert: planning solves"):
            self.client.expert(0)


class TestControlSuite(EveryTask, unittest.TestCase):
    suite = "dmc"

    def test_states_and_images_are_the_library_s_own(self):
        from dm_control import suite

        settings = render("dmc", side=96, fast=False)
        for task in TASKS["dmc"]:
            with self.subTest(task=task):
                self.client.open(20, "dmc", task, settings, repeat=2)
                plain = suite.load(*task.split("_"), task_kwargs={"random": 12})
                plain.reset()
                self.client.reset(20, 12)
                total = 0.0
                for action in self.client.actions(20, 3):
                    steps = [plain.step(action) for _ in range(2)]
                    total += sum(step.reward for step in steps)
                    outcome, payload = self.client.step(20, action)
                image, _, state = self.client.split(20, payload)
                parts = dict(steps[-1].observation)
                if task == "reacher_easy":
                    parts["position"] = np.concatenate([np.cos(parts["position"]), np.sin(parts["position"])])
                expected = np.concatenate([np.ravel(part) for part in parts.values()])
                np.testing.assert_array_equal(state, expected)
                self.assertAlmostEqual(outcome["score"], total / 10.0, places=12)
                plain.physics.model.vis.quality.offsamples = 4
                np.testing.assert_array_equal(image, plain.physics.render(96, 96, camera_id=0))
                plain.close()

    def test_a_start_sets_the_physics(self):
        slot = TASKS["dmc"].index("cheetah_run")
        state = np.linspace(-0.2, 0.2, 18)
        _, payload = self.client.reset(slot, 0, {"state": state.tolist()})
        np.testing.assert_array_equal(self.client.split(slot, payload)[2], state[1:])

    def test_the_reacher_s_expert_reaches(self):
        self.client.open(20, "dmc", "reacher_easy", repeat=4)
        outcome, _ = self.client.reset(20, 3, image=False)
        while not outcome["done"]:
            outcome, _ = self.client.step(20, self.client.expert(20), image=False)
        self.assertGreater(outcome["score"], 90.0)

    def test_the_walker_s_expert_rises(self):
        self.client.open(20, "dmc", "walker_stand", repeat=2)
        outcome, _ = self.client.reset(20, 1, image=False)
        for _ in range(50):
            outcome, _ = self.client.step(20, self.client.expert(20), image=False)
        # Random actions earn about a tenth of what is earned on the feet.
        self.assertGreater(outcome["reward"], 1.2)

    def test_no_expert_and_why(self):
        slot = TASKS["dmc"].index("cheetah_run")
        self.client.reset(slot, 0, image=False)
        with self.assertRaisesRegex(Fault, "dmc/cheetah_run has no expert: planning reaches"):
            self.client.expert(slot)


class TestMetaWorld(EveryTask, unittest.TestCase):
    suite = "metaworld"

    def test_states_are_the_library_s_own(self):
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        for slot, task in self.each():
            plain = ALL_V3_ENVIRONMENTS[f"{task}-v3"]()
            plain._set_task_called = True
            plain._freeze_rand_vec = False
            plain.seeded_rand_vec = True
            plain._partially_observable = False
            del plain.sawyer_observation_space
            plain.seed(9)
            plain.reset()
            self.client.reset(slot, 9)
            for action in self.client.actions(slot, 10):
                expected, reward, _, _, _ = plain.step(action)
                outcome, payload = self.client.step(slot, action)
            np.testing.assert_array_equal(self.client.split(slot, payload)[2], expected)
            self.assertEqual(outcome["reward"], reward)
            plain.close()

    def test_a_reset_shows_where_things_are(self):
        """The drawer and the button are moved last of all in a reset; a step moves neither."""
        for task, position in (("drawer-open", slice(4, 7)), ("button-press-topdown", slice(4, 7))):
            slot = TASKS["metaworld"].index(task)
            for seed in (1, 2):
                _, first = self.client.reset(slot, seed)
                _, second = self.client.step(slot, np.zeros(4))
                shown, moved = (self.client.split(slot, payload)[2][position] for payload in (first, second))
                np.testing.assert_allclose(shown, moved, atol=2e-3)

    def test_the_experts_solve_their_tasks(self):
        for slot, _ in self.each():
            outcome, _ = self.client.reset(slot, 2, image=False)
            while not outcome["done"]:
                outcome, _ = self.client.step(slot, self.client.expert(slot), image=False)
            self.assertTrue(outcome["success"])
            self.assertEqual(outcome["score"], 100.0)

    def test_render_settings_are_honoured(self):
        plain = render("metaworld", side=128)
        images = []
        for change in ({}, {"shadows": True}, {"reflections": True}, {"samples": 4}, {}):
            self.client.open(20, "metaworld", "bin-picking", {**plain, **change})
            _, payload = self.client.reset(20, 1)
            images.append(self.client.split(20, payload)[0])
        np.testing.assert_array_equal(images[0], images[4])
        for other in (images[1], images[3]):
            self.assertTrue((images[0] != other).any())

    def test_no_start(self):
        with self.assertRaisesRegex(Fault, "draws its starts from the seed"):
            self.client.reset(0, 0, {"state": []})


class TestTriFinger(EveryTask, unittest.TestCase):
    suite = "trifinger"

    START = {
        "cube": [0.02, 0.03, 0.0325],
        "cube_orientation": [0.0, 0.0, 0.0, 1.0],
        "goal": [-0.02, 0.01, 0.0325],
        "goal_orientation": [0.0, 0.0, 0.0, 1.0],
        "joints": [0.0, 0.9, -1.7] * 3,
    }

    def test_a_start_places_everything(self):
        _, payload = self.client.reset(1, 0, self.START)
        _, _, state = self.client.split(1, payload)
        np.testing.assert_allclose(state[:9], self.START["joints"], atol=1e-12)
        np.testing.assert_allclose(state[9:12], self.START["cube"], atol=1e-12)
        np.testing.assert_array_equal(state[16:19], self.START["goal"])

    def test_the_tips_follow_their_lines(self):
        away = {**self.START, "cube": [0.0, -0.15, 0.0325]}
        for direction in np.vstack([np.eye(3), -np.eye(3)]):
            _, payload = self.client.reset(0, 0, away)
            before = self.client.split(0, payload)[1]
            for _ in range(2):
                _, payload = self.client.step(0, direction)
            moved = self.client.split(0, payload)[1] - before
            np.testing.assert_allclose(moved[:3], 2.0 * direction, atol=0.1)
            np.testing.assert_allclose(moved[3:], 0.0, atol=0.1)

    def test_a_fixed_cube_stays_and_a_free_one_does_not(self):
        push = np.array([-2.5, -1.0, -0.9])
        shifts = []
        for slot, action in ((0, push), (1, np.concatenate([push, np.zeros(6)]))):
            _, payload = self.client.reset(slot, 0, self.START)
            cube = self.client.split(slot, payload)[2][9:12]
            for _ in range(5):
                _, payload = self.client.step(slot, action)
            shifts.append(np.linalg.norm(self.client.split(slot, payload)[2][9:12] - cube))
        self.assertEqual(shifts[0], 0.0)
        self.assertGreater(shifts[1], 0.002)

    def test_the_expert_reaches(self):
        outcome, _ = self.client.reset(0, 0, image=False)
        self.assertEqual(outcome["score"], 0.0)
        while not outcome["done"]:
            outcome, _ = self.client.step(0, self.client.expert(0), image=False)
        self.assertGreater(outcome["score"], 70.0)

    def test_no_expert_and_why(self):
        self.client.reset(1, 0, image=False)
        with self.assertRaisesRegex(Fault, "trifinger/move_cube has no expert"):
            self.client.expert(1)


if __name__ == "__main__":
    unittest.main()
