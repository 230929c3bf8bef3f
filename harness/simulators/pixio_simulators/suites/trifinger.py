"""TriFinger's two tasks: three fingers that reach for a cube, or move it to a goal.

Actions are displacements of the fingertips in centimetres over 0.4 s, followed by an impedance
controller at 250 Hz.
"""

from dataclasses import dataclass
from typing import Optional

import numpy as np
import pinocchio
import pybullet
import trifinger_simulation
from trifinger_simulation import camera
from trifinger_simulation.tasks.move_cube import _CUBE_WIDTH as CUBE_WIDTH

from ..wire import BadRequest
from . import Environment, Outcome, Render, Spec, start_array

TASKS = ("reach_cube", "move_cube")
HORIZONS = {"reach_cube": 5, "move_cube": 10}
SIDE = 270
TIME_STEP = 0.004
STEPS_PER_ACTION = 100
FINGERS = 3
JOINTS = 9
CENTIMETRES = 100.0
START_JOINTS = np.tile([-0.08, 1.15, -1.5], FINGERS)
START_RADIUS = 0.09
"""How far (metres) from the arena's centre cubes and goals are drawn."""

MAX_ACTION = 10.0
"""The largest displacement of a coordinate in an action, in centimetres."""

STIFFNESS = 300.0
DAMPING = 5.0
MAX_ERROR = 0.01
"""The longest position error (metres) of a fingertip that the controller answers in full."""


@dataclass(frozen=True)
class Start:
    """Where an episode starts and what it aims at: metres, quaternions xyzw, radians."""

    cube: np.ndarray
    cube_orientation: np.ndarray
    goal: np.ndarray
    goal_orientation: np.ndarray
    joints: np.ndarray

    @classmethod
    def parse(cls, start: dict) -> "Start":
        parts = {"cube": 3, "cube_orientation": 4, "goal": 3, "goal_orientation": 4, "joints": JOINTS}
        return cls(**{key: start_array(start, key, (size,)) for key, size in parts.items()})

    @classmethod
    def draw(cls, seed: int) -> "Start":
        """Cube and goal lie on the arena's floor, turned about the vertical."""
        random = np.random.default_rng(seed)
        cube, cube_orientation = _draw_pose(random)
        goal, goal_orientation = _draw_pose(random)
        return cls(cube, cube_orientation, goal, goal_orientation, START_JOINTS)


