"""Writes the MATLAB files that the reader is tested with: scipy.io.savemat's, small ones of each kind."""

import sys
from pathlib import Path

import numpy as np
from scipy.io import savemat
from scipy.sparse import csc_matrix


def main(folder):
    numbers = {
        name: np.array([[1, 2, 3], [4, 5, 6]], dtype=name)
        for name in ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]
    }
    savemat(folder / "numbers.mat", numbers)
    savemat(folder / "numbers_packed.mat", numbers, do_compression=True)
    cells = np.empty((1, 2), dtype=object)
    cells[0, 0], cells[0, 1] = "Größe", np.array([[True, False]])
    synsets = np.array(
        [(1, "n01440764", "tench"), (2, "n01443537", "goldfish")],
        dtype=[("ILSVRC2012_ID", object), ("WNID", object), ("words", object)],
    ).reshape(2, 1)
    sparse = csc_matrix(np.eye(3, dtype=bool))
    mask = np.arange(6, dtype=np.uint8).reshape(2, 3)
    mixed = {"cells": cells, "synsets": synsets, "GTcls": {"Boundaries": sparse, "Segmentation": mask}, "empty": np.zeros((0, 4))}
    savemat(folder / "mixed.mat", mixed, do_compression=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
