"""What was submitted is what runs: snapshots of the users' code, and refusals where it has changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.cluster_profiles.loader import load_profile
from alphagrid.errors import UserError
from alphagrid.jobs.code import import_check, snapshot, submitted_code
from alphagrid.jobs.code.project_files import Project, read_project
from alphagrid.jobs.code.submitted_code import Code
from alphagrid.jobs.schedulers import debug, slurm_arrays, slurm_setup_failure
from alphagrid.jobs.specification.experiment import expand
from alphagrid.jobs.specification.file import read_spec
from alphagrid.jobs.submission import retry, submit
from alphagrid.jobs.worker import environment_record
from alphagrid.store import journal, submissions
from alphagrid.store.layout import ExperimentFiles

if TYPE_CHECKING:
    from tests.conftest import Lab

TASK = """
from alphagrid.trainer.workloads.least_squares import LeastSquares

class Task(LeastSquares):
    pass
"""


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always"]
    command = ["git", *identity, *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_CONFIG_GLOBAL"] = os.devnull  # commits are not to be signed, say
    return subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__slash__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A git repository with a tracked, an untracked and an ignored file."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "tasks.py").write_text(TASK)
    (folder / ".gitignore").write_text("data/\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    (folder / "helper.py").write_text("X = 1\n")
    (folder / "data").mkdir()
    (folder / "data" / "train.bin").write_bytes(b"much")
    return folder


@pytest.fixture
def files(tmp_path: Path) -> ExperimentFiles:
    return ExperimentFiles(tmp_path / "runs" / "exp")


def kept(files: ExperimentFiles, root: Path, *modules: str) -> Path:
    """Keep a project; return the folder of the snapshot."""
    return snapshot.folder_of(files, snapshot.keep(files, read_project(root, modules)))


def names(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()
    }


# Which files


def test_tracked_and_untracked_files_are_code_ignored_ones_are_not(project: Path) -> None:
    read = read_project(project, ["tasks"])
    assert set(read.files) == {".gitignore", "helper.py", "tasks.py"}
    assert (read.folder, read.import_root, read.dirty) == (project.resolve(), ".", True)
    assert read.commit == git(project, "rev-parse", "HEAD")


def test_a_clean_repository_is_not_dirty_and_a_hooks_variables_do_not_mislead(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(project, "add", ".")
    git(project, "commit", "-qm", "second")
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    assert not read_project(project, ["tasks"]).dirty


def test_a_specification_in_a_subfolder_brings_the_whole_project(project: Path) -> None:
    write(project, exps__slash__grid__slash__mine="", exps__slash__local_task="")
    (project / "exps" / "local_task.py").write_text("import helper")
    read = read_project(project / "exps", ["local_task"])
    assert read.import_root == "exps"
    assert {"exps/local_task.py", "tasks.py"} <= set(read.files)


def test_a_workload_that_git_ignores_is_refused_with_a_way_out(project: Path) -> None:
    (project / ".gitignore").write_text("secret.py\n")
    (project / "secret.py").write_text(TASK)
    with pytest.raises(UserError, match=r"git ignores the workload's module secret") as caught:
        read_project(project, ["secret"])
    assert "git add -f secret.py" in str(caught.value.hint)
    git(project, "add", "-f", "secret.py")
    assert "secret.py" in read_project(project, ["secret"]).files


def test_submodules_and_repositories_inside_belong_to_the_project(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    write(other, model="", ignored="", **{".gitignore": "ignored\n"})
    git(other, "add", ".")
    git(other, "commit", "-qm", "other")
    git(project, "submodule", "add", "-q", str(other), "lib")
    git(project, "clone", "-q", str(other), "beside")
    write(project / "lib", new="", ignored="")
    found = set(read_project(project, ["tasks"]).files)
    assert {"lib/model", "lib/new", "beside/model"} <= found
    assert not any("ignored" in name and not name.endswith(".gitignore") for name in found)
    assert not any(".git/" in name for name in found)


def test_a_submodule_that_is_not_checked_out_is_empty(project: Path, tmp_path: Path) -> None:
    git(project, "submodule", "add", "-q", str(project), "lib")
    git(project, "commit", "-qm", "lib")
    git(project, "submodule", "--quiet", "deinit", "--force", "lib")
    assert not any(name.startswith("lib") for name in read_project(project, ["tasks"]).files)


def test_runs_environments_and_caches_are_no_code(project: Path) -> None:
    submission = "20261124T161116-cbb123.json"
    for path in ("runs/exp/submissions/" + submission, "runs/exp/0123456789/journal-0001.jsonl",
                 "runs/alphagrid.db", "env/pyvenv.cfg", "env/lib/x.py", "__pycache__/tasks.pyc"):  # fmt: skip
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text("")
    (project / "here").mkdir()
    (project / "here" / "file").write_text("")
    found = read_project(project, ["tasks"], [project / "here"])
    assert set(found.files) == {".gitignore", "helper.py", "tasks.py"}


def test_huge_files_are_refused_with_a_hint_unless_git_ignores_them(project: Path) -> None:
    with (project / "weights.bin").open("wb") as file:
        file.truncate(101 * 2**20)
    with pytest.raises(UserError, match=r"weights\.bin is too large") as caught:
        read_project(project, ["tasks"])
    assert ".gitignore" in str(caught.value.hint)
    (project / ".gitignore").write_text("weights.bin\ndata\n")
    assert "weights.bin" not in read_project(project, ["tasks"]).files


def test_without_git_the_python_files_of_the_folder_are_the_code(tmp_path: Path) -> None:
    write(tmp_path, note="", pkg__slash__a="", **{".hidden__slash__x.py": ""})
    for name in ("tasks.py", "pkg/__init__.py", "pkg/model.py", "env/lib/y.py", "root/exp/x.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    read = read_project(tmp_path, ["tasks"], [tmp_path / "root"])
    assert read == Project(tmp_path.resolve(), ".", ("pkg/__init__.py", "pkg/model.py", "tasks.py"))


def test_without_git_a_folder_full_of_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alphagrid.jobs.code.project_files.MOST_LOOKED_AT", 5)
    for number in range(6):
        (tmp_path / f"{number}.py").write_text("")
    with pytest.raises(UserError, match="more than 5 files") as caught:
        read_project(tmp_path, ["tasks"])
    assert "folder of its own" in str(caught.value.hint)


# Snapshots


def test_a_snapshot_holds_the_files_read_only_and_is_made_once(files: ExperimentFiles, project: Path) -> None:
    (project / "run.sh").write_text("")
    (project / "run.sh").chmod(0o755)
    folder = kept(files, project)
    assert names(folder) == {".gitignore", "helper.py", "tasks.py", "run.sh"}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444, 0o555}
    before = folder.stat().st_ino
    assert kept(files, project).stat().st_ino == before
    (project / "helper.py").write_text("X = 2\n")
    assert kept(files, project) != folder
    assert (folder / "helper.py").read_text() == "X = 1\n"
    assert not list(files.code.glob(".*"))


def test_names_that_are_no_utf8_are_kept_as_they_are(files: ExperimentFiles, project: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \n\xff.py")
    (project / name).write_text("")
    folder = kept(files, project)
    assert (folder / name).exists()
    (project / name).write_text("pass")
    assert len(snapshot.changed(files, folder.name, kept(files, project).name)) == 1


def test_links_stay_inside_files_outside_are_copied_folders_of_data_stay_where_they_are(
    files: ExperimentFiles, project: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    write(outside, shared="S", big__slash__data="D")
    (project / "pkg").mkdir()
    (project / "pkg" / "again.py").symlink_to("../helper.py")
    (project / "absolute.py").symlink_to(project / "helper.py")
    (project / "shared.py").symlink_to(outside / "shared")
    (project / "big").symlink_to(outside / "big")
    (project / "ignored").symlink_to("data")
    (project / "broken").symlink_to("nowhere")
    folder = kept(files, project)
    assert (folder / "pkg" / "again.py").readlink() == Path("../helper.py")
    assert (folder / "absolute.py").readlink() == Path("helper.py")
    assert not (folder / "shared.py").is_symlink()
    assert (folder / "shared.py").read_text() == "S"
    assert (folder / "big" / "data").read_text() == "D"
    assert (folder / "ignored" / "train.bin").read_bytes() == b"much"
    assert (folder / "broken").is_symlink()


def test_two_that_keep_the_same_code_at_once_make_one_snapshot(files: ExperimentFiles, project: Path) -> None:
    for number in range(20):
        (project / f"module{number}.py").write_text(f"X = {number}")
    read = read_project(project, ["tasks"])
    found: list[str] = []
    workers = [threading.Thread(target=lambda: found.append(snapshot.keep(files, read))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert {path.name for path in files.code.iterdir()} == {found[0], f"{found[0]}.json"}


def test_a_torn_copy_is_never_used(
    files: ExperimentFiles, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(snapshot, "_give_name", killed)
    with pytest.raises(KeyboardInterrupt):
        kept(files, project)
    assert not [path for path in files.code.iterdir() if path.is_dir()]
    monkeypatch.undo()
    assert names(kept(files, project)) == {".gitignore", "helper.py", "tasks.py"}


def test_a_snapshot_that_somebody_changed_is_refused(files: ExperimentFiles, project: Path) -> None:
    folder = kept(files, project)
    (folder / "tasks.py").chmod(0o644)
    (folder / "tasks.py").write_text("other")
    with pytest.raises(UserError, match="has been changed"):
        kept(files, project)


@pytest.mark.parametrize(
    ("name", "text", "counts"),
    [
        ("helper.py", "X = 2", True),
        ("new.py", "", True),
        ("vocabulary.json", "{}", True),
        ("model.yaml", "layers: 3", True),
        ("README.md", "words", False),
        ("notes.ipynb", "{}", False),
        ("figure.svg", "<svg/>", False),
        ("grid.yaml", "# mine\nexperiment: e\n", False),
        ("site.yaml", "extends: slurm-a100\n", False),
    ],
)
def test_what_is_a_change_of_code(
    files: ExperimentFiles, project: Path, name: str, text: str, counts: bool
) -> None:
    before = kept(files, project).name
    (project / name).write_text(text)
    after = kept(files, project)
    assert (after / name).read_text() == text
    assert snapshot.changed(files, before, after.name) == ([name] if counts else [])


# Runs


def with_task(lab: Lab, name: str, text: str = TASK) -> dict[str, Any]:
    (lab.folder / f"{name}.py").write_text(text)
    return {"name": f"{name}:Task"}


def send(lab: Lab, workload: dict[str, Any], steps: int = 20, **options: Any) -> Any:
    return submit(lab.experiment(steps, workload=workload), lab.profile("debug"), lab.root, **options)


def test_an_attempt_records_its_code_packages_and_where_it_ran(lab: Lab) -> None:
    git(lab.folder, "init", "-q")
    workload = with_task(lab, "recorded_task")
    git(lab.folder, "add", "recorded_task.py")
    git(lab.folder, "commit", "-qm", "first")
    (run_id,) = send(lab, workload).sent
    start = lab.records(run_id)[0]
    (submission,) = submissions.read_all(lab.files)
    commit = git(lab.folder, "rev-parse", "HEAD")
    assert start["code"] == {"hash": submission.code_hash, "commit": commit, "dirty": True}
    assert (lab.files.code / str(submission.code_hash) / "recorded_task.py").read_text() == TASK
    assert "numpy" in start["packages"]
    assert {"host", "gpu", "driver", "cuda", "threads", "job"} <= start.keys()


def test_built_in_workloads_need_no_snapshot(lab: Lab) -> None:
    (run_id,) = lab.submit(20, cluster="debug").sent
    assert lab.records(run_id)[0]["code"] is None
    assert not lab.files.code.exists()


def test_a_change_of_code_is_refused_before_anything_is_sent(lab: Lab) -> None:
    workload = with_task(lab, "changing_task")
    (run_id,) = send(lab, workload).sent
    before = sorted(lab.files.submissions.iterdir())
    (lab.folder / "changing_task.py").write_text(TASK + "# other\n")
    (lab.folder / "added.py").write_text("")
    with pytest.raises(UserError, match=r"has changed.*added\.py, changing_task\.py") as caught:
        send(lab, workload, 40)
    assert "--allow-code-change" in str(caught.value.hint)
    assert caught.value.exit_code == 2
    assert sorted(lab.files.submissions.iterdir()) == before
    assert send(lab, workload, 40, allow_code_change=True).sent == (run_id,)
    assert send(lab, workload, 60).sent == (run_id,)  # the new code is now the run's
    assert [attempt.end for attempt in lab.attempts(run_id)] == ["completed"] * 3


def test_retry_refuses_changed_code_too_but_not_for_a_run_that_begins_anew(lab: Lab) -> None:
    broken = TASK.replace("pass", "def model(self): raise RuntimeError('boom')")
    workload = with_task(lab, "broken_task", broken)
    (run_id,) = send(lab, workload).sent
    assert retry(lab.root, "exp", [run_id]).sent == (run_id,)
    (lab.folder / "broken_task.py").write_text(TASK)
    with pytest.raises(UserError, match=r"has changed.*broken_task\.py"):
        retry(lab.root, "exp", [run_id])
    assert retry(lab.root, "exp", [run_id], fresh=True).sent == (run_id,)
    assert retry(lab.root, "exp", [run_id], allow_code_change=True).sent == (run_id,)


def test_retry_takes_what_was_kept_where_the_live_code_is_gone(lab: Lab) -> None:
    away = lab.folder / "away"
    away.mkdir()
    spec = away / "spec.yaml"
    (away / "gone_task.py").write_text(TASK.replace("pass", "def model(self): raise RuntimeError('boom')"))
    spec.write_text(lab.spec(20, workload={"name": "gone_task:Task"}).read_text())
    (run_id,) = submit(expand(read_spec(spec)), lab.profile("debug"), lab.root).sent
    shutil.rmtree(away)
    assert retry(lab.root, "exp", [run_id]).sent == (run_id,)
    first, second = submissions.read_all(lab.files)
    assert (first.code_hash, first.code_path) == (second.code_hash, second.code_path)


def test_a_worker_refuses_code_that_is_not_the_runs(lab: Lab) -> None:
    workload = with_task(lab, "refused_task")
    (run_id,) = send(lab, workload).sent
    (lab.folder / "refused_task.py").write_text(TASK + "# other\n")
    send(lab, workload, 40, allow_code_change=True)
    first, second = submissions.read_all(lab.files)
    stale = first.model_copy(update={"id": "stale", "created": second.created + 1})
    submissions.write(lab.files, stale)
    debug.run_here(lab.files, "stale", [run_id])
    last = lab.attempts(run_id)[-1]
    assert last.end == "failed"
    assert "the code has changed since the last attempt: refused_task.py" in str(last.reason)
    assert "--allow-code-change" in str(last.reason)
    assert (
        submitted_code.last_hash(lab.attempts(run_id)) == second.code_hash
    )  # a refused attempt decides nothing


def test_the_worker_runs_the_snapshot_whatever_lies_in_the_live_folder(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lab.folder / "live_helper.py").write_text("X = 1\n")
    workload = with_task(lab, "live_task", "import live_helper\n" + TASK)
    (run_id,) = send(lab, workload).sent
    (first,) = submissions.read_all(lab.files)
    second = first.model_copy(update={"id": "second", "created": first.created + 1})
    second.runs[0].config["stop"]["steps"] = 40
    submissions.write(lab.files, second)
    for name in ("live_helper", "live_task"):
        (lab.folder / f"{name}.py").write_text("raise RuntimeError('live')")
        del sys.modules[name]
    monkeypatch.syspath_prepend(str(lab.folder))
    debug.run_here(lab.files, "second", [run_id])
    assert [attempt.end for attempt in lab.attempts(run_id)] == ["completed", "completed"]
    assert Path(str(sys.modules["live_helper"].__file__)).parent.parent == lab.files.code
    assert not list(lab.files.code.rglob("__pycache__"))
    assert not any(str(lab.files.code) in path for path in sys.path)


def test_a_specification_may_grow_and_prose_may_change(lab: Lab) -> None:
    workload = with_task(lab, "growing_task")
    git(lab.folder, "init", "-q")
    (lab.folder / "README.md").write_text("one")
    (first,) = submit(lab.experiment(20, [0.01], workload=workload), lab.profile("debug"), lab.root).sent
    (lab.folder / "README.md").write_text("two")
    grown = submit(lab.experiment(40, [0.01, 0.02], workload=workload), lab.profile("debug"), lab.root)
    assert first in grown.sent
    assert len(grown.sent) == 2
    assert grown.warnings == ()


def test_new_runs_with_other_code_than_the_rest_are_warned_of(lab: Lab) -> None:
    workload = with_task(lab, "drifting_task")
    submit(lab.experiment(20, [0.01], workload=workload), lab.profile("debug"), lab.root)
    (lab.folder / "drifting_task.py").write_text(TASK + "\n")
    grown = submit(lab.experiment(20, [0.01, 0.02], workload=workload), lab.profile("debug"), lab.root)
    assert len(grown.sent) == 1
    assert any("differs" in warning and "drifting_task.py" in warning for warning in grown.warnings)


def test_another_alphagrid_between_attempts_is_a_warning(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    (run_id,) = lab.submit(20, cluster="debug").sent
    now = environment_record.versions()
    monkeypatch.setattr(environment_record, "versions", lambda: {**now, "alphagrid": "9.9"})
    lab.submit(40, cluster="debug")
    warnings = [one["message"] for one in lab.records(run_id, 2) if one.get("event") == "warning"]
    assert warnings == [f"other versions than in the attempt before: alphagrid {now['alphagrid']} → 9.9"]


def test_the_drivers_version_is_read_where_the_kernel_says_it(tmp_path: Path) -> None:
    file = tmp_path / "version"
    assert environment_record.driver(file) is None
    file.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n")
    assert environment_record.driver(file) == "570.86.15"


# Around the worker


def a100(**keys: Any) -> Any:
    return load_profile("slurm-a100").model_copy(update=keys)


def test_a_failing_import_is_refused_with_its_last_lines(files: ExperimentFiles, tmp_path: Path) -> None:
    write(tmp_path / "broken" / "alphagrid", **{"__init__.py": "raise ImportError('not this one')"})
    profile = a100(env={"PYTHONPATH": str(tmp_path / "broken")})
    with pytest.raises(UserError, match="ImportError: not this one") as caught:
        import_check.check(files, profile, Code(), [])
    assert caught.value.exit_code == 2


def test_what_the_snapshot_lacks_is_found_before_anything_is_sent(
    files: ExperimentFiles, project: Path
) -> None:
    (project / "tasks.py").write_text("import version_of_mine\n")
    (project / ".gitignore").write_text("version_of_mine.py\n")
    (project / "version_of_mine.py").write_text("")
    given = Code(kept(files, project).name, ".")
    with pytest.raises(UserError, match="No module named 'version_of_mine'"):
        import_check.check(files, a100(), given, ["tasks"])


def test_a_set_up_that_works_only_on_nodes_is_a_warning(files: ExperimentFiles) -> None:
    (told,) = import_check.check(files, a100(setup=["module_of_nodes load cuda"]), Code(), [])
    assert "not tried" in told
    assert "module_of_nodes" in told


def test_set_up_and_variables_are_what_the_import_is_tried_with(
    files: ExperimentFiles, project: Path, tmp_path: Path
) -> None:
    write(tmp_path / "extra", **{"extra_of_mine.py": "import os; assert os.environ['ANSWER'] == 'a \"b\"'"})
    (project / "tasks.py").write_text("import extra_of_mine\n")
    given = Code(kept(files, project).name, ".")
    profile = a100(setup=[f"export PYTHONPATH={tmp_path / 'extra'}"], env={"ANSWER": 'a "b"'})
    (told,) = import_check.check(files, profile, given, ["tasks"])
    assert f"extra_of_mine ({tmp_path / 'extra'})" in told  # live code that no snapshot holds


Script = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def script(files: ExperimentFiles) -> Script:
    """Run a job's script up to where srun would stand; return the records of the last journal it leaves."""

    def run(setup: list[str], then: str = "true", log: str = "") -> list[dict[str, Any]]:
        files.submitit.mkdir(parents=True, exist_ok=True)
        (files.submitit / "12_3_0_log.out").write_text(log)
        runs = [f"{number:010x}" for number in range(5)]
        lines = [*slurm_arrays.setup_lines(a100(setup=setup), files, "sub", runs), then]
        variables = {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "15"}
        command = ["bash", "-c", "\n".join(lines)]
        subprocess.run(command, env={**os.environ, **variables}, capture_output=True, timeout=300)
        journals = files.run(runs[3]).journals()
        return journal.read(journals[-1][1]).records if journals else []

    return run


