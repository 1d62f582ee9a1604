"""Terminal output: tables, progress, errors.

Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from .errors import UserError
from .printable import uncoloured, visible, visible_lines
from .store.messages import in_one_line

if TYPE_CHECKING:
    from .analysis.tables import Table as ReportTable
    from .cluster_profiles.check import Checked
    from .cluster_profiles.loader import Setting
    from .jobs.failure_groups import Cause
    from .jobs.status import ExperimentStatus, RunStatus

WIDTH_IN_A_PIPE = 400
MOST_RUNS = 40
"""Maximum number of runs that are shown; further runs are counted."""
MOST_CAUSES = 6
MOST_WARNINGS = 6
MOST_NAMED = 5
"""Maximum number of runs, and of nodes, that are named for one cause."""
LINES_AROUND = 5
"""Lines of a status view besides its runs: title, header, hidden count, state counts, cursor."""
MOST_PLANNED = 20
GAP = 2
"""Blanks between two columns."""
NARROWEST = 20
"""Minimum characters of a reason; the middle of a longer reason is left out."""
UNITS = ("B", "kB", "MB", "GB", "TB")

STYLES = {
    "pending": "dim",
    "running": "bold cyan",
    "requeued": "yellow",
    "interrupted": "yellow",
    "completed": "green",
    "diverged": "magenta",
    "failed": "bold red",
    "cancelled": "dim",
    "unknown": "bold yellow",
}
VERDICT_STYLES = {"ok": "green", "warning": "yellow", "wrong": "bold red", "cannot tell": "magenta"}
URGENCY = (
    "failed",
    "unknown",
    "running",
    "requeued",
    "interrupted",
    "diverged",
    "pending",
    "completed",
    "cancelled",
)


def say(line: str) -> None:
    """Write a line to standard error; control characters are written as escapes."""
    sys.stderr.write(visible(line) + "\n")


def show_error(error: UserError) -> None:
    """Write an error and its hint to standard error."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(Text("error: ", style="bold red") + Text(visible_lines(error.message)))
    if error.hint:
        console.print(Text("hint: ", style="bold") + Text(visible_lines(error.hint)))


def show(*views: RenderableType) -> None:
    """Print to standard output; a pipe gets plain, uncut text."""
    _print_views(_make_console(sys.stdout.isatty()), views)


def tell(*views: RenderableType) -> None:
    """Print to standard error."""
    _print_views(_make_console(sys.stderr.isatty(), stderr=True), views)


def experiments_table(experiments: Sequence[ExperimentStatus], root: Path) -> RenderableType:
    """Return a table with one line per experiment."""
    if not experiments:
        return _plain_text(f"no experiments under {root}")
    table = _empty_table("", ["experiment", "runs", "states"], right=(1,))
    for experiment in experiments:
        table.add_row(
            _plain_text(experiment.experiment), str(len(experiment.runs)), _format_counts(experiment.counts)
        )
    return table


def status_view(
    status: ExperimentStatus, everything: bool = False, rows: int = MOST_RUNS, now: float | None = None
) -> RenderableType:
    """Return a table of an experiment's runs; if there are more than `rows`, the most urgent ones."""
    runs = list(status.runs)
    if not everything and len(runs) > rows:
        runs = sorted(runs, key=lambda run: URGENCY.index(run.state))[: max(rows, 1)]
    more = _hidden_count_line(len(status.runs) - len(runs))
    table = _RunsTable(status.experiment, runs, time.time() if now is None else now)
    files = ", ".join(status.damaged)
    damage = [
        _plain_text(f"lines of {files} are damaged and left out; see alphagrid store check", style="red")
    ]
    notes = [_plain_text(f"note: {note}", style="yellow") for note in status.notes]
    warned = status.warnings if everything else dict(islice(status.warnings.items(), MOST_WARNINGS))
    warnings = [
        *(
            _plain_text(f"warning: {_first_names(names, 1)}: {text}", style="yellow")
            for text, names in warned.items()
        ),
        *_hidden_count_line(len(status.warnings) - len(warned), "warnings "),
    ]
    rejected = [_rejections_line(status.runs)] if any(run.rejected for run in status.runs) else []
    return Group(
        table, *more, *(damage if files else []), *notes, *warnings, *rejected, _format_counts(status.counts)
    )


