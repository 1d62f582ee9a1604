"""The command line: it parses arguments, calls the packages and prints results.

This module imports nothing heavy; each command imports its dependencies when it runs.
"""

from __future__ import annotations

import logging
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from .errors import UserError
from .printable import VisibleFormatter, json_text, visible

if TYPE_CHECKING:
    from .jobs.status import RunStatus
    from .jobs.submission import Submitted
    from .store.database import Store
    from .store.layout import ExperimentFiles, Root

RUN_FAILED = 1
CHECK_FAILED = 1
NOT_ALL_SENT = 3
INTERRUPTED = 130
MOST_NAMED = 10
"""Maximum number of runs that a hint names."""


class Commands(TyperGroup):
    """Prints a `UserError` without a traceback, and exits with the error's code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command of the context."""
        if logging.lastResort is not None:  # it writes log messages to standard error
            logging.lastResort.setFormatter(VisibleFormatter())
        try:
            return self._invoke_and_flush(ctx)
        except BrokenPipeError:  # the reader has closed the pipe, which is no failure
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(0) from None
        except UserError as error:
            from .terminal import show_error

            show_error(error)
            raise SystemExit(error.exit_code) from None
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None

    def _invoke_and_flush(self, ctx: Any) -> Any:
        """Run the command and flush its output here, where `invoke` can handle a broken pipe."""
        try:
            return super().invoke(ctx)
        finally:
            sys.stdout.flush()


class Clock(StrEnum):
    """The clock of a report."""

    measured = "measured"
    normalised = "normalised"
    without_data_wait = "without-data-wait"


class Format(StrEnum):
    """The output format of tables."""

    table = "table"
    csv = "csv"
    markdown = "markdown"


settings: dict[str, Any] = {"cls": Commands, "no_args_is_help": True, "pretty_exceptions_enable": False}
app = typer.Typer(
    **settings,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Grids of training runs on Slurm, and the best of them within a time budget.",
    epilog="Start with: alphagrid submit specs/quickstart.yaml --wait",
)
profiles_app = typer.Typer(**settings, help="Cluster profiles: how a job asks for what it needs.")
store_app = typer.Typer(
    **settings, help="The index of an experiment's journals (it can be rebuilt any time)."
)
data_app = typer.Typer(**settings, help="Criteo click logs: prepare, check, or generate synthetic ones.")
app.add_typer(profiles_app, name="profiles")
app.add_typer(data_app, name="data")
app.add_typer(store_app, name="store")

RootOption = Annotated[
    Path | None,
    typer.Option("--root", help="Folder of all experiments. [default: $ALPHAGRID_ROOT, else ./runs]"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ProfileOption = Annotated[
    str | None,
    typer.Option("--profile", help="Where runs go: a profile's name or file (alphagrid profiles list)."),
]
ExperimentArgument = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="The experiment's name.")]
SelectorsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN | STATE | KEY=VALUE]...",
        help="Runs by name or id, by state, or by a key (alpha.interval=1000).",
    ),
]
FailedOption = Annotated[bool, typer.Option("--failed", help="All failed runs.")]
AllOption = Annotated[bool, typer.Option("--all", help="All runs of the experiment.")]
AllowCodeChangeOption = Annotated[
    bool,
    typer.Option("--allow-code-change", help="Let runs go on with other code than they had before."),
]
AllowDataChangeOption = Annotated[
    bool,
    typer.Option("--allow-data-change", help="Let runs go on with other data than they had before."),
]


