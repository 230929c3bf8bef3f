"""Backbones that go wrong; which part is wrong is in the function's name."""
import os
import sys
import time

import numpy as np

import beside

WIDTH, PATCH = 6, 16


def features(images):
    b, _, h, w = images.shape
    x = images.reshape(b, 3, h // PATCH, PATCH, w // PATCH, PATCH)
    both = np.concatenate([x.mean((3, 5)), x.max((3, 5))], 1) * beside.SCALE
    return both.reshape(b, WIDTH, -1).transpose(0, 2, 1)


def good(**other):
    def tokens(images, blocks):
        x = features(images)
        return [{"patches": x, "summary": x.mean(1, keepdims=True)} for _ in blocks]

    declared = dict(state={"scale": np.ones(1, np.float32)}, tokens=tokens, norm=lambda x: x,
                    blocks=1, width=WIDTH, patch=PATCH, name="good", trained=False)
    return {**declared, **other}


def with_tokens(change):
    plain = good()["tokens"]
    return good(tokens=lambda images, blocks: change(plain(images, blocks)))


def dies():
    """Once a second batch comes, while the file `die` is there."""
    calls = []

    def change(taps):
        calls.append(1)
        if len(calls) == 2 and os.path.exists("die"):
            print("out of memory, so to speak", file=sys.stderr, flush=True)
            os._exit(9)
        return taps

    return with_tokens(change)


def hangs():
    return with_tokens(lambda taps: time.sleep(600))


def raises():
    raise ValueError("no weights here")


def raises_later():
    return with_tokens(lambda taps: [][1])


def wide():
    return with_tokens(lambda taps: [{k: v.repeat(2, -1) for k, v in t.items()} for t in taps])


def fewer():
    return with_tokens(lambda taps: [])


def not_finite():
    return with_tokens(lambda taps: [{k: v * np.inf for k, v in t.items()} for t in taps])


def no_norm():
    return good(norm=None)


def misspelt():
    return good(widht=3)


def nothing():
    return None


def incomplete():
    made = good()
    del made["patch"], made["width"]
    return made


def fit_for_nothing():
    return good(resolution=250)


def without_class():
    return good(summary_tokens=0)


def without_grid():
    def tokens(images, blocks):
        return [{"summary": features(images).mean(1, keepdims=True)} for _ in blocks]

    return good(patches=False, tokens=tokens)