def causes_views(status: ExperimentStatus, everything: bool = False) -> list[RenderableType]:
    """Return the causes of failed, interrupted and lost runs, each with the end of a log."""
    causes = status.causes if everything else status.causes[:MOST_CAUSES]
    return [*map(_cause_view, causes), *_hidden_count_line(len(status.causes) - len(causes), "causes ")]


def watch(look: Callable[[], ExperimentStatus], everything: bool = False) -> None:
    """Show an experiment until no run continues without the user; in a pipe, once at the end."""
    final = _follow_experiment(
        look, lambda status, rows: status_view(status, everything, rows), transient=False
    )
    show(*causes_views(final, everything))


def follow(look: Callable[[], ExperimentStatus]) -> ExperimentStatus:
    """Show progress until no run continues without the user; quiet in a pipe. Return the last status."""
    return _follow_experiment(look, lambda status, rows: status_view(status, rows=rows), transient=True)


def report_table(table: ReportTable) -> RenderableType:
    """Return a table of the report."""
    right = tuple(index for index, flag in enumerate(table.right) if flag)
    view = _empty_table(table.title, table.columns, right)
    for row in table.shown:
        view.add_row(*map(_plain_text, row))
    return Group(view, *(_plain_text(note, style="dim") for note in table.notes), Text(""))


def plan_view(plan: Mapping[str, Any], profile: str) -> RenderableType:
    """Return a table of the runs that `submit` would send."""
    table = _empty_table(f"{plan['experiment']} (nothing was sent)", ["id", "run", "baseline", "params"])
    for run in plan["runs"][:MOST_PLANNED]:
        params = ", ".join(f"{key}={value}" for key, value in run["params"].items())
        table.add_row(
            run["id"], _plain_text(run["name"]), _plain_text(run["baseline"] or ""), _plain_text(params)
        )
    more = _hidden_count_line(len(plan["runs"]) - MOST_PLANNED, option="--json lists")
    hours = "no limit" if plan["gpu_hours"] is None else f"{plan['gpu_hours']:g}"
    total = (
        f"{len(plan['runs'])} runs with profile {profile}; "
        f"sbatch calls: {plan['sbatch_calls']}; GPU-hours at most: {hours}"
    )
    return Group(table, *more, _plain_text(total))


def profiles_table(profiles: Iterable[Any]) -> RenderableType:
    """Return a table with one line per profile."""
    table = _empty_table("", ["profile", "cluster", "asks for"])
    for profile in profiles:
        settings = profile.model_dump(exclude_defaults=True, exclude={"name", "cluster"})
        table.add_row(
            _plain_text(profile.name), _plain_text(profile.cluster), _plain_text(_format_settings(settings))
        )
    return table


def profile_table(name: str, described: Iterable[Setting]) -> RenderableType:
    """Return a profile's settings, each with the place where it was written."""
    table = _empty_table(name, ["key", "value", "from"])
    for setting in described:
        value = "" if setting.value is None else str(setting.value)
        origin = "default" if setting.place is None else str(setting.place)
        table.add_row(_plain_text(setting.key), _plain_text(value), _plain_text(origin, style="dim"))
    return table


def check_view(checked: Checked) -> RenderableType:
    """Return the checks of a profile, each with its verdict and advice."""
    version = f" (Slurm {checked.version})" if checked.version else ""
    table = _empty_table(f"{checked.profile} on {checked.cluster}{version}", ["", "verdict", ""])
    for finding in checked.findings:
        advice = _plain_text(f"; {finding.advice}" if finding.advice else "", style="dim")
        verdict = Text(finding.verdict, style=VERDICT_STYLES[finding.verdict])
        table.add_row(_plain_text(finding.check), verdict, _plain_text(finding.said) + advice)
    return table


