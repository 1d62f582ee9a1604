"""The characters of Python's own source, as a character transformer reads them."""

from __future__ import annotations

import sys
import sysconfig
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from alphagrid.errors import UserError
from alphagrid.trainer.workloads.char_transformer import PLACES, CharTransformer, WindowStream, source_files
from alphagrid.trainer.workloads.options import CharTransformerOptions
from alphagrid.trainer.workloads.transformer import Transformer
from pydantic import ValidationError
from torch import Tensor

FOLDER = Path(sysconfig.get_path("stdlib"))


def workload(**options: Any) -> CharTransformer:
    return CharTransformer(CharTransformerOptions(name="char_transformer", **options))


def as_text(characters: Tensor) -> str:
    return bytes(characters.tolist()).decode("ascii")


def test_each_split_begins_with_files_of_its_own() -> None:
    files = source_files(FOLDER)
    assert len(files) > 100
    for split, number in {"train": 0, "validation": 8, "test": 9}.items():
        (first, *_) = workload(context=100).split(split)
        source = files[number].read_text("utf-8").encode("ascii", "replace").decode()
        assert as_text(first["inputs"][0]) == source[:100]


def test_every_file_belongs_to_one_split() -> None:
    assert sorted(place for places in PLACES.values() for place in places) == list(range(10))


def test_the_last_character_of_a_split_is_predicted_too() -> None:
    *_, last = workload(evaluation_windows=600).split("test")
    source = source_files(FOLDER)[9::10][-1].read_text("utf-8")
    assert as_text(last["targets"][-1]) == source[-64:]


def test_all_characters_are_ascii() -> None:
    for split in ("train", "validation", "test"):
        assert max(int(batch["inputs"].max()) for batch in workload().split(split)) < 128


def test_targets_are_the_characters_that_follow() -> None:
    batch = workload().stream("train", 0).batch(3)
    assert batch["inputs"].shape == batch["targets"].shape == (32, 64)
    assert torch.equal(batch["inputs"][:, 1:], batch["targets"][:, :-1])


def test_a_pass_reads_every_character_once_and_the_next_in_another_order() -> None:
    text = torch.arange(101, dtype=torch.uint8)
    stream = WindowStream(text, context=10, batch_size=2, seed=0)
    passes = [torch.cat([stream.batch(5 * number + i)["targets"] for i in range(5)]) for number in (0, 1)]
    for read in passes:
        assert sorted(read.flatten().tolist()) == list(range(1, 101))
    assert not torch.equal(*passes)


def test_a_prediction_sees_no_character_after_it() -> None:
    torch.manual_seed(0)
    model = Transformer(128, context=12, width=16, heads=4, layers=2, tie_weights=False)
    tokens = torch.randint(0, 128, (1, 12))
    before = model(tokens)
    for place in (0, 5, 11):
        changed = tokens.clone()
        changed[0, place] = (changed[0, place] + 1) % 128
        differs = (model(changed) - before).abs().amax(-1)[0] > 1e-6
        assert differs.tolist() == [False] * place + [True] * (12 - place)


def test_tied_weights_are_one_parameter() -> None:
    untied, tied = (
        sum(p.numel() for p in workload(tie_weights=tie).model().parameters()) for tie in (False, True)
    )
    assert untied - tied == 128 * 64
    assert tied == 128 * 64 + 64 * 64 + 2 * (4 * 64 + 4 * 64 * 64 + 4 * 64 + 8 * 64 * 64 + 5 * 64) + 2 * 64


def test_logits_begin_near_a_uniform_guess() -> None:
    for tie in (False, True):
        torch.manual_seed(0)
        made = workload(tie_weights=tie, layers=4)
        batch = made.stream("train", 0).batch(0)
        loss = torch.nn.functional.cross_entropy(made.model()(batch["inputs"]).mT, batch["targets"])
        assert abs(float(loss) - 4.85) < 1


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"width 64 is no multiple of heads \(5\)"):
        CharTransformerOptions(name="char_transformer", heads=5)


def test_a_python_without_the_source_of_its_library_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lacks the source of Python's standard library"):
        source_files(tmp_path)


def test_what_lies_beside_the_standard_library_is_no_part_of_it(tmp_path: Path) -> None:
    names = sorted(sys.stdlib_module_names)[:20]
    for name in [*names, "sitecustomize", "_sysconfigdata_here"]:
        (tmp_path / f"{name}.py").touch()
    found = source_files(tmp_path)
    assert [path.stem for path in found] == names
    assert all(a < b for a, b in pairwise(found))
