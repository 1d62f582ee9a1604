"""The study behind docs/explanation/estimators.md: what each estimator says where the truth can be computed.

Along a training run, on a one-pass click log and on digits over many epochs, the run is held at some steps.
There, each of many draws takes a direction from one training batch, and asks every estimator for its α*, and
a large split of the training distribution for the value it would have with (nearly) all data. Nothing moves
on: each draw starts from the same state.

Prints the tables of the page, and writes docs/pictures/estimators.svg. Run: python docs/estimators.py
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Any

import torch
from alphagrid.analysis.plots.canvas import COLOURS, new_canvas
from alphagrid.trainer.alpha.options import Estimator, ObserveOptions
from alphagrid.trainer.alpha.probe import Probe
from alphagrid.trainer.alpha.quadratic import Reading
from alphagrid.trainer.alpha.routes import Line, by_jvp
from alphagrid.trainer.alpha.routing import Router
from alphagrid.trainer.clock import Clock
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.optimizers.stepper import Direction
from alphagrid.trainer.session import Session
from alphagrid.trainer.step import take_step

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS, POINTS, DRAWS = 800, 20, 50
WORKLOADS = {
    "clicks, one pass": {"name": "click_log", "batch_size": 512, "evaluation_examples": 16384},
    "digits, many epochs": {"name": "digits_mlp", "batch_size": 128},
}
COMMON = {
    "optimizer": {"name": "nadamw", "lr": 5e-3},
    "schedule": {"name": "warmup_cosine", "total_steps": STEPS, "warmup_fraction": 0.05},
    "stop": {"steps": STEPS},
    "device": "cpu",
}
FAR = 100_001
"""Batches from a direction's own to one that is drawn independently of it, in another epoch."""
ASKED: dict[str, tuple[Estimator, float, int]] = {
    "biased": ("biased", 1.0, FAR),
    "unbiased": ("unbiased", 1.0, FAR),
    "lookahead, whole batch": ("lookahead", 1.0, FAR),
    "lookahead, 1/8": ("lookahead", 0.125, FAR),
    "lookahead, 1/8, next batch in order": ("lookahead", 0.125, 1),
}
FULL, FULL_AFTER = "full data, at θ₀", "full data, at θ₀ + d"
PICTURE = Path(__file__).parent / "pictures" / "estimators.svg"


@dataclass(frozen=True)
class Spread:
    """What one estimator said at one step, over all draws: absolute α*."""

    values: tuple[float, ...]

    @property
    def row(self) -> tuple[float, float, float, float]:
        """Mean, SD, median, and share of negative values."""
        negative = sum(value < 0 for value in self.values) / len(self.values)
        return fmean(self.values), stdev(self.values), median(self.values), negative


def main() -> None:
    """Study each workload, and tell."""
    found = {title: study(workload) for title, workload in WORKLOADS.items()}
    for title, of in found.items():
        sys.stdout.write(f"**{title}**\n\n{table(of)}\n\n")
    PICTURE.write_text(svg(draw(found)))


def study(workload: dict[str, Any]) -> dict[int, dict[str, Spread]]:
    """Train, hold at each point, and draw there."""
    session = Session(TrainingConfig.model_validate({**COMMON, "workload": workload}), Clock())
    points = [round(STEPS * (number + 0.5) / POINTS) for number in range(POINTS)]
    found: dict[int, dict[str, Spread]] = {}
    while session.step <= points[-1]:
        if session.step in points:
            found[session.step] = spreads(session)
        take_step(session)
    return found


def spreads(session: Session) -> dict[str, Spread]:
    """Return what every estimator says at this step, and leave the session as it was."""
    state = session.state_dict()
    kept = {key: torch.clone(value) for key, value in session.model.state_dict().items()}
    optimizer = _copied(state["optimizer"])
    values: dict[str, list[float]] = {name: [] for name in (FULL, *ASKED, FULL_AFTER)}
    for number in range(DRAWS):
        for name, asked in ASKED.items():
            with_all = name == "unbiased"  # the direction is every estimator's: once will do
            drawn = one_draw(session, number, *asked, with_all)
            for key, value in zip((name, FULL, FULL_AFTER), drawn, strict=True):
                if math.isfinite(value):
                    values[key].append(value)
            session.model.load_state_dict(kept)
            session.stepper.load_state_dict(_copied(optimizer))
    return {name: Spread(tuple(found)) for name, found in values.items()}