def test_a_failing_set_up_leaves_a_journal_that_says_why(script: Script) -> None:
    log = 'line "1" with \\ and caf\u00e9\n\nsrun: error: node1\nmodule: command not found\n'
    start, end = script(["no_such_module load 'cuda \"12\"'"], log=log)
    assert (start["kind"], start["attempt"], start["submission"], start["seq"]) == ("start", 1, "sub", 0)
    assert start["job"] == {"cluster": "slurm", "job_id": "12_3"}
    assert (end["kind"], end["status"], end["step"]) == ("end", "failed", 0)
    assert end["reason"].startswith("set-up failed: no_such_module load 'cuda \"12\"' (exit code 127 on ")
    assert 'line "1" with \\ and caf' in end["reason"]
    assert end["reason"].endswith("| module: command not found")


def test_a_worker_that_cannot_begin_leaves_one_too_and_one_that_began_does_not(
    script: Script, files: ExperimentFiles
) -> None:
    began = f"touch {files.run('0000000003').path}/journal-0001.jsonl; exit 1"
    assert script([f"mkdir -p {files.run('0000000003').path}"], began) == []
    _, end = script([], "exit 1", "ModuleNotFoundError: No module named 'alphagrid'\n")
    assert end["reason"].startswith("ended before the run could begin (exit code 1 on ")
    assert end["reason"].endswith("): ModuleNotFoundError: No module named 'alphagrid'")


