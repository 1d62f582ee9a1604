"""Import the user's modules from a folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def importable(folder: Path | None) -> Iterator[None]:
    """Put `folder` first on `sys.path` while the block runs; no bytecode is written."""
    if folder is None:
        yield
        return
    writes_nothing = sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes_nothing
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
