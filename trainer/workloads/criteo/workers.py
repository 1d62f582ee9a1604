"""Processes that convert units. Each has its own pipe, so that either end notices when the other dies."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import cast

from ....errors import SystemRefused
from .units import Note, Unit, convert

OnBytes = Callable[[int], None]


def convert_all(
    units: Iterable[Unit], folder: Path, jobs: int, on_bytes: OnBytes
) -> Iterator[tuple[Unit, Note]]:
    """Convert units in `jobs` processes; yield each unit with its note when it is done.

    Raises:
        SystemRefused: a process died, or the disk is full.
    """
    if jobs == 1:
        for unit in units:
            yield unit, _convert_unit(unit, folder, on_bytes)
        return
    with _Workers(folder, jobs) as workers:
        yield from workers.convert(units, on_bytes)


class _Workers:
    def __init__(self, folder: Path, jobs: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._processes: dict[Connection, multiprocessing.process.BaseProcess] = {}
        for _ in range(jobs):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve_units, args=(theirs, folder), daemon=True)
            process.start()
            theirs.close()
            self._processes[ours] = process

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for connection, process in self._processes.items():
            connection.close()
            process.terminate()
            process.join()

    def convert(self, units: Iterable[Unit], on_bytes: OnBytes) -> Iterator[tuple[Unit, Note]]:
        """Send the next unit to each free process; yield each unit with its note when it is done."""
        waiting = iter(units)
        busy: dict[Connection, Unit] = {}
        for connection in self._processes:
            self._send_next(connection, waiting, busy)
        while busy:
            for ready in wait(list(busy)):
                connection = cast(Connection, ready)
                message = self._receive(connection)
                if isinstance(message, int):
                    on_bytes(message)
                    continue
                unit = busy.pop(connection)
                self._send_next(connection, waiting, busy)
                yield unit, message

    def _send_next(
        self, connection: Connection, waiting: Iterator[Unit], busy: dict[Connection, Unit]
    ) -> None:
        unit = next(waiting, None)
        if unit is not None:
            connection.send(unit)
            busy[connection] = unit

    def _receive(self, connection: Connection) -> int | Note:
        try:
            message = connection.recv()
        except (EOFError, ConnectionResetError) as error:
            process = self._processes[connection]
            process.join()
            raise SystemRefused(
                f"a process that converts died ({_exit_text(process.exitcode)})",
                "run the command again: what is converted stays; fewer --jobs need less memory",
            ) from error
        if isinstance(message, SystemRefused):
            raise message
        return cast("int | Note", message)


def _serve_units(connection: Connection, folder: Path) -> None:
    """Convert units from the pipe until it is closed, or the process at its other end dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            unit = connection.recv()
            try:
                connection.send(_convert_unit(unit, folder, connection.send))
            except SystemRefused as error:
                connection.send(error)


def _convert_unit(unit: Unit, folder: Path, on_bytes: OnBytes) -> Note:
    try:
        return convert(unit, folder, on_bytes)
    except BrokenPipeError:
        raise
    except OSError as error:
        where = error.filename or folder
        raise SystemRefused(f"{where}: {error.strerror or error}") from error


def _exit_text(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
