"""The descent that the study's small networks have in common; a decoder's is `asymlib.training.decoder`."""

from collections.abc import Callable

import numpy as np
import torch
from tqdm import tqdm

from asymlib.training.checkpoints import ResumeState
from asymlib.training.schedules import cosine_with_warmup

EVERY = 50  # steps that a row of the curve is a mean of


def descend(
    loss_of: Callable[[int], torch.Tensor],
    optimiser: torch.optim.Optimizer,
    steps: int,
    lr: float,
    name: str,
    state: ResumeState | None = None,
    after: Callable[[], None] = lambda: None,
) -> list[dict]:
    """Lower a loss in place: the rate along a cosine, gradients clipped to a norm of 1.

    Args:
        loss_of: Step -> loss; on (seed, step) alone, so that a resumed run sees the same.
        optimiser: Of one group of parameters.
        steps: In all.
        lr: The highest rate.
        name: For the progress bar.
        state: Where to go on from, and what to keep; None keeps nothing.
        after: Called after each step, such as for a moving average of the weights.

    Returns:
        The curve: rows of {step, loss}, means over EVERY steps.
    """
    state = ResumeState(None, {}, {}) if state is None else state
    start, history = state.restore()
    losses: list[float] = []
    progress = tqdm(range(start, steps), initial=start, total=steps, desc=name, mininterval=5)
    for step in progress:
        loss = loss_of(step)
        optimiser.param_groups[0]["lr"] = cosine_with_warmup(lr, step, steps)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], 1.0)
        optimiser.step()
        after()
        losses.append(loss.item())
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            history.append({"step": step + 1, "loss": float(np.mean(losses))})
            losses = []
            progress.set_postfix(loss=f"{history[-1]['loss']:.3f}")
        state.keep(step + 1, history, last=step + 1 == steps)
    return history
