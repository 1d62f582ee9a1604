"""What a model and a loss must hold to is checked before the first step, and told by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from alphagrid.errors import UserError
from alphagrid.trainer import checkpoint
from alphagrid.trainer.alpha.routes import Line, by_jvp
from alphagrid.trainer.losses import CallableLoss, CrossEntropy, loss_of
from alphagrid.trainer.streams import examples, share
from alphagrid.trainer.workloads import WORKLOADS
from alphagrid.trainer.workloads.char_transformer import CHARACTERS
from alphagrid.trainer.workloads.least_squares import LeastSquares
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from tests.trainer.conftest import TrainRun

Config = dict[str, Any]
RUN: Config = {
    "workload": {"name": "least_squares", "examples": 96, "features": 4, "batch_size": 24},
    "optimizer": {"name": "sgd", "lr": 1e-2},
    "eval": {"every_steps": 100, "splits": ["validation"]},
    "stop": {"steps": 3},
    "device": "cpu",
}
SHARED: Config = {"policy": "observe", "estimator": "lookahead"}
WHOLE: Config = {"policy": "observe", "estimator": "lookahead", "curvature_fraction": 1.0}


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().squeeze(-1)


def summed(outputs: Tensor, targets: Tensor) -> Tensor:
    return squared(outputs, targets).sum().view(1)


def centred(outputs: Tensor, targets: Tensor) -> Tensor:
    return squared(outputs - outputs.mean(0), targets)


def smooth(outputs: Tensor, targets: Tensor) -> Tensor:
    """Add the distance from the example before: the first examples alone have the values they had."""
    before = torch.cat([outputs[:1], outputs[:-1]])
    return squared(outputs, targets) + squared(outputs, before)


def by_targets(outputs: Tensor, targets: Tensor) -> Tensor:
    return squared(outputs, targets) / targets.square().mean()


def broadcast(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets.squeeze(-1)).square()


def whole_batches_only(outputs: Tensor, targets: Tensor) -> Tensor:
    if len(outputs) != 24:
        raise ValueError("a batch has 24 examples")
    return squared(outputs, targets)


def noisy(outputs: Tensor, targets: Tensor) -> Tensor:
    return squared(outputs + 0.1 * torch.randn_like(outputs), targets)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that gives the bundled workload another loss or model."""

    def changed(loss: Any = "mse", model: Callable[[Any], nn.Module] | None = None) -> None:
        monkeypatch.setattr(LeastSquares, "loss", staticmethod(loss) if callable(loss) else loss)
        if model is not None:
            monkeypatch.setattr(LeastSquares, "model", model)

    return changed


def warnings(records: list[Any]) -> list[str]:
    return [record["message"] for record in records]


@pytest.mark.parametrize(
    ("outputs", "values", "refused"),
    [
        ([6, 2], [6], False), ([6, 2], [6, 2], False), ([6, 2], [12], False), ([1, 2], [1], False),
        ([6, 2], [1], True), ([6, 2], [2], True), ([6, 2], [4], True), ([6, 2], [0], True),
    ],
)  # fmt: skip
def test_a_function_returns_a_value_for_each_example_or_element(
    outputs: list[int], values: list[int], refused: bool
) -> None:
    loss = CallableLoss(lambda z, y: torch.ones(values))
    if not refused:
        assert list(loss.values(torch.ones(outputs), torch.ones(outputs)).shape) == values
        return
    with pytest.raises(UserError, match=r"returns values of shape .* for 6 examples"):
        loss.values(torch.ones(outputs), torch.ones(outputs))


def test_a_function_that_returns_no_tensor_is_refused() -> None:
    with pytest.raises(UserError, match="returns a float"):
        CallableLoss(lambda z, y: 1.0).values(torch.ones(3), torch.ones(3))  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("alpha", [None, SHARED])
def test_a_sum_of_shape_1_ends_the_run_before_its_first_step(
    use: Callable[..., None], train_run: TrainRun, alpha: Config | None
) -> None:
    use(loss=summed)
    with pytest.raises(UserError, match=r"the loss summed returns values of shape \[1\] for 24 examples"):
        train_run({**RUN, "alpha": alpha})


MIXED = (centred, smooth, by_targets, broadcast, whole_batches_only)
PARTS: list[tuple[str, Config]] = [
    ("curvature_fraction", {"alpha": SHARED}),
    ("curvature_fraction", {"alpha": {"policy": "observe", "also": ["lookahead"]}}),
    ("chunks", {"alpha": {"policy": "observe", "chunks": 2}}),
    ("accumulate", {"alpha": {"policy": "observe"}, "workload": {**RUN["workload"], "accumulate": 2}}),
]


