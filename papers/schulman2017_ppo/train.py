"""Algorithm 1 of Schulman et al. (2017): T steps in each of E environments, then K passes.

Shapes:  T steps, E environments, N = T·E samples, or those of a minibatch; D observed numbers.
Symbols: s state, a action, r reward or π/π_old, V value, Â advantage, ε clip, θ all parameters.
"""

from collections import deque
from typing import Any

import numpy as np

from reimpl.claims import Variant
from reimpl.errors import DivergenceError
from reimpl.paper import Context, Measurements, Seeds

from .model import Array, Categorical, Gaussian, Perceptron, start


class Task:
    """An environment that starts again by itself; `finished` gets the return of every episode."""

    def __init__(self, v: Variant, seeds: Seeds, place: int, finished: deque[float]):
        import gymnasium
        import mujoco

        vars(mujoco)["set_mju_user_warning"](lambda _: None)  # else it writes MUJOCO_LOG.TXT
        spec = gymnasium.spec(v["task"])
        self.env: Any = gymnasium.make(spec).unwrapped  # the wrappers cost time
        self.v, self.finished, self.limit = v, finished, spec.max_episode_steps
        self.steps, self.total, self.ahead = 0, 0.0, 0.0
        self.seen, self.earned = [0, 0.0, 0.0], [0, 0.0, 0.0]  # number, sum, sum of squares
        self.s = self.scaled(self.env.reset(seed=seeds.integer("noise", place))[0], self.seen)

    def step(self, a: Any) -> tuple[float, float]:
        """Reward and discount: 0 at the end, by itself or by the clock (gap "time-limits")."""
        if not self.v["discrete"]:
            a = a.clip(self.env.action_space.low, self.env.action_space.high)  # gap "bounds"
        s, r, end, _, _ = self.env.step(a)
        self.steps, self.total = self.steps + 1, self.total + float(r)
        self.ahead = self.v["gamma"] * self.ahead + float(r)
        r = self.scaled(r, self.earned, self.ahead)
        if end := end or self.steps == self.limit:
            self.finished.append(self.total)
            self.steps, self.total, self.ahead = 0, 0.0, 0.0
            s = self.env.reset()[0]
        self.s = self.scaled(s, self.seen)
        return r, 0.0 if end else self.v["gamma"]

    def scaled(self, x: Any, sums: list[Any], like: float | None = None) -> Any:
        """Scaled by the running spread, s about its mean, r by that of `like` (gap "scaling")."""
        if not self.v["scaled"]:
            return x
        y = x if like is None else like
        sums[:] = sums[0] + 1, sums[1] + y, sums[2] + y * y
        mean = sums[1] / sums[0]
        spread = np.sqrt(abs(sums[2] / sums[0] - mean * mean) + 1e-8)
        return ((x - mean if like is None else x) / spread).clip(-10, 10)


