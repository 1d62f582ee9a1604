"""Submissions: durable manifests of what was sent."""

from pathlib import Path

import pytest
from alphagrid.errors import SystemRefused, UserError
from alphagrid.store import submissions
from alphagrid.store.layout import ExperimentFiles
from alphagrid.store.submissions import JobRef, RunEntry, Submission, Title


def submission(created: float, id_: str | None = None) -> Submission:
    entry = RunEntry(id="00000000aa", name="x", params={"seed": 0}, config={"stop": {"steps": 3}})
    return Submission(
        id=id_ or submissions.new_id(created),
        created=created,
        experiment="exp",
        profile={"name": "local", "cluster": "local"},
        runs=[entry],
        named={"00000000aa": Title(name="a", params={})},
    )


def test_what_is_written_is_read_oldest_first(tmp_path: Path) -> None:
    files = ExperimentFiles(tmp_path / "exp")
    late, early = submission(2000.0), submission(1000.0)
    submissions.write(files, late)
    submissions.write(files, early)
    assert submissions.read_all(files) == [early, late]


def test_ids_sort_by_time_and_differ() -> None:
    assert submissions.new_id(1764000000.0) < submissions.new_id(1764000001.0)
    assert len({submissions.new_id(0.0) for _ in range(50)}) == 50


def test_an_amended_submission_is_the_same_file_with_other_fields(tmp_path: Path) -> None:
    files = ExperimentFiles(tmp_path)
    submissions.write(files, submission(1.0, "s"))
    job = JobRef(cluster="slurm", job_id="7_0", submitted=2.0)
    amended = submissions.amend(files, submission(1.0, "s"), jobs={"00000000aa": job})
    assert amended.jobs == {"00000000aa": job}
    assert submissions.read_all(files) == [amended]
    assert [path.name for path in files.submissions.iterdir()] == ["s.json"]  # no temporary file stays


def test_no_submissions_are_an_empty_list(tmp_path: Path) -> None:
    assert submissions.read_all(ExperimentFiles(tmp_path / "none")) == []


def test_a_file_that_is_no_submission_is_named(tmp_path: Path) -> None:
    files = ExperimentFiles(tmp_path)
    files.submissions.mkdir()
    (files.submissions / "broken.json").write_text('{"id": 3}')
    with pytest.raises(UserError, match=r"broken\.json"):
        submissions.read_all(files)


def test_a_folder_that_cannot_be_made_is_the_systems_refusal(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemRefused, match="cannot write"):
        submissions.write(ExperimentFiles(tmp_path / "file" / "exp"), submission(1.0))
