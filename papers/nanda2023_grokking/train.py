"""Training on all pairs at once; then, in hindsight, measures that need the final frequencies."""

import numpy as np
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from reimpl.claims import Variant
from reimpl.paper import Context, Measurements

from .fourier import key_frequencies, measures
from .model import P, Transformer, cross_entropy


def fit(variant: Variant, context: Context) -> Measurements:
    """Train by the variant's recipe; the network is kept where an evaluation is due."""
    recipe, (X, y) = variant.recipe, (t.to(context.device) for t in context.data.train)
    assert recipe is not None
    torch.manual_seed(context.seeds.integer("init"))
    model = Transformer().to(context.device)
    decay, betas = recipe.weight_decay, (recipe.betas[0], recipe.betas[1])
    adam = torch.optim.AdamW(model.parameters(), weight_decay=decay, betas=betas, fused=True)
    state: dict = {"epoch": 0, "path": {}, **(context.resume() or {})}
    model.load_state_dict(state.get("model", model.state_dict()))
    adam.load_state_dict(state.get("adam", adam.state_dict()))
    for epoch in range(state["epoch"], recipe.epochs + 1):
        loss = cross_entropy(model(X), y)
        if epoch % recipe.evaluate == 0 or (epoch < 200 and epoch % 10 == 0):
            context.curve(epoch, {"train/loss": loss.item()})
            state["path"][epoch] = parameters_to_vector(model.parameters()).detach().cpu()
        if epoch < recipe.epochs:
            adam.param_groups[0]["lr"] = recipe.lr * min(epoch / 10, 1)  # gap "warm-up"
            adam.zero_grad()
            loss.backward()
            adam.step()
        context.progress(epoch + 1, 1.03 * recipe.epochs, loss=loss.item())
        state.update(epoch=epoch + 1, model=model.state_dict(), adam=adam.state_dict())
        context.checkpoint(state)
    return hindsight(model.cpu(), state["path"], context)


def hindsight(model: Transformer, path: dict[int, torch.Tensor], context: Context) -> Measurements:
    """The measures along the path, and when they rise and fall: gap "rise-and-fall"."""
    keys, seen = key_frequencies(model), []
    train, test = (X[:, 0] * P + X[:, 1] for X, _ in context.data.splits().values())
    for epoch, weights in path.items():
        vector_to_parameters(weights, model.parameters())
        seen.append(measures(model, keys, train, test))
        context.curve(epoch, seen[-1])
        context.progress(1 + 0.03 * len(seen) / len(path), 1.03)
    epochs, half = np.array(list(path), dtype=float), np.log(P) / 2
    curve = {name: np.array([now[name] for now in seen]) for name in seen[-1]}
    memorised = epochs[curve["excluded/loss"].argmin()]
    rose = (curve["excluded/loss"] >= half) & (epochs > memorised)
    fell = np.min(epochs[curve["test/loss"] <= half], initial=np.inf)
    learnt = np.min(epochs[curve["train/accuracy"] >= 99], initial=np.inf)
    grokked = np.min(epochs[curve["test/accuracy"] >= 95], initial=np.inf)
    found = {**seen[-1], "epochs/to-99-train": learnt, "epochs/to-95-test": grokked}
    if np.isinf([fell, grokked]).any():
        return found
    formed = np.min(epochs[curve["restricted/loss"] <= half], initial=np.inf)
    squares, sharpest = curve["weights/squares"], np.diff(curve["gini/W_L"]).argmax()
    return found | {
        "epochs/delay": grokked / learnt,
        "epochs/memorised": memorised,
        "frequencies/key": len(keys) // 2,
        "excluded/lead": fell - np.min(epochs[rose], initial=np.inf),
        "restricted/lead": fell - formed,
        "restricted/ratio": seen[-1]["restricted/loss"] / seen[-1]["test/loss"],
        "weights/ratio": (squares[epochs == fell] / squares[epochs == memorised]).item(),
        "gini/lag": epochs[sharpest + 1] - formed,
    }
