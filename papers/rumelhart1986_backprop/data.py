"""The cases the networks learn: made, not downloaded.

Shapes:  N cases, I input units, O output units.
Symbols: X inputs (N, I), D desired outputs (N, O), T (N, 1) how far an output may miss its D
         before that counts as an error.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

Cases = tuple[Tensor, Tensor, Tensor]
"""X, D and T of the same N cases."""

COUPLES = {  # Fig. 2: husband, wife → their children; the English tree
    ("Christopher", "Penelope"): ("Arthur", "Victoria"),
    ("Andrew", "Christine"): ("James", "Jennifer"),
    ("Arthur", "Margaret"): (),
    ("James", "Victoria"): ("Colin", "Charlotte"),
    ("Charles", "Jennifer"): (),
}
ITALIAN = {  # Fig. 2: each English person's twin in the other tree
    "Christopher": "Roberto",
    "Penelope": "Maria",
    "Andrew": "Pierro",
    "Christine": "Francesca",
    "Arthur": "Emilio",
    "Margaret": "Gina",
    "James": "Marco",
    "Victoria": "Lucia",
    "Charles": "Tomaso",
    "Jennifer": "Angela",
    "Colin": "Alfonso",
    "Charlotte": "Sophia",
}
ENGLISH = tuple(ITALIAN)
GENERATION = (0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2)
"""Of each person in the order of `ENGLISH`."""
BRANCH = (0, 0, 1, 1, 0, 0, 1, 0, 1, 1, -1, -1)
"""0 Christopher's side, 1 Andrew's, by birth or else by marriage; -1 both (gap "branch")."""
RELATIONSHIPS = (  # the caption of Fig. 2
    *("father", "mother", "husband", "wife", "son", "daughter"),
    *("uncle", "aunt", "brother", "sister", "nephew", "niece"),
)
WOMEN = {wife for _, wife in COUPLES} | {"Charlotte"}


def symmetry(inputs: int) -> Cases:
    """All binary vectors of that length; 1 when the vector is its own mirror image."""
    X = _binary(inputs)
    return _cases(X, (X.flip(1) == X).all(dim=1, keepdim=True), tolerance=0.0)


def parity(inputs: int) -> Cases:
    """All binary vectors of that length; 1 when the number of ones is odd (XOR for two)."""
    X = _binary(inputs)
    return _cases(X, X.sum(dim=1, keepdim=True) % 2 == 1, tolerance=0.0)


def family_trees(*, tolerance: float) -> Cases:
    """The 104 pairs ⟨person 1⟩⟨relationship⟩ that have an answer, with all right answers on."""
    facts = set(triples())
    people = (*ENGLISH, *ITALIAN.values())
    asked = sorted({(one, relation) for one, relation, _ in facts})
    X, D = torch.zeros(len(asked), 36), torch.zeros(len(asked), 24)
    for one, relation, two in facts:
        case = asked.index((one, relation))
        X[case, [people.index(one), 24 + RELATIONSHIPS.index(relation)]] = 1.0
        D[case, people.index(two)] = 1.0
    return _cases(X, D, tolerance=tolerance)


def hold_out(cases: Cases, count: int, rng: np.random.Generator) -> tuple[Cases, Cases]:
    """The cases without `count` random ones, and those."""
    order = torch.from_numpy(rng.permutation(len(cases[0])))
    X, D, T = (tensor[order] for tensor in cases)
    return (X[count:], D[count:], T[count:]), (X[:count], D[:count], T[:count])


def triples() -> Iterator[tuple[str, str, str]]:
    """⟨person 1⟩⟨relationship⟩⟨person 2⟩ of both trees; some come more than once."""
    for one, relation, two in _english():
        yield one, relation, two
        yield ITALIAN[one], relation, ITALIAN[two]


def _english() -> Iterator[tuple[str, str, str]]:
    spouse = {one: two for couple in COUPLES for one, two in itertools.permutations(couple)}
    siblings = {child: {*children} - {child} for children in COUPLES.values() for child in children}
    for husband, wife in COUPLES:
        yield from _both("wife", "husband", husband, wife)
    for couple, children in COUPLES.items():
        for parent, child in itertools.product(couple, children):
            words = _word(child, "son", "daughter"), _word(parent, "father", "mother")
            yield from _both(*words, parent, child)
            for blood in siblings.get(parent, ()):
                for relative in (blood, spouse[blood]):  # uncles and aunts by marriage count
                    words = _word(child, "nephew", "niece"), _word(relative, "uncle", "aunt")
                    yield from _both(*words, relative, child)
        for one, two in itertools.permutations(children, 2):
            yield one, _word(two, "brother", "sister"), two


def _both(to: str, back: str, one: str, two: str) -> Iterator[tuple[str, str, str]]:
    """`two` is the `to` of `one`, and `one` the `back` of `two`."""
    yield one, to, two
    yield two, back, one


def _word(person: str, man: str, woman: str) -> str:
    return woman if person in WOMEN else man


def _binary(length: int) -> Tensor:
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=length)))


def _cases(X: Tensor, D: Tensor, *, tolerance: float) -> Cases:
    return X, D.float(), torch.full((len(X), 1), tolerance)
