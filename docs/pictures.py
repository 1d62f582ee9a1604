"""Make the README's pictures from a real run of the quickstart grid: `make pictures`.

docs/pictures/status.svg is `alphagrid status quickstart` while runs go on; docs/pictures/budget.svg is the
budget heatmap of its report.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from alphagrid.jobs.status import ExperimentStatus, status
from alphagrid.store.layout import Root
from alphagrid.terminal import status_view
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

HERE = Path(__file__).parent
SPEC = HERE.parent / "specs" / "quickstart.yaml"
ALPHAGRID = str(Path(sys.executable).with_name("alphagrid"))
EXPERIMENT = "quickstart"
WIDTH = 118


def main() -> None:
    """Train the grid in a folder of its own, and picture it halfway and at its end."""
    with tempfile.TemporaryDirectory() as folder:
        root = Root(Path(folder))
        _alphagrid("submit", str(SPEC), "--root", folder)
        _save(_halfway(root), HERE / "pictures" / "status.svg")
        _alphagrid("submit", str(SPEC), "--root", folder, "--wait")
        _alphagrid("report", EXPERIMENT, "--root", folder, "--out", folder + "/report")
        heatmap = next((Path(folder) / "report" / "figures").glob("budget-*-until-*.svg"))
        shutil.copy(heatmap, HERE / "pictures" / "budget.svg")


def _alphagrid(*arguments: str) -> None:
    subprocess.run([ALPHAGRID, *arguments], check=True)


def _halfway(root: Root) -> ExperimentStatus:
    """Wait until some runs have completed and others are well under way."""
    while True:
        found = status(root, EXPERIMENT)
        done = found.counts.get("completed", 0)
        under_way = [run for run in found.runs if run.state == "running" and run.percent_done > 20]
        if done >= 3 and len(under_way) >= 2:
            return found
        if done == len(found.runs):
            raise SystemExit("the grid was done before two runs were seen at once")
        time.sleep(0.5)


def _save(found: ExperimentStatus, path: Path) -> None:
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(status_view(found))
    own_fonts = re.sub(r"@font-face {{.*?}}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    console.save_svg(str(path), title=f"alphagrid status {EXPERIMENT}", code_format=own_fonts)


if __name__ == "__main__":
    main()
