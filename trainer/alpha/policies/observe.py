"""Record α*, change nothing: such a run equals the plain baseline bit for bit."""

from __future__ import annotations

from ..options import ObserveOptions
from .base import Policy


class Observe(Policy):
    """Nothing acts."""

    def __init__(self, options: ObserveOptions) -> None:
        self.options = options