class Progress:
    """A progress bar on standard error during a long operation; nothing in a pipe."""

    def __init__(self, label: str, unit: Literal["bytes", "rows"]) -> None:
        count = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
        console = Console(stderr=True)
        self._bar = RichProgress(
            TextColumn(label), BarColumn(), count, TimeRemainingColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task(label, total=None)

    def __enter__(self) -> Progress:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        self._bar.stop()

    def start(self, total: int) -> None:
        """Set the total amount."""
        self._bar.update(self._task, total=total)

    def advance(self, amount: int) -> None:
        """Add to the finished amount."""
        self._bar.advance(self._task, amount)


def _follow_experiment(
    look: Callable[[], ExperimentStatus],
    view: Callable[[ExperimentStatus, int], RenderableType],
    transient: bool,
) -> ExperimentStatus:
    console = Console(stderr=transient, markup=False, emoji=False)
    if not console.is_terminal:
        status = _until_quiet(look, lambda _: None)
        if not transient:
            show(view(status, MOST_RUNS))
        return status
    with Live(console=console, transient=transient, auto_refresh=False) as live:
        return _until_quiet(
            look, lambda status: live.update(view(status, console.height - LINES_AROUND), refresh=True)
        )


def _until_quiet(
    look: Callable[[], ExperimentStatus], update: Callable[[ExperimentStatus], None]
) -> ExperimentStatus:
    was_unsure = False
    while True:
        status = look()
        update(status)
        if not status.goes_on and (was_unsure or not status.is_unsure):
            return status
        was_unsure = not status.goes_on
        time.sleep(status.poll_seconds)


class _Console(Console):
    """Raises on a broken pipe, where rich would end the process with a failure."""

    def on_broken_pipe(self) -> None:
        """Raise `BrokenPipeError`."""
        raise BrokenPipeError


def _make_console(terminal: bool, stderr: bool = False) -> Console:
    width = None if terminal else WIDTH_IN_A_PIPE
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


def _print_views(console: Console, views: Iterable[RenderableType]) -> None:
    for view in views:
        console.print(view)


def _cause_view(cause: Cause) -> RenderableType:
    """Return a cause: the number, names and hosts of its runs, and the end of one run's log."""
    count = f"{len(cause.runs)} {cause.state}: "
    head = Text("\n") + Text(count, style=STYLES[cause.state]) + _plain_text(cause.reason)
    where = f"; on {_first_names(cause.hosts)}" if cause.hosts else ""
    log = [Text(f"  │ {uncoloured(line)}", style="dim") for line in cause.log]
    title = [_plain_text(f"  the end of the log of {cause.runs[0]}:", style="dim")] if log else []
    return Group(head, _plain_text(f"  {_first_names(cause.runs)}{where}"), *title, *log)


def _rejections_line(runs: Sequence[RunStatus]) -> Text:
    """Return the number of rejected α* and of affected runs per reason, the most frequent first."""
    values: Counter[str] = Counter()
    affected: Counter[str] = Counter()
    for run in runs:
        values.update(run.rejected)
        affected.update(run.rejected.keys())
    parts = []
    for reason, count in values.most_common():
        runs_affected = f"{affected[reason]} {'run' if affected[reason] == 1 else 'runs'}"
        parts.append(f"{count:,} {in_one_line(reason)} (in {runs_affected})")
    return _plain_text(f"rejected α*: {'; '.join(parts)}", style="yellow")


def _first_names(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """Return the first `most` names, and the number of further ones."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _hidden_count_line(count: int, what: str = "", option: str = "--all shows") -> list[Text]:
    """Return a line with the number of hidden items and the option that shows them; none if `count` is 0."""
    return [Text(f"and {count} more {what}({option} them)", style="dim")] if count > 0 else []


def _plain_text(text: str, style: str = "") -> Text:
    """Return text of unknown origin on one line, without Rich markup and terminal control characters."""
    return Text(visible(text), style=style)


def _empty_table(title: str, columns: Sequence[str], right: Container[int] = ()) -> Table:
    """Return an empty table; in a narrow terminal its first column stays whole, and headers wrap."""
    columns = [visible(column) for column in columns]
    table = Table(
        title=_plain_text(title) if title else None,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    for index, column in enumerate(columns):
        justify: JustifyMethod = "right" if index in right else "left"
        least = max(map(len, column.split()), default=1)
        table.add_column(
            Text(column),
            justify=justify,
            header_style="dim",
            overflow="fold",
            no_wrap=index == 0,
            min_width=least,
        )
    return table


@dataclass(frozen=True)
class _Column:
    """A column of `status`: left out if empty, or on a terminal narrower than `from_width`."""

    title: str
    cell: Callable[[RunStatus, float], Text | str]
    right: bool = True
    from_width: int = 0
    is_cut: bool = False
    """Whether a terminal cuts long cells instead of folding them into several lines."""


STATUS_COLUMNS = (
    _Column("run", lambda run, now: _plain_text(run.name), right=False),
    _Column("state", lambda run, now: Text(run.state, style=STYLES[run.state]), right=False),
    _Column("step", lambda run, now: f"{run.step:,}"),
    _Column("done", lambda run, now: f"{run.percent_done:.0f} %"),
    _Column("loss", lambda run, now: _format_number(run.best_validation_loss, "{:.4f}")),
    _Column("rate", lambda run, now: _format_number(run.learning_rate, "{:.3g}"), from_width=90),
    _Column("seen", lambda run, now: _format_age(run.last_seen, now), from_width=78),
    _Column("ETA", lambda run, now: "" if run.eta_seconds is None else _format_duration(run.eta_seconds)),
    _Column("tries", lambda run, now: str(run.attempts), from_width=90),
    _Column("checkpoint", lambda run, now: _format_checkpoint(run), from_width=110),
    _Column(
        "why",
        lambda run, now: _plain_text(in_one_line(run.reason or ""), style="dim"),
        right=False,
        is_cut=True,
    ),
)


@dataclass(frozen=True)
class _RunsTable:
    """The table of `status`, with the columns that fit the terminal's width."""

    experiment: str
    runs: Sequence[RunStatus]
    now: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay out the table for the console's width."""
        shown = [
            (column, cells)
            for column in STATUS_COLUMNS
            if column.from_width <= options.max_width
            and any(cells := [column.cell(run, self.now) for run in self.runs])
        ]
        right = [index for index, (column, _) in enumerate(shown) if column.right]
        table = _empty_table(self.experiment, [column.title for column, _ in shown], right)
        for column, cells in shown:
            if column.is_cut and console.is_terminal:
                other_widths = sum(_column_width(*other) for other in shown if other[0] is not column)
                cells[:] = [
                    _shorten_cell(cell, max(options.max_width - other_widths, NARROWEST)) for cell in cells
                ]
        for row in zip(*(cells for _, cells in shown), strict=True):
            table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))  # no markup
        yield table


