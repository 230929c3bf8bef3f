"""Times PyTorch's matmul + topk on the search of examples/knn_speed.rs; prints one line of JSON.

python knn_speed.py [TRAIN] [QUERIES] [DIM] [K]
Environment: THREADS (default 2), CHUNK (queries in one product, default 250).
"""

import json
import os
import resource
import sys
import time

import torch

sizes = [200_000, 5_000, 1024, 200]
for i, argument in enumerate(sys.argv[1:5]):
    sizes[i] = int(argument)
rows, count, dim, k = sizes
torch.set_num_threads(int(os.environ.get("THREADS", "2")))
chunk = int(os.environ.get("CHUNK", "250"))
torch.manual_seed(1)


def features(n):
    values = torch.empty(n, dim).normal_()
    for part in values.split(4096):
        part.div_(part.norm(dim=1, keepdim=True).clamp_min_(1e-12))
    return values


with torch.inference_mode():
    train, queries = features(rows), features(count)
    start = time.perf_counter()
    similarities, indices = [], []
    products = 0.0
    for part in queries.split(chunk):
        before = time.perf_counter()
        block = part @ train.T
        products += time.perf_counter() - before
        values, places = block.topk(k, dim=1, largest=True, sorted=True)
        similarities.append(values)
        indices.append(places)
    similarities, indices = torch.cat(similarities), torch.cat(indices)
    seconds = time.perf_counter() - start

peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(
    json.dumps(
        {
            "engine": f"torch {torch.__version__}",
            "seconds": round(seconds, 3),
            "matmul_seconds": round(products, 3),
            "peak_mib": round(peak / 1024),
            "features_mib": round((rows + count) * dim * 4 / 2**20),
            "gflops": round(2 * rows * dim * count / seconds / 1e9),
            "mean_similarity": round(similarities.mean().item(), 4),
        }
    )
)
