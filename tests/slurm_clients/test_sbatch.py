"""What sbatch's refusals mean; the texts are those of Slurm 22.05."""

from pathlib import Path

import pytest
from alphagrid.slurm.command import Absent
from alphagrid.slurm.sbatch import TooMany, refusal, sbatch

VIOLATES = (
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy "
    "(job submit limit, user's size and/or time limits)"
)


@pytest.mark.parametrize(
    ("said", "limit"),
    [
        (f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{VIOLATES}", "QOSMaxSubmitJobPerUserLimit"),
        (f"sbatch: error: AssocMaxSubmitJobLimit\n{VIOLATES}", "AssocMaxSubmitJobLimit"),
        (f"sbatch: error: AssocGrpSubmitJobsLimit\n{VIOLATES}", "AssocGrpSubmitJobsLimit"),
        (
            "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
            "Slurm temporarily unable to accept job",
        ),
    ],
)
def test_a_limit_on_the_number_of_jobs_is_named(said: str, limit: str) -> None:
    error = refusal(said)
    assert isinstance(error, TooMany)
    assert error.is_certain
    assert error.message == f"submit limit ({limit})"


@pytest.mark.parametrize(
    "said", [VIOLATES, "sbatch: error: Batch job submission failed: Invalid job array specification"]
)
def test_what_may_be_a_limit_is_tried_with_fewer_jobs_and_refused_if_even_one_is_too_many(said: str) -> None:
    error = refusal(said)
    assert isinstance(error, TooMany)
    assert not error.is_certain
    assert error.as_refusal().message == "sbatch refused: " + said.split("failed: ")[1]


def test_any_other_refusal_is_told_in_sbatchs_words_on_one_line() -> None:
    said = (
        "sbatch: error: invalid partition specified: nowhere\n"
        "sbatch: error: Batch job submission failed: Invalid partition name specified"
    )
    error = refusal(said)
    assert not isinstance(error, TooMany)
    assert (
        error.message
        == "sbatch refused: invalid partition specified: nowhere; Invalid partition name specified"
    )
    assert error.exit_code == 3


def test_a_machine_that_has_no_sbatch_any_more_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Absent, match="this machine has no sbatch"):
        sbatch(tmp_path / "script")
