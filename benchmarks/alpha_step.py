"""What a step that measures α* costs, as a ratio to a plain step: time and peak memory, per model and route.

It times the trainer's own step (`take_step` and the recorder after it), never a copy of it, in one process,
routes in turn; ratios are of medians. Every step writes its window to the journal, a hundred times as often
as by default. The rate is held throughout, so that all routes of a model train alike. Memory is the peak of
what a step allocates beyond what it began with, over the size P of the parameters; on a GPU also the peak of
all that a run holds there. It fails if the clock's categories in the journal do not sum to the steps' wall
time within 1 %.

A JVP is two forward passes, forward and backward are three: the floors are 1 + 2/3 for `jvp` on a batch of
its own, 1 + 2/3·(fraction) for a lookahead's share, and 1 + 1/3 for a fused lookahead.

Run: python -m benchmarks.alpha_step [--models dlrm cnn] [--repetitions 15] [--json] [--device cuda]
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from alphagrid.store.layout import RunFiles
from alphagrid.trainer.alpha.quadratic import Quadratic
from alphagrid.trainer.alpha.routes import Line, by_curvlinops
from alphagrid.trainer.streams import Batch

from benchmarks.bench import EXCLUDED, FULL_DLRM, MODELS, OF_STEPS, Bench, Config, config_of
from benchmarks.harness import load, processor, table

log = logging.getLogger("benchmarks")

HELD: Config = {"policy": "ema", "fill_steps": 10**9}
"""A policy that acts, so that its α* is paid for, and never comes to set a rate."""
WARM_UP = 3
"""Steps of each run that are not timed."""
CLOCK_ERROR = 0.01
BARS = {"jvp": 1.9, "lookahead 1/8": 1.15, "lookahead 1": 1.6}
"""For the DLRM shape, on a CPU."""


@dataclass(frozen=True)
class Case:
    """A way to take a step; `label` is the row's name."""

    label: str
    route: str
    alpha: Config | None
    floor: float
    estimator: str | None = None
    curvature_fraction: float | None = None
    product: Callable[[Line, Batch], Quadratic] | None = None
    """What stands in for the route, where the configuration has no word for it."""


def lookahead(name: str, fraction: float, floor: float) -> Case:
    """Return the case of a lookahead on a share of the batch."""
    alpha = {**HELD, "estimator": "lookahead", "curvature_fraction": fraction}
    return Case(f"lookahead {name}", "jvp", alpha, floor, "lookahead", fraction)


def at_origin(estimator: str, floor: float) -> Case:
    """Return the case of an estimator that looks at the batch again that gave the step."""
    return Case(estimator, "jvp", {**HELD, "estimator": estimator}, floor, estimator)


def unbiased(label: str, route: str, alpha: Config, floor: float, **fields: Any) -> Case:
    """Return the case of an unbiased α* on a second batch."""
    return Case(label, route, {**HELD, "estimator": "unbiased", **alpha}, floor, "unbiased", **fields)


