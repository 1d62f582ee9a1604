"""Values of a profile that would change how sbatch, srun or a shell see a job: refused, or handled."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from alphagrid.cluster_profiles import env_values, sbatch_options, secret_values
from alphagrid.cluster_profiles.check import secrets
from alphagrid.cluster_profiles.loader import Profile, load_profile
from alphagrid.errors import UserError
from alphagrid.jobs.schedulers import slurm_arrays, slurm_root
from alphagrid.jobs.submission import retry
from alphagrid.store.layout import Root
from alphagrid.store.submissions import Submission
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Lab


def profile(**keys: Any) -> Profile:
    return load_profile("slurm-a100", keys)


def refusal(**keys: Any) -> str:
    with pytest.raises(UserError) as refused:
        profile(**keys)
    return refused.value.message


# Options of sbatch


@pytest.mark.parametrize(
    "option",
    [
        "quiet", "verbose", "help", "usage", "version", "open-mode", "input", "export-file",
        "tasks-per-node", "ntasks-per-gpu", "cluster-constraint", "uid", "gid", "autocomplete",
    ],
)  # fmt: skip
def test_options_that_change_how_sbatch_talks_to_us_are_refused(option: str) -> None:
    assert f"'{option}' cannot be given here" in refusal(sbatch={option: "1"})


@pytest.mark.parametrize("option", ["parsab", "arra", "exp", "clus", "job_n", "tes", "qui", "export_f"])
def test_an_abbreviation_of_a_reserved_option_is_refused_as_sbatch_would_take_it(option: str) -> None:
    assert "cannot be given here: sbatch may take it for" in refusal(sbatch={option: "1"})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("nice", 10), ("reservation", "spring"), ("exclusive", True), ("export", "NONE"),
        ("export", "ALL,A=1"), ("begin", "now+1hour"), ("dependency", "afterok:12"), ("time-min", 10),
        ("kill-on-invalid-dep", "yes"), ("chdir", "/scratch"), ("mail-type", "ALL"),
        ("gpus_per_node", 2), ("nodelist", "n1"),
    ],
)  # fmt: skip
def test_options_that_leave_jobs_as_they_are_are_taken(option: str, value: Any) -> None:
    assert profile(sbatch={option: value}).sbatch == {option: value}


@pytest.mark.parametrize("keys", [{"sbatch": {"hint": "help"}}, {"gres": "help"}, {"gres": "gpu:1,help"}])
def test_a_value_for_which_sbatch_prints_a_list_and_submits_nothing_is_refused(keys: dict[str, Any]) -> None:
    assert "makes sbatch print a list and submit nothing" in refusal(**keys)


def test_false_is_no_value_of_an_option() -> None:
    assert "should be left out" in refusal(sbatch={"exclusive": False})


def submission() -> Submission:
    return Submission(id="s", created=0.0, experiment="e", profile={}, runs=[], named={})


def test_a_run_gets_the_environment_of_its_script_whatever_sbatch_exports() -> None:
    for cpus in (None, 4):
        assert "--export=ALL" in slurm_arrays.parameters(profile(cpus=cpus), submission())["srun_args"]


def test_an_option_of_the_profile_stands_once_in_the_script_and_before_our_own() -> None:
    chosen = profile(mail_user="me@example.org", sbatch={"mail-type": "ALL", "gpus-per-node": 1})
    parameters = slurm_arrays.parameters(chosen, submission())
    merged = {**parameters, **parameters["additional_parameters"]}
    assert merged["mail_type"] == "ALL"
    assert not [name for name in merged if name.replace("_", "-") == "mail-type" and name != "mail_type"]


@pytest.mark.parametrize(
    ("export", "missing"),
    [(None, []), ("ALL", []), ("all,A=1", []), ("NONE", ["A", "B"]), ("A", ["B"]), ("A=1,B=2", [])],
)
def test_variables_that_export_keeps_from_a_job_are_known(export: str | None, missing: list[str]) -> None:
    options = {} if export is None else {"export": export}
    assert sbatch_options.not_exported(options, ["A", "B"]) == missing


# Environment variables


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            "$HOME/data",
            "'$HOME' is not expanded here; write ${NAME} for a variable; use setup for the rest: ",
        ),
        ("$(hostname)", "'$(' is not expanded"),
        ("`hostname`", "'`' is not expanded"),
        ("~/data", "'~' is not expanded"),
        ("a $_b", "'$_b' is not expanded"),
        ("${HOME", "'${' must begin a variable"),
        ("${1}", "'${' must begin a variable"),
        ("${HOME:-x}", "'${' must begin a variable"),
    ],
)
def test_what_only_a_shell_expands_is_refused(value: str, said: str) -> None:
    assert said in refusal(env={"A": value})


@pytest.mark.parametrize(
    "name",
    ["SLURM_NTASKS", "SLURM_EXPORT_ENV", "SRUN_EXPORT_ENV", "SBATCH_WAIT", "SQUEUE_STATES", "SUBMITIT_X"],
)
def test_variables_that_srun_reads_in_the_job_are_refused(name: str) -> None:
    assert "changes what Slurm's commands do in the job" in refusal(env={name: "NONE"})


def in_bash(env: dict[str, str], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    names = " ".join(f'"${{{name}}}"' for name in env)
    script = "\n".join(["set -e", *env_values.export_lines(env), f"printf '%s\\0' {names}"])
    path = {"PATH": os.environ["PATH"]}
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, env={**path, **environ})


VALUES = ["x y", "${A}", "${A}/b", "${A}${B}", "'${A}'", '"', "a\\b", "$5 $$ $", "${B}:~", "*", "!x", "é", ""]


def test_values_are_expanded_alike_by_a_jobs_script_and_by_a_local_worker() -> None:
    env = profile(env={f"V{index}": value for index, value in enumerate(VALUES)}).env
    environ = {"A": "a 'a' $(x) ${B} \\", "B": "b\tb"}
    done = in_bash(env, environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\0")[:-1] == list(env_values.expand(env, environ).values())
    assert env_values.expand(env, environ)["V2"] == "a 'a' $(x) ${B} \\/b"


@given(
    st.lists(st.sampled_from(["${A}", "$", "'", '"', "\\", "~", "a", " ", "!", "*", "#", ";"]), max_size=6)
)
def test_any_other_text_is_literal(parts: list[str]) -> None:
    value = "".join(parts)
    if value.startswith("~") or "$a" in value:
        return
    env = profile(env={"V": value}).env
    assert env_values.expand(env, {"A": "${A}"})["V"] == value


def test_a_value_may_use_those_before_it() -> None:
    env = {"BASE": "${ROOT}/x", "DATA": "${BASE}/data", "PATH": "${DATA}:${PATH}"}
    environ = {"ROOT": "/r", "PATH": os.environ["PATH"]}
    expected = ["/r/x", "/r/x/data", f"/r/x/data:{os.environ['PATH']}"]
    assert list(env_values.expand(env, environ).values()) == expected
    assert in_bash(env, environ).stdout.split("\0")[:-1] == expected


@pytest.mark.parametrize("name", ["MISSING", "UID"])  # UID is a variable of bash, and no process has it
def test_a_missing_variable_ends_the_script_and_the_worker_with_its_name(name: str) -> None:
    env = {"DATA": f"${{{name}}}/data"}
    with pytest.raises(UserError, match=rf"env\.DATA: \$\{{{name}\}} is not set"):
        env_values.expand(env, {})
    done = in_bash(env, {})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"env.DATA: ${{{name}}} is not set\n"


TOLD = """
import os
from alphagrid.trainer.workloads.least_squares import LeastSquares

