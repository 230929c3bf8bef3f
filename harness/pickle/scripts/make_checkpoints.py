"""Checkpoints as PyTorch writes them, and what PyTorch reads from them, for the tests.

    python harness/pickle/scripts/make_checkpoints.py

Run it once with torch 1.13 and once with torch 2.x; the files of each are named after its major
version. Writes tests/data/torch{1,2}/*.pth, expected.safetensors beside them (every tensor, contiguous)
and, with torch 2.x, tests/data/demonstration*.
"""

import argparse
import collections
import json
import pathlib
import pickle
import shutil
import struct
import warnings
import zipfile

import numpy
import torch

DATA = pathlib.Path(__file__).parent.parent / "tests" / "data"
MAJOR = int(torch.__version__.split(".")[0])

SAFE = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
}
if MAJOR >= 2:
    SAFE |= {torch.uint16: "U16", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}


# Types whose storages are of bytes.
UNTYPED = {"uint16", "float8", "float8_wide"}


def save_expected(tensors: dict[str, torch.Tensor], path: pathlib.Path) -> None:
    """Writes safetensors by hand: no version of its package runs with both versions of torch."""
    header, body = {}, b""
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        storage = tensor.untyped_storage() if MAJOR >= 2 else tensor.storage().untyped()
        raw = bytes(storage.tolist())
        size = tensor.element_size() * tensor.numel()
        first = tensor.storage_offset() * tensor.element_size()
        raw = raw[first : first + size]
        header[name] = {
            "dtype": SAFE[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(body), len(body) + size],
        }
        body += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def state_dict() -> collections.OrderedDict:
    """Every type, and every way a tensor can lie in its storage."""
    torch.manual_seed(0)
    base = torch.randn(4, 6, 3)
    state = collections.OrderedDict()
    state["plain.weight"] = base
    state["plain.bias"] = torch.nn.Parameter(torch.randn(5))
    state["transposed"] = torch.randn(3, 5).t()
    state["permuted"] = base.permute(2, 0, 1)
    state["shared.rows"] = base[1:3]
    state["shared.columns"] = base[:, ::2, 1]
    state["shared.element"] = base[2, 3, 1]
    state["expanded"] = torch.randn(4, 1).expand(4, 3)
    state["expanded_scalar"] = torch.tensor(2.5).expand(2, 2)
    state["channels_last"] = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    state["scalar"] = torch.tensor(-1.5)
    state["empty"] = torch.zeros(0, 7)
    state["half"] = torch.randn(3, 4).half()
    state["half_transposed"] = torch.randn(3, 4).half().t()
    state["bfloat16"] = torch.randn(3, 4).bfloat16()
    state["bfloat16_strided"] = torch.randn(9).bfloat16()[1::2]
    state["double"] = torch.randn(3, dtype=torch.float64)
    state["long"] = torch.arange(-3, 4)
    state["int"] = torch.arange(4, dtype=torch.int32)
    state["short"] = torch.arange(4, dtype=torch.int16)
    state["char"] = torch.arange(-2, 2, dtype=torch.int8)
    state["byte"] = torch.arange(4, dtype=torch.uint8)
    state["bool"] = torch.tensor([True, False, True])
    state["complex"] = torch.randn(2, 3, dtype=torch.complex64)
    state["special"] = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e-45])
    if MAJOR >= 2:
        noted = torch.nn.Parameter(torch.randn(3))
        noted.note = "kept"
        state["noted_parameter"] = noted
        tagged = torch.randn(2, 2)
        tagged.note = 7
        state["noted_tensor"] = tagged
        state["uint16"] = torch.arange(65530, 65536).to(torch.uint16)
        state["float8"] = torch.randn(5).to(torch.float8_e4m3fn)
        state["float8_wide"] = torch.randn(2, 3).to(torch.float8_e5m2).t()
    # As nn.Module.state_dict() leaves it.
    state._metadata = collections.OrderedDict([("", {"version": 1})])
    return state


def training(state: collections.OrderedDict) -> dict:
    """What a pre-training script keeps beside the model."""
    parameter = torch.nn.Parameter(torch.randn(3, 2))
    optimizer = torch.optim.AdamW([parameter], lr=1e-3)
    parameter.sum().backward()
    optimizer.step()
    settings = argparse.Namespace(
        batch_size=64, blr=1.5e-4, output_dir=pathlib.PurePosixPath("out"), resume="", distributed=False,
        betas=(0.9, 0.95), seen=10**20, crop=None, mean=numpy.float32(0.5), device=torch.device("cpu"),
    )
    return {
        "optimizer": optimizer.state_dict(),
        "model": state,
        "epoch": 399,
        "scaler": {"scale": 65536.0, "growth_tracker": 12},
        "args": settings,
        "size": torch.Size([2, 3]),
        "dtype": torch.float32,
        "seen": {1, 2, 3},
        "best": frozenset({"a"}),
        "history": collections.defaultdict(list, loss=[1.0, 0.5]),
        "table": numpy.arange(6, dtype=numpy.int16).reshape(2, 3),
    }


def save(value, path: pathlib.Path, protocol: int, legacy: bool = False) -> None:
    torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)