def one_draw(
    session: Session, number: int, estimator: Estimator, fraction: float, gap: int, with_all: bool
) -> tuple[float, float, float]:
    """Step on a batch of its own; return α*_abs by the estimator, and (else NaN) by all of the split.

    All data give a value by the quadratic at θ₀, and another by the one at θ₀ + d, followed back.
    """
    options = ObserveOptions(policy="observe", estimator=estimator, curvature_fraction=fraction)
    router = Router(options, session.model, session.loss, sys.exit)
    probe = Probe(options, router, session.stepper, session.probe_batches, Clock(), seed=number)
    index = 10_000 + 2 * (DRAWS * session.step + number)  # other batches at every point
    batch, following = session.train_batch(index), session.train_batch(index + gap)
    session.stepper.learning_rate = session.scheduled_rate(session.step)
    loss = session.forward_backward([batch])
    direction = session.stepper.direction()
    (measurement,) = probe.measure(index, direction, [batch], loss, router.generators.state())
    full = with_all_data(session, direction).ratio if with_all else math.nan
    session.stepper.take(direction)
    after = with_all_data(session, direction).moved_back(direction.scale).ratio if with_all else math.nan
    session.forward_backward([following])
    probe.complete([following])
    return measurement.value.alpha_abs, full, after


def with_all_data(session: Session, direction: Direction) -> Reading:
    """Return slope and curvature where the parameters are, on the whole split."""
    line = Line(session.model, session.loss, direction.vector)
    return reduce(add, (by_jvp(line, part) for part in session.workload.split("train"))).read()


def table(found: dict[int, dict[str, Spread]]) -> str:
    """Return the table as Markdown: averages over the points, in units of the full-data mean's average."""
    unit = fmean(spread[FULL].row[0] for spread in found.values())
    lines = ["| estimator | mean | median | SD | negative |", "|---|---|---|---|---|"]
    for name in (FULL, *ASKED, FULL_AFTER):
        columns = zip(*(spread[name].row for spread in found.values()), strict=True)
        mean, deviation, middle, negative = map(fmean, columns)
        cells = (f"{mean / unit:.2f}", f"{middle / unit:.2f}", f"{deviation / unit:.2f}", f"{negative:.1%}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    note = f"Averages over {len(found)} steps of the mean, median and SD over {DRAWS} draws, one seed."
    return "\n".join([*lines, "", f"{note} The unit is the average of the full-data mean, {unit:.3g}."])


def draw(found: dict[str, dict[int, dict[str, Spread]]]) -> Figure:
    """Draw medians, and the middle half of the draws, over each run."""
    canvas = new_canvas(9.0, 3.6)
    panels = list(canvas.subplots(1, len(found)))
    for axes, (title, of) in zip(panels, found.items(), strict=True):
        steps = sorted(of)
        for number, name in enumerate(("biased", "unbiased", "lookahead, 1/8")):
            low, middle, high = zip(*(_quartiles(of[step][name].values) for step in steps), strict=True)
            axes.plot(steps, middle, color=COLOURS[number], linewidth=1.4, label=name)
            axes.fill_between(steps, low, high, color=COLOURS[number], alpha=0.15, linewidth=0)
        full = [fmean(of[step][FULL].values) for step in steps]
        axes.plot(steps, full, color="#222222", linewidth=1.2, linestyle="--", label=f"{FULL}, mean")
        unit = median(_quartiles(of[step]["unbiased"].values)[2] for step in steps)
        axes.set_yscale("symlog", linthresh=unit)
        axes.axhline(0, color="#444444", linewidth=0.8, linestyle=":")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
        axes.set_ylabel("absolute α*")
    handles, labels = panels[0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=9)
    return canvas


def _quartiles(values: tuple[float, ...]) -> tuple[float, float, float]:
    ordered = sorted(values)
    return ordered[len(ordered) // 4], median(ordered), ordered[3 * len(ordered) // 4]


def svg(canvas: Figure) -> str:
    """Return the figure as SVG, the same for the same numbers."""
    import io

    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "estimators"}):
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
