"""Characters of the Python standard library's source, and a small causal transformer.

The text is that of the Python the run runs on; its version stands in every attempt's `start` record.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UserError
from ..losses import CrossEntropy
from ..streams import Batch, ShuffledStream, Stream, derive
from .base import Workload
from .fingerprint import fingerprint
from .options import CharTransformerOptions
from .transformer import Transformer

CHARACTERS = 128
"""ASCII; any other character is read as a question mark."""
EVERY = 10
PLACES = {"train": range(8), "validation": [8], "test": [9]}
"""Of every ten files in a row, by name, which belong to a split."""
EVALUATION_WINDOWS = 256
"""Windows of an evaluated batch."""


class CharTransformer(Workload):
    """Windows of the text that do not overlap, in random order, all of them before any comes again.

    A pass is (characters of the training files / context / batch_size) steps, some 1,900 by default.
    """

    Options = CharTransformerOptions
    loss = CrossEntropy(classes_last=True)  # a context of as many characters as there are is no riddle
    options: CharTransformerOptions

    def model(self) -> nn.Module:
        """Return a transformer of the options' sizes."""
        options = self.options
        return Transformer(
            CHARACTERS, options.context, options.width, options.heads, options.layers, options.tie_weights
        )

    def stream(self, name: str, seed: int) -> Stream:
        """Return batches of windows of the training files, in an order of the stream's own."""
        return WindowStream(
            _read_text("train"), self.options.context, self.options.batch_size, derive(seed, name)
        )

    @property
    def train_examples(self) -> int:
        """The windows of one pass over the training files."""
        return len(_window_starts(_read_text("train"), self.options.context))

    def data_fingerprint(self, splits: Iterable[str]) -> dict[str, Any]:
        """Return a hash of the text of some splits: another Python comes with another library."""
        return fingerprint({split: {"text": _read_text(split)} for split in splits})

    def split(self, name: str) -> Iterable[Batch]:
        """Yield windows that are spread evenly over the text of a split."""
        text = _read_text(name)
        last = len(text) - self.options.context - 1
        starts = torch.linspace(0, last, self.options.evaluation_windows, dtype=torch.float64).long()
        for first in range(0, len(starts), EVALUATION_WINDOWS):
            yield windows(text, starts[first : first + EVALUATION_WINDOWS], self.options.context)


class WindowStream:
    """Windows of a text, in a new order each pass."""

    def __init__(self, text: Tensor, context: int, batch_size: int, seed: int) -> None:
        self._text = text
        self._context = context
        self._starts = ShuffledStream({"starts": _window_starts(text, context)}, batch_size, seed)

    def batch(self, index: int) -> Batch:
        """Return the windows of batch `index`, counted over all passes."""
        return windows(self._text, self._starts.batch(index)["starts"], self._context)


def windows(text: Tensor, starts: Tensor, context: int) -> Batch:
    """Return characters [B, context] from each start, and as targets the one that follows each."""
    characters = text[starts.unsqueeze(1) + torch.arange(context + 1)].long()
    return {"inputs": characters[:, :-1], "targets": characters[:, 1:]}


def _window_starts(text: Tensor, context: int) -> Tensor:
    """Return where windows begin that do not overlap."""
    return torch.arange(0, len(text) - context, context)


@cache
def _read_text(split: str) -> Tensor:
    """Return the characters of a split's files, one after the other, as bytes."""
    files = source_files(Path(sysconfig.get_path("stdlib")))
    chosen = [path.read_text("utf-8") for index, path in enumerate(files) if index % EVERY in PLACES[split]]
    return torch.frombuffer(bytearray("".join(chosen).encode("ascii", "replace")), dtype=torch.uint8)


def source_files(folder: Path) -> list[Path]:
    """Return the standard library's modules in `folder` that are one file each, by name.

    Raises:
        UserError: this Python comes without the source of its library.
    """
    paths = sorted(path for path in folder.glob("*.py") if path.stem in sys.stdlib_module_names)
    if len(paths) < EVERY:
        raise UserError(
            f"workload char_transformer: {folder} lacks the source of Python's standard library",
            "use a Python that is installed with it",
        )
    return paths