class Learner:
    """The agent, its environments, and all else that a run needs to go on where it stopped."""

    def __init__(self, v: Variant, seeds: Seeds) -> None:
        self.v, self.rounds, self.t, self.finished = v, 0, 0, deque[float](maxlen=100)
        self.order, self.noise = seeds.numpy("order"), seeds.numpy("noise")
        self.tasks = [Task(v, seeds, e + 1, self.finished) for e in range(v["environments"])]
        self.parts = start(v.settings, seeds.numpy("init"))
        self.theta = np.concatenate([part.ravel() for part in self.parts]).astype(np.float32)
        self.g, self.m, self.u = (np.zeros_like(self.theta) for _ in range(3))

    def bind(self) -> "Learner":
        """Make the agent of views of θ and g; a learner that was unpickled lacks them."""
        ends = np.cumsum([part.size for part in self.parts])[:-1]
        rows = (zip(np.split(row, ends), self.parts, strict=True) for row in (self.theta, self.g))
        theta, g = ([view.reshape(part.shape) for view, part in row] for row in rows)
        self.policy, self.value = Perceptron(theta[:6], g[:6]), Perceptron(theta[6:12], g[6:12])
        self.pi = Categorical() if self.v["discrete"] else Gaussian(theta[12], g[12])
        return self

    def collect(self) -> list[Array]:
        """T steps: s, a, log π_old, Â, V_old and V_targ = Â + V_old of N samples."""
        T, E, D = self.v["horizon"], len(self.tasks), self.v["observations"]
        s, A, a, told = np.empty((T + 1, E, D), np.float32), np.zeros((T + 1, E)), [], []
        draw = self.noise.gumbel if self.v["discrete"] else self.noise.normal
        for t, drawn in enumerate(draw(size=(T, E, self.v["actions"])).astype(np.float32)):
            s[t] = [task.s for task in self.tasks]
            a.append(self.pi.act(self.policy(s[t]), drawn))
            told.append([task.step(one) for task, one in zip(self.tasks, a[t], strict=True)])
        s[T] = [task.s for task in self.tasks]
        V = self.value(s.reshape(-1, D)).reshape(T + 1, E)
        for t in reversed(range(T)):  # Â_t = δ_t + γλ Â_{t+1}, eqs (11)-(12)
            r, gamma = np.transpose(told[t])
            A[t] = r + gamma * (V[t + 1] + self.v["lambda"] * A[t + 1]) - V[t]
        s, a, V, A = s[:T].reshape(-1, D), np.concatenate(a), V[:T].ravel(), A[:T].ravel()
        return [s, a, self.pi.log(self.policy(s), a), *np.array([A, V, A + V], np.float32)]

    def slope(self, s: Array, a: Array, old: Array, A: Array, V: Array, target: Array) -> None:
        """That of −(L^CLIP − ¼ L^VF + c₂ S), eq. (9); L^CLIP is eq. (7), or eq. (6) with ε = 0."""
        out, now, N, epsilon = self.policy(s), self.value(s)[:, 0], len(s), self.v["epsilon"]
        A = (A - A.mean()) / (A.std() + 1e-8)  # gap "advantages"
        r = np.exp((self.pi.log(out, a) - old).clip(-20, 20))  # gap "ratio-bound"
        free = np.where(A > 0, r <= 1 + epsilon, r >= 1 - epsilon) | (epsilon == 0)
        self.policy.backward(self.pi.backward(out, a, g=-r * A * free / N, bonus=self.v["entropy"]))
        miss, near = now - target, V + (now - V).clip(-0.2, 0.2) - target
        free = (abs(miss) >= abs(near)) | (not self.v["extras"])  # else V is kept near V_old
        self.value.backward((miss * free / (2 * N))[:, None])

    def step(self, rate: float) -> None:
        """One of Adam along g, which "extras" keeps shorter than ½ (gap "adam")."""
        if self.v["extras"]:
            self.g *= min(1.0, 0.5 / np.sqrt(self.g @ self.g))
        self.t += 1
        self.m += 0.1 * (self.g - self.m)
        self.u += 0.001 * (self.g * self.g - self.u)
        root = np.sqrt(self.u / (1 - 0.999**self.t))
        self.theta -= rate / (1 - 0.9**self.t) * self.m / (root + 1e-5)


def fit(v: Variant, context: Context) -> Measurements:
    """Mean return of the last 100 episodes (sec. 6.1); "extras" lets the rate fall to zero."""
    kept, score = context.resume(), {}
    learner = (kept["learner"] if kept else Learner(v, context.seeds)).bind()
    for task, env in zip(learner.tasks, kept["envs"] if kept else (), strict=False):
        vars(task.env).update(env)  # gymnasium's own pickling forgets the physics
    while learner.rounds < (total := v["steps"] // v["horizon"] // v["environments"]):
        samples, rate = learner.collect(), v["rate"] * (1 - v["extras"] * learner.rounds / total)
        for _ in range(v["passes"]):
            order = learner.order.permutation(len(samples[0]))
            for chosen in order.reshape(-1, v["minibatch"]):
                learner.slope(*(column[chosen] for column in samples))
                learner.step(rate)
        learner.rounds += 1
        context.progress(learner.rounds, total)
        if not np.isfinite(learner.theta).all():
            raise DivergenceError(f"θ is not finite after {learner.rounds} of {total} rounds")
        if learner.finished:
            score = {"return/last-100": float(np.mean(learner.finished))}
            if learner.rounds % max(total // 100, 1) == 0:
                context.curve(learner.rounds * len(samples[0]), score)
        envs = [vars(task.env) for task in learner.tasks]
        context.checkpoint({"learner": learner, "envs": envs})
    return score
