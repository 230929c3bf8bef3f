"""Checks a built pixio-eval on a GPU: what harness/scripts/gpu-check.sh runs, which says how.

Every check is a line: what was found, and the bound it has to keep. What is compared is a device with the CPU, both in f32,
the device's bf16 with f32, and runs on the device with each other. Benchmarks of `pixio-eval bench` and gpu_peer.py take
turns; medians over the rounds. Everything goes to gpu-check.json in --out, the output of every command to log.txt there.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE.parent / "tests" / "golden"
DENSE = ["nyuv2/linear", "nyuv2/dpt", "ade20k/linear", "ade20k/dpt"]
# Relative error of f32 and of bf16 features, of head weights after a step in f32, of metrics in f32 and in bf16.
F32, BF16, STEP, METRIC_F32, METRIC_BF16 = 1e-3, 2e-2, 1e-3, 1e-2, 1e-2
# What a comparison of metrics looks at.
METRICS = {"nyuv2": ["rmse", "abs_rel", "delta1"], "ade20k": ["miou", "pixel_acc"], "imagenet1k": ["top1@1", "top1@10"]}


class Failed(Exception):
    pass


def tensors(path):
    """The f32 tensors of a safetensors file."""
    data = pathlib.Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    found, body = {}, data[8 + size :]
    for name, about in json.loads(data[8 : 8 + size]).items():
        if name != "__metadata__" and about["dtype"] == "F32":
            start, end = about["data_offsets"]
            found[name] = np.frombuffer(body[start:end], "<f4").reshape(about["shape"]).astype(np.float64)
    return found


def write_tensors(path, values):
    header, body = {}, b""
    for name, value in values.items():
        raw = value.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(header).encode()
    pathlib.Path(path).write_bytes(len(text).to_bytes(8, "little") + text + body)


def difference(found, expected):
    """The norm of the difference over the norm; NaN stays NaN."""
    if found.shape != expected.shape:
        return float("inf")
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30))


PARTS = ["features", "step", "trained", "golden", "twice", "interrupted", "messages", "whole", "speed"]


class Check:
    def __init__(self, args):
        self.args = args
        self.began = time.monotonic()
        self.out = pathlib.Path(args.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.log = open(self.out / "log.txt", "w")
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="gpu-check-"))
        self.lines, self.table, self.seconds = [], [], {}
        self.quick, self.device = args.quick, args.device

    # Running things.

    def left(self):
        return self.args.limit - (time.monotonic() - self.began)

    def environment(self, cache="cache", **more):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIXIO_EVAL_", "HF_"))}
        return kept | {"PIXIO_EVAL_CACHE": str(self.work / cache), "HF_HUB_OFFLINE": "1"} | more

    def command(self, command, ok=(0,), **options):
        """Runs it to its end; an error unless its status is one of `ok`."""
        command = [str(part) for part in command]
        began = time.monotonic()
        pipe = subprocess.PIPE
        timeout = max(self.left(), 1)
        try:
            ran = subprocess.run(command, stdout=pipe, stderr=pipe, text=True, timeout=timeout, **options)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"out of time in {' '.join(command[1:4])}") from error
        self.note(command, ran.returncode, ran.stdout + ran.stderr, time.monotonic() - began)
        if ok is not None and ran.returncode not in ok:
            last = (ran.stderr.strip() or "no message").splitlines()[-1]
            raise Failed(f"{' '.join(command[1:4])}: exit status {ran.returncode}: {last}")
        return ran

    def note(self, command, status, text, seconds):
        self.log.write(f"$ {' '.join(command)}\n[{status}, {seconds:.1f} s]\n{text}\n")
        self.log.flush()

    def ours(self, *args, ok=(0,), cache="cache"):
        return self.command([self.args.binary, *args], ok, env=self.environment(cache))

    def samples(self):
        """Generated data sets, made once."""
        folder = self.work / "samples"
        if not folder.exists():
            self.ours("data", "sample", "imagenet1k", "nyuv2", "ade20k", "--to", folder)
        return folder

    def arguments(self, cells, out, device, dtype, *more):
        """Of a run of cells with the golden encoder, on generated data unless other data is named."""
        data = []
        if "--data" not in more:
            names = sorted({cell.split("/")[0] for cell in cells})
            data = [word for name in names for word in ("--data", f"{name}={self.samples() / name}")]
            data += ["--protocol", "sample"]
        where = ["--device", device, "--dtype", dtype, "--pictures", 0, "--out", self.work / out]
        return ["run", *cells, "--backbone", GOLDEN, *data, *where, *more]

    def run(self, cells, out, device, dtype, *more):
        self.ours(*self.arguments(cells, out, device, dtype, *more), cache=f"cache-{out}")

    def short(self):
        return ["--limit", 8] if self.quick else []

    def file(self, out, cell, name):
        found = sorted((self.work / out / cell).glob(f"*/{name}"))
        if not found:
            raise Failed(f"no {name} of {cell}")
        return found[0]

    def metrics(self, out, cell):
        record = json.loads(self.file(out, cell, "record.json").read_text())
        return {m["name"]: m["value"] for m in record["outcome"]["metrics"] if m["selection"] == "last"}

    # Lines.

    def line(self, name, passed, found, bound=""):
        self.lines.append({"check": name, "passed": bool(passed), "found": found, "bound": bound})
        print(f"{'pass' if passed else 'FAIL'}  {name}: {found}{f' (bound {bound})' if bound else ''}", flush=True)

    def bounded(self, name, value, bound):
        self.line(name, value <= bound, f"{value:.2e}", f"{bound:g}")

    def part(self, what, does):
        began = time.monotonic()
        try:
            does()
        except Exception as error:  # the other parts are worth their results
            self.line(what, False, str(error) if isinstance(error, Failed) else repr(error))
        self.seconds[what] = time.monotonic() - began

    # Parity.

    def features(self):
        images = sorted((self.samples() / "ade20k/images/validation").iterdir())[: 2 if self.quick else 8]
        names = ["pixio-nano", "dinov2-s"] if self.quick else ["pixio-b", "dinov2-b", "dinov3-b", "clip-b16"]
        for name in names:
            def tokens(device, dtype):
                out = self.work / f"{name}-{device.replace(':', '')}-{dtype}.safetensors"
                where = ["--backbone", f"random:{name}", "--device", device, "--dtype", dtype, "--out", out]
                self.ours("features", *images, *where)
                return tensors(out)

            expected = tokens("cpu", "f32")
            for dtype, bound in (("f32", F32), ("bf16", BF16)):
                found = tokens(self.device, dtype)
                worst = max(difference(found[key], value) for key, value in expected.items())
                self.bounded(f"features of {name}, {self.device} {dtype} against cpu f32", worst, bound)

    def step(self):
        """One step on four samples. Adam divides a gradient by its size: the whole head is compared."""
        for out, device in [("step-cpu", "cpu"), ("step-device", self.device)]:
            self.run(DENSE, out, device, "f32", "--epochs", 1, "--limit", 4)
        for cell in DENSE:
            cpu, found = (tensors(self.file(out, cell, "head.safetensors")) for out in ("step-cpu", "step-device"))
            whole = lambda head: np.concatenate([head[key].ravel() for key in sorted(head)])
            name = f"{cell} weights after a step, {self.device} f32 against cpu f32"
            self.bounded(name, difference(whole(found), whole(cpu)), STEP)

    def compare(self, name, cell, found, expected, bound):
        dataset = cell.split("/")[0]
        for metric in METRICS[dataset]:
            if metric not in expected:
                continue
            a, b = found[metric], expected[metric]
            if dataset == "imagenet1k":
                # Of few images; one may change sides.
                self.line(f"{cell} {metric}, {name}", abs(a - b) <= 1.05, f"{a:.2f} and {b:.2f}", "one image")
            else:
                self.bounded(f"{cell} {metric}, {name}", abs(a - b) / max(abs(b), 1e-30), bound)

    def trained(self):
        """The sample protocol to its end in f32 on both, and in bf16."""
        cells = ["imagenet1k/knn", *DENSE]
        for out, device, dtype in [("cpu", "cpu", "f32"), ("f32", self.device, "f32"), ("bf16", self.device, "bf16")]:
            self.run(cells, f"trained-{out}", device, dtype, *self.short())
        for cell in cells:
            cpu, single, half = (self.metrics(f"trained-{out}", cell) for out in ("cpu", "f32", "bf16"))
            self.compare(f"trained, {self.device} f32 against cpu f32", cell, single, cpu, METRIC_F32)
            self.compare(f"trained, {self.device} bf16 against f32", cell, half, single, METRIC_BF16)

    def golden(self):
        """Trained heads of the golden data, validated in f32 on both, and in bf16."""
        stored = tensors(GOLDEN / "dense.safetensors")
        for cell in ["nyuv2/dpt", "ade20k/linear"] if self.quick else DENSE:
            dataset, head = cell.split("/")
            prefix = f"{dataset}.{head}.{'fitted' if dataset == 'ade20k' else 'final'}."
            weights = {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}
            file = self.work / f"{dataset}-{head}.safetensors"
            write_tensors(file, weights)
            more = ["--data", f"{dataset}={GOLDEN / dataset}", "--head-weights", file, "--epochs", 0]
            for out, device, dtype in [("cpu", "cpu", "f32"), ("f32", self.device, "f32"), ("bf16", self.device, "bf16")]:
                self.run([cell], f"golden-{out}", device, dtype, *more)
            cpu, single, half = (self.metrics(f"golden-{out}", cell) for out in ("cpu", "f32", "bf16"))
            self.compare(f"golden, {self.device} f32 against cpu f32", cell, single, cpu, F32)
            self.compare(f"golden, {self.device} bf16 against f32", cell, half, single, METRIC_BF16)

    def equal(self, name, cells, first, second):
        for cell in cells:
            files = ["predictions.parquet"] + (["head.safetensors"] if "knn" not in cell else [])
            same = [self.file(first, cell, f).read_bytes() == self.file(second, cell, f).read_bytes() for f in files]
            records = [json.loads(self.file(out, cell, "record.json").read_text()) for out in (first, second)]
            curves = [[record["outcome"].get(part) for part in ("metrics", "curve")] for record in records]
            words = [f for f, same in zip(files, same) if not same] + (["metrics"] if curves[0] != curves[1] else [])
            self.line(f"{cell}, {name}", not words, f"{', '.join(words)} differ" if words else "byte-equal")

    def twice(self):
        cells = ["imagenet1k/knn", *DENSE]
        for out in ("once", "again"):
            self.run(cells, out, self.device, self.half(), *self.short())
        self.equal(f"the same run twice on {self.device}", cells, "once", "again")

    def half(self):
        return "f32" if self.device == "cpu" else "bf16"

    def interrupted(self):
        cells, epochs = ["nyuv2/linear", "nyuv2/dpt"], ["--epochs", 6 if self.quick else 20, *self.short()]
        self.run(cells, "whole", self.device, self.half(), *epochs)
        for out, device in [("here", self.device), ("cpu", "cpu")]:
            self.stop(cells, f"stopped-{out}", *epochs)
            self.run(cells, f"stopped-{out}", device, self.half(), *epochs)
        self.equal(f"interrupted and continued on {self.device}", cells, "stopped-here", "whole")
        for cell in cells:
            found, expected = self.metrics("stopped-cpu", cell), self.metrics("whole", cell)
            self.compare("interrupted, continued on the cpu", cell, found, expected, METRIC_BF16)

    def stop(self, cells, out, *more):
        """Starts a run and interrupts it once it has written a checkpoint."""
        command = [self.args.binary, *self.arguments(cells, out, self.device, self.half(), *more)]
        command = [str(part) for part in command]
        began = time.monotonic()
        with open(self.work / f"{out}.log", "w") as log:
            environment = self.environment(f"cache-{out}")
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            while process.poll() is None and self.left() > 0:
                if list((self.work / out).glob("*/*/*/checkpoint-*")):
                    process.send_signal(signal.SIGINT)
                    break
                time.sleep(0.005)
            try:
                status = process.wait(timeout=max(self.left(), 1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise Failed("an interrupted run does not end") from None
        self.note(command, status, (self.work / f"{out}.log").read_text(), time.monotonic() - began)
        self.line(f"a run on {self.device} is interrupted ({out})", status == 130, f"exit status {status}", "130")

    def messages(self):
        """What goes wrong says so."""
        def said(name, wanted, ran):
            lines = [line for line in ran.stderr.splitlines() if line.startswith(("error", "hint"))]
            good = ran.returncode in (1, 2) and any(word in ran.stderr for word in wanted)
            self.line(name, good, f"exit status {ran.returncode}: {' / '.join(lines)[:300] or 'nothing said'}")

        check = ["backbones", "check", "random:pixio-nano", "--seconds", 0]
        said("a GPU that is not there", ["cuda:99"], self.ours(*check, "--device", "cuda:99", ok=None))
        small = ["--batch-size", "auto", "--memory-gb", "0.05"]
        self.run(["nyuv2/dpt"], "small", self.device, self.half(), "--limit", 4, *small)
        self.line("a run planned for 50 MB", True, "done")
        if self.device != "cpu":
            self.crowded(said)

    def crowded(self, said):
        """With nearly all of the GPU's memory taken, a large batch runs in smaller ones or says why not."""
        holder = (
            "import sys, torch\nfree = torch.cuda.mem_get_info()[0]\n"
            "held = torch.empty(int(free - 2.5e9), dtype=torch.uint8, device='cuda')\nprint('held', flush=True)\nsys.stdin.read()"
        )
        pipe = subprocess.PIPE
        process = subprocess.Popen([sys.executable, "-c", holder], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        try:
            if process.stdout.readline().strip() != "held":
                self.line("little memory left", True, "not tried: torch could not hold the rest")
                return
            cells = ["imagenet1k/knn", "--sample", "--backbone", "random:pixio-l", "--batch-size", 256]
            where = ["--device", self.device, "--out", self.work / "crowded"]
            ran = self.ours("run", *cells, *where, ok=None, cache="cache-crowded")
            if ran.returncode == 0:
                words = [line for line in ran.stderr.splitlines() if "memory" in line]
                self.line("little memory left", True, f"done{': ' + words[0] if words else ''}")
            else:
                said("little memory left", ["memory"], ran)
        finally:
            process.stdin.close()
            process.wait()

    # Speed.

    def speed(self):
        sizes = ["nano"] if self.quick else ["b", "l", "h"]
        head = [sizes[0] if self.quick else "l"]
        parts = [(["encoder"], sizes), (["knn"], head), (["linear", "dpt", "shared", "val"], head)]
        common = ["--device", self.device, "--seconds", 0.2 if self.quick else 1]
        if self.quick:
            common += ["--protocol", "sample", "--images", 1, "--batches", "1,4", "--train-rows", 5000, "--queries", 100]
            common += ["--tasks", "nyuv2"]
        peer = [sys.executable, HERE / "gpu_peer.py"]
        rounds = []
        for turn in range(1 if self.quick else 2):
            began = time.monotonic()
            if rounds and self.left() < 1.3 * self.seconds["a round of benchmarks"] + 60:
                print(f"no time for round {turn + 1}", flush=True)
                break
            found = {"ours": [], "peer": []}
            for what, sizes in parts:
                backbones = [word for size in sizes for word in ("--backbone", f"random:pixio-{size}")]
                ran = self.ours("bench", *what, *backbones, "--json", *common)
                found["ours"].append(json.loads(ran.stdout))
                if not self.args.no_peer:
                    wanted = [word for size in sizes for word in ("--size", size)]
                    ran = self.command([*peer, *what, *wanted, *common], env=self.environment())
                    found["peer"].append(json.loads(ran.stdout))
            rounds.append(found)
            (self.out / "rounds.json").write_text(json.dumps(rounds, indent=1))
            self.seconds["a round of benchmarks"] = time.monotonic() - began
        self.tabulate(rounds)

    def tabulate(self, rounds):
        def medians(side):
            rows = {}
            for report in (report for found in rounds for report in found[side]):
                for row in report["rows"]:
                    rows.setdefault(row["key"], []).append(row)
            fields = ("seconds", "utilisation", "share_of_bound")
            middle = lambda rows, field: statistics.median(row[field] for row in rows) if field in rows[0] else None
            return {key: dict(rows[0]) | {f: middle(rows, f) for f in fields} for key, rows in rows.items()}

        ours, peer = medians("ours"), medians("peer")
        for key, row in ours.items():
            if " batch " in key:
                continue
            other = peer.get(key.replace("val on kept tokens", "val"))
            notes = [f"batch {row['batch']}" + (f" and {other['batch']}" if other and other["batch"] != row["batch"] else "")]
            if row["utilisation"] is not None:
                notes.append(f"{row['utilisation']:.0%} of peak")
            if row["share_of_bound"] is not None:
                notes.append(f"{row['share_of_bound']:.1%} of its bound")
            self.table.append({
                "what": key,
                "unit": row["unit"],
                "ours": row["seconds"],
                "pytorch": other and other["seconds"],
                "ratio": other and other["seconds"] / row["seconds"],
                "notes": ", ".join(notes),
            })

    def whole(self):
        name = "random:pixio-nano" if self.quick else "random:pixio-l"
        began = time.monotonic()
        self.ours("all", "--sample", "--backbone", name, "--device", self.device, "--out", self.work / "all", cache="cache-all")
        seconds = time.monotonic() - began
        self.table.append({"what": f"all --sample, {name}", "unit": "run", "ours": seconds, "pytorch": None, "ratio": None, "notes": ""})

    def show(self):
        def speed(row, side):
            seconds = row[side]
            if seconds is None:
                return "-"
            if row["what"].startswith("encoder"):
                return f"{1 / seconds:.1f} images/s"
            return f"{1e3 * seconds:.2f} ms/{row['unit']}" if seconds < 1 else f"{seconds:.2f} s/{row['unit']}"

        rows = [("what", "ours", "PyTorch", "ratio", "")]
        for row in self.table:
            ratio = f"{row['ratio']:.2f}x" if row["ratio"] else "-"
            rows.append((row["what"], speed(row, "ours"), speed(row, "pytorch"), ratio, row["notes"]))
        widths = [max(len(row[at]) for row in rows) for at in range(5)]
        for at, row in enumerate(rows):
            cells = [row[0].ljust(widths[0])] + [row[i].rjust(widths[i]) for i in (1, 2, 3)] + [row[4]]
            print("  ".join(cells).rstrip())
            if at == 0:
                print("-" * (sum(widths) + 8))

    def all(self):
        print(self.ours("doctor").stdout, flush=True)
        for what in PARTS:
            if what in self.args.only:
                self.part(what, getattr(self, what))
        failed = [line for line in self.lines if not line["passed"]]
        result = {
            "device": self.device,
            "seconds": time.monotonic() - self.began,
            "parts": self.seconds,
            "checks": self.lines,
            "speed": self.table,
        }
        (self.out / "gpu-check.json").write_text(json.dumps(result, indent=1))
        print()
        if self.table:
            self.show()
            print()
        for line in failed:
            print(f"FAIL  {line['check']}: {line['found']}")
        print(f"{len(self.lines) - len(failed)} checks passed, {len(failed)} failed, in {result['seconds']:.0f} s; {self.out / 'gpu-check.json'}")
        shutil.rmtree(self.work, ignore_errors=True)
        return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--out", default="gpu-check", help="folder for gpu-check.json, rounds.json and log.txt")
    parser.add_argument("--quick", action="store_true", help="small backbones, few images, one round")
    parser.add_argument("--device", default="cuda", help="cuda or cuda:N; cpu tries this script")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, of %(default)s, or parity: all but the last two")
    parser.add_argument("--no-peer", action="store_true", help="benchmarks without PyTorch")
    parser.add_argument("--limit", type=float, default=520, help="seconds that all may take")
    args = parser.parse_args()
    args.binary = args.binary.resolve()
    args.only = PARTS[:-2] if args.only == "parity" else args.only.split(",")
    if not set(args.only) <= set(PARTS):
        parser.error(f"--only takes some of {', '.join(PARTS)}")
    if not args.binary.is_file():
        parser.error(f"no program at {args.binary}")
    sys.exit(Check(args).all())


if __name__ == "__main__":
    main()