class Told(LeastSquares):
    def model(self):
        with open(os.environ["TOLD"], "a") as file:
            print(os.environ["FROM_PROFILE"], os.environ.get("FROM_SPEC"), file=file)
        return super().model()
"""


@pytest.mark.parametrize("cluster", ["debug", pytest.param("local", marks=pytest.mark.slow)])
def test_local_and_debug_runs_expand_variables_where_they_run(
    cluster: str, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lab.folder / "told_task.py").write_text(TOLD)
    monkeypatch.setenv("HERE", "a $(b) ${C}")
    monkeypatch.setenv("FROM_SPEC", "${HERE}")  # a value, and no variable to expand
    env = {"FROM_PROFILE": "${HERE}/x", "TOLD": str(lab.folder / "told"), "HERE": "${HERE}+"}
    monkeypatch.setattr(lab, "profile", lambda _: load_profile(cluster, {"env": env}))
    content = {"workload": {"name": "told_task:Told"}, "optimizer": {"name": "sgd", "lr": 0.01}}
    lab.submit(5, [0.01, 0.02], cluster=cluster, **content, schedule={"name": "constant"})
    lab.until_all_are("completed")
    expected = "a $(b) ${C}/x ${HERE}\n"
    assert (lab.folder / "told").read_text() == 2 * expected
    assert os.environ["HERE"] == "a $(b) ${C}"


@pytest.mark.parametrize("cluster", ["debug", pytest.param("local", marks=pytest.mark.slow)])
def test_a_run_whose_variable_is_missing_fails_with_its_name(
    cluster: str, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "profile", lambda _: load_profile(cluster, {"env": {"DATA": "${NOWHERE}/d"}}))
    lab.submit(5, cluster=cluster)
    lab.until_all_are("failed")
    assert "env.DATA: ${NOWHERE} is not set" in str(lab.reasons()[0])


def test_a_profile_of_an_older_submission_that_is_refused_now_says_what_to_do(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "profile", lambda _: load_profile("debug"))
    lab.submit(5, cluster="debug")
    (path,) = lab.files.submissions.glob("*.json")
    content = json.loads(path.read_text())
    content["profile"]["sbatch"] = {"quiet": True}  # as an older version would have taken it
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"sbatch\.quiet.*alphagrid reads what sbatch prints") as refused:
        retry(lab.root, "exp", list(lab.states()), fresh=True)
    assert "--profile NAME" in str(refused.value.hint)


# Secrets


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"env": {"WANDB_API_KEY": "abc"}}, "env.WANDB_API_KEY"),
        ({"env": {"hf_token": "abc"}}, "env.hf_token"),
        ({"env": {"CLIENT_SECRET": 12}}, "env.CLIENT_SECRET"),
        ({"env": {"DB_PASSWORD_OLD": "x"}}, "env.DB_PASSWORD_OLD"),
        ({"sbatch": {"export": "ALL,HF_TOKEN=abc"}}, "sbatch.export"),
        ({"setup": ["export A=1 WANDB_API_KEY=abc; true"]}, "setup"),
    ],
)
def test_secrets_that_are_written_out_are_warned_about(keys: dict[str, Any], where: str) -> None:
    setup = keys.pop("setup", [])  # which only a file may give
    chosen = profile(**keys).model_copy(update={"setup": setup})
    (told,) = secret_values.warnings(chosen)
    assert where in told
    assert "write env: {" in told
    assert "abc" not in told
    (finding,) = secrets(chosen)
    assert finding.verdict == "warning"
    assert where in finding.said


@pytest.mark.parametrize(
    "env", [{"WANDB_API_KEY": "${WANDB_API_KEY}"}, {"KEYBOARD": "x"}, {"TOKENIZERS": "x"}, {"A_KEY": ""}]
)
def test_other_values_are_no_secrets(env: dict[str, str]) -> None:
    assert not secret_values.literal_secrets(profile(env=env, sbatch={"export": "A_KEY,B_TOKEN=$X"}))


def test_submit_warns_about_secrets(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"env": {"WANDB_API_KEY": "abc"}}
    monkeypatch.setattr(lab, "profile", lambda _: load_profile("debug", keys))
    (told,) = lab.submit(5, cluster="debug").warnings
    assert "profile debug: env.WANDB_API_KEY" in told


# The root


@pytest.mark.parametrize(
    ("name", "said"),
    [("50%j", "'%'"), ("back\\slash", "'\\\\'"), ("line\nbreak", "'\\n'"), ("\udcff", "is not UTF-8")],
)
def test_a_root_whose_path_slurm_would_change_is_refused(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        slurm_root.check_path(Root(tmp_path / name))
    assert said in refused.value.message
    refused.value.message.encode()


@pytest.mark.parametrize("name", ["it's", "a b", 'q"q', "d$d", "x;y#z", "é"])
def test_a_root_whose_path_slurm_takes_is_no_problem(name: str, tmp_path: Path) -> None:
    slurm_root.check_path(Root(tmp_path / name))


@pytest.mark.parametrize(
    ("kind", "one_machine", "warned"),
    [
        ("tmpfs", False, True),
        ("ext4", False, True),
        ("ext4", True, False),
        ("nfs4", False, False),
        (None, False, False),
    ],
)
def test_a_root_that_only_this_machine_sees_is_warned_about(
    kind: str | None, one_machine: bool, warned: bool, tmp_path: Path
) -> None:
    told = slurm_root.warnings(Root(tmp_path), lambda _: kind, lambda: one_machine)
    assert bool(told) == warned
    assert all(f"({kind})" in line for line in told)
