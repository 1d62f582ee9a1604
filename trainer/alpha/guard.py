"""Check in the warm-up pass that α*'s route differentiates the same function as training.

The check runs once per attempt, outside the clock. It uses a test direction v and the random numbers of the
pass that computed the gradient:

- loss: further passes with the same parameters, inputs and random numbers have the same loss;
- slope: the route's slope along v is vᵀ∇L, with the gradient ∇L by backpropagation;
- derivative: the route's Jv is (z(θ + hv) − z(θ − hv)) / 2h, with outputs z at really moved parameters.
  Route `curvlinops` does not return its Jv, so the check compares its curvature with that of route `jvp`.

If a check fails, it is repeated along another direction, from slightly moved parameters: there no unit sits
exactly on the kink of its activation. The guard reports the faults of the second check.

The first check uses the gradient that training has just computed. If it fails, the guard computes the
gradient again: attention in training may use other kernels than the route, whose dropout has other masks,
and the loss may have drawn other random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...errors import UserError
from ..buffers import buffers_preserved
from ..gradient import accumulate, forward_backward
from ..losses import CallableLoss, Loss, mean
from ..randomness import Generators, GeneratorState
from ..streams import Batch, derive, in_chunks, share
from .options import OPERATOR_ROUTES, AlphaOptions
from .quadratic import Quadratic
from .routes import Line, by_jvp
from .routing import Router
from .vectors import inner

ASIDE = (0.05, 0.003)
"""How far the second check moves the parameters, relative to their size; the first finite loss counts."""

NOT_FINITE = (
    "the route of α* is not checked: the loss or its gradient is not finite on the first batch, or on the "
    "part of it that α* looks at"
)
CHUNK = 2**20
NOT_FINITE_BESIDE = (
    "the curvature of α* is not checked: the outputs are not finite where the parameters are moved a little"
)
FINE = 1e-5
"""float32 and float64 have a smaller rounding unit."""
TF32 = 2.0**-10
Result = TypeVar("Result")
Tangents = list[tuple[Tensor, Tensor]]
"""Outputs and their derivative along v, chunk by chunk."""


@dataclass(frozen=True)
class Tolerance:
    """Maximum differences, relative to the size of the numbers."""

    slope: float
    derivative: float
    repetition: float
    step: float
    """h, relative to the parameters: the square root of the rounding unit."""

    @classmethod
    def of(cls, rounding: float) -> Tolerance:
        """Return the tolerance for the rounding unit of the coarsest type that the model computes in."""
        step = math.sqrt(rounding)
        if rounding < 1e-12:  # float64
            return cls(slope=1e-4, derivative=2e-3, repetition=1e-6, step=step)
        if rounding < FINE:  # float32
            return cls(slope=1e-2, derivative=2e-2, repetition=1e-4, step=step)
        return cls(slope=0.2, derivative=0.5, repetition=0.02, step=step)  # bfloat16, float16, TF32


def check(options: AlphaOptions, router: Router, seed: int, batch: Batch, loss: Tensor, fused: bool) -> None:
    """Check the route on a batch, as `Guard.problem` does; warn in the journal if the run only observes.

    Attention uses the MATH kernel on both sides: with another one, its dropout would have other masks.

    Raises:
        UserError: the check fails, and the policy acts on α*.
    """
    with sdpa_kernel(SDPBackend.MATH):
        problem = Guard(options, router, seed).problem(batch, loss, fused)
    if problem is None:
        return
    if options.acts_on == "nothing":
        router.warn(f"the recorded α* are not to be trusted: {problem}")
        return
    raise UserError(
        f"α* would be wrong for this model: {problem}",
        "change the model, or use policy: observe, which acts on nothing and records α* with a warning",
    )


@dataclass(frozen=True)
class Findings:
    """Errors of a route at one point, in units of the tolerance, and the slopes compared."""

    loss: float
    slope: float
    derivative: float
    slopes: tuple[float, float, float]
    """By the route, by backpropagation, by differences."""
    relative: float
    """The distance of the first two, relative to the size of an example's term."""
    is_coarse: bool
    """Whether the model computes in less than float32."""

    @property
    def off(self) -> set[str]:
        """The failed checks; a check with numbers that are not finite has failed."""
        return {name for name in ("loss", "slope", "derivative") if not getattr(self, name) <= 1}