@pytest.mark.parametrize(
    ("key", "sections"), PARTS, ids=["share", "share of another", "chunks", "accumulate"]
)
@pytest.mark.parametrize("loss", MIXED)
def test_a_loss_that_mixes_examples_is_refused_where_a_part_of_a_batch_is_looked_at(
    use: Callable[..., None], train_run: TrainRun, loss: Any, key: str, sections: Config
) -> None:
    use(loss=loss)
    with pytest.raises(UserError, match=f"the loss {loss.__name__} mixes the examples") as raised:
        train_run({**RUN, **sections})
    assert key in raised.value.message
    assert key in str(raised.value.hint)


@pytest.mark.parametrize("alpha", [{"policy": "observe", "also": ["biased", "hybrid"]}, WHOLE])
@pytest.mark.parametrize("loss", [centred, smooth, by_targets])
def test_on_whole_batches_it_is_measured_with_a_word_on_its_errors(
    use: Callable[..., None], train_run: TrainRun, loss: Any, alpha: Config
) -> None:
    use(loss=loss)
    trained = train_run({**RUN, "alpha": alpha})
    assert trained.outcome.status == "completed"
    (message,) = warnings(trained.events("warning"))
    assert "mixes the examples" in message
    assert "standard errors" in message


def test_a_loss_that_mixes_examples_trains_without_alpha_and_with_accumulation_it_is_told(
    use: Callable[..., None], train_run: TrainRun
) -> None:
    use(loss=centred)
    assert not train_run(RUN).events("warning")
    parts = {**RUN, "workload": {**RUN["workload"], "accumulate": 2}}
    (message,) = warnings(train_run(parts, "accumulate").events("warning"))
    assert "mixes the examples of each part" in message


def test_outputs_that_are_compared_with_every_target_are_told(
    use: Callable[..., None], train_run: TrainRun
) -> None:
    use(loss=broadcast)
    (message,) = warnings(train_run(RUN).events("warning"))
    assert "every output with every target" in message