@app.command(epilog="Example: alphagrid submit specs/quickstart.yaml --set base.stop.steps=500 --wait")
def submit(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="Grid specification (YAML).")],
    profile: ProfileOption = None,
    set_options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a key of the file, or a config key of every run. Repeatable.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show all runs of SPEC and what they take; send nothing.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the runs to their end; exit 1 if one failed.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="Send at most N of the runs that are due."),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Then cancel what still waits or runs and is no longer in SPEC."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before --prune cancels.")] = False,
    max_runs: Annotated[
        int | None,
        typer.Option(
            "--max-runs",
            metavar="N",
            min=1,
            help="Refuse a specification of more runs than this (100000 by default).",
        ),
    ] = None,
    allow_code_change: AllowCodeChangeOption = False,
    allow_data_change: AllowDataChangeOption = False,
    as_json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Send the runs of a grid that are not yet done; sending again sends only what is missing.

    Exit code 3 says that not all were sent, for example because of a limit on the jobs of a user.
    """
    from . import terminal
    from .jobs.dry_run import choose_profile
    from .jobs.specification.experiment import expand
    from .jobs.specification.file import read_spec
    from .jobs.specification.grid import MOST_RUNS
    from .jobs.specification.reserved_names import check_names
    from .jobs.submission import submit as send

    experiment = expand(read_spec(spec, set_options or []), max_runs or MOST_RUNS)
    chosen = choose_profile(experiment, profile)
    if dry_run:
        check_names(_resolve_root(root), experiment)
        _print_plan(experiment, chosen, limit, as_json)
        return
    if prune and not yes and not sys.stdin.isatty():
        raise UserError(
            "--prune asks before it cancels runs, and standard input is not a terminal",
            "add --yes to cancel without confirmation",
        )
    under = _resolve_root(root)
    for warning in experiment.warnings:
        terminal.say(f"warning: {warning}")
    submitted = send(
        experiment,
        chosen,
        under,
        allow_code_change=allow_code_change,
        allow_data_change=allow_data_change,
        limit=limit,
    )
    _say_submitted(submitted, under, prune, limit)
    pruned = _cancel_runs_not_in_spec(under, experiment.name, yes) if prune else []
    if as_json:
        _print_json({**vars(submitted), "pruned": pruned})
    if wait:
        _wait_for_runs(under, experiment.name)
    if submitted.limit is not None:
        raise typer.Exit(NOT_ALL_SENT)


@app.command(epilog="Example: alphagrid status quickstart --watch")
def status(
    experiment: Annotated[
        str | None, typer.Argument(metavar="[EXPERIMENT]", help="The experiment's name; without it, all.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Keep looking until every run has ended.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Show every run, however many.")] = False,
    as_json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Show how runs are doing; looking changes nothing."""
    from . import terminal
    from .jobs.status import overview
    from .jobs.status import status as look

    under = _resolve_root(root)
    if experiment is None:
        statuses = overview(under)
        if as_json:
            summary = [{"experiment": item.experiment, "counts": item.counts} for item in statuses]
            _print_json({"experiments": summary})
        else:
            terminal.show(terminal.experiments_table(statuses, under.path))
    elif as_json:
        _print_json(look(under, experiment).as_dict())
    elif watch:
        terminal.watch(lambda: look(under, experiment), everything)
    else:
        experiment_status = look(under, experiment)
        terminal.show(
            terminal.status_view(experiment_status, everything),
            *terminal.causes_views(experiment_status, everything),
        )


