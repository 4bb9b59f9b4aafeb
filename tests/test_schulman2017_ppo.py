"""PPO: its slopes against autograd, its environments, and runs that are cut off."""

import itertools
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Normal

from papers.schulman2017_ppo.model import Categorical as Policy
from papers.schulman2017_ppo.model import start
from papers.schulman2017_ppo.train import Learner, Task, fit
from reimpl import registry
from reimpl.claims import Variant
from reimpl.context import RunContext
from reimpl.paper import Data, Seeds

CLAIMS = registry.find("schulman2017_ppo").claims


def variant(name: str, **changed: Any) -> Variant:
    told = CLAIMS.variant(name)
    return Variant(id=name, says="s", source="s", settings={**told.settings, **changed})


def short(name: str) -> Variant:
    steps = 64 * 8 * CLAIMS.variant(name)["environments"]
    return variant(name, horizon=64, minibatch=32, passes=2, steps=steps)


def context(path: Path | None = None) -> RunContext:
    data = Data(train=())
    return RunContext(seeds=Seeds(3), sources={}, data=data, checkpoint_path=path)


def perceptron(theta: list[torch.Tensor], s: torch.Tensor) -> torch.Tensor:
    hidden = torch.tanh(s @ theta[0] + theta[1])
    return torch.tanh(hidden @ theta[2] + theta[3]) @ theta[4] + theta[5]


def loss(v: Variant, theta: list[torch.Tensor], columns: list[torch.Tensor]) -> torch.Tensor:
    s, a, old, A, V, target = columns
    out, now = perceptron(theta[:6], s), perceptron(theta[6:12], s)[:, 0]
    policy = Categorical(logits=out) if v["discrete"] else Normal(out, theta[12].exp())
    log, entropy = policy.log_prob(a), policy.entropy()
    if not v["discrete"]:
        log, entropy = log.sum(1), entropy.sum(1)
    A = (A - A.mean()) / A.std(correction=0)
    r = torch.exp(log - old)
    clipped = r.clamp(1 - v["epsilon"], 1 + v["epsilon"]) if v["epsilon"] else r
    near = V + (now - V).clamp(-0.2, 0.2) if v["extras"] else now
    miss = torch.maximum((now - target) ** 2, (near - target) ** 2)
    surrogate = torch.minimum(r * A, clipped * A)
    return 0.25 * miss.mean() - surrogate.mean() - v["entropy"] * entropy.mean()


@pytest.mark.parametrize("name", ["hopper-clip", "hopper-none", "hopper-clip-full", "cartpole"])
def test_the_slopes_are_those_of_autograd(name: str) -> None:
    v = short(name)
    learner = Learner(v, Seeds(0)).bind()
    samples = learner.collect()
    rng = np.random.default_rng(1)
    learner.theta += 0.1 * rng.standard_normal(len(learner.theta), dtype=np.float32)
    learner.slope(*samples)
    ends = np.cumsum([part.size for part in learner.parts])[:-1]
    theta = [
        torch.tensor(row.reshape(part.shape), dtype=torch.float64, requires_grad=True)
        for row, part in zip(np.split(learner.theta, ends), learner.parts, strict=True)
    ]
    columns = [torch.tensor(column) for column in samples]
    columns = [c.double() if c.is_floating_point() else c for c in columns]
    loss(v, theta, columns).backward()
    expected = np.concatenate([p.grad.numpy().ravel() for p in theta if p.grad is not None])
    assert np.abs(learner.g - expected).max() <= 1e-4 * np.abs(expected).max()  # of float32


