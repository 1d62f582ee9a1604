"""Paths in workloads' options mean the same file, wherever a run is submitted from and wherever it runs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.errors import UserError
from alphagrid.jobs.schedulers import debug
from alphagrid.jobs.specification.experiment import expand
from alphagrid.jobs.specification.file import read_spec
from alphagrid.jobs.submission import retry, submit
from alphagrid.store import submissions
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.workloads.options import Criteo1TBOptions

if TYPE_CHECKING:
    from tests.conftest import Lab

TASK = """
import json
from pathlib import Path

from alphagrid.trainer.registry import Section
from alphagrid.trainer.workloads.least_squares import LeastSquares
from alphagrid.trainer.workloads.options import DataPath, LeastSquaresOptions


class Part(Section):
    file: DataPath = "part"


class Options(LeastSquaresOptions):
    text: DataPath = "text"
    maybe: DataPath | None = None
    more: list[DataPath] = []
    named: dict[str, DataPath] = {}
    part: Part = Part()
    label: str = "label"


class Task(LeastSquares):
    Options = Options

    def provenance(self):
        return {"options": self.options.model_dump(mode="json"), "read": Path(self.options.text).read_text()}
"""


@pytest.fixture
def project(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a workload and its text, not the working directory."""
    folder = lab.folder / "project"
    (folder / "sub").mkdir(parents=True)
    (folder / "path_task.py").write_text(TASK)
    (folder / "text").write_text("the project's")
    (lab.folder / "elsewhere").mkdir()
    (lab.folder / "elsewhere" / "text").write_text("another one's")
    monkeypatch.chdir(lab.folder / "elsewhere")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "path_task", raising=False)
    return folder


def spec(folder: Path, steps: int = 3, **options: Any) -> Path:
    content = {
        "experiment": "exp",
        "base": {
            "workload": {"name": "path_task:Task", **options},
            "optimizer": {"name": "sgd"},
            "stop": {"steps": steps},
            "device": "cpu",
        },
    }
    path = folder / "spec.yaml"
    path.write_text(json.dumps(content))
    return path


def send(lab: Lab, path: Path, set_options: list[str] | None = None) -> Any:
    return submit(expand(read_spec(path, set_options or [])), lab.profile("debug"), lab.root)


def told(lab: Lab, run_id: str, attempt: int = 1) -> dict[str, Any]:
    (event,) = (record for record in lab.records(run_id, attempt) if record.get("event") == "data")
    return event


def test_relative_paths_count_from_the_specifications_folder(lab: Lab, project: Path) -> None:
    (run_id,) = send(lab, spec(project)).sent
    assert told(lab, run_id)["read"] == "the project's"
    (entry,) = submissions.read_all(lab.files)[0].runs
    assert entry.config["workload"]["text"] == "text"
    assert entry.workload is not None
    assert entry.workload["text"] == str(project / "text")