@app.command(epilog="Example: alphagrid report quickstart --budget until:nadamw --budget 50%")
def report(
    experiment: ExperimentArgument,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            metavar="BUDGET",
            help="Training seconds: 3600, 50%, all, until:BASELINE, 4.5*until:BASELINE. Repeatable.",
        ),
    ] = None,
    budget_steps: Annotated[
        list[str] | None,
        typer.Option("--budget-steps", metavar="BUDGET", help="The same in steps. Repeatable."),
    ] = None,
    clock: Annotated[
        Clock,
        typer.Option(
            "--clock",
            help="Time as measured, as on a common machine (pooled medians), or without waiting for data.",
        ),
    ] = Clock.measured,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="NAME",
            help="Published values beside yours: thesis2025, or none. [default: thesis2025 for its specs]",
        ),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="How tables are printed.")] = Format.table,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where files go. [default: ROOT/EXPERIMENT/report]"),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Print every table, not the budgets' alone (files have all).")
    ] = False,
    as_json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Compare runs by their best validation loss within a budget; write tables and figures.

    With --json, and with the formats csv and markdown, files are written only where --out says so.
    """
    from .analysis import report as reporting
    from .analysis.compare_runs import compare
    from .analysis.data import load
    from .analysis.reference import reference_for
    from .analysis.report_warnings import warnings

    published = reference_for(experiment, reference)
    under = _resolve_root(root)
    experiments = [experiment] if under.experiment(experiment).path.is_dir() else None
    with _open_store(under, experiments) as store:
        data = compare(load(store.db, experiment), budget or [], budget_steps or [], clock.value, published)
    if as_json:
        _print_json(reporting.report_json(data))
    elif format_ is Format.csv:
        _say_warnings(warnings(data))
        typer.echo(reporting.report_csv(data), nl=False)
    elif format_ is Format.markdown:
        typer.echo(reporting.report_markdown(data), nl=False)
    else:
        from . import terminal

        _say_warnings(warnings(data))
        tables = reporting.report_tables(data) if everything else reporting.budget_tables(data)
        terminal.show(*map(terminal.report_table, tables))
    if out is not None or (format_ is Format.table and not as_json):
        _write_report(data, out, under.experiment(experiment))


@app.command(epilog="Example: alphagrid logs quickstart interval100-count5 -f")
def logs(
    experiment: ExperimentArgument,
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's name or id.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the log grows.")] = False,
    root: RootOption = None,
) -> None:
    """Print what a run wrote to its log, over all its attempts."""
    from .jobs import logs as log_files
    from .jobs.status import outlook
    from .terminal import say

    under = _resolve_root(root)
    chosen = _select_runs(under, experiment, [run])
    if len(chosen) != 1:
        names = ", ".join(visible(candidate.name) for candidate in chosen[:MOST_NAMED])
        raise UserError(f"'{run}' means {len(chosen)} runs", f"one of: {names}")
    run_id = chosen[0].id
    files = under.experiment(experiment)
    if follow:
        texts = log_files.follow(files, run_id, lambda: outlook(under, experiment, run_id), say)
    else:
        texts = log_files.read(files, run_id, outlook(under, experiment, run_id))
    for text in texts:
        typer.echo(text, nl=False)


@app.command(epilog="Example: alphagrid cancel quickstart alpha.interval=100")
def cancel(
    experiment: ExperimentArgument,
    selectors: SelectorsArgument = None,
    failed: FailedOption = False,
    everything: AllOption = False,
    root: RootOption = None,
) -> None:
    """Stop runs, with a checkpoint; they stay stopped until `retry` sends them again."""
    from .jobs.cancellation import cancel as stop
    from .terminal import say

    under = _resolve_root(root)
    chosen = _select_runs(under, experiment, selectors or [], failed, everything)
    done = stop(under, experiment, [run.id for run in chosen])
    ended = f"; {len(done.ended)} had ended before" if done.ended else ""
    say(f"cancelled {_format_run_count(len(done.cancelled))} of {experiment}{ended}")


@app.command(epilog="Example: alphagrid retry quickstart --failed --exclude-node gpu07")
def retry(
    experiment: ExperimentArgument,
    selectors: SelectorsArgument = None,
    failed: FailedOption = False,
    everything: AllOption = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start from step 0, not from the last checkpoint.")
    ] = False,
    exclude_node: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude-node",
            metavar="NODE",
            help="Keep off this node of the cluster, from now on, besides those of the profile. Repeatable.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the runs to their end.")] = False,
    profile: ProfileOption = None,
    allow_code_change: AllowCodeChangeOption = False,
    allow_data_change: AllowDataChangeOption = False,
    root: RootOption = None,
) -> None:
    """Send failed, cancelled or lost runs once more."""
    from .cluster_profiles.loader import load_profile
    from .jobs.submission import retry as send_again

    under = _resolve_root(root)
    chosen = _select_runs(under, experiment, selectors or [], failed, everything)
    other = load_profile(profile) if profile else None
    submitted = send_again(
        under,
        experiment,
        [run.id for run in chosen],
        fresh=fresh,
        profile=other,
        exclude_nodes=exclude_node or [],
        allow_code_change=allow_code_change,
        allow_data_change=allow_data_change,
    )
    _say_submitted(submitted, under)
    _say_how_to_start_over(submitted, selectors or [])
    if wait:
        _wait_for_runs(under, experiment)
    if submitted.limit is not None:
        raise typer.Exit(NOT_ALL_SENT)


@app.command(epilog="Example: alphagrid prune quickstart --all --dry-run")
def prune(
    experiment: ExperimentArgument,
    selectors: SelectorsArgument = None,
    failed: FailedOption = False,
    everything: AllOption = False,
    last: Annotated[
        bool,
        typer.Option("--last", help="Also the last one, without which a run cannot go on."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted.")] = False,
    root: RootOption = None,
) -> None:
    """Delete checkpoints of runs that have ended, all but each one's last."""
    from . import terminal
    from .jobs import pruning

    under = _resolve_root(root)
    chosen = _select_runs(under, experiment, selectors or [], failed, everything)
    prunables = pruning.prunable(under, experiment, chosen, last)
    if not dry_run:
        pruning.prune(prunables)
    for prunable in prunables:
        terminal.say(f"{prunable.run}: {len(prunable.paths)} files, {terminal.size(prunable.bytes)}")
    total = terminal.size(sum(prunable.bytes for prunable in prunables))
    terminal.say(f"{'would delete' if dry_run else 'deleted'} {total} of {experiment}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a grid specification, for editors and checkers."""
    from .jobs.specification.json_schema import spec_schema

    _print_json(spec_schema(), indent=2)


@profiles_app.command("list")
def profiles_list(as_json: JsonOption = False) -> None:
    """List the profiles that are shipped."""
    from .cluster_profiles.loader import load_profile, profile_names

    profiles = [load_profile(name) for name in profile_names()]
    if as_json:
        _print_json([profile.model_dump(mode="json", exclude_none=True) for profile in profiles])
        return
    from . import terminal

    terminal.show(terminal.profiles_table(profiles))


@profiles_app.command("show")
def profiles_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A profile's name or file.")],
    as_json: JsonOption = False,
) -> None:
    """Show a profile's settings, and where each of them comes from."""
    from . import terminal
    from .cluster_profiles.loader import describe, load_profile

    if as_json:
        _print_json(load_profile(name).model_dump(mode="json", exclude_none=True))
    else:
        terminal.show(terminal.profile_table(name, describe(name)))


