"""Temperature scaling: one number that makes confidence mean what it says.

Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def fit_temperature(
    logits: Tensor, targets: Tensor, weights: Tensor | None = None, shift: Tensor | None = None
) -> float:
    """Find the temperature under which a split's targets are most likely.

    Args:
        logits: float32[n, classes] of a split that was not trained on.
        targets: float32[n, classes], rows that sum to 1.
        weights: float64[n], what each face counts; all the same unless given.
        shift: float32[classes], what is added to the scaled logits: another prior.

    Returns:
        What to divide logits by before softmax, 0.05 to 20.
    """
    logits, targets = logits.double(), targets.double()
    weights = torch.ones(len(logits)) if weights is None else weights
    shares = weights.double() / weights.sum()
    offset = torch.zeros(logits.shape[1]) if shift is None else shift
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        scaled = logits / log_temperature.exp() + offset
        loss = (shares * F.cross_entropy(scaled, targets, reduction="none")).sum()
        torch.autograd.backward(loss)
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return float(log_temperature.detach().exp().clamp(0.05, 20.0))
