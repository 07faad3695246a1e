"""
Trains and evaluates every run behind results/tiny, one core each, and takes up where it stopped:

    python results/tiny/run_all.py --jobs 2      as many runs at a time as there are cores
    python results/tiny/run_all.py --list        what is done and what is not

A run is trained by train.py with its recipe's settings, then perplexity.py and passkey.py write
out/NAME_SEED/*.json. Each of these becomes one line of results/tiny/runs.jsonl, or of results/far/runs.jsonl
for those beyond the paper, local_0.jsonl if they were trained with local layers; strength_*.jsonl hold what
was evaluated with scaled queries. What is there already is skipped, a training that was cut off is resumed.
The order is that of the list below, so that a queue that is stopped early leaves whole comparisons. The loss
curves are gathered in losses.json.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
LOCK = threading.Lock()  # of the results files

RECIPES = {
    "fope": "--pos=fope",
    "rope": "--pos=rope",
    "alibi": "--pos=alibi",
    "cf": "--pos=fope --fope_series=False",
    "fs": "--pos=fope --fope_clip=False",
    "rope_a": "--pos=rope_a",
    "nope": "--pos=nope",
}

# AdamW, at every rate with one seed, and at some with more
RATES = ("0.0003", "0.0006", "0.0012", "0.0024")
for name in ("fope", "rope", "alibi"):
    for rate in RATES:
        RECIPES[f"{name}_adamw_{rate}"] = (
            f"{RECIPES[name]} --optimizer=adamw --learning_rate={rate} --min_lr={float(rate) / 10:g}"
        )

# Beyond the paper, config/fope_far.py, first with layers that all see all keys, and the same with one of its
# parts left out.
FAR = "config/fope_far.py --local_window=0"
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
# The same with local layers, as config/fope_far.py has them.
LOCAL = [name.replace("far", "local") for name in RECIPES if name.startswith("far")]
for name in LOCAL:
    RECIPES[name] = RECIPES[name.replace("local", "far")].replace(" --local_window=0", "")

# Evaluations: name: script and arguments. N is 256 bytes.
SCALED = "--lengths 512 1024 2048 4096 --trials 200"
EVALUATIONS = {
    "perplexity": "perplexity.py",
    "passkey_short": "passkey.py --lengths 128 256 512 1024 --trials 500",
    "passkey_long": "passkey.py --lengths 2048 4096 --trials 200",
}
TINY_EVALUATIONS = EVALUATIONS | {
    f"passkey_logn{strength}": f"passkey.py --logn_scale {strength} {SCALED}"
    for strength in ("0.5", "1", "2")
}
FAR_EVALUATIONS = EVALUATIONS | {"perplexity_logn1": "perplexity.py --logn_scale 1"}
for strength in ("0.5", "1"):
    FAR_EVALUATIONS |= {
        f"passkey_logn{strength}": f"passkey.py --logn_scale {strength} {SCALED}",
        f"passkey_logn{strength}_64N": f"passkey.py --logn_scale {strength} --lengths 16384 --trials 25",
    }
LOCAL_EVALUATIONS = {
    "perplexity": "perplexity.py",
    "passkey": "passkey.py --lengths 256 512 1024 2048 4096 --trials 100",
    "passkey_64N": "passkey.py --lengths 16384 --trials 25",
}

# Runs with AdamW have fewer evaluations, and a results file of their own.
ADAMW_EVALUATIONS = {key: EVALUATIONS[key] for key in ("perplexity", "passkey_short")}

MAIN = ("fope", "rope", "alibi", "cf")
ORDER = [(name, seed) for seed in (1, 2, 3, 4, 5) for name in MAIN]
ORDER += [(name, seed) for seed in (1, 2, 3) for name in ("rope_a", "nope", "fs")]
ORDER += [(f"{name}_adamw_{rate}", 1) for rate in RATES for name in ("fope", "rope", "alibi")]
ORDER += [(f"{name}_adamw_0.0012", 2) for name in ("fope", "rope")]
ORDER += [(f"{name}_adamw_0.0006", seed) for seed in (2, 3) for name in ("fope", "rope", "alibi")]
ORDER += [(name, seed) for seed in (1, 2, 3, 4, 5) for name in ("far", "far_cf")]
ORDER += [(name, seed) for seed in (1, 2, 3) for name in RECIPES if name.startswith("far_")]
# None of these seeds chose the recipe.
ORDER += [(name, seed) for name in ("local", "local_cf") for seed in (11, 12, 13, 14, 15)]
ORDER += [(name, seed) for seed in (11, 12, 13) for name in LOCAL]
ORDER = list(dict.fromkeys(ORDER))


def is_trained(out: Path) -> bool:
    log = out / "log.jsonl"
    if not (out / "ckpt.pt").exists() or not log.exists():
        return False
    try:
        last = json.loads(log.read_text().splitlines()[-1])
    except ValueError:  # half a line: the process was killed as it wrote
        return False
    return last["iter"] == json.loads((out / "config.json").read_text())["max_iters"]


def results_file(name: str, key: str) -> Path:
    """In results/far or results/tiny; what was evaluated in another way has a file of its own."""
    if name.endswith(RATES):
        return ROOT / "results" / "tiny" / "adamw.jsonl"
    if name.startswith("local"):
        return ROOT / "results" / "far" / "local_0.jsonl"
    experiment = "far" if name.startswith("far") else "tiny"
    strength = re.search(r"logn([\d.]+)", key)
    file = f"strength_{strength[1]}.jsonl" if strength else "runs.jsonl"
    return ROOT / "results" / experiment / file


def evaluations(name: str) -> dict[str, str]:
    if name.endswith(RATES):
        return ADAMW_EVALUATIONS
    if name.startswith("local"):
        return LOCAL_EVALUATIONS
    if name.startswith("far"):
        return FAR_EVALUATIONS
    return TINY_EVALUATIONS if name in MAIN else EVALUATIONS


def read_lines(path: Path) -> dict[tuple[str, str], str]:
    """The lines of a results file by (run, evaluation)."""
    lines = {}
    if path.exists():
        for line in path.read_text().splitlines():
            content = json.loads(line)
            lines[content["runs"][0].removeprefix("out/"), content["evaluation"]] = line
    return lines


def keep(run: str, key: str, path: Path, found: Path) -> None:
    """Adds what an evaluation wrote to a results file, whose lines are sorted by run."""
    content = {"evaluation": key} | json.loads(found.read_text())
    with LOCK:
        lines = read_lines(path)
        lines[run, key] = json.dumps(content)
        path.write_text("".join(lines[place] + "\n" for place in sorted(lines)))


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

    missing = []
    for key in evaluations(name):
        if (run, key) not in read_lines(results_file(name, key)):
            missing.append(key)
    if missing and not is_trained(out):
        resume = ["--resume"] if (out / "ckpt.pt").exists() else []
        call(["train.py", *RECIPES[name].split(), f"--seed={seed}", f"--out_dir=out/{run}", *resume])
    for key in missing:
        script, *arguments = evaluations(name)[key].split()
        found = out / f"{key}.json"
        if not found.exists():
            call([script, f"out/{run}", *arguments, "--json", str(found)])
        keep(run, key, results_file(name, key), found)
    print(f"{run} done", flush=True)


def attempt(job: tuple[str, int]) -> None:
    try:
        work(job)
    except subprocess.CalledProcessError as error:
        print(f"{job} failed: {error}", flush=True)


def gather_losses() -> None:
    """Adds the loss curves of the runs in out/ to losses.json: by run, steps with their losses, in nats."""
    path = Path(__file__).with_name("losses.json")
    losses = json.loads(path.read_text()) if path.exists() else {}
    for name, seed in ORDER:
        log = ROOT / "out" / f"{name}_{seed}" / "log.jsonl"
        if log.exists():
            entries = [json.loads(line) for line in log.read_text().splitlines()]
            losses[f"{name}_{seed}"] = {
                "train": [[entry["iter"], round(entry["loss"], 4)] for entry in entries if "loss" in entry],
                "val": [
                    [entry["iter"], round(entry["val_loss"], 4)] for entry in entries if "val_loss" in entry
                ],
            }
    path.write_text(json.dumps(losses, separators=(",", ":")).replace('},"', '},\n"'))


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains and evaluates the runs of results/tiny.")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each")
    parser.add_argument("--list", action="store_true", help="only say what is done")
    args = parser.parse_args()
    for experiment in ("tiny", "far"):
        (ROOT / "results" / experiment).mkdir(exist_ok=True)
    (ROOT / "out").mkdir(exist_ok=True)
    if args.list:
        for name, seed in ORDER:
            there = [
                key
                for key in evaluations(name)
                if (f"{name}_{seed}", key) in read_lines(results_file(name, key))
            ]
            print(f"{name}_{seed}: {len(there)} of {len(evaluations(name))} evaluations")
        return
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(attempt, ORDER))
    gather_losses()


if __name__ == "__main__":
    main()