class Guard:
    """Compares the route of a run's α* with backpropagation and with differences."""

    def __init__(self, options: AlphaOptions, router: Router, seed: int) -> None:
        self._options = options
        self._router = router
        self._model = router.model
        self._seed = seed
        self._parameters = [p for p in router.model.parameters() if p.requires_grad]
        self._padding = _padding_rows(router.model)
        self._start = router.generators.state()
        self._loss = _replay_loss(router.loss, router.generators, self._start)

    def problem(self, batch: Batch, loss: Tensor, fused: bool) -> str | None:
        """Return the problem of the route on the examples that α* uses; None if there is none.

        `loss` is the mean loss of the batch. Its gradient is in `.grad`, and this method drops it. The
        generators have the state from before the loss was computed. `fused`: lookahead trains by the same
        pass.
        """
        at_origin = set(self._options.estimators) != {"lookahead"}
        late = "lookahead" in self._options.estimators
        fraction = self._options.curvature_fraction
        problem = self._check_twice(batch, loss, False) if at_origin else None
        if problem is None and late and not (at_origin and fraction == 1):
            part = share([batch], fraction)[0]
            part_loss = loss if part is batch and not at_origin else None
            problem = self._check_twice(part, part_loss, fused)
        return problem

    def _check_twice(self, batch: Batch, loss: Tensor | None, fused: bool) -> str | None:
        """Return the problem on a batch; `loss` is its mean loss if `.grad` holds its gradient, else None."""
        parts = in_chunks(batch, self._options.chunks)
        first = self._compare(batch, parts, loss if len(parts) == 1 else None, fused, 1)
        if first is None:
            self._router.warn(NOT_FINITE)
            return None
        if first.is_coarse and self._has_fine_parameters:
            with suppress(Exception), in_full_precision():  # a lower-precision model may raise anything
                fine = self._check_with_own_gradient(batch, parts, fused)
                if fine is not None and not fine.is_coarse:
                    return _explain(fine, self._options.route)
        second = self._check_with_own_gradient(batch, parts, fused) if first.off else None
        return _explain(second or first, self._options.route)

    @property
    def _has_fine_parameters(self) -> bool:
        return all(torch.finfo(p.dtype).eps < FINE for p in self._parameters)

    def _check_with_own_gradient(self, batch: Batch, parts: list[Batch], fused: bool) -> Findings | None:
        """Compare with a gradient computed here; if a check fails, compare at moved parameters."""
        first = self._compare(batch, parts, None, fused, 1)
        return (self._check_aside(batch, parts, fused) or first) if first is not None and first.off else first

    def _check_aside(self, batch: Batch, parts: list[Batch], fused: bool) -> Findings | None:
        """Compare at moved parameters, nearer if the loss is not finite there; None if it never is."""
        for factor in ASIDE:
            aside = (_random_offset(p, self._seed, index) for index, p in enumerate(self._parameters))
            with moved(self._parameters, aside, factor):
                findings = self._compare(batch, parts, None, fused, 2)
            if findings is not None:
                return findings
        return None

    def _compare(
        self, batch: Batch, parts: list[Batch], loss: Tensor | None, fused: bool, number: int
    ) -> Findings | None:
        """Compare along a test direction. Return None if the loss or its gradient is not finite.

        Without `loss`, this method computes the loss and its gradient.
        """
        if loss is None:
            loss = self._backpropagate(parts)
        vector, expected = self._test_direction(number)
        if not (math.isfinite(expected) and math.isfinite(float(loss))):
            return None
        precision = Precision()  # type: ignore[no-untyped-call]
        with torch.no_grad(), torch.compiler.set_stance("force_eager"), precision:
            outputs = self._replay(lambda: [self._model(part["inputs"]) for part in parts])
            losses = [self._loss.values(z, part["targets"]) for z, part in zip(outputs, parts, strict=True)]
        tolerance = Tolerance.of(precision.rounding)
        step = tolerance.step / 4 ** (number - 1)  # the second check takes a smaller step
        line = Watched.of(self._router.line(vector, step), self._loss)
        quadratic = self._replay(lambda: self._router.look(line, [batch], fused).read())
        self._drop_gradient()
        if self._options.route in OPERATOR_ROUTES:
            stand_in = self._replay(lambda: by_jvp(line, batch).read())
        seen = line.seen[-len(parts) :]
        moved_outputs = self._output_differences(parts, vector, step)
        if not any(bool(of.isfinite().any()) for of in moved_outputs):
            self._router.warn(NOT_FINITE_BESIDE)

        size = _weighted_mean([of.abs() for of in losses], parts)
        terms = self._output_slopes(outputs, [tangent for _, tangent in seen] or moved_outputs, parts)
        by_differences = _weighted_mean(self._output_slopes(outputs, moved_outputs, parts), parts)
        scale = max(_weighted_mean([of.abs() for of in terms], parts), abs(expected)) + tolerance.step * size
        noise = precision.rounding / step
        derivative = _output_distance(seen, moved_outputs, noise)
        if number > 1 and derivative > tolerance.derivative:  # the differences may be wrong instead
            farther = self._output_differences(parts, vector, 4 * step)
            pairs = list(zip(outputs, farther, strict=True))
            derivative = min(derivative, _output_distance(seen, farther, noise))
            derivative -= _output_distance(pairs, moved_outputs, noise)
        if self._options.route in OPERATOR_ROUTES:
            curvature = stand_in.curvature
            if self._options.curvature == "hessian":
                curvature = self._hessian_curvature(batch, vector)
            largest = max(abs(curvature), abs(stand_in.curvature))
            derivative = max(derivative, _relative_distance(quadratic.curvature, curvature, largest))
        repeated = _relative_distance(_weighted_mean(losses, parts), float(loss), size)
        relative = _relative_distance(quadratic.slope, expected, scale)
        slack = 3 if self._router.takes_differences else 1
        return Findings(
            loss=max(
                _relative_distance(quadratic.loss, float(loss), size) / (slack * tolerance.slope),
                repeated / tolerance.repetition,
            ),
            slope=relative / (slack * tolerance.slope),
            derivative=derivative / tolerance.derivative,
            slopes=(quadratic.slope, expected, by_differences),
            relative=relative,
            is_coarse=precision.rounding >= FINE,
        )

    @torch.no_grad()
    def _test_direction(self, number: int) -> tuple[list[Tensor], float]:
        """Return v and vᵀ∇L for the gradient ∇L in `.grad`, and drop the gradient.

        v is the gradient plus random signs, both in proportion to the size of each parameter. Along the
        gradient the terms of the examples do not cancel. The signs cover parameters that the gradient
        misses. Only the entries of padding are zero: they have no gradient and never move.
        """
        vector, slope = [], 0.0
        for index, p in enumerate(self._parameters):
            v = _signs_like(p, self._seed, number, index).div_(math.sqrt(3))
            gradient, p.grad = p.grad, None
            if gradient is None:
                gradient = torch.zeros_like(p)
            unit = _root_mean_square(gradient) or 1.0
            for to, part in zip(_chunks(v), _chunks(gradient), strict=True):
                to.add_((part / unit).clamp_(-3, 3))
            v.mul_(_typical_size(p))
            if id(p) in self._padding:
                v[self._padding[id(p)]] = 0
            slope += float(inner([v], [gradient]))
            vector.append(v)
        return vector, slope

    def _backpropagate(self, parts: list[Batch]) -> Tensor:
        """Return the mean loss of chunks and write its gradient to `.grad`, as training does."""

        def passed() -> Tensor:
            if len(parts) == 1:
                return forward_backward(self._model, self._loss, parts[0])
            return accumulate(self._model, self._loss, parts)

        self._drop_gradient()
        return self._replay(passed)

    def _drop_gradient(self) -> None:
        for p in self._parameters:
            p.grad = None

    @torch.no_grad()
    def _output_differences(self, parts: list[Batch], vector: list[Tensor], step: float) -> list[Tensor]:
        """Return the outputs' derivative along v, by moving the parameters themselves and back."""
        ends = []
        for sign in (1, -1):
            with moved(self._parameters, vector, sign * step):
                ends.append(self._replay(lambda: [self._model(part["inputs"]) for part in parts]))
        return [(above.double() - below.double()) / (2 * step) for above, below in zip(*ends, strict=True)]

    def _output_slopes(
        self, outputs: list[Tensor], tangents: list[Tensor], parts: list[Batch]
    ) -> list[Tensor]:
        """Return ∂ℓ/∂z · Jv per element."""
        slopes_by_part = []
        for z, tangent, part in zip(outputs, tangents, parts, strict=True):
            to = torch.float32 if z.dtype in (torch.bfloat16, torch.float16) else z.dtype
            slopes, _ = self._loss.quadratic(z.to(to), part["targets"], tangent.to(to))
            slopes_by_part.append(slopes)
        return slopes_by_part

    def _hessian_curvature(self, batch: Batch, vector: list[Tensor]) -> float:
        """Return vᵀHv by backpropagating twice."""

        def passed() -> Tensor:
            loss = mean(self._loss.values(self._model(batch["inputs"]), batch["targets"]), None)
            first = torch.autograd.grad(loss, self._parameters, create_graph=True, materialize_grads=True)
            slope = inner(vector, list(first))
            second = torch.autograd.grad(slope, self._parameters, materialize_grads=True)
            return inner(vector, list(second))

        return float(self._replay(passed))

    def _replay(self, passed: Callable[[], Result]) -> Result:
        """Run a pass with the random numbers and buffers of the first pass."""
        with self._router.generators.replayed(self._start), buffers_preserved(self._model):
            return passed()


