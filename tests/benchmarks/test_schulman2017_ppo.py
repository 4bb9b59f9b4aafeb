"""PPO's steps a second, as a ratio to a plain implementation in the usual single-file style."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal

from papers.schulman2017_ppo.train import fit
from reimpl import registry
from reimpl.claims import Variant
from reimpl.context import RunContext
from reimpl.paper import Data, Seeds

STEPS = 2 * 2048


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def variant(name: str) -> Variant:
    told = registry.find("schulman2017_ppo").claims.variant(name)
    return Variant(id=name, says="s", source="s", settings={**told.settings, "steps": STEPS})


def ours(v: Variant) -> None:
    fit(v, RunContext(seeds=Seeds(0), sources={}, data=Data(train=())))


def environment(v: Variant) -> gym.Env[Any, Any]:
    env = gym.wrappers.RecordEpisodeStatistics(gym.make(gym.spec(v["task"])))
    env = gym.wrappers.NormalizeObservation(gym.wrappers.ClipAction(env))
    bounded = gym.wrappers.TransformObservation(
        env, lambda s: np.clip(s, -10, 10), env.observation_space
    )
    scaled = gym.wrappers.NormalizeReward(bounded, gamma=v["gamma"])
    return gym.wrappers.TransformReward(scaled, lambda r: np.clip(float(r), -10, 10))


def layer(inputs: int, outputs: int, gain: float = 2**0.5) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear


def network(inputs: int, outputs: int, gain: float) -> nn.Sequential:
    return nn.Sequential(
        layer(inputs, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, outputs, gain)
    )


def plain(v: Variant) -> None:
    """The same algorithm as one writes it: a vector environment, torch at every step, autograd."""
    T, D, A = v["horizon"], v["observations"], v["actions"]
    envs = gym.vector.SyncVectorEnv([lambda: environment(v)])
    actor, critic = network(D, A, 0.01), network(D, 1, 1.0)
    log_std = nn.Parameter(torch.zeros(1, A))
    parameters = [*actor.parameters(), *critic.parameters(), log_std]
    optimiser = torch.optim.Adam(parameters, lr=v["rate"], eps=1e-5)
    s, a, log, r, end, V = (torch.zeros(T, 1, *more) for more in ((D,), (A,), (), (), (), ()))
    now, over = torch.tensor(envs.reset(seed=0)[0], dtype=torch.float32), torch.zeros(1)
    for update in range(STEPS // T):
        optimiser.param_groups[0]["lr"] = v["rate"] * (1 - update * T / STEPS)
        for t in range(T):
            s[t], end[t] = now, over
            with torch.no_grad():
                policy = Normal(actor(now), log_std.expand(1, A).exp())
                a[t] = policy.sample()
                log[t], V[t] = policy.log_prob(a[t]).sum(1), critic(now).flatten()
            seen, reward, done, late, _ = envs.step(a[t].numpy())
            r[t] = torch.tensor(reward).view(-1)
            now = torch.tensor(seen, dtype=torch.float32)
            over = torch.tensor(np.logical_or(done, late), dtype=torch.float32)
        with torch.no_grad():
            after, ahead, advantage = critic(now).flatten(), torch.zeros(1), torch.zeros_like(r)
            for t in reversed(range(T)):
                goes_on = 1.0 - (over if t == T - 1 else end[t + 1])
                following = after if t == T - 1 else V[t + 1]
                delta = r[t] + v["gamma"] * following * goes_on - V[t]
                advantage[t] = ahead = delta + v["gamma"] * v["lambda"] * goes_on * ahead
            target = advantage + V
        rows = [x.reshape(T, *x.shape[2:]) for x in (s, a, log, advantage, target, V)]
        order = np.arange(T)
        for _ in range(v["passes"]):
            np.random.default_rng(update).shuffle(order)
            for first in range(0, T, v["minibatch"]):
                chosen = order[first : first + v["minibatch"]]
                s_, a_, log_, gains, target_, V_ = (x[chosen] for x in rows)
                policy = Normal(actor(s_), log_std.expand(len(s_), A).exp())
                ratio = (policy.log_prob(a_).sum(1) - log_).exp()
                gains = (gains - gains.mean()) / (gains.std() + 1e-8)
                clipped = ratio.clamp(1 - v["epsilon"], 1 + v["epsilon"])
                gain = torch.minimum(ratio * gains, clipped * gains).mean()
                value = critic(s_).flatten()
                near = V_ + (value - V_).clamp(-0.2, 0.2)
                miss = torch.maximum((value - target_) ** 2, (near - target_) ** 2).mean()
                loss = 0.25 * miss - gain - v["entropy"] * policy.entropy().sum(1).mean()
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, 0.5)
                optimiser.step()
    envs.close()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", ["hopper-clip-full", "pendulum-clip-full"])
def test_steps_come_half_again_as_fast_as_from_a_plain_implementation(
    benchmark: Any, name: str
) -> None:
    v = variant(name)
    ours(v)  # MuJoCo loads once
    pairs = [(seconds(lambda: plain(v)), seconds(lambda: ours(v))) for _ in range(3)]
    ratio = statistics.median(theirs / mine for theirs, mine in pairs)
    benchmark.extra_info[f"PPO {v['task']}, steps a second, ours / plain"] = round(ratio, 3)
    benchmark.pedantic(lambda: ours(v), rounds=1)
    assert ratio >= 1.5
