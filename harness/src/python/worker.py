"""The Python side of a `py:FILE.py:FUNCTION` backbone.

Makes the backbone that FUNCTION describes, says what it is, and answers requests, one JSON line each
way. Images and tokens lie in a file that both sides map.
"""
import ctypes
import hashlib
import importlib.util
import json
import math
import mmap
import os
import signal
import sys
import traceback

PARTS = ("patches", "patches_norm", "summary", "summary_norm", "pooled")
DEFAULTS = {
    "name": None,
    "module": None,
    "state": None,
    "norm": None,
    "patches": True,
    "summary_tokens": 1,
    "registers": 0,
    "resolution": None,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "knn": "summary-mean",
    "final_norm": True,
    "dense_summary": True,
    "trained": True,
}
REQUIRED = ("tokens", "blocks", "width", "patch")


class Fault(Exception):
    """Something that the user's function got wrong."""


def view(array):
    """A tensor's or array's bytes in row-major order; the second value keeps them alive."""
    if hasattr(array, "detach"):
        tensor = array.detach().cpu().contiguous()
        size = tensor.numel() * tensor.element_size()
        if size == 0:
            return b"", tensor
        raw = (ctypes.c_char * size).from_address(tensor.data_ptr())
        return memoryview(raw), tensor
    import numpy

    array = numpy.ascontiguousarray(array)
    return array.view(numpy.uint8).reshape(-1).data if array.size else b"", array


def state_of(made):
    if made["module"] is not None:
        return made["module"].state_dict()
    return made["state"]


def hash_state(state):
    digest = hashlib.blake2b(digest_size=32)
    count = 0
    for name in sorted(state):
        array = state[name]
        if not hasattr(array, "shape"):
            raise Fault(f"state {name!r} is a {type(array).__name__}; expected a tensor or an array")
        dtype = str(array.dtype).replace("torch.", "")
        digest.update(f"{name} {list(array.shape)} {dtype}\n".encode())
        data, _alive = view(array)
        digest.update(data)
        count += math.prod(array.shape)
    return digest.hexdigest(), count


def hash_sources(path):
    """The user's file and what it imported from beside it."""
    folder = os.path.dirname(path)
    files = {path}
    for module in list(sys.modules.values()):
        origin = getattr(module, "__file__", None)
        if not origin or not origin.endswith(".py") or not os.path.isfile(origin):
            continue
        origin = os.path.realpath(origin)
        installed = "site-packages" in origin or "dist-packages" in origin
        if origin.startswith(folder + os.sep) and not installed:
            files.add(origin)
    digest = hashlib.blake2b(digest_size=32)
    for file in sorted(files):
        with open(file, "rb") as opened:
            text = opened.read()
        # The file itself may be renamed; what it imports may not.
        name = "" if file == path else os.path.relpath(file, folder)
        digest.update(f"{name} {len(text)}\n".encode())
        digest.update(text)
    return digest.hexdigest()


