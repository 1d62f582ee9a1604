"""What only the first pass of its kind costs a process, before anything counts: imports, compilation."""

from __future__ import annotations

from .buffers import buffers_preserved
from .contract import check_loss, check_parameters
from .gradient import forward_backward
from .in_place import protect
from .session import Session
from .streams import copied


def rehearse(session: Session) -> None:
    """Read the data of the step to come, and make one pass of each kind that training and α* will make.

    Their results are thrown away, and leave no trace: generators and buffers are put back, gradients
    dropped, no parameter moves, nothing is charged. It costs one forward and backward pass, and for α* one
    pass of each kind and the check that its route is right (`alpha.guard`); the optimizer's own first step
    still counts. Two more forward passes look for a hidden state.

    Raises:
        UserError: the config asks for something that this model or loss cannot do, or α* would be wrong.
    """
    generators = session.generators
    generators.find()
    start = generators.state()
    session.stepper.optimizer.zero_grad(set_to_none=True)
    check_parameters(session)
    batch = session.train_batch(session.step)
    generators.restore(start)
    with buffers_preserved(session.model):
        passed = copied(batch)
        loss = forward_backward(session.model, session.loss, passed)
    protect(session.model, session.loss, batch, passed)
    generators.find(reset=True)
    generators.restore(start)
    with generators.preserved(), buffers_preserved(session.model):
        check_loss(session, batch)
    if session.probe is not None:
        with generators.preserved(), buffers_preserved(session.model):
            session.probe.check(batch, loss)
            session.probe.rehearse(session.step, batch)
    session.look_for_hidden_state()
    session.stepper.optimizer.zero_grad(set_to_none=True)
