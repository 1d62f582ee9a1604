"""A pytest plugin (`-p tests.no_torch`) that runs the tests that need no torch and draw nothing.

It finds these tests itself. In this process it refuses the import of torch and matplotlib, and the start of
another Python, which could import them. It skips each folder, file and test that asks for one of these.
Tests of properties get few examples; `make test` gives them all.
"""

from __future__ import annotations

import mmap
import runpy
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

EXAMPLES = 5
REFUSED = ("torch", "matplotlib")
PYTHONS = ("python", "pytest", "alphagrid")
REASON = "needs torch, matplotlib, or another Python that may import them"


class TorchRefused(ImportError):
    """The import of a refused module, or the start of another Python."""


class Refusal:
    """Refuses the imports in this process, and remembers that a test asked for one."""

    def __init__(self) -> None:
        self._needed = mmap.mmap(-1, 1)  # shared with processes that a test forks

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if (event == "import" and arguments[0] in REFUSED) or (
            event == "subprocess.Popen" and _is_python(arguments[0])
        ):
            self._needed[0] = 1
            raise TorchRefused(REASON)

    def take(self) -> bool:
        """Return whether something was refused since the last call."""
        needed = self._needed[0] == 1
        self._needed[0] = 0
        return needed


def _is_python(executable: Any) -> bool:
    return Path(str(executable)).name.startswith(PYTHONS)


refusal = Refusal()


def pytest_configure(config: pytest.Config) -> None:
    """Refuse from now on, except in the process of pytest-xdist that starts the workers."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        sys.addaudithook(refusal.audit)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out a folder whose conftest.py imports torch."""
    conftest = collection_path / "conftest.py"
    if not conftest.is_file():
        return None
    try:
        runpy.run_path(str(conftest))
    except TorchRefused:
        refusal.take()
        return True
    return None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Leave out a file that imports torch."""
    report = yield
    if refusal.take() and report.failed:
        report.outcome, report.longrepr, report.result = "passed", None, []
    return report


def pytest_itemcollected(item: pytest.Item) -> None:
    """Lower the number of examples that hypothesis tries."""
    test: Any = getattr(item, "obj", None)
    if hasattr(test, "_hypothesis_internal_use_settings"):
        own: Any = test._hypothesis_internal_use_settings or settings.default
        most = min(own.max_examples, EXAMPLES)
        test._hypothesis_internal_use_settings = settings(own, max_examples=most)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip a test that was refused something, whatever its result."""
    report = yield
    if refusal.take():
        report.outcome, report.longrepr = "skipped", (str(item.path), 0, REASON)
    return report
