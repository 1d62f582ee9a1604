"""How long `alphagrid --help` takes beside importing what any Typer program with rich help imports.

Bar: at most 1.25 times. Run: python -m benchmarks.startup
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.harness import command, hardware, interleaved, table

REPETITIONS = 15
BAR = 1.25


def main() -> None:
    alphagrid = str(Path(sys.executable).with_name("alphagrid"))
    seconds = interleaved(
        {
            "import typer, typer.rich_utils": command(sys.executable, "-c", "import typer, typer.rich_utils"),
            "alphagrid --help": command(alphagrid, "--help"),
        },
        REPETITIONS,
    )
    base = seconds["import typer, typer.rich_utils"]
    rows = [("command", "median", "ratio")]
    rows += [(name, f"{1000 * value:.0f} ms", f"{value / base:.2f}") for name, value in seconds.items()]
    print(hardware())
    print(table(rows))
    print(f"bar: {BAR}")


if __name__ == "__main__":
    main()