@profiles_app.command("check", epilog="Example: alphagrid profiles check slurm-a100")
def profiles_check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A profile's name or file.")],
    as_json: JsonOption = False,
    root: RootOption = None,
) -> None:
    """Validate a profile against the live cluster, one check per line; exit 1 if anything is wrong.

    The duration of checkpoints is read from the runs under the root. No job is sent.
    """
    from . import terminal
    from .cluster_profiles.check import check
    from .cluster_profiles.loader import load_profile

    checked = check(load_profile(name), _resolve_root(root))
    if as_json:
        _print_json(checked.as_dict())
    else:
        terminal.show(terminal.check_view(checked))
    if checked.is_wrong:
        raise typer.Exit(CHECK_FAILED)


@profiles_app.command("init", epilog="Example: alphagrid profiles init --partition gpu ours.yaml")
def profiles_init(
    path: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The profile; by default CLUSTER.yaml.")
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option("--partition", metavar="P", help="For this partition. [default: one with GPUs]"),
    ] = None,
) -> None:
    """Write a profile for this cluster, from what it says of itself; never over a file."""
    from .cluster_profiles.draft import init
    from .terminal import say

    written = init(path, partition)
    name = written if written.is_absolute() else f"./{written}"
    say(f"wrote {written}; see how it fits: alphagrid profiles check {name}")


