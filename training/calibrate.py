"""Temperature scaling: one number that makes confidence mean what it says.

Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """Find the temperature under which a split's targets are most likely.

    Args:
        logits: float32[n, classes] of a split that was not trained on.
        targets: float32[n, classes], rows that sum to 1.

    Returns:
        What to divide logits by before softmax, 0.05 to 20.
    """
    logits, targets = logits.double(), targets.double()
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(logits / log_temperature.exp(), targets)
        torch.autograd.backward(loss)
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return float(log_temperature.detach().exp().clamp(0.05, 20.0))
