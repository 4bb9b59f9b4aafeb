"""Training as the author's `conv_net_sentence.py` does it, with savings that change no number.

Symbols: x, y sentences and classes, V the vectors of a batch's words, r the mask of dropout;
         g gradients, G and D Adadelta's running averages of g² and of squared steps.
"""

import torch
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy
from torch.optim import Adadelta

from reimpl.claims import Variant
from reimpl.paper import Context, Measurements

from .model import TextCNN, shortened

BATCH, EPOCHS, DROPPED, LIMIT = 50, 25, 0.5, 3.0  # sec. 3.1, but the epochs, which are the code's
RHO, EPSILON = 0.95, 1e-6  # the code's, as Zeiler (2012) has them


def arrange(rows: int, *, dev: bool, drawn: Generator) -> tuple[Tensor, Tensor]:
    """The rows to learn from and the tenth that chooses the epoch: batches, filled by drawing."""
    order = torch.cat([torch.arange(rows), torch.randperm(rows, generator=drawn)[: -rows % BATCH]])
    order = order[torch.randperm(len(order), generator=drawn)]
    learnt = len(order) if dev else round(0.9 * (len(order) // BATCH)) * BATCH
    return order[:learnt], order[learnt:]


def update(words: Tensor, kept: dict[str, Tensor], used: Tensor, g: Tensor, *, at: int) -> None:
    """G ← ρG + (1−ρ)g², Δ = √(D+ε)/√(G+ε) g, D ← ρD + (1−ρ)Δ², V ← V − Δ for step `at`, from 1.

    Words that a batch lacks have g = 0: they stay, and ρ shrinks their G and D, here made up for.
    """
    shrunk = RHO ** (at - kept["at"][used])[:, None]
    G = kept["G"][used].mul_(shrunk).addcmul_(g, g, value=1 - RHO)
    D = kept["D"][used].mul_(shrunk / RHO)  # as the step before left it
    step = (D + EPSILON).sqrt_().div_((G + EPSILON).sqrt_()).mul_(g)
    D.mul_(RHO).addcmul_(step, step, value=1 - RHO)
    words[used] -= step
    words[0] = 0  # the padding
    kept["G"][used], kept["D"][used], kept["at"][used] = G, D, float(at)


def accuracy(model: TextCNN, x: Tensor, y: Tensor) -> float:
    """Right answers in per cent; sentences of like length together, which saves padding."""
    order = (x != 0).sum(1).argsort(stable=True)
    with torch.no_grad():
        right = torch.cat([model(rows).argmax(1) for rows in x[order].split(BATCH)]) == y[order]
    return 100.0 * float(right.double().mean())


def fit(variant: Variant, context: Context) -> Measurements:
    """Test accuracy after the epoch of 25 that is best on the dev part, the last one of equals."""
    (x, y), test, more = context.data.train, context.data.test or (), context.data.more
    seeds, best, done = context.seeds, {"dev/accuracy": 0.0}, 0
    learnt, tenth = arrange(len(x), dev="dev" in more, drawn=seeds.torch("split", 1))
    dev = more.get("dev", (x[tenth], y[tenth]))
    train = [(*shortened(x[rows]), y[rows]) for rows in learnt.split(BATCH)]
    orders = [torch.randperm(len(train), generator=seeds.torch("order", e)) for e in range(EPOCHS)]
    torch.manual_seed(seeds.integer("init"))
    model = TextCNN(words=variant["words"], classes=variant["classes"])
    words, others = model.words.detach(), [*model.parameters()][1:]
    kept = {"at": torch.zeros(len(words)), **{k: torch.zeros_like(words) for k in "GD"}}
    optimiser = Adadelta(others, lr=1.0, rho=RHO, eps=EPSILON)
    if (state := context.resume()) is not None:
        weights, memory, kept, best, done = state["all"]
        model.load_state_dict(weights)
        optimiser.load_state_dict(memory)
    for at, batch in enumerate(torch.cat(orders)[done:].tolist(), start=done + 1):
        used, x, y = train[batch]
        r = torch.rand(len(x), len(model.biases), generator=seeds.torch("noise", at)) >= DROPPED
        V = words[used].requires_grad_()
        loss = cross_entropy(model.scores(V, x, r.float()), y)
        optimiser.zero_grad()
        loss.backward()
        assert V.grad is not None
        update(words, kept, used, V.grad, at=at)
        optimiser.step()
        model.output.weight.data.renorm_(2, 0, LIMIT)  # each class's w (sec. 2.1)
        if at % len(train) == 0:
            now = accuracy(model, *dev)
            if now >= best["dev/accuracy"]:
                best = {"dev/accuracy": now, "test/accuracy": accuracy(model, *test)}
            here = {"dev/accuracy": now, "train/loss": loss.item()}
            context.curve(at // len(train), best | here)
        context.progress(at, EPOCHS * len(train))
        context.checkpoint({"all": (model.state_dict(), optimiser.state_dict(), kept, best, at)})
    return best
