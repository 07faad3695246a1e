"""
Makes the numbers of results/README.md: trains and evaluates the runs in RUNS, one on each core.

    python results/run.py                            all that is not there yet; interrupt it as you like
    python results/run.py --only recipe --workers 1  one group, one run at a time

A run is out/<group>/<name>_<seed>, its seeds are 1, 2, ... Its numbers are lines of results/<group>.jsonl,
one an evaluation: what perplexity.py and passkey.py write with --json. A number that is there is not made
again: move its file away first. All of it takes about nine hours on two cores. All runs of seed 1 come first,
and what goes on from a trained model of the recipe ("tuned", "in_text") last.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
# A trained RoPE goes on for 400 steps at 2 N, with another encoding or not (the paper's Figure 3).
TUNED = (
    "--init_from=out/recipe/rope_{seed} --block_size=512 --batch_size=4 --max_iters=400 "
    "--learning_rate=3e-4 --min_lr=3e-5 --warmup_iters=20"
)
# A model of the recipe goes on for 1,000 steps with the same prompts hidden in text of the corpus.
IN_TEXT = (
    "--init_from=out/recipe/{name}_{seed} --passkey_filler=text --max_iters=1000 "
    "--learning_rate=6e-4 --min_lr=6e-5 --warmup_iters=20"
)
RUNS = [  # group, name, seeds, how it is trained
    ("recipe", "fope", 5, ""),
    ("recipe", "rope", 5, "--pos=rope"),
    ("recipe", "cf", 5, "--fope_series=False"),
    ("recipe", "rope_nope", 5, "--pos=rope --pos_global=nope"),
    ("plain", "rope", 3, "config/plain_tiny.py --pos=rope"),
    ("plain", "fope", 3, "config/plain_tiny.py"),
    ("plain", "cf", 3, "config/plain_tiny.py --fope_series=False"),
    ("plain", "fs", 3, "config/plain_tiny.py --fope_clip=False"),
    ("recipe", "no_local", 2, "--local_window=0"),
    ("recipe", "no_logn", 2, "--logn=False"),
    ("recipe", "no_norm", 2, "--qk_norm=False"),
    ("recipe", "fs", 1, "--fope_clip=False"),
    ("recipe", "nope", 1, "--pos=nope"),
    ("recipe", "alibi", 1, "--pos=alibi"),
    ("recipe", "alibi_8", 1, "--pos=alibi --n_head=8"),
    ("recipe", "alibi_nope_8", 1, "--pos=alibi --pos_global=nope --n_head=8"),
    ("recipe", "fope_8", 1, "--n_head=8"),
    ("recipe", "rope_8", 1, "--pos=rope --n_head=8"),
    ("recipe", "cf_8", 1, "--fope_series=False --n_head=8"),
    ("plain", "fope_8", 1, "config/plain_tiny.py --n_head=8"),
    ("plain", "rope_8", 1, "config/plain_tiny.py --pos=rope --n_head=8"),
    ("plain", "alibi_8", 1, "config/plain_tiny.py --pos=alibi --n_head=8"),
    ("plain", "nope", 1, "config/plain_tiny.py --pos=nope"),
    ("tuned", "rope", 3, f"{TUNED} --pos=rope"),
    ("tuned", "rope_yarn", 3, f"{TUNED} --pos=rope --yarn_scale=16 --yarn_length=256"),
    ("tuned", "fope", 3, TUNED),
    ("tuned", "fope_yarn", 1, f"{TUNED} --yarn_scale=16 --yarn_length=256"),
    ("tuned", "cf", 3, f"{TUNED} --fope_series=False"),
    ("tuned", "rope_nope", 3, f"{TUNED} --pos=rope --pos_global=nope"),
    ("in_text", "fope", 3, IN_TEXT),
    ("in_text", "rope", 3, f"{IN_TEXT} --pos=rope"),
    ("in_text", "cf", 3, f"{IN_TEXT} --fope_series=False"),
    ("in_text", "rope_nope", 3, f"{IN_TEXT} --pos=rope --pos_global=nope"),
]
READ = [  # group, name of the trained run, what is changed when its seed 1 is read
    ("recipe", "rope", "--set yarn_scale=16"),
    ("recipe", "rope", "--set yarn_scale=4"),
    ("recipe", "rope", "--set rope_theta=160000"),
    ("recipe", "rope", "--set rope_theta=40000"),
    ("recipe", "rope", "--set pos=fope fope_series=False"),
    ("plain", "rope", "--set yarn_scale=16"),
    ("plain", "rope", "--set yarn_scale=4"),
    ("plain", "rope", "--set yarn_scale=2"),
    ("plain", "rope", "--set rope_theta=160000"),
    ("plain", "rope", "--set rope_theta=40000"),
]
EVALUATIONS = [  # what the file's name has behind the group's, the command
    ("", "perplexity.py {} --lengths 128 256 512 1024 2048 4096"),
    ("", "passkey.py {} --lengths 256 512 1024 --trials 500"),
    ("", "passkey.py {} --lengths 4096 --trials 200"),
]
IN_TEXT_EVALUATIONS = [  # of the group in_text, in place of those
    ("", "perplexity.py {} --lengths 128 256 512 1024 2048 4096"),
    ("", "passkey.py {} --lengths 256 512 1024 --filler text --trials 500"),
    ("", "passkey.py {} --lengths 4096 --filler text --trials 200"),
    ("", "passkey.py {} --lengths 16384 --filler text --trials 50"),
]
FAR = ("", "passkey.py {} --lengths 16384 --trials 50")  # of the group recipe
HARD = [  # harder questions, asked of seed 1 of these four of the recipe
    ("_four_keys", "passkey.py {} --lengths 512 1024 --keys 4 --trials 200"),
    ("_text", "passkey.py {} --lengths 256 1024 --filler text --trials 200"),
]
HARD_NAMES = ("fope", "cf", "rope", "rope_nope")


def call(command: str):
    print("python", command, flush=True)
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, *command.split()], cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL
    )


def evaluate(group: str, name: str, seed: int, settings: str = ""):
    """Appends a line for each evaluation that its file does not have yet."""
    run = f"out/{group}/{name}_{seed}"
    evaluations = IN_TEXT_EVALUATIONS if group == "in_text" else EVALUATIONS
    if group == "recipe" and not settings:
        evaluations = [*evaluations, FAR]
        if seed == 1 and name in HARD_NAMES:
            evaluations += HARD
    for suffix, evaluation in evaluations:
        file = ROOT / f"results/{group}{suffix}.jsonl"
        there = [json.loads(line)["command"] for line in file.open()] if file.exists() else []
        command = f"{evaluation.format(run)} {settings}".strip()
        if command not in there:
            call(f"{command} --json {run}.json")
            numbers = {"command": command} | json.loads((ROOT / f"{run}.json").read_text())
            with file.open("a") as lines:
                lines.write(json.dumps(numbers) + "\n")


def is_trained(run: Path) -> bool:
    if not (run / "ckpt.pt").exists():
        return False
    checkpoint = torch.load(run / "ckpt.pt", map_location="cpu", weights_only=True)
    return checkpoint["iter"] == checkpoint["config"]["max_iters"]


def make(group: str, name: str, seed: int, settings: str):
    run = ROOT / f"out/{group}/{name}_{seed}"
    if not is_trained(run):
        resume = "--resume" if (run / "ckpt.pt").exists() else ""
        settings = settings.format(name=name, seed=seed)
        call(f"train.py {settings} --seed={seed} --out_dir=out/{group}/{name}_{seed} {resume}")
    evaluate(group, name, seed)
    for read_group, read_name, read_settings in READ:
        if seed == 1 and (read_group, read_name) == (group, name):
            evaluate(group, name, seed, read_settings)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="a group")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="runs at a time (default: a core each)"
    )
    args = parser.parse_args()
    for goes_on in (False, True):  # such a run begins once all that it may start from is trained
        with ThreadPoolExecutor(args.workers) as pool:
            made = []
            for seed in range(1, 6):
                for group, name, seeds, settings in RUNS:
                    is_chosen = seed <= seeds and args.only in (None, group)
                    if is_chosen and ("init_from" in settings) == goes_on:
                        made.append(pool.submit(make, group, name, seed, settings))
            for run in made:
                run.result()  # raises what went wrong in it
