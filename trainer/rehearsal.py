"""What only the first pass of its kind costs a process, before anything counts: imports, compilation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .gradient import forward_backward
from .session import Session


def rehearse(session: Session) -> None:
    """Read the data of the step to come, and make one pass of each kind that training and α* will make.

    Their results are thrown away, and leave no trace: generators and buffers are put back, gradients
    dropped, no parameter moves, nothing is charged. It costs one forward and backward pass, and one pass for
    α*; the optimizer's own first step still counts.

    Raises:
        UserError: the config asks for something that this model or loss cannot do.
    """
    session.generators.find()
    with session.generators.preserved(), _buffers_preserved(session.model):
        batch = session.train_batch(session.step)
        forward_backward(session.model, session.loss, batch)
        if session.probe is not None:
            session.probe.rehearse(session.step, batch)
        session.generators.find(reset=True)
    session.stepper.optimizer.zero_grad(set_to_none=True)


@contextmanager
def _buffers_preserved(model: nn.Module) -> Iterator[None]:
    """Put every buffer back in the end: the tensor that it was, with the values it had."""
    found = [
        (module._buffers, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffers, name, buffer, values in found:
                buffer.copy_(values)
                buffers[name] = buffer
