"""The real Slurm of the tests: it comes up with the session and goes down with it."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAMS = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "sbatch", "sacct")


@dataclass(frozen=True)
class Slurm:
    """A cluster of tests/slurm/cluster: where it is, and what it was asked for."""

    state: Path
    options: tuple[str, ...] = ()

    def cluster(self, verb: str, *options: str) -> str:
        """What `tests/slurm/cluster VERB` printed; raises CalledProcessError if it failed."""
        return output([sys.executable, str(HERE / "cluster"), verb, "--state", str(self.state), *options])

    def up(self) -> None:
        """Start the cluster, or those of its daemons that do not run."""
        self.cluster("up", *self.options)

    def down(self) -> None:
        """Kill all its processes and remove its files."""
        self.cluster("down")

    @property
    def variables(self) -> dict[str, str]:
        """The variables that make Slurm's commands talk to this cluster."""
        words = shlex.split(self.cluster("env"))
        return dict(word.split("=", 1) for word in words if "=" in word)

    def run(self, *command: str) -> str:
        """What a command (sbatch, squeue, ...) printed; raises CalledProcessError if it failed."""
        return output(list(command), self.variables)

    def pid(self, daemon: str) -> int:
        """Process id of mariadbd, munged, slurmdbd, slurmctld or slurmd-node1, as last started."""
        return int((self.state / f"{daemon}.pid").read_text())


def output(command: list[str], variables: dict[str, str] | None = None) -> str:
    environment = {**os.environ, **(variables or {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)  # pytest shows it with the failure
    done.check_returncode()
    return done.stdout


@pytest.fixture(scope="session")
def slurm_with() -> Iterator[Callable[..., Slurm]]:
    """Bring up a cluster with options of `cluster up`; the same options give the same cluster."""
    require_slurm()
    clusters: dict[tuple[str, ...], Slurm] = {}

    def bring_up(*options: str) -> Slurm:
        if options not in clusters:
            state = Path(tempfile.mkdtemp(prefix="alphagrid-slurm-"))
            # Its owner is this process: if that is killed, the cluster goes down by itself.
            clusters[options] = Slurm(state, (*options, "--owner", str(os.getpid())))
        clusters[options].up()
        return clusters[options]

    yield bring_up
    for cluster in clusters.values():
        cluster.down()


@pytest.fixture(scope="session")
def slurm(slurm_with: Callable[..., Slurm]) -> Slurm:
    """The cluster that most tests use: accounting, PreemptMode=REQUEUE, one node with four GPUs."""
    return slurm_with()


@pytest.fixture(autouse=True)
def _use_slurm(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    """In these tests sbatch, submitit and alphagrid itself find the cluster."""
    for name, value in slurm.variables.items():
        monkeypatch.setenv(name, value)


def require_slurm() -> None:
    """Skip where Slurm cannot run; fail there if ALPHAGRID_REQUIRE_SLURM=1, as in CI."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if os.geteuid() == 0 and not missing:
        return
    lacks = f"not installed: {', '.join(missing)} (run tests/slurm/install)" if missing else "needs root"
    if os.environ.get("ALPHAGRID_REQUIRE_SLURM") == "1":
        pytest.fail(f"Slurm: {lacks}", pytrace=False)
    pytest.skip(f"Slurm: {lacks}")
