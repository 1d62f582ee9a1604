"""The warm-up pass: pay the cost of first passes (imports, compilation) before the clock counts."""

from __future__ import annotations

from torch import Tensor

from ..errors import UserError
from .buffers import buffers_preserved
from .contract import CheckedLoss, check_loss, check_parameters
from .gradient import forward_backward
from .in_place import protect
from .parameter_changes import Mark, changed, marks, parameters_preserved, written
from .randomness import GeneratorState
from .session import Session
from .streams import Batch, copied


def warm_up(session: Session) -> None:
    """Read the data of the next step, and run one pass of each kind that training and α* will run.

    The results are discarded, and the clock charges nothing. The warm-up pass restores generators, buffers
    and parameters that a forward pass changes, and drops gradients. It costs one forward and backward pass,
    for α* one pass of each kind and the check of its route (`alpha.guard`), and two forward passes to detect
    hidden state. The first step of the optimizer itself still counts.

    Raises:
        UserError: the config asks for something that this model or loss cannot do, α* would be wrong, or a
            forward pass changes parameters in a way that a resumed run does not repeat.
    """
    generators = session.generators
    generators.find()
    start = generators.state()
    session.stepper.optimizer.zero_grad(set_to_none=True)
    check_parameters(session)
    batch = session.train_batch(session.step)
    before = marks(session.model)
    with parameters_preserved(session.model, session.changing):
        passed, loss = _run_pass(session, batch, start)
    protect(session.model, session.loss, batch, passed)
    generators.find(reset=True)
    generators.restore(start)
    _undo_changes(session, batch, start, before)
    with parameters_preserved(session.model, session.changing):
        with generators.preserved(), buffers_preserved(session.model):
            check_loss(session, batch)
        if session.probe is not None:
            with generators.preserved(), buffers_preserved(session.model):
                session.probe.check(batch, loss)
                session.probe.warm_up(session.step, batch)
        session.look_for_hidden_state()
    session.stepper.optimizer.zero_grad(set_to_none=True)


def _run_pass(session: Session, batch: Batch, start: GeneratorState) -> tuple[Batch, Tensor]:
    """Run a pass as a step does; return the copy of the batch that it used, and the loss."""
    session.generators.restore(start)
    passed: Batch = copied(batch)
    with buffers_preserved(session.model):
        return passed, forward_backward(session.model, CheckedLoss(session.loss), passed)


def _undo_changes(session: Session, batch: Batch, start: GeneratorState, before: dict[str, Mark]) -> None:
    """Restore parameters that the first pass has changed, and record them for evaluations.

    Raises:
        UserError: the passes of α* would change the parameters; they cannot be restored; or a second pass
            does not change them, so the model has state about its first pass that no checkpoint holds.
    """
    after = marks(session.model)
    names = written(before, after)
    if names and session.config.alpha is not None:
        raise UserError(
            f"the model's forward pass changes {_list_names(names)}: the passes of α* would change training",
            "keep what a pass changes in buffers, and set parameters from data where workload.model() builds "
            "the model; or leave out alpha",
        )
    moved = changed(before, after)
    if moved:
        session.put_back(moved)
        if moved & changed(before, marks(session.model)):
            raise UserError(
                f"the model's forward pass changes {_list_names(moved)}, which cannot be put back after the "
                "warm-up pass: workload.model() does not build the same model again",
                "keep what a pass changes in buffers",
            )
        with session.generators.preserved(), parameters_preserved(session.model, moved):
            _run_pass(session, batch, start)
            once = moved - changed(before, marks(session.model))
        if once:
            raise UserError(
                f"the model's first forward pass changes {_list_names(once)}, and later ones do not. No "
                "checkpoint holds which it was, so that a resumed run would change it again",
                "keep the flag in a buffer of the module (register_buffer), or set the parameter where "
                "workload.model() builds the model",
            )
    session.changing |= names


def _list_names(names: set[str]) -> str:
    first, *rest = sorted(names)
    return f"its parameter {first}" + (f" and {len(rest)} more" if rest else "")
