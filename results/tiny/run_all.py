"""
Trains and evaluates every run behind results/tiny, one core each, and takes up where it stopped:

    python results/tiny/run_all.py --jobs 2      as many runs at a time as there are cores
    python results/tiny/run_all.py --list        what is done and what is not

A run is trained by train.py with its recipe's settings, then perplexity.py and passkey.py write
results/tiny/runs/NAME_*.json, or results/far/runs/ for those beyond the paper. What is there already is skipped, a
training that was cut off is resumed. The order is that of the list below, one seed of everything first, so that
a queue that is stopped early leaves whole comparisons.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

RECIPES = {
    "fope": "--pos=fope",
    "rope": "--pos=rope",
    "alibi": "--pos=alibi",
    "cf": "--pos=fope --fope_series=False",
    "fs": "--pos=fope --fope_clip=False",
    "rope_a": "--pos=rope_a",
    "nope": "--pos=nope",
}
for name in ("fope", "rope", "alibi"):
    RECIPES[f"{name}_adamw"] = f"{RECIPES[name]} --optimizer=adamw"

# Beyond the paper (config/fope_far.py), and the same with one of its parts left out
FAR = "config/fope_far.py"
RECIPES |= {
    "far": FAR,
    "far_rope": f"{FAR} --pos=rope",
    "far_alibi": f"{FAR} --pos=alibi",
    "far_cf": f"{FAR} --fope_series=False",
    "far_fs": f"{FAR} --fope_clip=False",
    "far_no_logn": f"{FAR} --logn_train=False",
    "far_no_norm": f"{FAR} --qk_norm=False",
    "far_adamw": f"{FAR} --optimizer=adamw",
}

# Evaluations: name: script and arguments. N is 256 bytes.
SHORT = "--lengths 128 256 512 1024 --trials 500"
LONG = "--lengths 2048 4096 --trials 100"
EVALUATIONS = {
    "perplexity": "perplexity.py",
    "passkey_short": f"passkey.py {SHORT}",
    "passkey_long": f"passkey.py {LONG}",
    "passkey_logn2_short": "passkey.py --logn_scale 2 --lengths 512 1024 --trials 500",
    "passkey_logn2_long": f"passkey.py --logn_scale 2 {LONG}",
}
FAR_EVALUATIONS = EVALUATIONS | {
    "perplexity_logn1": "perplexity.py --logn_scale 1",
    "passkey_logn1_short": "passkey.py --logn_scale 1 --lengths 512 1024 --trials 500",
    "passkey_logn1_long": f"passkey.py --logn_scale 1 {LONG}",
    "passkey_logn1_64N": "passkey.py --logn_scale 1 --lengths 16384 --trials 24",
}
del FAR_EVALUATIONS["passkey_logn2_short"], FAR_EVALUATIONS["passkey_logn2_long"]

ORDER = [(name, 1) for name in ("fope", "rope", "alibi", "cf", "rope_a", "nope", "far", "far_rope")]
ORDER += [(name, seed) for seed in (2, 3) for name in ("fope", "rope", "alibi", "cf")]
ORDER += [
    ("far", 2),
    ("fs", 1),
    ("rope_adamw", 1),
    ("fope_adamw", 1),
    ("far_cf", 1),
    ("far_alibi", 1),
    ("far", 3),
]
ORDER += [(name, seed) for seed in (4, 5) for name in ("fope", "rope", "alibi", "cf")]
ORDER += [(name, seed) for seed in (2, 3) for name in ("rope_a", "nope", "fs")]
ORDER += [(name, seed) for seed in (1, 2, 3) for name in ("fope_adamw", "rope_adamw", "alibi_adamw")]
ORDER += [("far", seed) for seed in (4, 5)]
ORDER += [(name, seed) for seed in (1, 2, 3) for name in RECIPES if name.startswith("far_")]
ORDER = list(dict.fromkeys(ORDER))


def is_trained(out: Path) -> bool:
    log = out / "log.jsonl"
    if not (out / "ckpt.pt").exists() or not log.exists():
        return False
    last = json.loads(log.read_text().splitlines()[-1])
    return last["iter"] == json.loads((out / "config.json").read_text())["max_iters"]


def folder(name: str) -> Path:
    return ROOT / "results" / ("far" if name.startswith("far") else "tiny") / "runs"


def evaluations(name: str) -> dict[str, str]:
    return FAR_EVALUATIONS if name.startswith("far") else EVALUATIONS


def work(job: tuple[str, int]) -> None:
    name, seed = job
    run = f"{name}_{seed}"
    out = ROOT / "out" / run
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def call(arguments: list[str]) -> None:
        with open(ROOT / "out" / f"{run}.txt", "a") as log:
            subprocess.run(
                [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=log, stderr=log, check=True
            )

    if not is_trained(out):
        resume = ["--resume"] if (out / "ckpt.pt").exists() else []
        call(["train.py", *RECIPES[name].split(), f"--seed={seed}", f"--out_dir=out/{run}", *resume])
        (folder(name) / f"{run}_log.jsonl").write_bytes((out / "log.jsonl").read_bytes())
    for key, command in evaluations(name).items():
        target = folder(name) / f"{run}_{key}.json"
        if not target.exists():
            script, *arguments = command.split()
            call([script, f"out/{run}", *arguments, "--json", str(target)])
    print(f"{run} done", flush=True)


def attempt(job: tuple[str, int]) -> None:
    try:
        work(job)
    except subprocess.CalledProcessError as error:
        print(f"{job} failed: {error}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains and evaluates the runs of results/tiny.")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each")
    parser.add_argument("--list", action="store_true", help="only say what is done")
    args = parser.parse_args()
    for place in (ROOT / "out", folder("tiny"), folder("far")):
        place.mkdir(parents=True, exist_ok=True)
    if args.list:
        for name, seed in ORDER:
            done = [key for key in evaluations(name) if (folder(name) / f"{name}_{seed}_{key}.json").exists()]
            print(f"{name}_{seed}: {len(done)} of {len(evaluations(name))} evaluations")
        return
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(attempt, ORDER))


if __name__ == "__main__":
    main()
