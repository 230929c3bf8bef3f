"""Images of MuJoCo models.

All environments of a worker share one OpenGL context, and those of one task and one setting share
the buffers and textures too: an episode changes poses, never meshes or textures. So memory grows
with the number of different tasks, not with the number of environments.
"""

from typing import Optional

import mujoco
import numpy as np

from .suites import Render

MAX_GEOMS = 1000

_context: Optional[mujoco.GLContext] = None
_shared: dict[tuple, "_Buffers"] = {}


def _make_current() -> None:
    """Makes the context at its first use, and takes over from any that a simulator made current."""
    global _context
    if _context is None:
        _context = mujoco.GLContext(1, 1)
    _context.make_current()


class _Buffers:
    """The scene, textures and frame buffer of one task under one setting."""

    def __init__(self, model: mujoco.MjModel, render: Render):
        _make_current()
        model.vis.global_.offwidth = render.side
        model.vis.global_.offheight = render.side
        model.vis.quality.offsamples = render.samples
        if not render.shadows:
            model.vis.quality.shadowsize = 0
        self.users = 0
        self.scene = mujoco.MjvScene(model, MAX_GEOMS)
        self.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = render.shadows
        self.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = render.reflections
        self.option = mujoco.MjvOption()
        self.perturbation = mujoco.MjvPerturb()
        self.view = mujoco.MjrRect(0, 0, render.side, render.side)
        self.drawn = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self.drawn)
        self.pixels = np.empty((render.side, render.side, 3), np.uint8)


class Camera:
    """A fixed camera of one model."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, camera: int, task: str, render: Render):
        """`camera` is the camera's number in the model; `task` names the model among all suites."""
        self._model = model
        self._data = data
        self._key = (task, render)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = camera
        if self._key not in _shared:
            _shared[self._key] = _Buffers(model, render)
        self._buffers = _shared[self._key]
        self._buffers.users += 1

    def image(self) -> np.ndarray:
        """Draws the model's present state: u8 in height, width, channel order, the top row first."""
        held = self._buffers
        _make_current()
        mujoco.mjv_updateScene(
            self._model,
            self._data,
            held.option,
            held.perturbation,
            self._camera,
            mujoco.mjtCatBit.mjCAT_ALL,
            held.scene,
        )
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, held.drawn)
        mujoco.mjr_render(held.view, held.scene, held.drawn)
        mujoco.mjr_readPixels(held.pixels, None, held.view, held.drawn)
        # OpenGL's first row is the lowest.
        return held.pixels[::-1].copy()

    def close(self) -> None:
        """Gives the buffers back with their last user."""
        if self._buffers is None:
            return
        self._buffers.users -= 1
        if self._buffers.users == 0:
            _make_current()
            self._buffers.drawn.free()
            del _shared[self._key]
        self._buffers = None


def shut_down() -> None:
    """Frees the OpenGL context; every camera must be closed before."""
    global _context
    if _context is not None:
        _context.free()
        _context = None