def _draw_pose(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    radius = START_RADIUS * np.sqrt(random.uniform())
    angle, yaw = random.uniform(0.0, 2.0 * np.pi, 2)
    position = np.array([radius * np.cos(angle), radius * np.sin(angle), CUBE_WIDTH / 2])
    return position, np.array([0.0, 0.0, np.sin(yaw / 2), np.cos(yaw / 2)])


class World:
    """The platform with its cube at an episode's start.

    It is built anew for every episode: the physics engine keeps contacts and the order of its
    collision pairs across a reset, which would let one episode change the next.
    """

    def __init__(self, start: Start, cube_fixed: bool):
        self.finger = trifinger_simulation.SimFinger("trifingerpro", TIME_STEP)
        self.client = self.finger._pybullet_client_id
        self._kinematics = self.finger.kinematics
        self.finger.reset_finger_positions_and_velocities(start.joints)
        self._cube = pybullet.loadURDF(
            str(trifinger_simulation.get_data_dir() / "cube_v2" / "cube_v2.urdf"),
            start.cube,
            start.cube_orientation,
            useFixedBase=cube_fixed,
            physicsClientId=self.client,
        )
        self._plan = self.tips()

    def joints(self) -> tuple[np.ndarray, np.ndarray]:
        """Angles (rad) and velocities (rad/s)."""
        states = pybullet.getJointStates(
            self.finger.finger_id, self.finger.pybullet_joint_indices, physicsClientId=self.client
        )
        return np.array([state[0] for state in states]), np.array([state[1] for state in states])

    def tips(self) -> np.ndarray:
        """The fingertips' positions in metres: [finger, coordinate]."""
        return np.array(self._kinematics.forward_kinematics(self.joints()[0]))

    def cube(self) -> tuple[np.ndarray, np.ndarray]:
        """The cube's centre in metres and its orientation, a quaternion xyzw."""
        position, orientation = pybullet.getBasePositionAndOrientation(
            self._cube, physicsClientId=self.client
        )
        return np.array(position), np.array(orientation)

    def move_tips(self, displacement: np.ndarray) -> None:
        """Follows a straight line at constant speed: [finger, coordinate], metres over one action.

        Lines join where the last one was to end, not where the tips are, so that an action that a
        contact held back is still asked for.
        """
        velocity = displacement / (STEPS_PER_ACTION * TIME_STEP)
        for step in range(1, STEPS_PER_ACTION + 1):
            wanted = self._plan + displacement * (step / STEPS_PER_ACTION)
            torque = self._torque(wanted, velocity)
            self.finger.append_desired_action(self.finger.Action(torque=torque))
        self._plan = self._plan + displacement

    def _torque(self, wanted: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        model, data = self._kinematics.robot_model, self._kinematics.data
        angles, speeds = self.joints()
        pinocchio.computeJointJacobians(model, data, angles)
        pinocchio.updateFramePlacements(model, data)
        torque = pinocchio.computeGeneralizedGravity(model, data, angles).copy()
        for finger, frame in enumerate(self._kinematics.tip_link_ids):
            jacobian = pinocchio.getFrameJacobian(
                model, data, frame, pinocchio.ReferenceFrame.LOCAL_WORLD_ALIGNED
            )[:3]
            error = wanted[finger] - data.oMf[frame].translation
            length = np.linalg.norm(error)
            if length > MAX_ERROR:
                error = error * (MAX_ERROR / length)
            force = STIFFNESS * error + DAMPING * (velocity[finger] - jacobian @ speeds)
            torque += jacobian.T @ force
        return torque

    def close(self) -> None:
        pybullet.disconnect(self.client)


class TriFinger(Environment):
    """One task; in `reach_cube` the cube is fixed and the first finger alone moves.

    Images come from the physics engine's software renderer, which knows shadows but neither
    reflections nor multisampling.
    """

    def __init__(self, task: str, render: Render):
        if render.side != SIDE:
            raise BadRequest(f"render.side is {render.side}; TriFinger's camera has {SIDE} pixels a side")
        self._reach = task == "reach_cube"
        self._shadows = render.shadows
        self._camera = camera.TriFingerCameras().cameras[0]
        self._world: Optional[World] = None
        actions = 3 if self._reach else 3 * FINGERS
        self.spec = Spec(
            low=np.full(actions, -MAX_ACTION),
            high=np.full(actions, MAX_ACTION),
            proprio=3 * FINGERS,
            state=JOINTS + 7 + 7,
            image=(SIDE, SIDE, 3),
            horizon=HORIZONS[task],
        )

    def reset(self, seed: int, start: Optional[dict]) -> None:
        """A start holds the parts of `Start`."""
        self._start = Start.draw(seed) if start is None else Start.parse(start)
        self.close()
        self._world = World(self._start, cube_fixed=self._reach)
        self._first = self._distance()
        self._steps = 0

    def step(self, action: np.ndarray) -> None:
        displacement = np.zeros(3 * FINGERS)
        displacement[: action.size] = action / CENTIMETRES
        self._world.move_tips(displacement.reshape(FINGERS, 3))
        self._steps += 1

    def outcome(self) -> Outcome:
        """The reward is the score of the moment on the scale of 1; there is no success of yes or no."""
        # A start at the goal scores in full until it is left.
        left = self._distance() / self._first if self._first > 0.0 else float(self._distance() > 0.0)
        reward = max(0.0, 1.0 - left)
        return Outcome(reward, 100.0 * reward, None)

    def proprio(self) -> np.ndarray:
        return self._world.tips().ravel() * CENTIMETRES

    def state(self) -> np.ndarray:
        angles, _ = self._world.joints()
        return np.concatenate([angles, *self._world.cube(), self._start.goal, self._start.goal_orientation])

    def image(self) -> np.ndarray:
        _, _, pixels, _, _ = pybullet.getCameraImage(
            SIDE,
            SIDE,
            self._camera._view_matrix,
            self._camera._proj_matrix,
            shadow=int(self._shadows),
            renderer=pybullet.ER_TINY_RENDERER,
            physicsClientId=self._world.client,
        )
        return np.reshape(np.asarray(pixels, dtype=np.uint8), (SIDE, SIDE, 4))[:, :, :3]

    def expert(self) -> np.ndarray:
        """To where the score is full along a straight line, in the actions that are left."""
        if not self._reach:
            raise BadRequest("trifinger/move_cube has no expert: pushing by rule scores 56 of 100")
        line = self._world.cube()[0] - self._world.tips()[0]
        reach = self._distance() / np.linalg.norm(line)
        return line * reach * CENTIMETRES / (self.spec.horizon - self._steps)

    def close(self) -> None:
        if self._world is not None:
            self._world.close()
            self._world = None

    def _distance(self) -> float:
        """From the first tip to the cube, less the cube's half width; or from the cube to the goal."""
        cube, _ = self._world.cube()
        if self._reach:
            return max(0.0, float(np.linalg.norm(self._world.tips()[0] - cube)) - CUBE_WIDTH / 2)
        return float(np.linalg.norm(self._start.goal - cube))


def open_environment(task: str, render: Render, repeat: int) -> TriFinger:
    """Opens a task of TriFinger; actions are never repeated."""
    return TriFinger(task, render)
