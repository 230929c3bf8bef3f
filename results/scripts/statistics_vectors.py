"""Writes results/src/statistics/vectors.json: rows, and what numpy and scipy make of them.

    python results/scripts/statistics_vectors.py > results/src/statistics/vectors.json

Needs numpy and scipy. Intervals come from so many resamples that their own noise is small against
the tolerance of the tests.
"""

import json
import sys

import numpy as np
from scipy import stats

RESAMPLES = 200_000


def interval(data, statistic, method):
    found = stats.bootstrap(
        data, statistic, paired=True, vectorized=True, n_resamples=RESAMPLES, batch=5_000,
        method=method, confidence_level=0.95, rng=np.random.default_rng(0),
    ).confidence_interval
    return [found.low, found.high]


def miou(intersection, union):
    """Percent, of per-class sums [..., classes]."""
    return 100 * (intersection / (union + 1e-6)).mean(-1)


def p_of_means(a, b, resamples):
    return stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=resamples, batch=5_000, rng=np.random.default_rng(0),
    ).pvalue


def means(rng, images, shift):
    a = rng.lognormal(-1, 0.8, images)
    b = a * rng.lognormal(shift, 0.2, images)
    mean = lambda x, axis=-1: np.mean(x, axis=axis)
    difference = lambda x, y, axis=-1: np.mean(x - y, axis=axis)
    return {
        "a": a.tolist(),
        "b": b.tolist(),
        "mean": a.mean(),
        "interval": interval((a,), mean, "BCa"),
        "difference": interval((a, b), difference, "BCa"),
        "p": p_of_means(a, b, np.inf if images <= 13 else RESAMPLES),
    }


def segmentation(rng, images, classes):
    target = rng.poisson(40, (images, classes)) * (rng.random((images, classes)) < 0.4)
    hit = rng.binomial(target, rng.uniform(0.4, 0.9, classes))
    predicted = hit + rng.poisson(6, (images, classes)) * (target.sum(1, keepdims=True) > 0)
    place = np.arange(images)

    def statistic(picked, axis=-1):
        picked = np.moveaxis(np.atleast_1d(picked).astype(int), axis, -1)
        union = predicted + target - hit
        return miou(hit[picked].sum(-2), union[picked].sum(-2))

    whole = float(statistic(place))
    share = lambda picked, axis=-1: 100 * hit.sum(1)[picked.astype(int)].sum(axis) / (
        target.sum(1)[picked.astype(int)].sum(axis))
    return {
        "intersection": hit.tolist(),
        "predicted": predicted.tolist(),
        "target": target.tolist(),
        "miou": whole,
        "miou_interval": interval((place,), statistic, "basic"),
        "pixel_acc": float(share(place)),
        "pixel_acc_interval": interval((place,), share, "BCa"),
    }


def main():
    rng = np.random.default_rng(7)
    vectors = {
        "few": means(rng, 10, 0.15),
        "many": means(rng, 40, 0.05),
        "segmentation": segmentation(rng, 30, 5),
        "normal": [[z, stats.norm.cdf(z)] for z in (-6.0, -1.5, 0.25, 3.0)],
    }
    json.dump(vectors, sys.stdout)
    print()


if __name__ == "__main__":
    main()