def per_output(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.smooth_l1_loss(outputs, targets, reduction="none")


def flat(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.huber_loss(outputs, targets, reduction="none").flatten()


@pytest.mark.parametrize("loss", [squared, per_output, flat, noisy])
@pytest.mark.parametrize(("key", "sections"), [(None, {}), *PARTS])
def test_a_loss_of_each_example_goes_everywhere(
    use: Callable[..., None], train_run: TrainRun, loss: Any, key: str | None, sections: Config
) -> None:
    use(loss=loss)
    trained = train_run({**RUN, **sections})
    assert trained.outcome.status == "completed"
    told = warnings(trained.events("warning"))
    assert len(told) == (loss is noisy and key is not None)


class TimeFirst(nn.Module):
    """Returns a row for each of 8 times, or of 24: [T, B, 1]."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.layer = nn.Linear(4, times)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs).t().unsqueeze(-1)
        return outputs


def time_first(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.squeeze(-1).t() - targets).square().mean(1)


def time_first_centred(outputs: Tensor, targets: Tensor) -> Tensor:
    return time_first(outputs - outputs.mean(1, keepdim=True), targets)


@pytest.mark.parametrize("times", [8, 12, 24, 48])
@pytest.mark.parametrize(("key", "sections"), [(None, {"alpha": {"policy": "observe"}}), *PARTS])
def test_examples_may_be_in_another_dimension_than_the_first(
    use: Callable[..., None], train_run: TrainRun, key: str | None, sections: Config, times: int
) -> None:
    use(loss=time_first, model=lambda workload: TimeFirst(times))
    assert not train_run({**RUN, **sections}, f"{key}").events("warning")
    use(loss=time_first_centred)
    if key is None:
        (message,) = warnings(train_run({**RUN, **sections}, "mixed").events("warning"))
        assert "mixes the examples" in message
        return
    with pytest.raises(UserError, match="the loss time_first_centred mixes the examples"):
        train_run({**RUN, **sections}, "mixed")


def drawing_and_averaging(workload: Any) -> nn.Module:
    """Make a model whose every pass draws random numbers and moves running statistics."""
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.4), nn.Linear(3, 1))


def test_a_pass_for_the_check_leaves_no_trace(use: Callable[..., None], train_run: TrainRun) -> None:
    """A loss of one's own is checked in the warm-up pass, a bundled one is not."""

    def trained(name: str) -> list[Any]:
        run = train_run({**RUN, "log": {"every_steps": 1}, "eval": {"every_steps": 1}}, name)
        state = checkpoint.read(checkpoint.available(run.run)[-1])["model"]
        assert len(run.of_kind("evaluation")) == 3
        assert any(name.endswith("running_mean") for name in state)
        losses = [record["loss"] for record in run.of_kind("window")]
        evaluations = [record["splits"] for record in run.of_kind("evaluation")]
        return [losses, evaluations, {name: values.tolist() for name, values in state.items()}]

    use(model=drawing_and_averaging)
    named = trained("named")
    use(loss=squared)
    assert trained("given") == named


def test_terms_in_one_row_have_the_errors_of_their_examples() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 4)
    vector = [torch.randn_like(p) for p in model.parameters()]
    batch = {"inputs": torch.randn(8, 3), "targets": torch.randn(8, 4)}
    rows = by_jvp(Line(model, loss_of(per_output), vector), batch).read()
    one_row = by_jvp(Line(model, loss_of(flat), vector), batch).read()
    assert vars(one_row) == pytest.approx(vars(rows))


def test_examples_are_counted_in_targets_of_several_tensors() -> None:
    targets = {"scale": torch.tensor(2.0), "labels": torch.ones(8), "boxes": torch.ones(8, 4)}
    batch = {"inputs": torch.ones(8, 3), "targets": targets}
    assert examples(batch) == 8
    (part,) = share([batch], 0.25)
    assert (len(part["inputs"]), len(part["targets"]["boxes"])) == (2, 2)


@pytest.mark.parametrize("loss", [CrossEntropy(), CrossEntropy(classes_last=True)])
def test_class_scores_in_dimension_1_are_refused(loss: CrossEntropy) -> None:
    targets = torch.randint(0, 3, (4, 3, 5))
    with pytest.raises(UserError, match="do not match") as raised:  # once taken for 4·3·3 terms of 5 classes
        loss.values(torch.randn(4, 5, 3, 5), targets)
    assert "movedim(1, -1)" in str(raised.value.hint)


@pytest.mark.parametrize("shape", [(4, 5, 5), (4, 2, 2), (4, 3, 3, 3)])
def test_class_scores_that_may_be_in_dimension_1_are_refused_unless_they_are_said_to_be_last(
    shape: tuple[int, ...],
) -> None:
    outputs, targets = torch.randn(shape), torch.randint(0, shape[-1], shape[:-1])
    with pytest.raises(UserError, match="ambiguous"):
        loss_of("cross_entropy").values(outputs, targets)
    with pytest.raises(UserError, match="ambiguous"):
        loss_of("cross_entropy").quadratic(outputs, targets, torch.randn(shape))
    values = loss_of(CrossEntropy(classes_last=True)).values(outputs, targets)
    torch.testing.assert_close(
        values, F.cross_entropy(outputs.movedim(-1, 1), targets, reduction="none"), rtol=1e-6, atol=1e-6
    )


def three_classes(targets: Tensor) -> Callable[[Any, str], dict[str, Tensor]]:
    inputs = torch.randn(len(targets), 4, generator=torch.Generator().manual_seed(0))
    return lambda workload, split: {"inputs": inputs, "targets": targets}


@pytest.mark.parametrize(("index", "told"), [(-100, "Target -100"), (3, "Target 3"), (None, None)])
def test_a_target_that_is_no_class_is_told_before_torch_is_asked(
    use: Callable[..., None],
    train_run: TrainRun,
    monkeypatch: pytest.MonkeyPatch,
    index: int | None,
    told: str | None,
) -> None:
    use(loss="cross_entropy", model=lambda workload: nn.Linear(4, 3))
    targets = torch.arange(24) % 3
    if index is not None:
        targets[5] = index
        monkeypatch.setattr(F, "cross_entropy", lambda *args, **kwargs: pytest.fail("torch was asked"))
    monkeypatch.setattr(LeastSquares, "data", three_classes(targets))
    if told is None:
        assert train_run(RUN).outcome.status == "completed"
        return
    with pytest.raises(UserError, match=f"cross_entropy: a target is no index of a class: {told} is out"):
        train_run(RUN)


def test_a_text_may_have_a_context_as_long_as_its_alphabet() -> None:
    entry = WORKLOADS.entry("char_transformer")
    sizes = {"context": CHARACTERS, "width": 8, "heads": 2, "layers": 1, "batch_size": 2}
    workload = entry.load()(entry.options.model_validate({"name": "char_transformer", **sizes}))
    batch = workload.stream("train", 0).batch(0)
    outputs = workload.model()(batch["inputs"])
    assert outputs.shape[1] == outputs.shape[2]
    assert loss_of(workload.loss).values(outputs, batch["targets"]).shape == (2, CHARACTERS)


def test_outputs_of_one_row_a_term_match_targets_of_any_shape() -> None:
    torch.manual_seed(0)
    outputs, tangent, targets = *torch.randn(2, 4, 3, 5), torch.randint(0, 5, (4, 3))
    loss = loss_of("cross_entropy")
    torch.testing.assert_close(loss.values(outputs.flatten(0, 1), targets), loss.values(outputs, targets))
    flat_forms = loss.quadratic(outputs.flatten(0, 1), targets, tangent.flatten(0, 1))
    for found, expected in zip(flat_forms, loss.quadratic(outputs, targets, tangent), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("targets", [(4, 3), (12,), (4, 3, 1), (2, 2, 3)])
def test_targets_may_be_flat(targets: tuple[int, ...]) -> None:
    outputs, classes = torch.randn(4, 3, 5), torch.randint(0, 5, targets)
    expected = F.cross_entropy(outputs.flatten(0, 1), classes.flatten(), reduction="none")
    torch.testing.assert_close(loss_of("cross_entropy").values(outputs, classes), expected.view(targets))


@pytest.mark.parametrize(
    ("name", "outputs", "targets"),
    [
        ("cross_entropy", (3, 4, 5), (4, 3)),
        ("cross_entropy", (4, 5), (4, 5)),
        ("mse", (3, 4), (4, 3)),
        ("mse", (4, 3), (4,)),
        ("bce_with_logits", (3, 4), (4, 3)),
    ],
)
def test_outputs_in_another_order_than_the_targets_are_refused(
    name: str, outputs: tuple[int, ...], targets: tuple[int, ...]
) -> None:
    where = torch.zeros(targets, dtype=torch.long) if name == "cross_entropy" else torch.zeros(targets)
    with pytest.raises(UserError, match=f"{name}: outputs of shape .* do not match"):
        loss_of(name).values(torch.randn(outputs), where)


@pytest.mark.parametrize(("outputs", "targets"), [((4, 1), (4,)), ((4,), (4, 1)), ((12,), (4, 3))])
def test_outputs_may_be_flat(outputs: tuple[int, ...], targets: tuple[int, ...]) -> None:
    found = torch.randn(outputs)
    expected = found.view(targets).square()
    values = loss_of("mse").values(found, torch.zeros(targets))
    torch.testing.assert_close(values, expected if expected.dim() == 1 else expected.mean(1))


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 1, dtype=torch.complex64))

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs.to(self.weight.dtype) @ self.weight).abs()


class Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(inputs), inputs


class SparseRows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 1, sparse=True)

    def forward(self, inputs: Tensor) -> Tensor:
        rows: Tensor = self.table((inputs[:, 0] > 0).long())
        return rows


@pytest.mark.parametrize(
    "sections", [{"alpha": WHOLE}, {"alpha": {"policy": "apply"}}, {"optimizer": {"name": "nadamw"}}]
)
def test_a_complex_parameter_is_named(
    use: Callable[..., None], train_run: TrainRun, sections: Config
) -> None:
    use(model=lambda workload: nn.Sequential(Complex()))
    with pytest.raises(UserError, match=r"parameter 0\.weight is complex"):
        train_run({**RUN, **sections})


@pytest.mark.parametrize("sections", [{"alpha": WHOLE}, {"optimizer": {"name": "nadamw"}}])
def test_an_embedding_with_sparse_gradients_is_named(
    use: Callable[..., None], train_run: TrainRun, sections: Config
) -> None:
    use(model=lambda workload: nn.Sequential(SparseRows()))
    with pytest.raises(UserError, match=r"embedding 0\.table has sparse gradients"):
        train_run({**RUN, **sections})


@pytest.mark.parametrize("model", [Complex, SparseRows])
def test_what_torch_trains_by_itself_goes_on(
    use: Callable[..., None], train_run: TrainRun, model: Callable[[], nn.Module]
) -> None:
    use(model=lambda workload: model())
    assert train_run({**RUN, "optimizer": {"name": "sgd"}}).outcome.status == "completed"


@pytest.mark.parametrize("sections", [{}, {"alpha": {"policy": "observe"}}], ids=str)
def test_a_lazy_normalisation_is_named_until_it_is_initialised(
    use: Callable[..., None], train_run: TrainRun, sections: Config
) -> None:
    def lazy(first_pass: bool) -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 3), nn.LazyBatchNorm1d(), nn.Linear(3, 1))
        if first_pass:
            model(torch.randn(2, 4))
        return model

    use(model=lambda workload: lazy(False))
    with pytest.raises(UserError, match=r"buffer 1\.running_mean has no shape") as raised:
        train_run({**RUN, **sections})
    assert "in workload.model()" in str(raised.value.hint)
    use(model=lambda workload: lazy(True))
    assert train_run({**RUN, **sections}).outcome.status == "completed"


def test_outputs_that_are_no_tensor_are_told(use: Callable[..., None], train_run: TrainRun) -> None:
    use(model=lambda workload: Several())
    with pytest.raises(UserError, match="mse needs one tensor, and the model returns a tuple"):
        train_run(RUN)
    use(loss=lambda outputs, targets: squared(outputs[0], targets), model=lambda workload: Several())
    with pytest.raises(UserError, match="the model returns a tuple, and α"):
        train_run({**RUN, "alpha": WHOLE}, "alpha")
    assert train_run(RUN, "plain").outcome.status == "completed"