@pytest.mark.parametrize(
    "ending", ["exit 0", "exit 3", "exit 143", "kill -TERM $$; sleep 1; false", "kill -KILL $$"]
)
def test_a_job_that_was_killed_or_had_no_room_says_nothing(script: Script, ending: str) -> None:
    assert script([], ending) == []


def test_a_set_up_that_exits_has_failed_whatever_its_code(script: Script) -> None:
    assert script(["exit 0"])[-1]["reason"].startswith("set-up failed (exit code 0 on ")


def test_last_words_stand_at_the_step_that_was_reached(script: Script, files: ExperimentFiles) -> None:
    run = files.run("0000000003")
    writer = journal.Journal.create(run.journal(7))
    writer.append("start", 0, 0.0, attempt=7, resume_step=0)
    writer.append("window", 120, 1.5e-05)
    writer.append("alpha", 121, 9.0)
    writer.close()
    start, end = script(["false"])
    assert (start["attempt"], start["resume_step"]) == (8, 120)
    assert (end["step"], end["train_seconds"]) == (120, 1.5e-05)


def test_nothing_of_a_path_reaches_the_shell_unquoted(tmp_path: Path) -> None:
    files = ExperimentFiles(tmp_path / "a 'b' $(touch x)" / "exp")
    lines = slurm_setup_failure.before_setup(files, "sub", ["0000000000"])
    subprocess.run(["bash", "-c", "\n".join([*lines, "exit 1"])], cwd=tmp_path, capture_output=True)
    assert len(files.run("0000000000").journals()) == 1
    assert not (tmp_path / "x").exists()


def test_submissions_from_before_snapshots_still_run(lab: Lab) -> None:
    workload = with_task(lab, "older_task")
    (run_id,) = send(lab, workload).sent
    (path,) = lab.files.submissions.iterdir()
    old = {key: value for key, value in json.loads(path.read_text()).items() if not key.startswith("code_")}
    path.write_text(json.dumps({**old, "code_path": str(lab.folder)}))
    assert submitted_code.import_folder(lab.files, submissions.read(path)) == lab.folder
    assert retry(lab.root, "exp", [run_id], fresh=True).sent == (run_id,)
