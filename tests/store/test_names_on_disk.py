"""Ids and names that are read from disk never become paths to somewhere else, nor options of a command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alphagrid.cli import app
from alphagrid.errors import UserError
from alphagrid.jobs import logs
from alphagrid.jobs.code import snapshot
from alphagrid.jobs.logs import Outlook
from alphagrid.jobs.worker import attempt_run
from alphagrid.store import journal, submissions
from alphagrid.store.layout import ExperimentFiles, Root, RunFiles
from alphagrid.store.rows import Job
from alphagrid.store.submissions import RunEntry, Submission, Title
from typer.testing import CliRunner, Result

RUN = "00000000aa"
ABSOLUTE = "/FOLDER/outside"
"""Stands for a path below the test's own folder."""
OUTSIDE = ["../../outside", ABSOLUTE, "..", ".", "", "a/b", "a\x00b", "0123456789\n", "٠١٢٣٤٥٦٧٨٩"]
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the user slots and caches below the test's folder, so that no other process holds them."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def call(root: Root, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--root", str(root.path)])


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = Root(tmp_path / "root")
    submissions.write(root.experiment("exp"), submission("good", RUN))
    return root


def submission(name: str, run: str) -> Submission:
    entry = RunEntry(id=run, name=f"run of {name}", params={}, config={"workload": {"name": "least_squares"}})
    return Submission(
        id=name,
        created=1.0,
        experiment="exp",
        profile={"name": "local", "cluster": "local"},
        code_path=".",
        code_hash="0123456789abcdef",
        runs=[entry],
        named={run: Title(name=f"run of {name}", params={})},
    )


def write_changed(root: Root, change: Change) -> Path:
    """Write a submission that says something else than alphagrid would write."""
    content = submission("bad", "00000000bb").model_dump(mode="json")
    change(content)
    path = root.experiment("exp").submissions / "bad.json"
    path.write_text(json.dumps(content).replace(ABSOLUTE, absolute(root)))
    return path


def absolute(root: Root) -> str:
    return str(root.path.parent / "outside")


def job(job_id: str) -> dict[str, Any]:
    return {"cluster": "slurm", "job_id": job_id, "submitted": 1.0}