def test_two_working_directories_and_ways_to_the_spec_mean_one_file(
    lab: Lab, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = send(lab, spec(project))
    monkeypatch.chdir(project / "sub")
    spec(project, steps=6)
    second = send(lab, Path("../spec.yaml"))
    assert first.sent == second.sent
    assert second.warnings == ()
    entries = [one.runs[0] for one in submissions.read_all(lab.files)]
    assert entries[0].workload == entries[1].workload
    assert told(lab, second.sent[0], 2)["read"] == "the project's"


def test_the_run_id_hashes_the_text_as_written(project: Path) -> None:
    ids = {expand(read_spec(spec(project, text=text))).runs[0].id for text in ("text", "./text")}
    assert len(ids) == 2
    moved = project.parent / "moved"
    project.rename(moved)
    sys.modules.pop("path_task")
    assert expand(read_spec(spec(moved, text="./text"))).runs[0].id in ids


def test_the_ids_of_runs_are_those_of_earlier_versions() -> None:
    config = {"workload": {"name": "criteo1tb", "data_dir": "data/prepared"}, "optimizer": {"name": "sgd"}}
    assert TrainingConfig.model_validate({**config, "stop": {"steps": 1}}).run_id() == "807548e959"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("text", "{project}/text"),
        ("../elsewhere/text", "{project}/../elsewhere/text"),
        ("sub/", "{project}/sub/"),
        ("~/text", "{home}/text"),
        ("~", "{home}"),
        ("/abs/text", "/abs/text"),
        ("${ABSOLUTE}/text", "/abs/text"),
        ("${RELATIVE}/text", "{project}/sub/text"),
        ("${HOMELY}/text", "{home}/text"),
        ("${PART}text", "{project}/subtext"),
        ("sub/${PART}/text", "{project}/sub/sub/text"),
        ("/abs/${PART}", "/abs/sub"),
        ("${EMPTY}/text", "/text"),
    ],
)
def test_every_way_to_write_a_path(
    lab: Lab, project: Path, monkeypatch: pytest.MonkeyPatch, text: str, found: str
) -> None:
    home = lab.folder / "home"
    variables = {
        "ABSOLUTE": "/abs",
        "RELATIVE": "sub",
        "HOMELY": "~",
        "PART": "sub",
        "EMPTY": "",
        "HOME": str(home),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    expected = found.format(project=project, home=home)
    (run_id,) = send(
        lab, spec(project, maybe=text, more=[text], named={"a.b": text}, part={"file": text})
    ).sent
    options = told(lab, run_id)["options"]
    assert options["maybe"] == expected
    assert options["more"] == [expected]
    assert options["named"] == {"a.b": expected}
    assert options["part"] == {"file": expected}
    (entry,) = submissions.read_all(lab.files)[0].runs
    assert entry.config["workload"]["maybe"] == text
    if "${" in text:
        assert "${" in (entry.workload or entry.config["workload"])["maybe"]


def test_options_of_other_types_are_left_alone(lab: Lab, project: Path) -> None:
    (run_id,) = send(lab, spec(project, label="~/label")).sent
    assert told(lab, run_id)["options"]["label"] == "~/label"
    assert told(lab, run_id)["options"]["maybe"] is None
    assert told(lab, run_id)["options"]["part"] == {"file": str(project / "part")}


def test_set_counts_from_the_specifications_folder_too(lab: Lab, project: Path) -> None:
    (project / "sub" / "text").write_text("the one below")
    (run_id,) = send(lab, spec(project), ["workload.text=sub/text"]).sent
    assert told(lab, run_id)["read"] == "the one below"


def test_retry_takes_the_resolved_path(lab: Lab, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run_id,) = send(lab, spec(project)).sent
    monkeypatch.chdir("/")
    assert retry(lab.root, "exp", [run_id], fresh=True).sent == (run_id,)
    assert told(lab, run_id, 2)["read"] == "the project's"


def test_criteos_folder_is_a_path(lab: Lab) -> None:
    content = json.loads(lab.spec(3, workload={"name": "criteo1tb", "data_dir": "clicks"}).read_text())
    submitted = send(lab, lab.write(content))
    (entry,) = submissions.read_all(lab.files)[0].runs
    assert entry.workload is not None
    assert entry.workload["data_dir"] == str(lab.folder / "clicks")
    assert f"{lab.folder / 'clicks'} does not exist" in str(lab.attempts(submitted.sent[0])[-1].reason)


def test_submissions_of_earlier_versions_go_on_as_they_were(lab: Lab, project: Path) -> None:
    (run_id,) = send(lab, spec(project)).sent
    (path,) = lab.files.submissions.iterdir()
    old = json.loads(path.read_text())
    for entry in old["runs"]:
        del entry["workload"], entry["data_folder"]
        entry["config"]["stop"]["steps"] = 6
    path.unlink()
    path.with_name("20261130T000000-aaaaaa.json").write_text(
        json.dumps({**old, "id": "20261130T000000-aaaaaa", "created": old["created"] + 1})
    )
    debug.run_here(lab.files, "20261130T000000-aaaaaa", [run_id])
    assert told(lab, run_id, 2)["read"] == "another one's"  # the working directory's, as before


def test_a_moved_specification_is_warned_of(lab: Lab, project: Path) -> None:
    send(lab, spec(project))
    moved = lab.folder / "moved"
    project.rename(moved)
    sys.modules.pop("path_task")
    (warning,) = send(lab, spec(moved, steps=6)).warnings
    assert "relative paths of base now lead to other files" in warning


@pytest.mark.parametrize("text", ["~no-such-user/text", "${NOBODY}/text"])
def test_a_home_that_nobody_has_is_refused_with_the_place(
    lab: Lab, project: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("NOBODY", "~no-such-user")
    path = spec(project, maybe=text)
    message = r"the path '~no-such-user/text' cannot be resolved: there is no user 'no-such-user'"
    if text.startswith("~"):
        with pytest.raises(UserError, match=rf"spec.yaml:1: base.workload.maybe: {message}"):
            send(lab, path)
        assert not list(lab.files.submissions.glob("*"))
    else:
        (run_id,) = send(lab, path).sent
        assert message in str(lab.attempts(run_id)[-1].reason)


def test_a_folder_whose_name_cannot_be_recorded_is_refused(lab: Lab, project: Path) -> None:
    for name in ("with ${braces}", os.fsdecode(b"caf\xe9")):
        odd = project.rename(project.with_name(name))
        sys.modules.pop("path_task", None)
        with pytest.raises(UserError, match="the path 'text' cannot be resolved: it lies below"):
            send(lab, spec(odd))
        project = odd


def test_options_given_in_python_are_as_they_were_given() -> None:
    options = Criteo1TBOptions(name="criteo1tb", data_dir="~/data")
    assert options.model_dump()["data_dir"] == options.data_dir == "~/data"
