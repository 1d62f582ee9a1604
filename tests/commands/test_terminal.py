"""Views fit the terminal they are shown on."""

import io

import pytest
from alphagrid.jobs.runs.states import State
from alphagrid.jobs.status import ExperimentStatus, RunStatus
from alphagrid.terminal import size, status_view
from rich.console import Console


def run(name: str, state: State) -> RunStatus:
    return RunStatus(
        id=name, name=name, baseline=None, params={}, config={}, named=True, state=state, reason=None,
        step=12, train_seconds=1.0, best_validation_loss=0.5, learning_rate=0.1, attempts=1,
        percent_done=50.0, last_seen=0.0, eta_seconds=None, checkpoint_step=10, checkpoint_bytes=1000,
        checkpoint_seconds=0.1, superseded=0, cluster=None, job=None,
    )  # fmt: skip


def shown(found: ExperimentStatus, width: int, rows: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(status_view(found, rows=rows, now=5.0))
    return console.export_text().splitlines()


@pytest.mark.parametrize("rows", [1, 10, 19])
def test_the_most_urgent_runs_and_the_counts_are_always_seen(rows: int) -> None:
    runs = [run(f"done{i}", "completed") for i in range(30)] + [run("late", "running")]
    lines = shown(ExperimentStatus("many", tuple(runs)), 80, rows)
    assert len(lines) == rows + 4  # title, header, what is hidden, counts
    assert any("late" in line for line in lines)
    assert "1 running" in lines[-1]
    assert f"and {31 - rows} more" in lines[-2]


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_a_run_is_one_line_at_any_width(width: int) -> None:
    lines = shown(ExperimentStatus("few", (run("interval5000-count10-seed0", "running"),)), width, 10)
    assert len(lines) == 4
    assert "interval5000-count10-seed0" in lines[2]


def test_sizes_are_for_people() -> None:
    assert [size(count) for count in (0, 999, 1234, 6_543_210_000)] == ["0 B", "999 B", "1.2 kB", "6.5 GB"]