@dataclass(frozen=True)
class Watched(Line):
    """A line that records the outputs and derivatives that a route computes along it."""

    seen: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @classmethod
    def of(cls, line: Line, loss: Loss) -> Watched:
        """Return the same line with another loss, recorded and not charged to any clock."""
        values = {part.name: getattr(line, part.name) for part in fields(line)}
        return cls(**{**values, "loss": loss, "timed": nullcontext, "difference": line.step})

    def quadratic(self, outputs: Tensor, tangent: Tensor, batch: Batch) -> Quadratic:
        """Return what `Line.quadratic` does."""
        self.seen.append((outputs.detach(), tangent.detach()))
        return super().quadratic(outputs, tangent, batch)


class Precision(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the rounding unit of the coarsest type that operations inside compute in.

    Code inside must not be compiled: torch.compile refuses to run under a dispatch mode.
    """

    supports_higher_order_operators = True
    rounding = torch.finfo(torch.float64).eps

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and record the types of its results."""
        results = func(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor) and result.is_floating_point():
                self.rounding = max(self.rounding, torch.finfo(result.dtype).eps)
                if result.is_cuda and result.dtype == torch.float32 and _rounds_to_tf32(str(func)):
                    self.rounding = max(self.rounding, TF32)
        return results


class FullPrecision(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Makes operations return float32 where code requests a coarser type, also by `torch.autocast`."""

    supports_higher_order_operators = True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation with float32 in place of a coarser `dtype` argument."""
        arguments = (kwargs or {}).items()
        return func(*args, **{key: torch.float32 if _is_coarse(value) else value for key, value in arguments})


@contextmanager
def in_full_precision() -> Iterator[None]:
    """Compute in float32 instead of coarser types, without compiled code, which allows no such mode."""
    with torch.compiler.set_stance("force_eager"), FullPrecision():  # type: ignore[no-untyped-call]
        yield


def _is_coarse(value: Any) -> bool:
    return isinstance(value, torch.dtype) and value.is_floating_point and torch.finfo(value).eps >= FINE


def _rounds_to_tf32(operation: str) -> bool:
    """Return whether a GPU may round an operation's float32 inputs to TF32."""
    if "conv" in operation:
        setting: Any = getattr(torch.backends.cudnn, "conv", torch.backends.cudnn)
    elif "mm" in operation or "matmul" in operation:
        setting = torch.backends.cuda.matmul
    else:
        return False
    precision = getattr(setting, "fp32_precision", None)  # since torch 2.9; then the other may not be read
    return bool(setting.allow_tf32) if precision is None else precision not in ("none", "ieee")


@contextmanager
@torch.no_grad()
def moved(parameters: Sequence[Tensor], vector: Iterable[Tensor], factor: float) -> Iterator[None]:
    """Move the parameters by factor · v inside the context; restore them bit for bit."""
    origin = [p.detach().clone() for p in parameters]
    try:
        _add_scaled(parameters, vector, factor)
        yield
    finally:
        for p, values in zip(parameters, origin, strict=True):
            p.copy_(values)


def _add_scaled(parameters: Sequence[Tensor], vector: Iterable[Tensor], factor: float) -> None:
    """Add factor · v to the parameters; an iterator keeps only one tensor in memory at a time."""
    for p, v in zip(parameters, vector, strict=True):
        p.add_(v, alpha=factor)


def _replay_loss(loss: Loss, generators: Generators, start: GeneratorState) -> Loss:
    """Return a loss that draws the same random numbers each time and does not advance the generators."""
    if not isinstance(loss, CallableLoss):
        return loss

    def values(outputs: Tensor, targets: Tensor) -> Tensor:
        with generators.replayed(start):
            return loss.values(outputs, targets)

    values.__qualname__ = loss.name
    return CallableLoss(values)


def _padding_rows(model: nn.Module) -> dict[int, int]:
    """Return the padding row of each embedding's weight, by the weight's id."""
    tables = (module for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag))
    return {id(table.weight): table.padding_idx for table in tables if table.padding_idx is not None}


def _typical_size(parameter: Tensor) -> float:
    """Return the root mean square of a parameter, at least a tenth of a typical initial one."""
    if not parameter.numel():
        return 0.0
    fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
    return max(_root_mean_square(parameter), 0.1 / math.sqrt(fan_in))


def _root_mean_square(values: Tensor) -> float:
    """Return the root mean square of a tensor, summed in float64."""
    lengths = [float(torch.linalg.vector_norm(part, dtype=torch.float64)) for part in _chunks(values)]
    return math.hypot(*lengths) / math.sqrt(max(values.numel(), 1))


def _chunks(values: Tensor) -> Sequence[Tensor]:
    """Return a tensor in pieces, so that intermediate results need little memory."""
    chunks: Sequence[Tensor] = values.detach().reshape(-1).split(CHUNK)  # type: ignore[no-untyped-call]
    return chunks


def _signs_like(parameter: Tensor, seed: int, *names: int) -> Tensor:
    """Return random signs of a parameter's shape, drawn from a separate generator."""
    generator = torch.Generator(parameter.device).manual_seed(derive(seed, "guard", *names))
    device = parameter.device
    draw = torch.randint(0, 2, parameter.shape, generator=generator, device=device, dtype=torch.int8)
    return draw.mul_(2).sub_(1).to(parameter.dtype)


@torch.no_grad()
def _random_offset(parameter: Tensor, seed: int, index: int) -> Tensor:
    """Return random numbers of either sign, 0.5 to 1.5 times the size of a parameter."""
    generator = torch.Generator(parameter.device).manual_seed(derive(seed, "aside", index))
    draw = torch.rand(parameter.shape, generator=generator, device=parameter.device).add_(0.5)
    return (
        draw.to(parameter.dtype).mul_(_signs_like(parameter, seed, 0, index)).mul_(_typical_size(parameter))
    )


def _weighted_mean(values: list[Tensor], parts: list[Batch]) -> float:
    """Return the mean of a loss' values over chunks, by their weights."""
    weights = [part.get("weights", torch.ones_like(of)) for of, part in zip(values, parts, strict=True)]
    return float(mean(torch.cat(values).double(), torch.cat(weights).double()))


def _relative_distance(value: float, expected: float, size: float) -> float:
    """Return |value − expected| relative to a size; 0 where they are equal."""
    if value == expected:
        return 0.0
    return abs(value - expected) / size if size else math.inf


def _output_distance(seen: Tangents, differences: list[Tensor], rounding: float) -> float:
    """Return the median over examples of the relative distance of Jv; 0 if the route returns no Jv.

    The median ignores the few examples that cross a kink or a jump between θ − hv and θ + hv. Examples with
    differences that are not finite are excluded.
    """
    if not seen:
        return 0.0
    part_distances = []
    for (outputs, tangent), difference in zip(seen, differences, strict=True):
        lengths = [_rows(of).norm(dim=1) for of in (tangent, difference, tangent - difference, outputs)]
        size = torch.maximum(lengths[0], lengths[1]) + 10 * rounding * lengths[3]
        part_distances.append(torch.where(lengths[2] == 0, 0.0, lengths[2] / size)[lengths[1].isfinite()])
    distances = torch.cat(part_distances)
    return float(distances.median()) if len(distances) else 0.0


def _rows(outputs: Tensor) -> Tensor:
    """Return one row per example, in float64."""
    return outputs.double().reshape(len(outputs), -1) if outputs.dim() else outputs.double().view(1, 1)


def _explain(findings: Findings, route: str) -> str | None:
    """Return a message with the failed check and its usual causes; None if no check failed."""
    if not findings.off:
        return None
    if "loss" in findings.off:
        return (
            "passes with the same parameters, inputs and random numbers have different losses. Does the "
            "model draw from a generator that is no attribute of a module, or keep a state that is no buffer?"
        )
    if "slope" not in findings.off:
        return (
            f"the outputs do not move with the parameters as route {route} says: the model hides a "
            "dependence from differentiation, as detach(), .data, .item(), NumPy, a straight-through "
            "estimator, or an autograd.Function with a wrong derivative do"
        )
    by_route, expected, by_differences = findings.slopes
    message = (
        f"along a test direction route {route} finds the slope {by_route:.3g}, backpropagation "
        f"{expected:.3g} (apart by {findings.relative:.2g} of the mean size of an example's term). "
    )
    if abs(by_differences - expected) <= abs(by_differences - by_route):
        return message + (
            "Differences of the outputs agree with backpropagation, so the route misses a part: usually a "
            "parameter that is also read through a list, dict or closure instead of the module's attribute, "
            "or an autograd.Function with a wrong jvp"
        )
    return message + (
        "Differences of the outputs do not agree with backpropagation: the gradient is not the loss' "
        "derivative, as with detach(), torch.no_grad() or .data in forward, a straight-through estimator, or "
        "an autograd.Function with a wrong backward"
    )
