"""The import check of `submit`: import what a job will import, after the profile's set-up."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ...cluster_profiles import env_values
from ...cluster_profiles.loader import Profile
from ...errors import UserError
from ...slurm.sbatch import outside_a_job
from ...store.layout import ExperimentFiles
from ..import_path import importable
from . import submitted_code
from .project_files import is_installed
from .submitted_code import Code

TRIAL_SECONDS = 120
LINES_SHOWN = 8

TRIAL = "import sys; from {package} import import_check; import_check.try_imports(*sys.argv[1:])"


def check(files: ExperimentFiles, profile: Profile, code: Code, modules: Sequence[str]) -> tuple[str, ...]:
    """Import what a job will import, after the profile's set-up, and return warnings.

    Raises:
        UserError: the import fails; the message holds its last lines.
    """
    if not (profile.setup or profile.env or code.hash):
        return ()  # this process has already imported the same modules in the same environment
    with tempfile.TemporaryDirectory(prefix="alphagrid-") as folder:
        report = Path(folder) / "report"
        script = _trial_script(files, profile, code, modules, report)
        returned, lines = _run_script(script)
        if returned == 0 and report.exists():
            return _outside_warnings(json.loads(report.read_bytes()))
        if not (Path(folder) / "ready").exists():
            reason = _last_lines(lines, 1)
            return (f"the profile's set-up was not tried: it does not work on this machine ({reason})",)
    if returned is None:
        return (f"importing what the jobs need took more than {TRIAL_SECONDS} s here, and was given up",)
    raise UserError(
        f"a job could not import what it needs:\n{_last_lines(lines, LINES_SHOWN)}",
        f"tried with {sys.executable}" + (" after the profile's setup and env" if profile.setup else ""),
    )


def try_imports(report: str, folder: str, code_folder: str, *modules: str) -> None:
    """Import what a job imports.

    Writes to the file `report` the user's modules that come from outside the snapshot, as a JSON list.
    """
    from .. import worker  # noqa: F401  # what submitit unpickles

    with importable(Path(folder) if folder else None):
        for module in modules:
            __import__(module)
    if code_folder:
        snapshot_folder = Path(code_folder)
        submitted_code.check_origin(
            ExperimentFiles(snapshot_folder.parent.parent), snapshot_folder.name, modules
        )
    Path(report).write_text(json.dumps(_modules_outside_snapshot(Path(code_folder)) if code_folder else []))


def _trial_script(
    files: ExperimentFiles, profile: Profile, code: Code, modules: Sequence[str], report: Path
) -> str:
    snapshot_folder = None if code.hash is None else (files.code / code.hash).absolute()
    folder = None if snapshot_folder is None else os.path.normpath(snapshot_folder / str(code.path))
    program = TRIAL.format(package=__package__)
    command = [
        sys.executable,
        "-u",
        "-c",
        program,
        str(report),
        folder or "",
        str(snapshot_folder or ""),
        *modules,
    ]
    ready = f": > {shlex.quote(str(report.with_name('ready')))}"
    exports = env_values.export_lines(profile.env)
    return "\n".join(["set -e", *exports, *profile.setup, ready, f"exec {shlex.join(command)}"])


def _run_script(script: str) -> tuple[int | None, list[str]]:
    """Run a script in a job's environment; return its exit code (None after a timeout) and its lines."""
    process = subprocess.Popen(
        ["bash", "-c", script],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=outside_a_job(), start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=TRIAL_SECONDS)
        return process.returncode, _nonblank_lines(output)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        return None, _nonblank_lines(output)


def _nonblank_lines(output: bytes) -> list[str]:
    return [line for line in output.decode(errors="replace").splitlines() if line.strip()]


def _last_lines(lines: Sequence[str], count: int) -> str:
    return "\n".join(lines[-count:]) or "it said nothing"


def _modules_outside_snapshot(snapshot_folder: Path) -> list[str]:
    """Return imported packages, with their folders, that are neither in the snapshot nor installed."""
    folders: dict[str, str] = {}
    for name, module in sys.modules.copy().items():
        package, file = name.partition(".")[0], getattr(module, "__file__", None)
        if file is None or not Path(file).is_absolute() or package == str(__package__).partition(".")[0]:
            continue
        real = Path(os.path.realpath(file))
        if not real.is_relative_to(os.path.realpath(snapshot_folder)) and not is_installed(real):
            folders.setdefault(package, str(real.parent))
    return [f"{package} ({folder})" for package, folder in sorted(folders.items())]


def _outside_warnings(modules: Sequence[str]) -> tuple[str, ...]:
    if not modules:
        return ()
    return (f"imported, but no part of the code that is kept for the runs: {', '.join(modules)}",)
