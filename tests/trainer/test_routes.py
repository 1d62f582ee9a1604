"""Slope and curvature along a direction: jvp, curvlinops, and a dense matrix agree."""

import math
from functools import reduce
from operator import add
from typing import get_args

import pytest
import torch
from alphagrid.errors import UserError
from alphagrid.trainer.alpha.options import Curvature, GenOptions, ObserveOptions
from alphagrid.trainer.alpha.quadratic import Quadratic
from alphagrid.trainer.alpha.routes import (
    Line,
    Route,
    by_curvlinops,
    by_finite_difference,
    by_jvp,
    by_parabola,
    by_thesis,
)
from alphagrid.trainer.alpha.routes.forward_mode import train_and_look
from alphagrid.trainer.alpha.routing import Router
from alphagrid.trainer.losses import Loss, loss_of, mean
from alphagrid.trainer.randomness import Generators
from alphagrid.trainer.streams import in_chunks
from alphagrid.trainer.workloads import WORKLOADS
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn


def make(
    name: str,
    batch_size: int,
    hidden: int,
    seed: int,
    activation: type[nn.Module] = nn.Tanh,
    terms: tuple[int, ...] = (),
    outputs: int | None = None,
) -> tuple[nn.Module, Loss, dict[str, Tensor], list[Tensor]]:
    """A small network, a batch and a vector for one loss, in float64.

    An example has a term for each index of `terms` (a text, say); `outputs` 0 is one without an axis.
    """
    torch.manual_seed(seed)
    width = {"cross_entropy": 4, "bce_with_logits": 0, "mse": 3}[name] if outputs is None else outputs
    layers = nn.Linear(5, hidden), activation(), nn.Linear(hidden, width or 1)
    model = nn.Sequential(*layers).double()
    rows = batch_size, *terms
    shape = rows if width == 0 else (*rows, width)
    targets = {
        "cross_entropy": lambda: torch.randint(0, 4, rows),
        "bce_with_logits": lambda: torch.rand(shape, dtype=torch.float64),
        "mse": lambda: torch.randn(shape, dtype=torch.float64),
    }[name]()
    batch = {"inputs": torch.randn(*rows, 5, dtype=torch.float64), "targets": targets}
    vector = [torch.randn_like(p) for p in model.parameters()]
    return model.eval(), loss_of(name), batch, vector


