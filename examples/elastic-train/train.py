"""Fits a line to noisy points, on as many nodes as there are, and goes on where it was stopped.

What every elastic job does is here: it takes its share of the batch from RANK and WORLD_SIZE,
begins at GRIDLEASE_CHECKPOINT, reports how it goes, and saves when it is told to end.

The model is so small that the checkpoint's name holds all of it (``step:slope:offset``); a real
one is written to a store, and its place is the name. A real gang would also average gradients over
its members, with ``torch.distributed`` for one: all that it wants to know is set.
"""

import json
import os
import pathlib
import signal
import time

import numpy as np

RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
REPORTS = pathlib.Path(os.environ.get("GRIDLEASE_REPORT_DIR", "."))
NOTICE = pathlib.Path(os.environ.get("GRIDLEASE_NOTICE_FILE", "notice.json"))
STEPS = int(os.environ.get("STEPS", "1500"))
STEP_S = 0.02  # a step of a real model takes longer than this one
BATCH = 128 * WORLD
RATE = 0.02
SAVE_EVERY, TELL_EVERY = 500, 25


def tell(name, **values):
    """Put a report where the node reads it: whole or not at all."""
    new = REPORTS / f"{name}.new"
    new.write_text(json.dumps(values), encoding="utf-8")
    new.replace(REPORTS / name)


def save(step, weights):
    if RANK == 0:
        tell("checkpoint.json", id=":".join([str(step), *(f"{x:.6f}" for x in weights)]))


def resumed():
    """The step and the weights to begin with."""
    step, *weights = os.environ.get("GRIDLEASE_CHECKPOINT", "0:0:0").split(":")
    return int(step), np.array([float(x) for x in weights])


def gradients(weights, step):
    """Of each sample of this task's share of the batch: float [n, 2]."""
    rng = np.random.default_rng([step, RANK])
    inputs = rng.uniform(-1, 1, BATCH // WORLD)
    wanted = 2 * inputs + 0.5 + rng.normal(0, 0.3, len(inputs))
    errors = weights[0] * inputs + weights[1] - wanted
    return 2 * np.stack([errors * inputs, errors], axis=1)


def main():
    step, weights = resumed()
    ending = []
    signal.signal(signal.SIGTERM, lambda *_: ending.append(True))
    print(f"task {RANK} of {WORLD} begins at step {step}", flush=True)
    while step < STEPS and not ending:
        began = time.monotonic()
        each = gradients(weights, step)
        mean = each.mean(axis=0)
        weights -= RATE * mean
        time.sleep(STEP_S)
        step += 1
        if step % TELL_EVERY == 0:
            tell(
                "progress.json",
                steps=step,
                steps_total=STEPS,
                step_ms=(time.monotonic() - began) * 1000,
                batch_size=BATCH,
                gradient_sqr=float(mean @ mean),
                gradient_var=float(each.var(axis=0).sum()),
            )
        if step % SAVE_EVERY == 0:
            save(step, weights)
    save(step, weights)
    if ending:
        why = json.loads(NOTICE.read_text(encoding="utf-8"))["reason"] if NOTICE.exists() else "?"
        print(f"told to end at step {step}: {why}; saved", flush=True)
    else:
        print(f"done: y = {weights[0]:.2f} x + {weights[1]:.2f} after {step} steps", flush=True)


if __name__ == "__main__":
    main()