def reversed_order(source: pathlib.Path, to: pathlib.Path, words: dict[str, int]) -> None:
    """The same archive as a big-endian machine writes it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as new:
        for entry in old.infolist():
            data = old.read(entry)
            folder, _, name = entry.filename.partition("/")
            if name == "byteorder":
                data = b"big"
            elif name.startswith("data/"):
                word = words[name[5:]]
                data = b"".join(data[i : i + word][::-1] for i in range(0, len(data), word))
            new.writestr(zipfile.ZipInfo(f"{folder}/{name}"), data)


def demonstrations() -> None:
    """Arrays as recordings of robots keep them, in both orders of memory and of bytes."""
    generator = numpy.random.default_rng(0)
    actions = generator.standard_normal((3, 2)).astype(numpy.float32)
    episode = {
        "images": generator.integers(0, 256, (3, 4, 4, 3), dtype=numpy.uint8),
        "actions": actions,
        "columns": numpy.asfortranarray(generator.standard_normal((2, 3, 4))),
        "transposed": actions.T,
        "big_endian": actions.astype(">f4"),
        "steps": numpy.arange(-2, 4, dtype=numpy.int32),
        "time": numpy.arange(3),
        "action_codes": numpy.array([-1, 2], dtype=numpy.int8),
        "done": numpy.array([False, True]),
        "none": numpy.zeros((0, 3), dtype=numpy.float32),
        "single": numpy.array(0.5),
        "goal": numpy.float64(0.25),
    }
    infos = {"success": [False, False, True], "name": "reach", "objects": numpy.array(["a", None])}
    for protocol in range(2, 6):
        path = DATA / f"demonstration_p{protocol}.pkl"
        path.write_bytes(pickle.dumps([{**episode, "env_infos": infos}, episode], protocol))
    little = {n: numpy.ascontiguousarray(a).astype(a.dtype.newbyteorder("=")) for n, a in episode.items()}
    # Of a scalar, numpy makes an array of one.
    tensors = {n: torch.from_numpy(a).reshape(episode[n].shape) for n, a in little.items()}
    save_expected(tensors, DATA / "demonstration.safetensors")


def main() -> None:
    warnings.simplefilter("ignore")
    folder = DATA / f"torch{MAJOR}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    state = state_dict()
    for protocol in range(2, 6):
        save(training(state), folder / f"zip_p{protocol}.pth", protocol)
        # PyTorch writes types without a storage class into older files too, and cannot read them back.
        known = collections.OrderedDict((n, t) for n, t in state.items() if n not in UNTYPED)
        save(training(known), folder / f"legacy_p{protocol}.pth", protocol, legacy=True)
    # PyTorch's own reading decides; it agrees for all of them.
    anything = {"weights_only": False} if MAJOR >= 2 else {}
    reads = [torch.load(path, **anything)["model"] for path in sorted(folder.glob("*.pth"))]
    first = reads[-1]
    for other in reads[:-1]:
        for name in other:
            a, b = first[name].detach().contiguous(), other[name].detach().contiguous()
            assert a.dtype == b.dtype and a.shape == b.shape, name
            view = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
            if a.numel():
                flat = [x.reshape(-1).view(view) for x in (a, b)]
                assert torch.equal(*flat), name
    save_expected(first, folder / "expected.safetensors")

    if MAJOR >= 2:
        few = {name: state[name] for name in ["plain.weight", "transposed", "half", "long", "complex", "bool"]}
        save(few, folder / "big_endian.pth", 2)
        sizes = {"0": 4, "1": 4, "2": 2, "3": 8, "4": 4, "5": 1}
        reversed_order(folder / "big_endian.pth", folder / "big.tmp", sizes)
        (folder / "big.tmp").rename(folder / "big_endian.pth")
        for name, tensor in torch.load(folder / "big_endian.pth").items():
            assert torch.equal(tensor, few[name]), name

        from torch.utils.serialization import config

        small = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(3).half()}
        save(small, folder / "flat.pth", 2)
        save({"state_dict": small, "epoch": 1, "c": torch.ones(1)}, folder / "state_dict.pth", 2)
        save({"module": small}, folder / "module.pth", 2)
        moments = {"state": {0: {"exp_avg": torch.ones(2)}}}
        save({"r3m": small, "r3m_opt": moments, "global_step": 1}, folder / "r3m.pth", 2)
        save({**small, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}, folder / "beside.pth", 2)
        save({"teacher": {"backbone": small}, "step": {0: torch.ones(2)}}, folder / "nested.pth", 2)
        save({"epoch": 3, "losses": [1.0]}, folder / "no_tensors.pth", 2)
        save({"model": small, "extra": torch.nn.Linear(1, 1)}, folder / "module_class.pth", 2)
        save({"a": torch.randn(3, dtype=torch.complex64).imag, "b": torch.randn(3).neg()}, folder / "views.pth", 2)
        save({"a": torch._neg_view(torch.randn(3))}, folder / "negative.pth", 2)
        save({"a": torch.eye(2).to_sparse()}, folder / "sparse.pth", 2)
        config.save.compute_crc32 = False
        save(small, folder / "no_checksums.pth", 2)
        config.save.compute_crc32 = True

        demonstrations()


if __name__ == "__main__":
    main()
