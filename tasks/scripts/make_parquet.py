"""Writes tests/data/parquet: the same twelve images and labels, as PyArrow stores them in every way.

Values follow from the indices alone, so that the tests need no copy of them. Run from this directory, with
PyArrow: python make_parquet.py
"""

from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DATA = Path("../tests/data/parquet")
CLASSES = ["n01440764", "n01443537", "n02119789"]


def image(i):
    return bytes((i * 31 + j * 7 + j * j // 5) % 256 for j in range(i * 40))


def path(i):
    name = CLASSES[i // 4]
    return f"{name}_{i}_{name}.{'png' if i % 4 == 3 else 'JPEG'}"


def main():
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [{"bytes": image(i), "path": path(i)} for i in range(12)]
    table = pa.table(
        {
            "image": pa.array(images, image_type),
            "label": pa.array([i // 4 for i in range(12)], pa.int64()),
        }
    )
    DATA.mkdir(parents=True, exist_ok=True)
    for codec, version, dictionary in product(
        ["none", "snappy", "zstd"], ["1.0", "2.0"], [False, True]
    ):
        name = f"{codec}-v{version[0]}-{'dictionary' if dictionary else 'plain'}.parquet"
        pq.write_table(
            table,
            DATA / name,
            compression=codec,
            data_page_version=version,
            use_dictionary=dictionary,
            data_page_size=300,
            write_batch_size=2,
            row_group_size=5,
            store_schema=False,
        )


main()