CASES = [
    Case("plain", "plain", None, 1.0),
    unbiased("jvp", "jvp", {}, 1 + 2 / 3),
    at_origin("biased", 1 + 2 / 3),
    at_origin("hybrid", 1 + 4 / 3),
    lookahead("1", 1.0, 1 + 1 / 3),
    lookahead("1/4", 0.25, 1 + 2 / 12),
    lookahead("1/8", 0.125, 1 + 2 / 24),
    Case("gen", "gen", {"policy": "gen", "smoothing": 0.999999}, 2.0, "unbiased"),
    unbiased("finite differences", "finite_difference", {"route": "finite_difference"}, 1 + 2 / 3),
    unbiased("curvlinops", "curvlinops", {"route": "curvlinops"}, 3.0),
    unbiased(
        "curvlinops, checked", "curvlinops_checked", {"route": "curvlinops"}, 3.0,
        product=partial(by_curvlinops, check_deterministic=True),
    ),
    unbiased("as in the thesis", "thesis", {"route": "thesis", "also": ["biased"]}, 5.0),
]  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One row, as `--json` prints it."""

    model: str
    route: str
    estimator: str | None
    curvature_fraction: float | None
    ratio_to_plain: float
    seconds: float
    peak_bytes: int
    """The most that one step allocates at a time, beyond what was there before it."""
    device: str


def measure(
    model: str, workload: Config, cases: Sequence[Case], device: str, repetitions: int
) -> Iterator[tuple[Case, Result, float, int | None]]:
    """Yield each case's result, its peak over the parameters' memory, and that of all it holds on a GPU."""
    with tempfile.TemporaryDirectory() as folder:
        benches: dict[str, Bench] = {}
        held: dict[str, int] = {}
        for number, case in enumerate(cases):
            before = _allocated(device)
            benches[case.label] = bench = bench_of(workload, case, device, Path(folder) / str(number))
            for _ in range(WARM_UP):
                bench.step()
            held[case.label] = _allocated(device) - before
        seconds = _interleaved(benches, repetitions)
        error = _clock_error(benches)
        for case in cases:
            bench = benches[case.label]
            peak = peak_bytes(bench)
            whole = held[case.label] + peak if device == "cuda" else None
            result = Result(
                model, case.route, case.estimator, case.curvature_fraction,
                round(seconds[case.label] / seconds["plain"], 3), seconds[case.label],
                peak, processor(device),
            )  # fmt: skip
            yield case, result, peak / bench.parameter_bytes, whole
        log.info("%s: the clock's categories miss the steps' wall time by %.2f %%", model, 100 * error)
        if abs(error) > CLOCK_ERROR:
            raise SystemExit(f"{model}: that is more than {CLOCK_ERROR:.0%}")


def bench_of(workload: Config, case: Case, device: str, folder: Path) -> Bench:
    """Return a run that takes its steps as the case says."""
    bench = Bench(config_of(workload, case.alpha, device), RunFiles(folder))
    if case.product is not None and bench.session.probe is not None:
        bench.session.probe._router._route = case.product
    return bench


def _interleaved(benches: Mapping[str, Bench], repetitions: int) -> dict[str, float]:
    """Return the median seconds of each; every step of each has written its window."""
    for _ in range(repetitions):
        for bench in benches.values():
            bench.step()
    for label, bench in benches.items():
        assert len(bench.windows) == len(bench.step_seconds), f"{label}: the journal lacks windows"
    return {label: median(bench.step_seconds[WARM_UP:]) for label, bench in benches.items()}


def _clock_error(benches: Mapping[str, Bench]) -> float:
    """Return by what share what the journals charge to steps misses their wall time less the exclusion.

    Writing a window is excluded, and stands in the next one: so each takes one step more.
    """
    charged = wall = 0.0
    for bench in benches.values():
        bench.step()
        charged += sum(w["seconds"][name] for w in bench.windows[WARM_UP:-1] for name in OF_STEPS)
        excluded = sum(window["seconds"][EXCLUDED] for window in bench.windows[WARM_UP + 1 :])
        wall += sum(bench.step_seconds[WARM_UP:-1]) - excluded
    return charged / wall - 1


def _allocated(device: str) -> int:
    return torch.cuda.memory_allocated() if device == "cuda" else 0


def peak_bytes(bench: Bench) -> int:
    """Return the most that one step has allocated at a time, beyond what was there before it."""
    if bench.session.device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        bench.step()
        return torch.cuda.max_memory_allocated() - before
    with _profiled() as profile:
        bench.step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@contextmanager
def _profiled() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        ) as profile:
            yield profile


def _with_a_matmul_bound_one(models: Sequence[str]) -> list[str]:
    """Return the models, and beside a DLRM, which its table's memory bounds, the transformer."""
    beside = ["transformer"] if {"dlrm", "dlrm_full"} & {*models} and "transformer" not in models else []
    return [*models, *beside]


def main() -> None:
    """Print the table, or one JSON object per line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=[*MODELS, "dlrm_full"], default=list(MODELS))
    parser.add_argument("--cases", nargs="+", choices=[c.label for c in CASES], help="beside plain; all")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    if not options.json:
        print(f"{processor(options.device)}, {options.threads} thread(s), load {load()}")
    for model in _with_a_matmul_bound_one(options.models):
        workload = FULL_DLRM if model == "dlrm_full" else MODELS[model]
        cases = [c for c in CASES if not options.cases or c.label in ("plain", *options.cases)]
        found = list(measure(model, workload, cases, options.device, options.repetitions))
        if options.json:
            for _, result, *_ in found:
                print(json.dumps(asdict(result)))
            continue
        rows = [(model, "ms", "ratio", "floor", "bar", "peak/P", "run on the GPU")]
        for case, result, memory, whole in found:
            bar = BARS.get(case.label) if model == "dlrm" and options.device == "cpu" else None
            rows.append(
                (
                    case.label, f"{1000 * result.seconds:.2f}", f"{result.ratio_to_plain:.2f}",
                    f"{case.floor:.2f}", f"{bar:.2f}" if bar else "", f"{memory:.2f}",
                    "" if whole is None else f"{whole / 1e9:.1f} GB",
                )
            )  # fmt: skip
        print(table(rows))


if __name__ == "__main__":
    main()
