"""Cluster profiles: the shipped ones, extending, overriding, and mistakes in them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from alphagrid.cluster_profiles.loader import Profile, describe, load_profile, profile_names
from alphagrid.errors import UserError
from alphagrid.problems import Place


def test_shipped_profiles_are_listed_and_load() -> None:
    assert {"local", "debug", "slurm-a100"} <= set(profile_names())
    assert {name: load_profile(name).name for name in profile_names()} == {n: n for n in profile_names()}
    assert load_profile("local").cluster == "local"
    assert load_profile("debug").cluster == "debug"


def test_the_a100_profile_asks_for_one_gpu_a_day_and_requeueing() -> None:
    profile = load_profile("slurm-a100")
    asked = (profile.cluster, profile.gres, profile.cpus, profile.memory, profile.hours, profile.requeue)
    assert asked == ("slurm", "gpu:a100:1", 8, "80G", 24.0, True)
    assert profile.gpus == 1


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("galvani-a100", ("a100-galvani", "gpu:1", 8, "120G", 72.0, True)),  # the thesis' cluster
        ("slurm-shard", (None, "shard:1", 2, "16G", 24.0, True)),
        ("slurm-cpu", (None, None, 4, "16G", 24.0, True)),
    ],
)
def test_the_other_profiles_ask_for_what_they_are_called(name: str, asked: tuple[object, ...]) -> None:
    profile = load_profile(name)
    found = (profile.gres, profile.cpus, profile.memory, profile.hours, profile.requeue)
    assert (profile.partition, *found) == asked


def test_a_profile_survives_being_stored() -> None:
    profile = load_profile("slurm-a100", {"env": {"OMP_NUM_THREADS": 8}, "sbatch": {"nice": 10}})
    assert profile.env == {"OMP_NUM_THREADS": "8"}
    assert Profile.model_validate(profile.model_dump(mode="json")) == profile
    assert Profile.model_validate_json(profile.model_dump_json()) == profile


Write = Callable[..., str]


@pytest.fixture
def site(tmp_path: Path) -> Write:
    def write(text: str, name: str = "site.yaml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_extending_changes_some_keys_and_null_takes_one_back(site: Write) -> None:
    site("extends: slurm-a100\npartition: gpu\nmemory: null\nenv: {A: x}\n", "mine.yaml")
    profile = load_profile(site("extends: ./mine.yaml\ncpus: 4\nenv: {B: y}\n"))
    assert (profile.name, profile.partition, profile.cpus, profile.hours) == ("site", "gpu", 4, 24.0)
    assert profile.memory is None
    assert profile.env == {"B": "y"}
    assert load_profile(str(Path(site("")).parent / "mine.yaml"), {"env": None, "requeue": None}).env == {}


def test_paths_are_relative_to_the_folder_that_is_given(site: Write, tmp_path: Path) -> None:
    site("cluster: local\nmax_parallel: 2\n")
    assert load_profile("./site.yaml", folder=tmp_path).max_parallel == 2


def test_resources_override_keys_and_describe_says_where_each_comes_from(site: Write) -> None:
    path = site("extends: slurm-a100\n\npartition: gpu\n")
    found = describe(path, {"hours": 3}, place=lambda at: Place("spec.yaml", 7))
    settings = {setting.key: (setting.value, str(setting.place)) for setting in found}
    assert settings["hours"] == (3.0, "spec.yaml:7")
    assert settings["partition"] == ("gpu", f"{path}:3")
    assert settings["cpus"][1].endswith("slurm-a100.yaml:7")
    assert settings["qos"] == (None, "None")
    assert "name" not in settings


@pytest.mark.parametrize(
    ("sbatch", "gres", "gpus"),
    [
        ({}, None, 0),
        ({}, "gpu", 1),
        ({}, "gpu:2", 2),
        ({}, "gpu:a100", 1),
        ({}, "gpu:a100:4", 4),
        ({}, "nvme:100,gpu:h100:2,gpu:1", 3),
        ({"gpus_per_node": 3}, None, 3),
        ({"gpus": "a100:2"}, None, 2),
        ({"nice": 3}, None, 0),
    ],
)
def test_gpus_are_counted_as_slurm_reads_them(sbatch: dict[str, object], gres: str | None, gpus: int) -> None:
    assert load_profile("slurm-a100", {"gres": gres, "sbatch": sbatch}).gpus == gpus


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cluster: slurm\npartitoin: x", ":2: partitoin: unknown key; did you mean 'partition'?"),
        (
            "cluster: slurmm",
            ":1: cluster: should be 'slurm', 'local' or 'debug', not 'slurmm' (text); did you",
        ),
        ("partition: x", "cluster: is missing"),
        ("cluster: slurm\nname: x", ":2: name: unknown key"),
        ("cluster: slurm\ncpus: 0", ":2: cpus: should be at least 1, not 0"),
        ("cluster: slurm\nhours: 0", ":2: hours: should be greater than 0"),
        ("cluster: slurm\nhours: 24:00:00", ":2: hours: should be a number, not '24:00:00' (text)"),
        ("cluster: slurm\nhours: .inf", ":2: hours: should be a finite number"),
        ("cluster: slurm\nmemory: 80", ":2: memory: should be written as for Slurm, such as 80G"),
        ("cluster: slurm\nmemory: 80GB", ":2: memory: should be written as for Slurm, such as 80G"),
        ("cluster: slurm\nthrottle: -1", ":2: throttle: should be at least 1"),
        ("cluster: slurm\nrequeue: 'yes'", ":2: requeue: should be true or false"),
        ("cluster: slurm\ngres: gpu:a100:1:2", ":2: gres: 'gpu:a100:1:2' should be written as for Slurm"),
        ('cluster: slurm\npartition: "a\\n#SBATCH --x"', ":2: partition: should be one line"),
        ("cluster: slurm\naccount: a --wrap=x", ":2: account: 'a --wrap=x' should be one word"),
        ("cluster: slurm\nqos: -x", ":2: qos: '-x' should be one word"),
        ('cluster: slurm\nenv: {A: "x\\ny"}', ":2: env.A: should be one line"),
        ("cluster: slurm\nenv: {A-B: x}", ":2: env.A-B: 'A-B' cannot name an environment variable"),
        ("cluster: slurm\nenv: {A: true}", ":2: env.A: should be text, not true"),
        ('cluster: slurm\nsetup: ["a\\nb"]', ":2: setup.0: should be one line"),
        ("cluster: slurm\nsbatch:\n  time: 3", ":3: sbatch.time: 'time' cannot be given here: use hours"),
        ("cluster: slurm\nsbatch: {job_name: x}", ":2: sbatch.job_name: 'job_name' cannot be given here"),
        ("cluster: slurm\nsbatch: {'a b': x}", ":2: sbatch.a b: 'a b' should be a long option"),
        ("cluster: slurm\nsbatch: {nice: [1]}", ":2: sbatch.nice: should be a text, a number"),
        ('cluster: slurm\nsbatch: {nice: "1\\n2"}', ":2: sbatch.nice: should be one line"),
        ("extends: 3", ":1: extends: should be the name or path"),
        ("extends: locall", ":1: there is no profile 'locall'; did you mean 'local'?"),
        ("extends: site.yaml", ":1: extends: goes in a circle: site extends site"),
        ("- a", ":1: a profile is a mapping"),
        ("", ": is empty"),
    ],
)
def test_mistakes_in_a_profile_name_line_and_key(site: Write, text: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        load_profile(site(text))
    assert said in refused.value.message


def test_circles_are_found_at_any_length(site: Write) -> None:
    site("extends: ./c.yaml", "b.yaml")
    site("extends: ./a.yaml", "c.yaml")
    with pytest.raises(UserError, match="a extends b extends c extends a"):
        load_profile(site("extends: ./b.yaml", "a.yaml"))


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"hurs": 3}, "spec.yaml:9: resources.hurs: unknown key; did you mean 'hours'?"),
        ({"name": "x"}, "spec.yaml:9: resources.name: unknown key"),
        ({"cluster": "local"}, "spec.yaml:9: resources.cluster: cannot be set here"),
        ({"setup": ["rm -r x"]}, "spec.yaml:9: resources.setup: cannot be set here; its lines are shell"),
        ({"hours": "3"}, "spec.yaml:9: hours: should be a number, not '3' (text)"),
    ],
)
def test_mistakes_in_resources_name_the_line_of_the_spec(resources: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as refused:
        load_profile("local", resources, place=lambda at: Place("spec.yaml", 9))
    assert said in refused.value.message


def test_a_profile_that_does_not_exist_is_told_with_what_there_is() -> None:
    with pytest.raises(UserError, match="did you mean 'slurm-a100'") as refused:
        load_profile("slurm-a10")
    assert refused.value.hint is not None
    assert all(name in refused.value.hint for name in profile_names())
    with pytest.raises(UserError, match=r"nowhere/x\.yaml: does not exist"):
        load_profile("nowhere/x.yaml")
