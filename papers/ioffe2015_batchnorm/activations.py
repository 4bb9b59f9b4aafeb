"""What is read off a network: inputs to its last sigmoids (Fig. 1b, c), and its accuracy by Alg. 2.

Shapes: N digits, K activations of the last hidden layer, T evaluations so far.
"""

from collections.abc import Mapping
from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reimpl.paper import Data, Measurements

from .model import Network, Normalised

SHARES = (0.15, 0.5, 0.85)  # Fig. 1
BATCH, DIGITS = 60, 3000  # sec. 4.1; gap "whose-inputs"


@torch.no_grad()
def watch(model: nn.Module, data: Data) -> Mapping[str, float]:
    """Percentiles of the first unit, and how far those of a typical unit have moved so far."""
    assert data.test is not None
    network = deepcopy(model).train()  # batch statistics, as N_BN^tr has them; a copy's averages
    assert isinstance(network, Network)
    X = data.test[0][:DIGITS].to(network.output.weight.device).float()
    inputs = torch.cat([network.last_inputs(batch) for batch in X.split(BATCH)])  # (N, K)
    past = model.get_buffer("past")  # (T + what is to come, 3, K): a checkpoint holds it
    seen = int(past[:, 0, 0].isfinite().sum())
    past[seen] = inputs.quantile(inputs.new_tensor(SHARES), dim=0)
    low, middle, high = past[seen, :, 0].tolist()
    return {"unit/p15": low, "unit/p50": middle, "unit/p85": high, **drift(past[: seen + 1])}


def drift(past: Float[Tensor, "T 3 K"]) -> dict[str, float]:
    """Way of the median in last widths, and largest over smallest width; of a typical unit."""
    low, middle, high = past.unbind(1)  # (T, K) each
    width = (high - low).clamp(min=1e-6)  # units that died have ratios too
    way = middle.diff(dim=0).abs().sum(0) / width[-1]  # (K,)
    doublings = (width.amax(0) / width.amin(0)).log2()  # (K,)
    return {"drift/median": float(way.median()), "drift/width": float(doublings.median())}


@torch.no_grad()
def inspect(model: nn.Module, data: Data) -> Measurements:
    """Test accuracy by Alg. 2, lines 7-12: statistics are averages over all training batches."""
    network = deepcopy(model).train()
    if not isinstance(network, Normalised):
        return {}
    assert data.test is not None
    device = network.averages.device
    for k, batch in enumerate(data.train[0].split(BATCH)):
        network.newest = 1 / (k + 1)
        network(batch.to(device).float())
    X, D = (tensor.to(device) for tensor in data.test)
    right = network.eval()(X.float()).argmax(1) == D
    tracked = model(X.float()).argmax(1) == D
    accuracy, before = (100.0 * float(r.double().mean()) for r in (right, tracked))
    return {"population/accuracy": accuracy, "population/difference": abs(accuracy - before)}