CHANGES: dict[str, Change] = {
    "run": lambda c: c["runs"][0].update(id="../../outside"),
    "absolute run": lambda c: c["runs"][0].update(id=ABSOLUTE),
    "named": lambda c: c["named"].update({"../x": {"name": "x", "params": {}}}),
    "canary": lambda c: c.update(canary="../../outside"),
    "submission": lambda c: c.update(id="../../outside"),
    "experiment": lambda c: c.update(experiment="../exp"),
    "code": lambda c: c.update(code_hash="../../../outside"),
    "import folder": lambda c: c.update(code_path="../../../outside"),
    "absolute import folder": lambda c: c.update(code_path=ABSOLUTE),
    "job of": lambda c: c.update(jobs={"../x": job("7")}),
    "job": lambda c: c.update(jobs={"00000000bb": job("../../outside")}),
    "option for scancel": lambda c: c.update(jobs={"00000000bb": job("--user=somebody")}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_submission_with_a_hostile_id_is_damaged_and_the_rest_goes_on(
    change: Change, root: Root, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_changed(root, change)
    with pytest.raises(UserError, match=r"bad\.json"):
        submissions.read(path)
    checked = call(root, "store", "check")
    assert checked.exit_code == 1
    assert "exp/submissions/bad.json" in checked.stdout
    status = call(root, "status", "exp", "--json")
    assert status.exit_code == 0, status.output
    assert [run["id"] for run in json.loads(status.stdout)["runs"]] == [RUN]
    refused = call(root, "retry", "exp", "--all")  # which must know of every job
    assert refused.exit_code == 2
    assert "bad.json" in refused.stderr
    cancelled = call(root, "cancel", "exp", "--all")
    assert cancelled.exit_code == 0
    assert "bad.json" in caplog.text
    assert not list(tmp_path.rglob("*outside*"))


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_is_no_id_never_becomes_a_path(name: str, root: Root) -> None:
    files = root.experiment("exp")
    name = name.replace(ABSOLUTE, absolute(root))
    with pytest.raises(UserError, match="is not the id of a run"):
        files.run(name)
    if name != "٠١٢٣٤٥٦٧٨٩":
        with pytest.raises(UserError, match="is not the name of an experiment"):
            root.experiment(name)


@pytest.mark.parametrize("command", ["status", "report", "cancel", "retry", "prune"])
def test_an_experiment_is_named_and_not_a_path(command: str, root: Root) -> None:
    (root.path.parent / "other" / "submissions").mkdir(parents=True)
    arguments = [] if command in ("status", "report") else ["--all"]
    done = call(root, command, "../other", *arguments)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output


def test_a_log_outside_of_the_experiment_is_not_read(root: Root) -> None:
    files = root.experiment("exp")
    (files.submitit).mkdir()
    (files.path / "secret_0_log.out").write_text("secret")
    (files.submitit / "7_0_log.out").write_text("own")
    _, writer = journal.open_next(files.run(RUN))
    start = {"attempt": 1, "resume_step": 0, "fresh": False, "submission": "good"}
    writer.append("start", 0, 0.0, **start, job={"cluster": "slurm", "job_id": "../secret"})
    writer.close()
    jobs = (Job("slurm", "../secret"), Job("slurm", "7"))
    found = "".join(logs.read(files, RUN, Outlook("run", "failed", jobs=jobs)))
    assert "secret" not in found.replace("==>", "")
    assert "own" in found


def test_a_submission_that_a_journal_names_is_not_read_outside(root: Root) -> None:
    files = root.experiment("exp")
    newer = submission("newer", RUN).model_copy(update={"created": 9.0})
    (root.path / "newer.json").write_text(newer.model_dump_json())
    _, writer = journal.open_next(files.run(RUN))
    writer.append("start", 0, 0.0, attempt=1, resume_step=0, fresh=False, submission="../../newer", job=None)
    writer.close()
    assert attempt_run(files, RUN, "good") == "failed"  # and not `elsewhere`: it is no newer submission


def test_a_snapshot_that_a_journal_names_is_not_read_outside(root: Root) -> None:
    files = root.experiment("exp")
    files.code.mkdir()
    (root.path / "x.json").write_text(json.dumps({"files": {"a.py": ["file", "1", 1, True]}}))
    assert snapshot.changed(files, "../../x", "0" * 16) == ["snapshot ../../x (it is gone)"]


@pytest.mark.parametrize(
    "name",
    [
        "journal-٠٠٠١.jsonl",  # digits, but not ours
        f"journal-{'9' * 30}.jsonl",  # more than the index can hold
        "journal-00001.jsonl",  # attempt 1 once more
        "journal-0001.jsonl\n",
    ],
)
def test_a_journal_of_another_name_is_none_of_ours(name: str, root: Root, tmp_path: Path) -> None:
    files = root.experiment("exp").run(RUN)
    files.path.mkdir()
    (files.path / name).write_text("")
    assert files.journals() == []
    assert call(root, "status", "exp").exit_code == 0


def test_a_checkpoint_of_another_name_is_none_of_ours(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    own = "checkpoint-0000000007-0001-0123abcd.pt"
    for name in (own, "checkpoint-٠٠٠٠٠٠٠٠٠٧-0001-0123abcd.pt", f"checkpoint-{'9' * 40}-0001-0123abcd.pt"):
        (tmp_path / name).touch()
    assert [path.name for path in files.checkpoints()] == [own]


def test_ids_of_every_submission_are_such_that_they_can_be_read_again() -> None:
    made = submission(submissions.new_id(1764000000.0), RUN)
    assert Submission.model_validate_json(made.model_dump_json()) == made
    assert ExperimentFiles(Path("exp")).run(RUN).path == Path("exp") / RUN