@data_app.command("prepare", epilog="Example: alphagrid data prepare logs/ prepared/")
def data_prepare(
    source: Annotated[Path, typer.Argument(metavar="LOGS", help="Folder of the logs, or a file.")],
    out: Annotated[Path, typer.Argument(metavar="PREPARED", help="Folder of the shards.")],
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Processes. [default: one for each core]")
    ] = None,
    max_bad_share: Annotated[
        float,
        typer.Option("--max-bad-share", min=0, max=1, help="Maximum fraction of malformed lines."),
    ] = 0.001,
    allow_damaged: Annotated[
        bool,
        typer.Option("--allow-damaged", help="Go without what cannot be read of empty or broken files."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Convert click logs to shards that training reads fast; after an interruption, go on where it was."""
    from . import terminal
    from .trainer.workloads.criteo.prepare import prepare

    processes = jobs or len(os.sched_getaffinity(0))
    with terminal.Progress("prepare", "bytes") as progress:
        prepared = prepare(
            source, out, processes, max_bad_share, allow_damaged, progress.start, progress.advance
        )
    dataset = prepared.dataset
    if as_json:
        _print_json(dataset.summary())
    for remark in prepared.remarks:
        terminal.say(remark)
    for warning in prepared.warnings:
        terminal.say(f"warning: {warning}")
    terminal.say(
        f"prepared {sum(dataset.days.values()):,} rows of {len(dataset.days)} days "
        f"in {out} ({terminal.size(dataset.bytes)})"
    )


@data_app.command("check", epilog="Example: alphagrid data check prepared/")
def data_check(
    folder: Annotated[Path, typer.Argument(metavar="PREPARED", help="Folder of the shards.")],
) -> None:
    """Compare every shard with its checksum; exit 1 if any differs."""
    from . import terminal
    from .trainer.workloads.criteo.shards import Dataset, differing

    dataset = Dataset.read(folder)
    with terminal.Progress("check", "rows") as progress:
        progress.start(sum(dataset.days.values()))
        wrong = differing(dataset, progress.advance)
    for shard in wrong:
        typer.echo(visible(f"{folder / shard}: not what was written"))
    if wrong:
        raise typer.Exit(CHECK_FAILED)
    terminal.say(f"all {len(dataset.shards)} shards are as they were written")


@data_app.command("synthesize", epilog="Example: alphagrid data synthesize logs/ --rows 1000000")
def data_synthesize(
    out: Annotated[Path, typer.Argument(metavar="LOGS", help="Folder of the logs; it must be empty.")],
    rows: Annotated[int, typer.Option("--rows", metavar="N", min=1, help="Rows of all days together.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed makes other logs.")] = 0,
    days: Annotated[int, typer.Option("--days", min=1, help="Files; the last one is the test day.")] = 24,
    as_json: JsonOption = False,
) -> None:
    """Generate synthetic click logs in Criteo's format from a known model; every report says so."""
    from . import terminal
    from .trainer.workloads.criteo.synthesis import synthesize

    with terminal.Progress("synthesize", "rows") as progress:
        progress.start(rows)
        made = synthesize(out, rows, seed, days, progress.advance)
    if as_json:
        _print_json(made)
    losses = made["losses"]["validation"]
    terminal.say(
        f"generated {rows:,} synthetic rows in {out}; validation loss of the model {losses['planted']:.6f}, "
        f"of the best constant {losses['constant']:.6f}"
    )


@store_app.command("path")
def store_path(root: RootOption = None) -> None:
    """Print where the index lies."""
    from .store.location import database_path

    typer.echo(database_path(_resolve_root(root), os.environ))


@store_app.command("sync")
def store_sync(root: RootOption = None) -> None:
    """Read what journals have gained since the last time."""
    with _open_store(_resolve_root(root)) as store:
        _say_index(store)


@store_app.command("rebuild")
def store_rebuild(root: RootOption = None) -> None:
    """Delete the index and read every journal again."""
    from .store.database import open_store

    with open_store(_resolve_root(root), discard_damaged=True) as store:
        store.rebuild()
        _say_index(store)


@store_app.command("check")
def store_check(as_json: JsonOption = False, root: RootOption = None) -> None:
    """Report damaged files, gaps in journals, and differences between journals and index; exit 1 if any."""
    with _open_store(_resolve_root(root)) as store:
        findings = store.check()
    if as_json:
        _print_json([vars(finding) for finding in findings])
    else:
        for finding in findings:
            at = "" if finding.offset is None else f", byte {finding.offset}"
            typer.echo(visible(f"{finding.experiment}/{finding.file}{at}: {finding.reason}"))
        from .terminal import say

        say(f"{len(findings)} findings" if findings else "journals and index agree; nothing is damaged")
    if findings:
        raise typer.Exit(CHECK_FAILED)


@store_app.command("export")
def store_export(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The copy; it must not exist yet.")],
    root: RootOption = None,
) -> None:
    """Write a consistent copy of the index, to share or to query."""
    from .terminal import say

    with _open_store(_resolve_root(root)) as store:
        store.export(path)
    say(f"wrote {path}")


def _resolve_root(option: Path | None) -> Root:
    from .store.layout import root_from

    return root_from(option, os.environ)


def _open_store(root: Root, experiments: list[str] | None = None) -> Store:
    """Open the index, updated for `experiments` (None: for all experiments under the root)."""
    from .store.database import open_store

    store = open_store(root)
    store.sync(experiments)
    return store


def _select_runs(
    root: Root, experiment: str, selectors: list[str], failed: bool = False, everything: bool = False
) -> list[RunStatus]:
    from .jobs.selection import select
    from .jobs.status import status as look

    return select(look(root, experiment).runs, selectors, failed=failed, everything=everything)


def _print_json(value: Any, indent: int | None = None) -> None:
    sys.stdout.write(json_text(value, indent) + "\n")


def _print_plan(experiment: Any, profile: Any, limit: int | None, as_json: bool) -> None:
    from . import terminal
    from .jobs.dry_run import dry_run, dry_run_warnings

    for warning in dry_run_warnings(experiment, {**os.environ, **profile.env}):
        terminal.say(f"warning: {warning}")
    plan = dry_run(experiment, profile, limit)
    if as_json:
        _print_json(plan)
    else:
        terminal.show(terminal.plan_view(plan, profile.name))


def _say_submitted(submitted: Submitted, root: Root, prune: bool = False, limit: int | None = None) -> None:
    from .terminal import say

    for warning in submitted.warnings:
        say(f"warning: {warning}")
    not_sent = "".join(f"; {len(ids)} {why}" for why, ids in submitted.kept.items() if ids)
    if submitted.kept.get("cancelled"):
        not_sent += f" (alphagrid retry {submitted.experiment} cancelled)"
    if submitted.kept.get("unknown"):
        not_sent += f" (only accounting says that they run; alphagrid retry {submitted.experiment} unknown)"
    where = root.experiment(submitted.experiment).path
    total = _format_run_count(len(submitted.sent) + len(submitted.unsent))
    sent_of_total = f"{len(submitted.sent)} of {total}" if submitted.unsent else total
    say(f"sent {sent_of_total} of {submitted.experiment} to {where}{not_sent}")
    if submitted.limit is not None:
        say(f"the cluster takes no more now: {submitted.limit}; submit again when some jobs have ended")
    if limit is not None and limit < submitted.due:
        say(f"--limit: {limit} of {submitted.due} due; submit again to send the others")
    if submitted.no_longer_named and not prune:
        names = ", ".join(submitted.no_longer_named)
        say(f"no longer in the spec, left alone: {names}")


def _say_how_to_start_over(submitted: Submitted, selectors: list[str]) -> None:
    """Print the command that restarts completed or diverged runs, if `retry` selected any."""
    from .terminal import say

    ended = sum(len(submitted.kept.get(state, ())) for state in ("completed", "diverged"))
    if ended:
        command = " ".join(
            ["alphagrid retry", submitted.experiment, *(selectors or ["completed"]), "--fresh"]
        )
        say(f"{_format_run_count(ended)} have ended; to start from step 0: {command}")


def _cancel_runs_not_in_spec(root: Root, experiment: str, yes: bool) -> list[str]:
    """Cancel active runs that are no longer in the specification, after confirmation; return their ids."""
    from .jobs.cancellation import active_runs_not_in_spec
    from .jobs.cancellation import cancel as stop
    from .terminal import say

    run_names = active_runs_not_in_spec(root, experiment)
    if not run_names:
        say("nothing to cancel: no run under way has left the spec")
        return []
    say(f"no longer in the spec, but under way: {', '.join(run_names.values())}")
    if not yes and not typer.confirm(f"cancel {_format_run_count(len(run_names))}?", err=True):
        say("left alone")
        return []
    stop(root, experiment, list(run_names))
    say(f"cancelled {_format_run_count(len(run_names))} of {experiment}")
    return list(run_names)


def _format_run_count(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"


def _wait_for_runs(root: Root, experiment: str) -> None:
    """Follow an experiment to its end; Ctrl-C does not stop the runs.

    Raises:
        typer.Exit: a run failed.
    """
    from . import terminal
    from .jobs.status import status as look

    try:
        final = terminal.follow(lambda: look(root, experiment))
    except KeyboardInterrupt:
        terminal.say(f"the runs go on; see `alphagrid status {experiment}`")
        raise
    counts = final.counts
    terminal.say(f"{experiment}: " + ", ".join(f"{count} {state}" for state, count in counts.items()))
    if counts.get("failed") or counts.get("unknown"):
        terminal.tell(*terminal.causes_views(final))
        raise typer.Exit(RUN_FAILED)


def _write_report(data: Any, out: Path | None, files: ExperimentFiles) -> None:
    """Write the report's files; without `--out`, a failure only prints a message."""
    from .analysis.report import write_report
    from .errors import SystemRefused
    from .store import ownership
    from .terminal import say

    if out is None and (owner := ownership.other_owner(files)):
        say(f"no files written: the experiment belongs to {owner}; name a folder of yours: --out DIR")
        return
    try:
        paths = write_report(data, out or files.path / "report")
    except SystemRefused as error:
        if out is not None:
            raise
        say(f"no files written: {error.message}")
        return
    say(f"wrote {paths[0]} ({len(paths)} files)")
    for path in paths:
        if path.suffix == ".svg":
            say(f"  {path}")


def _say_warnings(warnings: list[str]) -> None:
    from .terminal import say

    for warning in warnings:
        say(f"warning: {warning}")


def _say_index(store: Store) -> None:
    from .terminal import say

    say(f"index: {store.path}")
