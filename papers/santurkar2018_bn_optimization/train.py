"""Descent at a fixed rate, and looks around: w parameters, g gradients, G elsewhere, η step."""

from collections import defaultdict
from copy import deepcopy
from statistics import fmean, median

import torch
from torch import Tensor, nn

from reimpl.claims import Variant
from reimpl.paper import Batch, Context, Measurements

from .data import batches, prepare
from .model import DLN, VGG, Normalise, slope

LATE, EARLY, CHUNK = 100, 5, 500  # steps and looks of gap "when"; test images at a time
LOOKS = ("ics/l2", "ics/cosine", "landscape/loss", "landscape/gradient", "landscape/beta")


def model(variant: Variant) -> nn.Sequential:
    """A variant's network with fresh weights."""
    names = ("width", "batchnorm", "noise")
    return {"dln": DLN, "vgg": VGG}[variant["network"]](**{name: variant[name] for name in names})


def fit(variant: Variant, context: Context) -> Measurements:
    """Descend at a fixed rate; every `every` steps look around on the batch of that step."""
    torch.manual_seed(context.seeds.integer("init"))
    network, a = model(variant).to(context.device), dict[str, Tensor]()
    layers = [layer for layer in network if isinstance(layer, Normalise)]
    layers[len(layers) // 2].register_forward_hook(lambda *hook: a.update(now=hook[2].detach()))
    each, every, steps = len(layers) + len(variant["along"]), variant["every"], variant["steps"]
    total = steps + each * -(-steps // every)  # in gradients: `each` look takes so many
    kept = context.resume() or {"step": 0, "network": network.state_dict(), "seen": {}}
    network.load_state_dict(kept["network"])
    w, seen = list(network.parameters()), defaultdict(list, kept["seen"])
    for step, batch in batches(variant, context, kept["step"]):
        noise = context.seeds.integer("noise", step) if variant["noise"] != "none" else None
        output, loss, g = slope(network, batch, w, noise=noise)
        context.progress(step + 1 + each * -(-step // every), total, loss=float(loss))
        if step >= steps - LATE:
            seen["train/loss"].append(float(loss))
            seen["train/accuracy"] += [right(output, batch[1])] if len(batch) == 2 else []
            seen["moments"].append(torch.std_mean(a["now"].transpose(0, 1).flatten(1), 1))
        if step % every == 0:
            found = look(deepcopy(network), batch, g, variant=variant, noise=noise)
            context.curve(step, {"train/loss": float(loss), **found})
            for name, figure in found.items():
                seen[name].append(figure)
        for p, dp in zip(w, g, strict=True):
            p.detach().sub_(dp, alpha=variant["rate"])
        if step % 10 == 9:
            context.checkpoint({"step": step + 1, "network": network.state_dict(), "seen": seen})
    return summary(seen, network.eval().requires_grad_(False), context)


def right(output: Tensor, Y: Tensor) -> float:
    """Per cent of right classes."""
    return 100.0 * float((output.argmax(1) == Y).double().mean())


def look(
    copy: nn.Module, batch: Batch, g: tuple[Tensor, ...], *, variant: Variant, noise: int | None
) -> dict[str, float]:
    """Shift of the layers' gradients (sec. 2.2), landscape along −g (sec. 3.2); moves the copy."""
    w, start = list(copy.parameters()), [p.detach().clone() for p in copy.parameters()]
    shift, along, size = [], [], nn.utils.get_total_norm(g)
    for k, (p, dp) in enumerate(zip(w, g, strict=True)):
        if k and p.dim() > 1:  # a layer's weights: all that comes before them has made its step
            G = slope(copy, batch, [p], noise=noise)[2][0].flatten()
            cosine = torch.cosine_similarity(G, dp.flatten(), dim=0)
            shift.append(torch.stack([(G - dp.flatten()).norm(), cosine]))
        p.detach().sub_(dp, alpha=variant["rate"])
    for eta in (variant["rate"] * times for times in variant["along"]):
        for p, p0, dp in zip(w, start, g, strict=True):
            p.detach().copy_(p0).sub_(dp, alpha=eta)
        _, loss, G = slope(copy, batch, w, noise=noise)
        change = nn.utils.get_total_norm([x - y for x, y in zip(G, g, strict=True)])
        along.append(torch.stack([loss, change, change / (eta * size)]))
    highest, lowest = torch.stack(along).amax(0), torch.stack(along).amin(0)
    found = torch.stack([*torch.stack(shift).mean(0), highest[0] - lowest[0], *highest[1:]])
    return dict(zip(LOOKS, found.nan_to_num(torch.inf, torch.inf).tolist(), strict=True))


def summary(seen: dict[str, list], network: nn.Module, context: Context) -> dict[str, float]:
    """Means of late steps, medians of looks (the first are the early ones), and the test."""
    deviation, mean = (torch.stack(part) for part in zip(*seen.pop("moments"), strict=True))
    drift = float((mean.diff(dim=0).abs() / deviation[1:]).mean())
    for X, Y in zip(*(tensor.split(CHUNK) for tensor in context.data.test or ()), strict=True):
        images, classes = prepare((X, Y), context.device)
        seen["test/accuracy"].append(right(network(images), classes))
    early = median(seen["landscape/gradient"][:EARLY])
    found = {n: (median if n in LOOKS else fmean)(v) for n, v in seen.items() if v}
    return {**found, "landscape/early-gradient": early, "activations/drift": drift}
