import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from papers.kim2014_textcnn import PAPER, train
from papers.kim2014_textcnn.data import clean
from papers.kim2014_textcnn.model import PAD, TextCNN, shortened
from papers.kim2014_textcnn.train import BATCH, arrange, fit, update
from reimpl import data
from reimpl.claims import Variant
from reimpl.errors import DataError
from reimpl.paper import Context, Data, Seeds
from reimpl.reading import load_claims

CLAIMS = load_claims(Path(__file__).parents[1] / "papers" / "kim2014_textcnn" / "claims.toml")
WORDS, LONGEST, EPOCHS = 400, 12, 3


@pytest.fixture
def few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "EPOCHS", EPOCHS)


@pytest.fixture
def doubles() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def sentences(lengths: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(1, WORDS + 1, (len(lengths), LONGEST + 2 * PAD), generator=generator)
    place = torch.arange(LONGEST + 2 * PAD) - PAD
    return x.where((place >= 0) & (place < lengths[:, None]), 0).int()


def corpus() -> tuple[Variant, Data]:
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(0, LONGEST + 1, (150,), generator=generator)
    lengths[:2] = torch.tensor([0, LONGEST])
    x = sentences(lengths)
    y = (x % 7 == 1).any(1).long()
    variant = replace(
        CLAIMS.variant("cnn-rand-mr"), settings={"words": WORDS, "classes": 2}, folds=1
    )
    rest = (x[130:], y[130:])
    return variant, Data(train=(x[:130], y[:130]), test=rest, more={"dev": rest})


def plain(model: TextCNN, x: Tensor, r: Tensor | float) -> Tensor:
    vectors = functional.embedding(x, model.words).mT  # (N, k, T), no padding left out
    biases = model.biases.chunk(len(model.filters))
    maps = [
        functional.conv1d(vectors, w.permute(1, 2, 0), b).relu().amax(2)
        for w, b in zip(model.filters, biases, strict=True)
    ]
    return model.output(torch.cat(maps, dim=1) * r)


def run(
    variant: Variant, rows: Data, *, state: Any = None, until: int | None = None
) -> SimpleNamespace:
    """A whole training or its first steps; what it said and kept."""
    said = SimpleNamespace(curves=[], state=None, measured=None)

    def checkpoint(state: Mapping[str, Any]) -> None:
        said.state = state
        if until == state["all"][-1]:
            said.state = copy.deepcopy(state)
            raise InterruptedError

    context = SimpleNamespace(
        seeds=Seeds(3),
        device=torch.device("cpu"),
        sources={},
        data=rows,
        progress=lambda done, total: None,
        curve=lambda step, values: said.curves.append((step, values)),
        checkpoint=checkpoint,
        resume=lambda: state,
    )
    try:
        said.measured = fit(variant, cast(Context, context))
    except InterruptedError:
        assert until is not None
    return said


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("lengths", [[3, 7, 0, 7], [LONGEST, 1, 2, LONGEST - 1], [0, 0]])
def test_responses_and_gradients_are_those_of_a_convolution_of_padded_vectors(
    lengths: list[int],
) -> None:
    torch.manual_seed(0)
    model = TextCNN(words=WORDS, classes=3, size=8, maps=5)
    nn.init.normal_(model.output.weight)
    nn.init.normal_(model.biases, std=0.01)
    x, weights = sentences(torch.tensor(lengths)), torch.randn(len(lengths), 3)
    parameters = list(model.parameters())
    ours, theirs = model(x), plain(model, x, 0.5)
    torch.testing.assert_close(ours, theirs)
    for mine, its in zip(
        torch.autograd.grad((ours * weights).sum(), parameters),
        torch.autograd.grad((theirs * weights).sum(), parameters),
        strict=True,
    ):
        rows = slice(1, None) if mine.shape == model.words.shape else slice(None)  # not of padding
        torch.testing.assert_close(mine[rows], its[rows])


@pytest.mark.usefixtures("doubles", "few_epochs")
def test_training_ends_where_dense_adadelta_on_a_plain_network_ends() -> None:
    variant, rows = corpus()
    (x, y), seeds = rows.train, Seeds(3)
    learnt, _ = arrange(len(x), dev=True, drawn=seeds.torch("split", 1))
    batches = learnt.split(BATCH)
    torch.manual_seed(seeds.integer("init"))
    model = TextCNN(words=WORDS, classes=2)
    optimiser = torch.optim.Adadelta(model.parameters(), lr=1.0, rho=0.95, eps=1e-6)
    orders = [
        torch.randperm(len(batches), generator=seeds.torch("order", e)) for e in range(EPOCHS)
    ]
    for at, batch in enumerate(torch.cat(orders).tolist(), start=1):
        some = batches[batch]
        r = torch.rand(len(some), 300, generator=seeds.torch("noise", at)) >= 0.5
        optimiser.zero_grad()
        functional.cross_entropy(plain(model, x[some], r), y[some]).backward()
        optimiser.step()
        model.words.data[0] = 0
        norms = model.output.weight.data.norm(dim=1, keepdim=True)
        model.output.weight.data *= norms.clamp(max=3.0) / (1e-7 + norms)
    weights, *_ = run(variant, rows).state["all"]
    for name, parameter in model.named_parameters():
        # The code adds 1e-7 to every norm that it divides by.
        torch.testing.assert_close(weights[name], parameter.data, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("doubles")
def test_words_that_rested_have_averages_as_if_they_had_had_gradients_of_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    dense = nn.Parameter(torch.randn(6, 3, generator=generator))
    dense.data[0] = 0
    words = dense.detach().clone()
    optimiser = torch.optim.Adadelta([dense], lr=1.0, rho=0.95, eps=1e-6)
    kept = {"at": torch.zeros(6), "G": torch.zeros(6, 3), "D": torch.zeros(6, 3)}
    for at in range(1, 41):
        used = (torch.rand(6, generator=generator) < 0.3).nonzero()[:, 0]
        g = torch.randn(len(used), 3, generator=generator)
        update(words, kept, used, g, at=at)
        dense.grad = torch.zeros(6, 3).index_copy(0, used, g)
        optimiser.step()
        dense.data[0] = 0
    torch.testing.assert_close(words, dense.data, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("few_epochs")
def test_a_training_cut_off_in_the_middle_of_an_epoch_goes_on_bit_for_bit() -> None:
    variant, rows = corpus()
    whole, first = run(variant, rows), run(variant, rows, until=5)
    rest = run(variant, rows, state=first.state)
    assert rest.measured == whole.measured
    assert first.curves + rest.curves == whole.curves
    assert all(torch.equal(w, whole.state["all"][0][k]) for k, w in rest.state["all"][0].items())


def test_one_more_padding_than_the_longest_sentence_of_a_batch_is_kept() -> None:
    assert shortened(sentences(torch.tensor([3, 5])))[1].shape == (2, 5 + 1 + 2 * PAD)
    assert shortened(sentences(torch.tensor([LONGEST])))[1].shape == (1, LONGEST + 2 * PAD)


def test_rows_come_in_whole_batches_and_a_tenth_of_these_chooses_the_epoch() -> None:
    learnt, tenth = arrange(9_596, dev=False, drawn=torch.Generator().manual_seed(0))
    assert (len(learnt), len(tenth)) == (173 * 50, 19 * 50)
    assert torch.cat([learnt, tenth]).unique().tolist() == list(range(9_596))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("sentences", "it 's n't ( so ) good , is it ?"),
        ("trec", "It 's n't ( so ) good , is it ?"),
        ("sst", "it'sn't (so) good, is it?"),
    ],
)
def test_words_are_split_as_by_the_code(how: str, words: str) -> None:
    assert clean("It'sn't (so)  good, is it?--", how) == words.split()


@pytest.mark.data
@pytest.mark.parametrize("name", ["cr", "mpqa", "trec"])
def test_corpora_have_as_many_words_as_the_claims_file_says(name: str) -> None:
    variant = CLAIMS.variant(f"cnn-rand-{name}")
    assert PAPER.data is not None
    rows = PAPER.data(variant, data.load(CLAIMS.sources), Seeds(0, 9, variant.folds))
    assert int(rows.train[0].max()) <= variant["words"]


def test_a_variant_with_word2vec_says_what_it_lacks() -> None:
    assert PAPER.data is not None
    with pytest.raises(DataError, match="GoogleNews"):
        PAPER.data(CLAIMS.variant("cnn-static-mr"), data.load(CLAIMS.sources), Seeds(0))