class Worker:
    def __init__(self, path, function):
        self.path = os.path.realpath(path)
        sys.path.insert(0, os.path.dirname(self.path))
        spec = importlib.util.spec_from_file_location("pixio_eval_backbone", self.path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        make = getattr(module, function, None)
        if not callable(make):
            names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            raise Fault(f"{path} has no function {function!r}; it has: {', '.join(sorted(names))}")
        made = make()
        if not isinstance(made, dict):
            raise Fault(f"{function}() returned a {type(made).__name__}; expected a dict")
        unknown = sorted(set(made) - set(DEFAULTS) - set(REQUIRED))
        if unknown:
            known = ", ".join([*REQUIRED, *DEFAULTS])
            raise Fault(f"{function}() returned unknown keys {', '.join(unknown)}; known: {known}")
        missing = [key for key in REQUIRED if key not in made]
        if missing:
            raise Fault(f"{function}() returned no {', '.join(missing)}")
        self.made = {**DEFAULTS, **made}
        if (self.made["module"] is None) == (self.made["state"] is None):
            raise Fault(f"{function}() must return either module (a torch.nn.Module) or state (arrays)")
        if self.made["module"] is not None:
            import torch

            self.torch = torch
            self.made["module"].eval().requires_grad_(False)
        else:
            self.torch = None
        self.function = function
        self.device, self.dtype = "cpu", "float32"
        self.memory = None

    def hello(self):
        made = self.made
        state, parameters = hash_state(state_of(made))
        numbers = ("blocks", "width", "patch", "summary_tokens", "registers", "resolution")
        plain = {key: made[key] for key in (*numbers, "patches", "knn", "final_norm", "dense_summary",
                                            "trained", "name")}
        plain["mean"], plain["std"] = [float(x) for x in made["mean"]], [float(x) for x in made["std"]]
        if self.torch is not None:
            parameters = sum(p.numel() for p in made["module"].parameters())
        versions = {"python": sys.version.split()[0]}
        for name in ("torch", "timm", "transformers", "numpy"):
            if name in sys.modules:
                versions[name] = str(getattr(sys.modules[name], "__version__", "?"))
        return {"declared": plain, "state": state, "sources": hash_sources(self.path),
                "parameters": parameters, "versions": versions}

    def place(self, request):
        self.device, self.dtype = request["device"], request["dtype"]
        if self.torch is None:
            if self.device != "cpu" or self.dtype != "float32":
                raise Fault("a backbone of arrays runs on the CPU in f32 (--device cpu --dtype f32)")
        else:
            self.made["module"].to(self.device)
        return {}

    def map(self, request):
        with open(request["path"], "r+b") as opened:
            self.memory = mmap.mmap(opened.fileno(), request["size"])
        return {}

    def images(self, shape):
        if self.torch is None:
            import numpy

            return numpy.frombuffer(self.memory, numpy.float32, math.prod(shape)).reshape(shape).copy()
        torch = self.torch
        flat = torch.frombuffer(self.memory, dtype=torch.float32, count=math.prod(shape))
        return flat.reshape(shape).to(self.device, copy=True)

    def put(self, offset, array):
        if self.torch is None:
            import numpy

            array = numpy.ascontiguousarray(array, dtype=numpy.float32)
        else:
            array = array.float()
        data, _alive = view(array)
        self.memory[offset:offset + len(data)] = data

    def run(self, images, blocks, wanted):
        """One dict of the wanted parts for each block."""
        taps = self.made["tokens"](images, list(blocks))
        if not isinstance(taps, (list, tuple)) or len(taps) != len(blocks):
            got = len(taps) if isinstance(taps, (list, tuple)) else type(taps).__name__
            raise Fault(f"tokens() returned {got} for {len(blocks)} blocks; expected a list of as many dicts")
        norm, complete = self.made["norm"], []
        for block, tap in zip(blocks, taps):
            unknown = sorted(set(tap) - set(PARTS))
            if unknown:
                raise Fault(f"tokens() returned unknown parts {', '.join(unknown)}; known: {', '.join(PARTS)}")
            parts = {}
            for part in wanted:
                array = tap.get(part)
                raw = tap.get(part.replace("_norm", ""))
                if array is None and part.endswith("_norm") and norm is not None and raw is not None:
                    array = norm(raw)
                if array is not None:
                    parts[part] = array
            complete.append(parts)
        return complete

    def infer(self, images, blocks, wanted):
        if self.torch is None:
            return self.run(images, blocks, wanted)
        torch = self.torch
        cast = torch.autocast(torch.device(self.device).type, dtype=getattr(torch, self.dtype),
                              enabled=self.dtype != "float32")
        with torch.inference_mode(), cast:
            return self.run(images, blocks, wanted)

    def forward(self, request):
        taps = self.infer(self.images(request["shape"]), request["blocks"], request["wanted"])
        offset, limit, answer = request["offset"], request["limit"], []
        fits = True
        for tap in taps:
            told = {}
            for part, array in tap.items():
                size = 4 * math.prod(array.shape)
                told[part] = {"offset": offset, "shape": list(array.shape)}
                fits = fits and offset + size <= limit
                # What does not fit has a wrong shape, which the other side names.
                if fits:
                    self.put(offset, array)
                offset += size
            answer.append(told)
        return {"taps": answer}

    def flops(self, request):
        if self.torch is None:
            return {"flops": None}
        from torch.utils.flop_counter import FlopCounterMode

        images = self.torch.zeros([1, 3, request["height"], request["width"]], device=self.device)
        counter = FlopCounterMode(display=False)
        with self.torch.no_grad(), counter:
            self.made["tokens"](images, [self.made["blocks"] - 1])
        return {"flops": float(counter.get_total_flops())}


def main():
    # Ctrl-C is the other side's to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    # What the user's code prints must not end up among the answers.
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)

    def answer(make):
        try:
            told = {"ok": make()}
        except Fault as fault:
            told = {"fault": str(fault)}
        except BaseException:
            told = {"fault": traceback.format_exc().rstrip()}
        answers.write(json.dumps(told) + "\n")
        answers.flush()
        return "ok" in told

    worker = None

    def begin():
        nonlocal worker
        worker = Worker(sys.argv[1], sys.argv[2])
        return worker.hello()

    if not answer(begin):
        return
    for line in requests:
        request = json.loads(line)
        answer(lambda: getattr(worker, request["do"])(request))


main()
