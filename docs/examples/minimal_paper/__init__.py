"""XOR by back-propagation: a whole paper in two files."""

from torch import nn, tensor

from reimpl.paper import Data, Paper


def model(variant):
    H = variant["hidden"]
    hidden = [nn.Linear(2, H), nn.Sigmoid()] if H else []
    return nn.Sequential(*hidden, nn.Linear(H or 2, 1), nn.Sigmoid())


def data(variant, sources, seeds):
    X = tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    return Data(train=(X, X.sum(dim=1, keepdim=True) == 1.0))


def loss(model, batch):
    return 0.5 * (model(batch[0]) - batch[1].float()).square().sum()


def metrics(model, batch):
    return {"error": 100.0 * ((model(batch[0]) > 0.5) != batch[1]).flatten()}  # one per pattern


PAPER = Paper(slug="minimal_paper", model=model, data=data, loss=loss, metrics=metrics)