def dense(line: Line, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """vᵀg, vᵀGv with G as an explicit matrix, and ‖g‖‖v‖.

    The GGN is JᵀHJ with H the Hessian of the mean loss by the outputs; the Fisher is the mean outer product
    of the gradients of single terms. Buffers are cloned: batch normalisation may be in training mode.
    """
    buffers = dict(line.model.named_buffers())
    parameters = {name: p.detach() for name, p in line.parameters.items()}

    def outputs(at: dict[str, Tensor]) -> Tensor:
        clones = {name: buffer.clone() for name, buffer in buffers.items()}
        found: Tensor = torch.func.functional_call(line.model, {**at, **clones}, (batch["inputs"],))
        return found

    def losses(at: dict[str, Tensor]) -> Tensor:
        return line.loss.values(outputs(at), batch["targets"]).flatten()

    def average(of: Tensor) -> Tensor:
        if "weights" not in batch:
            return of.mean(0)
        return torch.einsum("i,i...->...", batch["weights"].flatten(), of) / batch["weights"].sum()

    def matrix(of: dict[str, Tensor], rows: int) -> Tensor:
        return torch.cat([part.reshape(rows, -1) for part in of.values()], -1)

    z = outputs(parameters)
    each = matrix(torch.func.jacrev(losses)(parameters), len(losses(parameters)))
    v = torch.cat([part.flatten() for part in line.vector])
    gradient = average(each)
    if line.curvature == "fisher":
        curvature = average((each @ v).square())
    elif line.curvature == "hessian":
        names = list(parameters)
        blocks = torch.func.hessian(lambda at: average(losses(at)))(parameters)
        curvature = sum(
            (blocks[a][b].reshape(va.numel(), vb.numel()) * torch.outer(va.flatten(), vb.flatten())).sum()
            for a, va in zip(names, line.vector, strict=True)
            for b, vb in zip(names, line.vector, strict=True)
        )
    else:
        jacobian = matrix(torch.func.jacrev(outputs)(parameters), z.numel())
        by_outputs = torch.func.hessian(
            lambda flat: average(line.loss.values(flat.view_as(z), batch["targets"]).flatten())
        )(z.flatten())
        curvature = (jacobian @ v) @ by_outputs @ (jacobian @ v)
    return v @ gradient, curvature, gradient.norm() * v.norm()


SHAPES: dict[str, tuple[int | None, ...]] = {
    "cross_entropy": (None,), "bce_with_logits": (None, 1, 4), "mse": (None, 0, 1),
}  # fmt: skip
"""Outputs of a term: the usual ones, or others."""


@given(
    name=st.sampled_from(list(SHAPES)),
    batch_size=st.integers(1, 7),
    hidden=st.integers(1, 6),
    seed=st.integers(0, 10**6),
    activation=st.sampled_from([nn.Tanh, nn.ReLU, nn.GELU]),
    terms=st.sampled_from([(), (3,)]),
    weighted=st.booleans(),
    curvature=st.sampled_from(get_args(Curvature)),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_every_route_and_the_dense_matrix_agree(
    name: str,
    batch_size: int,
    hidden: int,
    seed: int,
    activation: type[nn.Module],
    terms: tuple[int, ...],
    weighted: bool,
    curvature: Curvature,
    data: st.DataObject,
) -> None:
    """A loss here is a mean of its values, or their weighted mean; other reductions there are none."""
    outputs = data.draw(st.sampled_from(SHAPES[name]))
    model, loss, batch, vector = make(name, batch_size, hidden, seed, activation, terms, outputs)
    line = Line(model, loss, vector, curvature=curvature)
    values = line.loss.values(model(batch["inputs"]), batch["targets"])
    if weighted:
        batch["weights"] = torch.rand_like(values.detach()) + 0.01
    slope, expected, scale = dense(line, batch)
    found = [] if weighted else [by_thesis(line, batch)]  # curvlinops knows no weights
    if curvature != "hessian":
        found += [by_jvp(line, batch), in_parts(line, batch)]
    for quadratic in found:
        assert abs(quadratic.slope - slope) <= 1e-9 * scale
        assert abs(quadratic.curvature - expected) <= 1e-9 * max(1.0, float(expected))
        assert abs(quadratic.loss - mean_loss(line, batch)) <= 1e-9


def in_parts(line: Line, batch: dict[str, Tensor]) -> Quadratic:
    """By forward mode, three examples at a time."""
    return reduce(
        add, (by_jvp(line, part) for part in in_chunks(batch, math.ceil(len(batch["targets"]) / 3)))
    )


def mean_loss(line: Line, batch: dict[str, Tensor]) -> Tensor:
    return mean(line.loss.values(line.model(batch["inputs"]), batch["targets"]), batch.get("weights"))


@given(name=st.sampled_from(["cross_entropy", "bce_with_logits", "mse"]), seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_finite_differences_come_close(name: str, seed: int) -> None:
    model, loss, batch, vector = make(name, 7, 5, seed)
    line = Line(model, loss, vector)
    exact, near = by_jvp(line, batch).read(), by_finite_difference(line, batch).read()
    assert near.slope == pytest.approx(exact.slope, rel=1e-4, abs=1e-7)
    assert near.curvature == pytest.approx(exact.curvature, rel=1e-4, abs=1e-7)


@given(name=st.sampled_from(["cross_entropy", "bce_with_logits", "mse"]), seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_finite_differences_in_single_precision_miss_by_what_the_docs_say(name: str, seed: int) -> None:
    model, loss, batch, vector = make(name, 32, 16, seed)
    _, _, scale = dense(Line(model, loss, vector), batch)
    single = {key: of.float() if of.is_floating_point() else of for key, of in batch.items()}
    line = Line(model.float(), loss, [part.float() for part in vector])
    exact, near = by_jvp(line, single).read(), by_finite_difference(line, single).read()
    assert abs(near.slope - exact.slope) <= 1e-3 * float(scale)
    assert near.curvature == pytest.approx(exact.curvature, rel=0.01)


def test_the_parabola_has_the_hessians_curvature_for_a_short_step() -> None:
    model, loss, batch, vector = make("cross_entropy", 9, 5, 0)
    slope, curvature, _ = dense(Line(model, loss, vector, curvature="hessian"), batch)
    fitted = by_parabola(Line(model, loss, vector, step=-1e-3), batch)
    assert float(fitted.slope) == pytest.approx(float(slope), rel=1e-4)
    assert float(fitted.curvature) == pytest.approx(float(curvature), rel=1e-4)


def test_weights_weigh_slope_and_curvature() -> None:
    model, loss, batch, vector = make("mse", 6, 4, 0)
    weights = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)
    half = {key: value[:3] for key, value in batch.items()}
    weighted, expected = (
        by_jvp(Line(model, loss, vector), {**batch, "weights": weights}),
        by_jvp(Line(model, loss, vector), half),
    )
    torch.testing.assert_close(weighted.slope, expected.slope)
    torch.testing.assert_close(weighted.curvature, expected.curvature)


def test_curvlinops_refuses_what_it_would_get_wrong() -> None:
    model, loss, batch, vector = make("mse", 6, 4, 0)
    with pytest.raises(UserError, match="weights"):
        by_curvlinops(Line(model, loss, vector), {**batch, "weights": torch.ones(6)})
    normalised = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)).double().train()
    ones = [torch.ones_like(p) for p in normalised.parameters()]
    with pytest.raises(UserError, match="cannot differentiate"):
        by_curvlinops(Line(normalised, loss, ones), batch)


def dropping() -> tuple[nn.Module, Line, dict[str, Tensor]]:
    """A model that drops half of its units; along a line its squared error is a parabola."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(40, 3)).double().train()
    batch = {"inputs": torch.randn(8, 40).double(), "targets": torch.randn(8, 3).double()}
    vector = [torch.randn_like(p) for p in model.parameters()]
    return model, Line(model, loss_of("mse"), vector, step=0.1), batch


@pytest.mark.parametrize("route", [by_finite_difference, by_parabola])
def test_the_passes_of_a_route_drop_the_same_units(route: Route) -> None:
    _, line, batch = dropping()
    with Generators().replayed(1):
        expected = by_jvp(line, batch).read()
    with Generators().replayed(1):
        found = route(line, batch).read()
    assert found.slope == pytest.approx(expected.slope, rel=1e-6)
    assert found.curvature == pytest.approx(expected.curvature, rel=1e-6)


def test_curvlinops_refuses_a_model_that_draws_random_numbers() -> None:
    model, line, batch = dropping()
    with pytest.raises(UserError, match="draws random numbers"):
        by_curvlinops(line, batch)
    by_curvlinops(Line(model.eval(), line.loss, line.vector), batch)


def test_batch_normalisation_in_training_mode_has_the_values_of_the_dense_matrix() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)).double().train()
    batch = {"inputs": torch.randn(8, 5).double(), "targets": torch.randint(0, 3, (8,))}
    line = Line(model, loss_of("cross_entropy"), [torch.randn_like(p) for p in model.parameters()])
    slope, curvature, scale = dense(line, batch)
    found = by_jvp(line, batch).read()
    assert found.slope == pytest.approx(float(slope), abs=1e-9 * float(scale))
    assert found.curvature == pytest.approx(float(curvature), rel=1e-9)


def test_a_parabola_along_no_step_is_undefined_in_chunks_too() -> None:
    model, loss, batch, vector = make("mse", 6, 4, 0)
    router = Router(GenOptions(policy="gen", chunks=2), model, loss, pytest.fail)
    found = router.quadratic(vector, -0.0, [batch]).read()
    assert math.isnan(found.slope)
    assert math.isnan(found.curvature)


def test_probing_in_training_mode_leaves_buffers_and_gradients_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 3))
    model = model.double().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = {"inputs": torch.randn(8, 5).double(), "targets": torch.randint(0, 3, (8,))}
    ones = [torch.ones_like(p) for p in model.parameters()]
    quadratic = by_jvp(Line(model, loss_of("cross_entropy"), ones), batch)
    assert quadratic.curvature > 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_dropout_has_one_mask_for_outputs_and_tangent() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 40), nn.Dropout(0.5), nn.Linear(40, 3)).double().train()
    batch = {"inputs": torch.randn(8, 5).double(), "targets": torch.randint(0, 3, (8,))}
    line = Line(model, loss_of("cross_entropy"), [torch.randn_like(p) for p in model.parameters()])
    with Generators().replayed(1):
        found = by_jvp(line, batch).read()
    with Generators().replayed(1):
        masked = nn.Sequential(model[0], Fixed(model[1](torch.ones(8, 40).double())), model[2])
    slope, curvature, _ = dense(Line(masked, line.loss, line.vector), batch)
    assert found.slope == pytest.approx(float(slope), rel=1e-9)
    assert found.curvature == pytest.approx(float(curvature), rel=1e-9)


class Fixed(nn.Module):
    """Multiplies by a mask that is given."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.mask


def test_tied_weights_count_once_and_frozen_ones_do_not_move() -> None:
    torch.manual_seed(0)
    first, last, frozen = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    last.weight = first.weight
    frozen.requires_grad_(False)
    model = nn.Sequential(first, nn.Tanh(), frozen, nn.Tanh(), last).double()
    batch = {"inputs": torch.randn(6, 4).double(), "targets": torch.randint(0, 4, (6,))}
    line = Line(
        model, loss_of("cross_entropy"), [torch.randn_like(p) for p in (first.weight, first.bias, last.bias)]
    )
    loss = mean_loss(line, batch)
    gradient = torch.autograd.grad(loss, list(line.parameters.values()))
    slope = sum((g * v).sum() for g, v in zip(gradient, line.vector, strict=True))
    assert float(by_jvp(line, batch).slope) == pytest.approx(float(slope), rel=1e-9)
    assert float(by_finite_difference(line, batch).slope) == pytest.approx(float(slope), rel=1e-6)


class HalfPrecision(nn.Module):
    """A model that computes its hidden layer in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(5, 64), nn.Linear(64, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self.inner(inputs).relu()
        outputs: Tensor = self.outer(hidden.float())
        return outputs


def test_outputs_of_half_precision_do_not_cancel_in_the_closed_form() -> None:
    torch.manual_seed(0)
    outputs, tangent = torch.randn(64, 3).bfloat16(), (30 + torch.randn(64, 3)).bfloat16()
    batch = {"targets": torch.randint(0, 3, (64,))}
    line = Line(nn.Identity(), loss_of("cross_entropy"), [])
    half = line.quadratic(outputs, tangent, batch).read()
    full = line.quadratic(outputs.double(), tangent.double(), batch).read()
    assert half.curvature == pytest.approx(full.curvature, rel=1e-3)
    assert half.slope == pytest.approx(full.slope, rel=1e-3)


def test_autocast_in_the_model_costs_precision_and_nothing_else() -> None:
    torch.manual_seed(0)
    model = HalfPrecision()
    plain = nn.Sequential(model.inner, nn.ReLU(), model.outer)
    batch = {"inputs": torch.randn(64, 5), "targets": torch.randint(0, 3, (64,))}
    vector = [torch.randn_like(p) for p in model.parameters()]
    half, full = (by_jvp(Line(m, loss_of("cross_entropy"), vector), batch).read() for m in (model, plain))
    assert half.slope == pytest.approx(full.slope, rel=0.05)
    assert half.curvature == pytest.approx(full.curvature, rel=0.05)


def test_training_and_looking_by_one_pass_gives_what_two_give() -> None:
    torch.manual_seed(0)
    normalisation = nn.BatchNorm1d(8)
    layers = nn.Linear(5, 8), normalisation, nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)
    model = nn.Sequential(*layers).double().train()
    batch = {"inputs": torch.randn(16, 5).double(), "targets": torch.randint(0, 3, (16,))}
    line = Line(model, loss_of("cross_entropy"), [torch.randn_like(p) for p in model.parameters()])
    with Generators().replayed(1):
        expected = by_jvp(line, batch).read()
    with Generators().replayed(1):
        loss = mean_loss(line, batch)
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    normalisation.reset_running_stats()
    with Generators().replayed(1):
        fused, quadratic = train_and_look(line, batch)
    assert float(fused) == pytest.approx(float(loss))
    assert quadratic.read().slope == pytest.approx(expected.slope, rel=1e-9)
    assert quadratic.read().curvature == pytest.approx(expected.curvature, rel=1e-9)
    for parameter, g in zip(model.parameters(), gradient, strict=True):
        torch.testing.assert_close(parameter.grad, g)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, statistics[name])


class RunningMean(nn.Module):
    """Keeps a running mean in a buffer that every pass assigns anew, and counts in place."""

    mean: Tensor
    passes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 3)
        self.register_buffer("mean", torch.zeros(5))
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * inputs.mean(0)
        self.passes += 1
        outputs: Tensor = self.linear(inputs - self.mean)
        return outputs


def test_training_and_looking_by_one_pass_keeps_buffers_that_forward_assigns_anew() -> None:
    torch.manual_seed(0)
    batch = {"inputs": torch.randn(8, 5), "targets": torch.randint(0, 3, (8,))}
    plain, fused = RunningMean(), RunningMean()
    for _ in range(2):
        plain(batch["inputs"])
        train_and_look(
            Line(fused, loss_of("cross_entropy"), [torch.ones_like(p) for p in fused.parameters()]), batch
        )
    assert float(fused.passes) == 2
    torch.testing.assert_close(fused.mean, plain.mean)


class Opaque(torch.autograd.Function):
    """A square that has no forward-mode derivative."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * grad  # type: ignore[attr-defined, no-any-return]


class WithoutForwardMode(nn.Module):
    def __init__(self, operation: str) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(5, 4).double(), nn.Linear(4, 3).double()
        self.operation = operation

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.inner(inputs)
        if self.operation == "cdist":
            hidden = torch.cdist(hidden, torch.eye(4, dtype=hidden.dtype))
        else:
            hidden = Opaque.apply(hidden)  # type: ignore[no-untyped-call]
        outputs: Tensor = self.outer(hidden)
        return outputs


@pytest.mark.parametrize(("operation", "named"), [("cdist", "_cdist_forward"), ("own", "autograd.Function")])
def test_where_an_operation_has_no_forward_mode_differences_serve_and_say_so(
    operation: str, named: str
) -> None:
    torch.manual_seed(0)
    model, loss = WithoutForwardMode(operation), loss_of("cross_entropy")
    batch = {"inputs": torch.randn(8, 5).double(), "targets": torch.randint(0, 3, (8,))}
    vector = [torch.randn_like(p) for p in model.parameters()]
    said: list[str] = []
    router = Router(ObserveOptions(policy="observe"), model, loss, said.append)
    found = [router.quadratic(vector, 1.0, [batch]).read() for _ in range(2)]
    exact = by_finite_difference(Line(model, loss, vector), batch).read()
    assert found == [exact, exact]
    assert router.train_and_look(vector, 1.0, batch) is None
    assert len(said) == 1
    assert named in said[0]


def test_an_error_of_the_model_itself_is_not_taken_for_a_missing_derivative() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, inputs: Tensor) -> Tensor:
            raise RuntimeError("shapes do not fit")

    router = Router(ObserveOptions(policy="observe"), Broken(), loss_of("mse"), pytest.fail)
    with pytest.raises(RuntimeError, match="do not fit"):
        router.quadratic([torch.ones(3)], 1.0, [{"inputs": torch.ones(2, 3), "targets": torch.ones(2)}])


def test_the_terms_of_a_text_are_terms_for_curvlinops_too() -> None:
    options = WORKLOADS.entry("char_transformer").options.model_validate(
        {"name": "char_transformer", "width": 8, "heads": 2, "layers": 1, "context": 6, "batch_size": 3}
    )
    workload = WORKLOADS.entry("char_transformer").load()(options)
    torch.manual_seed(0)
    model = workload.model().double()
    line = Line(model, loss_of(workload.loss), [torch.randn_like(p) for p in model.parameters()])
    batch = workload.stream("train", 0).batch(0)
    jvp, reference = by_jvp(line, batch).read(), by_curvlinops(line, batch).read()
    assert jvp.slope == pytest.approx(reference.slope, rel=1e-9)
    assert jvp.curvature == pytest.approx(reference.curvature, rel=1e-9)
