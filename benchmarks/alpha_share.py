"""How many steps α* leaves: those that real runs reach within the time the plain baseline takes.

On each model, in one process: the plain baseline, the thesis' nine cells (interval I, count N) of the policy
`median` with `unbiased` and with `lookahead`, and `ema` at every step. They train as any run does, with
journals of their own, and take turns in segments of a few steps, in one order and back again, so that the
machine's drift falls on all of them alike. The cells are scaled to a count of three, N/I kept: (1000, 25) is
a window of three α* steps in 120. What comes once a window (a lookahead's first step asks for memory anew)
weighs more than in the thesis' windows of 10 to 50. The store reads their journals, and the report's
normalised clock (medians per kind of step, pooled over runs) says when each had done which step.

A cell whose interval is longer than its run measures α* once all the same, which is more than its share:
such rows are marked + and count against it. Beside the measured share stands the expected one of the whole
interval, 1 / (1 + N/I·(r − 1)), with r what an α* step costs in plain ones. Bars hold for the DLRM shape (a
table of 2^17 rows, batch 2,048) on a CPU; small models are bound by dispatch. An r below 1 cannot be: it is
noise.

Run: python -m benchmarks.alpha_share [--models dlrm] [--steps 500] [--json]
On a GPU: python -m benchmarks.alpha_share --device cuda --models dlrm_full --intervals 1000 --counts 50
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from alphagrid.analysis import data
from alphagrid.analysis.clocks import normalised
from alphagrid.analysis.costs import PooledCosts, expected_steps
from alphagrid.analysis.data import ExperimentData, RunData
from alphagrid.store import submissions
from alphagrid.store.database import open_store
from alphagrid.store.layout import Root
from alphagrid.store.submissions import RunEntry, Submission
from alphagrid.trainer.config import TrainingConfig

from benchmarks.bench import FULL_DLRM, MODELS, Bench, Config, config_of
from benchmarks.harness import load, processor, table

INTERVALS, COUNTS = [1000, 2000, 5000], [10, 25, 50]
BARS = {"unbiased": 0.95, "lookahead": 0.99, "ema": 0.85}
STEPS = {"dlrm": 60, "transformer": 40, "cnn": 40, "digits_mlp": 200, "dlrm_full": 120}
"""So many that all models but the last together take a quarter of an hour on two quiet cores."""
SEGMENT = 5
"""Steps of one turn, and of a window in the journal."""
WINDOW = 3
"""Consecutive α* steps."""


@dataclass(frozen=True)
class Case:
    """A run: a method, and the cell of the thesis' grid that it stands for, where it is one."""

    method: str
    interval: int | None = None
    count: int | None = None

    @property
    def every(self) -> int:
        """One step in so many measures α*."""
        return self.interval // self.count if self.interval and self.count else 1

    def alpha(self, number: int, steps: int) -> Config | None:
        """Return the section `alpha`.

        The cells' α* steps fall into different parts of the run, none into its first segment, and as many
        whole intervals as the run has room for all measure within it. None is the first of a segment, which
        finds the caches full of other runs: no run by itself has such steps.
        """
        if self.method == "plain":
            return None
        if self.method == "ema":
            return {"policy": "ema"}
        interval = WINDOW * self.every
        intervals = max(steps // interval, 1)
        last = steps - 1 - WINDOW - (intervals - 1) * interval  # a lookahead is paid for one step later
        start = SEGMENT * (1 + number % max((last - 1) // SEGMENT, 1)) + 1
        shape = {"interval": interval, "count": WINDOW, "start_step": start}
        return {"policy": "median", "estimator": self.method, **shape}


def cases_of(intervals: Sequence[int], counts: Sequence[int]) -> list[Case]:
    """Return the baseline, then all that is held against it."""
    cells = (Case(name, i, n) for name in ("unbiased", "lookahead") for i in intervals for n in counts)
    return [Case("plain"), Case("ema"), *cells]


@dataclass(frozen=True)
class Result:
    """One row, as `--json` prints it."""

    model: str
    method: str
    interval: int | None
    count: int | None
    steps: int
    alpha_steps: int
    """Those of the run, of its `steps`."""
    ratio_to_plain: float
    """An α* step in plain steps."""
    share: float
    """Measured: steps reached within the plain baseline's time, beside the baseline's."""
    expected_share: float
    """That of the whole interval."""
    bar: float | None
    met: bool | None
    noise: bool
    """Whether the ratio is below 1, which cannot be."""

    @property
    def is_short(self) -> bool:
        """Whether the run measured α* more often than its cell does."""
        if self.interval is None or self.count is None:
            return False
        return self.alpha_steps * self.interval > self.count * self.steps


def trained(model: str, cases: Sequence[Case], device: str, steps: int, folder: Path) -> ExperimentData:
    """Train all cases in turn; return what the store says of their journals."""
    workload = FULL_DLRM if model == "dlrm_full" else MODELS[model]
    root = Root(folder)
    files = root.experiment(f"alpha-share-{model.replace('_', '-')}")
    alphas = [case.alpha(number, steps) for number, case in enumerate(cases)]
    configs = [config_of(workload, alpha, device, log_steps=SEGMENT) for alpha in alphas]
    submissions.write(files, _submission(files.name, configs))
    benches = [Bench(config, files.run(_id(number))) for number, config in enumerate(configs)]
    for turn in range(steps // SEGMENT):
        for bench in benches if turn % 2 else reversed(benches):
            for _ in range(SEGMENT):
                bench.step()
            bench.rest()
    with open_store(root) as store:
        store.sync()
        return data.load(store.db, files.name)


def _submission(experiment: str, configs: Sequence[Config]) -> Submission:
    entries = [
        RunEntry(
            id=_id(number), name=_id(number), params={},
            config=TrainingConfig.model_validate(config).model_dump(mode="json"),
        )
        for number, config in enumerate(configs)
    ]  # fmt: skip
    named = {entry.id: entry for entry in entries}
    return Submission(
        id="benchmark", created=0.0, experiment=experiment, profile={}, runs=entries, named=named
    )


def _id(number: int) -> str:
    return f"{number:010d}"


def results(model: str, cases: Sequence[Case], device: str, found: ExperimentData) -> Iterator[Result]:
    """Yield a row for each case but the baseline."""
    runs = {run.row.id: run for run in normalised(found).runs}
    costs = PooledCosts.of(found.runs)
    plain, *others = (runs[_id(number)] for number in range(len(cases)))
    for case, run in zip(cases[1:], others, strict=True):
        ratio = costs.cost(run).ratio
        assert ratio is not None, f"{case}: no α* step was timed"
        share = _reached(run, plain.row.train_seconds) / plain.row.step
        bar = BARS[case.method] if model == "dlrm" and device == "cpu" else None
        yield Result(
            model, case.method, case.interval, case.count, run.row.step,
            sum(window.alpha_steps for window in run.windows), round(ratio, 3), round(share, 4),
            round(expected_steps(1 / case.every, ratio), 4), bar, None if bar is None else share >= bar,
            ratio < 1,
        )  # fmt: skip


def _reached(run: RunData, seconds: float) -> float:
    """Return the steps that a run has done by then; inside a window they take alike."""
    windows = sorted(run.windows, key=lambda window: window.step)
    times, steps = [window.train_seconds for window in windows], [window.step for window in windows]
    return float(np.interp(seconds, [0.0, *times], [0, *steps]))


def rows_of(found: Sequence[Result]) -> list[tuple[str, ...]]:
    """Return a model's table."""
    heading = found[0].model, "I", "N", "α* steps", "α*/plain", "share", "expected", "bar", ""
    return [heading, *map(_row, found)]


def _row(one: Result) -> tuple[str, ...]:
    counted = f"{one.alpha_steps} of {one.steps}{' +' if one.is_short else ''}"
    verdict = "" if one.met is None else "met" if one.met else "MISSED"
    noise = "noise: an α* step below a plain one" if one.noise else ""
    shares = f"{one.share:.1%}", f"{one.expected_share:.1%}"
    cell = one.method, str(one.interval or ""), str(one.count or ""), counted, f"{one.ratio_to_plain:.2f}"
    return *cell, *shares, "" if one.bar is None else f"≥ {one.bar:.0%}", f"{verdict} {noise}".strip()


def main() -> None:
    """Print the tables, or one JSON object per line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(STEPS), default=list(MODELS))
    parser.add_argument("--intervals", nargs="+", type=int, choices=INTERVALS, default=INTERVALS)
    parser.add_argument("--counts", nargs="+", type=int, choices=COUNTS, default=COUNTS)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--steps", type=int, help=f"of each run, a multiple of {SEGMENT}; default: {STEPS}")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.steps is not None and (options.steps < 2 * SEGMENT or options.steps % SEGMENT):
        parser.error(f"--steps {options.steps}: a multiple of {SEGMENT}, of {2 * SEGMENT} or more")
    torch.set_num_threads(1)
    if not options.json:
        print(f"{processor(options.device)}, 1 thread, load {load()}")
    cases = cases_of(options.intervals, options.counts)
    for model in options.models:
        steps = (options.steps or STEPS[model]) // SEGMENT * SEGMENT
        with tempfile.TemporaryDirectory() as folder:
            runs = trained(model, cases, options.device, steps, Path(folder))
        found = list(results(model, cases, options.device, runs))
        if options.json:
            print("\n".join(json.dumps(asdict(one)) for one in found), flush=True)
        else:
            print(table(rows_of(found)), flush=True)


if __name__ == "__main__":
    main()
