"""Writes tests/data/robot: small demonstrations in the published forms, and damaged ones.

Values follow from the indices alone, so that the tests need no copy of them. Run from this directory,
with NumPy 2 and PyTorch: python make_demonstrations.py
"""

import pickle
from pathlib import Path

import numpy as np
import torch

DATA = Path("../tests/data/robot")
SIDE = 8


def images(demo, steps, side=SIDE):
    d, t, h, w, c = np.ix_([demo], range(steps), range(side), range(side), range(3))
    return ((d * 50 + t * 13 + h * 7 + w * 3 + c) % 256).astype(np.uint8)[0]


def rows(demo, steps, width, scale, dtype=np.float64):
    """Multiples of 1/8: the same in single precision."""
    t, i = np.ix_(range(steps), range(width))
    return ((demo * 16 + t * 4 + i * scale) / 8).astype(dtype)


def metaworld(demo, steps):
    return {
        "images": images(demo, steps),
        "actions": rows(demo, steps, 4, 1, np.float32),
        "rewards": rows(demo, steps, 1, 0)[:, 0],
        "env_infos": {
            "gripper_proprio": rows(demo, steps, 4, 2),
            "success": np.arange(steps) > 1,
            "reason": np.array(["none"] * steps),
            "objects": np.array([None] * steps),
        },
        "terminated": False,
    }


def dmc(demo, steps):
    infos = {"internal_state": rows(demo, steps, 6, 3), "time": [0.5] * steps}
    parts = {"images": images(demo, steps), "actions": rows(demo, steps, 2, 1)}
    return {**parts, "rewards": rows(demo, steps, 1, 0), "env_infos": infos}


def adroit(demo, steps):
    return {
        "images": np.asfortranarray(images(demo, steps)),
        "actions": rows(demo, steps, 24, 1).astype(">f8"),
        "rewards": np.arange(steps),
        "env_infos": {"proprio": rows(demo, steps, 24, 2)},
        "init_state_dict": {"qpos": rows(demo, 1, 30, 1)[0], "desired_orien": np.array([1.0, 0, 0, 0.5])},
    }


def trifinger(demo, steps, rows_of_moves):
    return {
        "t": np.arange(steps) * 0.4,
        "o_pos_cur": rows(demo, steps, 3, 1),
        "o_ori_cur": rows(demo, steps, 4, 2),
        "ft_pos_cur": rows(demo, steps, 9, 3),
        "delta_ftpos": rows(demo, rows_of_moves, 9, 4),
        "robot_pos": rows(demo, steps, 9, 5),
        "image_60": images(demo, steps),
        "image_180": images(demo + 1, steps),
        "ft_pos_targets_per_mode": [None, rows(demo, 1, 9, 1)],
        "mode": ["reach"] * steps,
        "vertices": {0: np.zeros(3), "x": None},
    }


class Call:
    def __reduce__(self):
        return print, ("a pickle that is run says this",)


def damaged():
    """One thing wrong in each."""
    good = metaworld(0, 3)
    infos = good["env_infos"]
    nan = good["actions"].copy()
    nan[1, 2] = np.nan
    return {
        "call": [{**good, "rewards": Call()}],
        "objects": [{**good, "actions": np.array([[None] * 4] * 3)}],
        "complex": [{**good, "actions": good["actions"].astype(np.complex64)}],
        "half": [{**good, "actions": good["actions"].astype(np.float16)}],
        "width": [good, {**good, "actions": good["actions"][:, :3]}],
        "steps": [{**good, "actions": good["actions"][:2]}],
        "rewards": [{**good, "rewards": good["rewards"][:1]}],
        "nan": [{**good, "actions": nan}],
        "large": [{**good, "env_infos": {"gripper_proprio": infos["gripper_proprio"] + 1e300}}],
        "proprio": [{**good, "env_infos": {"proprio": infos["gripper_proprio"]}}],
        "infos": [{**good, "env_infos": [infos]}],
        "sides": [good, {**good, "images": images(0, 3, 9)}],
        "floats": [{**good, "images": good["images"] / 255.0}],
        "grey": [{**good, "images": good["images"][..., :1]}],
        "still": [{**good, "images": good["images"][:0]}],
        "text": [{**good, "images": "images.zip"}],
        "none": [],
        "dict": good,
        "list": [[good]],
    }


def main():
    DATA.mkdir(exist_ok=True)
    for protocol in range(2, 6):
        path = DATA / f"metaworld_p{protocol}.pickle"
        path.write_bytes(pickle.dumps([metaworld(0, 3), metaworld(1, 4)], protocol))
    (DATA / "dmc.pickle").write_bytes(pickle.dumps([dmc(0, 4), dmc(1, 4)], 4))
    (DATA / "dmc_uneven.pickle").write_bytes(pickle.dumps([dmc(0, 4), dmc(1, 5)], 4))
    (DATA / "adroit.pickle").write_bytes(pickle.dumps([adroit(0, 3)], 4))
    for name, value in damaged().items():
        (DATA / f"damaged_{name}.pickle").write_bytes(pickle.dumps(value, 4))
    torch.save(trifinger(0, 3, 3), DATA / "trifinger_0.pth")
    torch.save(trifinger(1, 4, 3), DATA / "trifinger_1.pth", pickle_protocol=4)
    torch.save(trifinger(2, 2, 2), DATA / "trifinger_2.pth", _use_new_zipfile_serialization=False)
    wrong = {**trifinger(0, 3, 3), "o_ori_cur": rows(0, 3, 3, 1)}
    torch.save(wrong, DATA / "trifinger_damaged.pth", pickle_protocol=4)


if __name__ == "__main__":
    main()