def _column_width(column: _Column, cells: Sequence[Text | str]) -> int:
    """Return the width of a column and its gap."""
    return max([*map(len, column.title.split()), *(Text.assemble(cell).cell_len for cell in cells)]) + GAP


def _shorten_cell(cell: Text | str, room: int) -> Text:
    """Return a cell on one line; if it is wider than `room`, its middle is left out."""
    text = cell if isinstance(cell, Text) else Text(cell)
    return Text(in_one_line(text.plain, room), style=text.style, no_wrap=True, overflow="ellipsis")


def _format_number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _format_checkpoint(run: RunStatus) -> str:
    """Return the size and write duration of the last checkpoint."""
    if run.checkpoint_bytes is None or run.checkpoint_seconds is None:
        return ""
    return f"{size(run.checkpoint_bytes)}, {run.checkpoint_seconds:.2g}s"


def size(count: int) -> str:
    """Return bytes as 512 B, 1.2 MB or 6.5 GB."""
    amount, unit = float(count), 0
    while amount >= 1000 and unit < len(UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.0f} {UNITS[unit]}" if unit == 0 else f"{amount:.1f} {UNITS[unit]}"


def _format_age(moment: float | None, now: float) -> str:
    return "" if moment is None else _format_duration(max(0.0, now - moment)) + " ago"


def _format_duration(seconds: float) -> str:
    """Return seconds as 7s, 3m07s, 2h05m or 4d03h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def _format_counts(counts: Mapping[Any, int]) -> Text:
    parts = [Text(f"{count} {state}", style=STYLES[state]) for state, count in counts.items()]
    return Text(", ").join(parts)


def _format_settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items() if value not in ([], {}))
