"""Where files lie."""

from pathlib import Path

import pytest
from alphagrid.errors import UserError
from alphagrid.store.layout import EXPERIMENT_NAME, ExperimentFiles, Root, RunFiles, root_from


@pytest.mark.parametrize("name", ["exp2-time", "a", "0", "a.b_c-d", "quickstart"])
def test_plain_names_are_accepted(name: str) -> None:
    assert EXPERIMENT_NAME.fullmatch(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a..b", "a/b", "../a", ".hidden", "-a", "_a", "A", "a b", "a\n", "ä", "alphagrid.db"],
)
def test_names_that_could_be_paths_or_collide_are_refused(name: str) -> None:
    assert not EXPERIMENT_NAME.fullmatch(name)


def test_root_is_the_option_then_the_environment_then_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"ALPHAGRID_ROOT": "/elsewhere"}
    assert root_from(Path("here"), environ) == Root(tmp_path / "here")
    assert root_from(None, environ) == Root(Path("/elsewhere"))
    assert root_from(None, {"ALPHAGRID_ROOT": ""}) == Root(tmp_path / "runs")


def test_experiments_are_the_folders_that_were_submitted_to(tmp_path: Path) -> None:
    for folder in (
        "b/submissions",
        "a/submissions",
        ".supervisor/submissions",
        "unrelated",
        "UPPER/submissions",
    ):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "alphagrid.db").touch()
    assert [files.name for files in Root(tmp_path).experiments()] == ["a", "b"]


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is no folder"):
        root_from(tmp_path / "file", {})


def test_a_missing_root_has_no_experiments(tmp_path: Path) -> None:
    assert Root(tmp_path / "none").experiments() == []


def test_runs_are_the_folders_named_by_an_id(tmp_path: Path) -> None:
    files = ExperimentFiles(tmp_path)
    for folder in ("submissions", "submitit", "00000000ff", "0000000000", "0000000000x", "code"):
        (tmp_path / folder).mkdir()
    assert [run.id for run in files.runs()] == ["0000000000", "00000000ff"]


def test_journals_ascend_by_attempt_as_numbers(tmp_path: Path) -> None:
    run = RunFiles(tmp_path)
    for attempt in (10000, 2, 1):
        run.journal(attempt).touch()
    (tmp_path / "journal-0003.jsonl.tmp").touch()
    assert [attempt for attempt, _ in run.journals()] == [1, 2, 10000]


def test_newest_checkpoint_is_last(tmp_path: Path) -> None:
    names = [
        "checkpoint-0000000009-0002-00000000.pt",
        "checkpoint-0000000010-0001-ffffffff.pt",
        "checkpoint-0000000010-0002-00000000.pt",
    ]
    for name in reversed(names):
        (tmp_path / name).touch()
    (tmp_path / "checkpoint-0000000011-0002-00000000.pt.tmp").touch()
    assert [path.name for path in RunFiles(tmp_path).checkpoints()] == names
