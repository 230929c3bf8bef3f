"""Times rollouts in MetaWorld side by side: this program, and a plain loop in Python around the same simulator
with transformers' PixioModel, an image at a time.

    cargo build --release
    python harness/scripts/rollout_speed.py --simulators PYTHON [--size nano] [--render full] [--rounds 3]

Needs torch and transformers in the interpreter that runs it; PYTHON is the simulators' (`simulators install`
prints its folder). The loop runs in PYTHON with this interpreter's packages behind its own, with the
libraries' default threads. Both step drawer-open with images of 256x256, and count a step with its image,
its encoding and its action. Prints steps a second and the median ratio of the rounds (above 1: ours is
faster).
"""

import argparse
import glob
import json
import os
import site
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SIZES = {"nano": (192, 12, 3), "b": (768, 12, 12)}
ROOT = Path(__file__).resolve().parent.parent
LOOP = '''
import json, sys, time
import numpy as np, torch
from pixio_simulators.suites import Render, open_environment
from transformers import PixioConfig, PixioModel

width, depth, heads, steps, full, threads = json.loads(sys.argv[1])
torch.set_num_threads(threads)
config = PixioConfig(hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads)
model = PixioModel._from_config(config, attn_implementation="sdpa").eval()
inputs = 3 * width + 4
layers = []
for a, b in zip([inputs, 256, 256, 256], [256, 256, 256, 4]):
    layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
policy = torch.nn.Sequential(torch.nn.BatchNorm1d(inputs), *layers[:-1]).eval()
mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
render = Render(side=256, shadows=full, reflections=full, samples=4 if full else 0)
world = open_environment("metaworld", "drawer-open", render, 1)
world.reset(0, None)

def embed():
    image = torch.from_numpy(world.image()).permute(2, 0, 1).float() / 255
    tokens = model(((image - mean) / std)[None]).last_hidden_state
    return tokens[:, : config.n_cls_tokens].mean(1)

with torch.inference_mode():
    history = [embed()] * 3
    began = time.perf_counter()
    for _ in range(steps):
        e0, e1, e2 = history
        proprio = torch.from_numpy(world.proprio().astype(np.float32))[None]
        action = policy(torch.cat([e1 - e0, e2 - e1, e2, proprio], 1))[0].numpy()
        world.step(np.clip(action, -1, 1).astype(np.float64))
        history = [e1, e2, embed()]
    print(steps / (time.perf_counter() - began))
world.close()
'''


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulators", required=True)
    parser.add_argument("--size", choices=SIZES, default="nano")
    parser.add_argument("--render", choices=("full", "fast"), default="full")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--program", default="target/release/pixio-eval")
    args = parser.parse_args()
    program = str(Path(args.program).resolve())
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(
            os.environ,
            PIXIO_EVAL_SIMULATORS=args.simulators,
            PIXIO_EVAL_CACHE=f"{folder}/cache",
            RAYON_NUM_THREADS=str(args.threads),
        )
        data = f"metaworld={folder}/demos"

        def run(*arguments):
            subprocess.run([program, "-q", *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)

        run("demos", "make", "metaworld/drawer-open", "--count", "2", "--steps", str(args.steps),
            "--render", args.render, "--data", data)

        def ours(turn):
            out = f"{folder}/runs{turn}"
            run("run", "cortexbench/metaworld", "--backbone", f"random:pixio-{args.size}", "--protocol",
                "cortexbench-lite", "--limit", "2", "--epochs", "1", "--pictures", "0", "--workers",
                str(args.threads), "--data", data, "--out", out)
            (record,) = glob.glob(f"{out}/metaworld/policy/*/record.json")
            outcome = json.loads(Path(record).read_text())["outcome"]
            return outcome["counts"]["rollout-steps"], outcome["seconds"]

        def theirs():
            numbers = [*SIZES[args.size], args.steps, args.render == "full", args.threads]
            behind = ":".join([str(ROOT / "simulators"), *site.getsitepackages()])
            loop = [args.simulators, "-c", BEHIND + LOOP, json.dumps(numbers)]
            environment = dict(os.environ, PACKAGES=behind, MUJOCO_GL=os.environ.get("MUJOCO_GL", "egl"))
            return float(subprocess.run(loop, check=True, env=environment, capture_output=True, text=True).stdout)

        ratios = []
        for turn in range(args.rounds):
            steps, seconds = ours(turn)
            a, b = steps / seconds["rollout"], theirs()
            ratios.append(a / b)
            share = ", ".join(f"{name} {seconds[name]:.1f}" for name in ("physics", "render", "encode", "wait"))
            print(f"ours {a:.1f} steps/s   loop {b:.1f} steps/s   {a / b:.2f}x   ({share} of {seconds['rollout']:.1f} s)")
    print(f"{args.render} rendering, pixio-{args.size}, {args.threads} threads: {statistics.median(ratios):.2f}x")


# Packages of this interpreter are found after those of the simulators'.
BEHIND = "import os, sys; sys.path += os.environ['PACKAGES'].split(':')\n"

if __name__ == "__main__":
    sys.exit(main())