def test_advantages_sum_the_errors_of_what_is_left_of_the_episode() -> None:
    learner = Learner(short("pendulum-clip"), Seeds(0)).bind()
    learner.tasks[0].limit = 3
    _, _, _, A, V, target = learner.collect()
    first = np.arange(0, 60, 3)  # of each episode; a step earns 1 (InvertedPendulum-v4)
    errors = 1 + 0.99 * V[first + 1] - V[first], 1 + 0.99 * V[first + 2] - V[first + 1]
    last = 1 - V[first + 2]
    expected = errors[0] + 0.99 * 0.95 * errors[1] + (0.99 * 0.95) ** 2 * last
    np.testing.assert_allclose(A[first], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(target, A + V, rtol=1e-6)


def broken_off(v: Variant, path: Path, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run = context(path)
    calls = itertools.count(1)

    def checkpoint(self: RunContext, state: Mapping[str, Any]) -> None:
        if next(calls) == rounds:
            torch.save({"state": state, "curves": self.curves}, path)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunContext, "checkpoint", checkpoint)
        with pytest.raises(KeyboardInterrupt):
            fit(v, run)


@pytest.mark.parametrize("name", ["reacher-clip-full", "hopper-none", "cartpole"])
def test_a_run_that_was_cut_off_ends_bit_for_bit_as_one_that_was_not(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    v, whole = short(name), context()
    expected = fit(v, whole)
    path = tmp_path / "checkpoint.pt"
    broken_off(v, path, 3, monkeypatch)
    resumed = context(path)
    assert (fit(v, resumed), resumed.curves) == (expected, whole.curves)
    assert whole.curves


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    v = short("hopper-clip-full")
    runs = [fit(v, RunContext(seeds=Seeds(s), sources={}, data=Data(train=()))) for s in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("name", sorted({v.dataset for v in CLAIMS.variants.values()} - {"seven"}))
def test_sizes_are_those_of_the_environment(name: str) -> None:
    v = next(v for v in CLAIMS.variants.values() if v.dataset == name)
    env = Task(v, Seeds(0), 1, deque()).env
    actions = env.action_space.n if v["discrete"] else env.action_space.shape[0]
    assert (env.observation_space.shape, actions) == ((v["observations"],), v["actions"])


def test_the_clock_is_the_wrapper_s_and_the_steps_are_gymnasium_s_own() -> None:
    import gymnasium

    v = CLAIMS.variant("halfcheetah-clip")
    finished = deque[float]()
    mine = Task(v, Seeds(0), 1, finished)
    theirs = gymnasium.make(gymnasium.spec(v["task"]))
    s, _ = theirs.reset(seed=Seeds(0).integer("noise", 1))
    total, rng = 0.0, np.random.default_rng(0)
    np.testing.assert_array_equal(mine.s, s)
    for step in range(1000):
        a = rng.standard_normal(6, dtype=np.float32)
        r, gamma = mine.step(a)
        s, reward, _, late, _ = theirs.step(a.clip(-1, 1))
        total += float(reward)
        assert (r, gamma == 0.0) == (reward, late), step
    assert list(finished) == [total]


def test_scaling_follows_the_moments_of_all_that_was_seen() -> None:
    v = CLAIMS.variant("hopper-clip-full")
    scaled, plain = (Task(variant(v.id, scaled=on), Seeds(0), 1, deque()) for on in (True, False))
    rng = np.random.default_rng(0)
    seen, ahead, sums, r, reward = [plain.s], 0.0, [], 0.0, 0.0
    for _ in range(12):
        a = rng.standard_normal(3, dtype=np.float32)
        (r, _), (reward, _) = scaled.step(a), plain.step(a)
        seen.append(plain.s)
        ahead = 0.99 * ahead + float(reward)
        sums.append(ahead)
    expected = (seen[-1] - np.mean(seen, 0)) / np.sqrt(np.var(seen, 0) + 1e-8)
    np.testing.assert_allclose(scaled.s, expected.clip(-10, 10), rtol=1e-5)
    assert r == pytest.approx(min(reward / np.sqrt(np.var(sums) + 1e-8), 10), rel=1e-5)


def test_a_clipped_ratio_has_no_slope() -> None:
    learner = Learner(short("cartpole"), Seeds(0)).bind()
    s, a, old, A, V, _ = learner.collect()
    keep = np.argsort(A)[[0, -1]]  # one bad action and one good
    s, a, old, A, V = (column[keep] for column in (s, a, old, A, V))
    learner.v = variant("cartpole", entropy=0.0)
    learner.slope(
        s, a, old + np.array([1, -1], np.float32), A, V, V
    )  # rarer the bad one, likelier the good
    assert not any(part.any() for part in learner.policy.g)


def test_orthogonal_weights_have_the_gains_of_their_layers() -> None:
    parts = start(CLAIMS.variant("walker-clip-full").settings, np.random.default_rng(0))
    gains = [np.linalg.svd(part, compute_uv=False) for part in parts[0:12:2]]
    for values, gain in zip(gains, [2**0.5, 2**0.5, 0.01, 2**0.5, 2**0.5, 1.0], strict=True):
        np.testing.assert_allclose(values, gain, rtol=1e-9)


def test_a_policy_of_two_choices_is_drawn_as_often_as_it_says() -> None:
    x = np.tile(np.array([0.0, np.log(3.0)], np.float32), (40_000, 1))
    drawn = Policy().act(x, np.random.default_rng(0).gumbel(size=x.shape).astype(np.float32))
    assert drawn.mean() == pytest.approx(0.75, abs=0.01)
