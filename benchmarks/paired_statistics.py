"""Do the statistics keep what they promise? Coverage, false positives and power on simulated paired runs.

    python benchmarks/paired_statistics.py

FIGURES
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from results import calibration, statistics
from results.calibration import Answers
from results.statistics import Differences

RUNS, SEED, ALPHA = 2_000, 0, 0.05
statistics.FLIPS = 9_999  # for time; fewer flips do not make the test easier to pass


@dataclass(frozen=True)
class Task:
    """What two models do on a task: they differ on a share of ``discordant`` items, in favour of one by ``difference``.

    Two models of 50% accuracy whose correctness correlates by r differ on (1 - r) / 2 of the items: 5% at r = .9, 10%
    at .8, 25% at .5. ``versions`` of each item are asked; with probability ``together`` all change alike.
    """

    n: int
    discordant: float
    difference: float = 0.0
    versions: int = 1
    together: float = 0.5

    def draw(self, rng: np.random.Generator) -> Differences:
        shares = [(self.discordant + self.difference) / 2, (self.discordant - self.difference) / 2]
        alone = rng.choice([1, -1, 0], p=[*shares, 1 - sum(shares)], size=(self.n, self.versions + 1))
        changes = np.where(rng.random((self.n, 1)) < self.together, alone[:, :1], alone[:, 1:])
        return Differences(changes.sum(axis=1), np.full(self.n, self.versions))

    def __str__(self) -> str:
        versions = f" x {self.versions} versions" if self.versions > 1 else ""
        return f"{self.n}{versions}, {self.discordant:.0%} discordant, {100 * self.difference:+.1f}"


def alike(tasks: list) -> list[float]:
    return [1 / len(tasks)] * len(tasks)


@dataclass
class Tally:
    """Of simulated runs: how many intervals hold the truth, lie above and below it, and how many p-values pass."""

    truth: float
    found: list = field(default_factory=list)

    def add(self, estimate: statistics.Estimate, p: float) -> None:
        low, high = estimate.low - 1e-12, estimate.high + 1e-12
        self.found.append((low <= self.truth <= high, low > self.truth, high < self.truth, p < ALPHA))

    def __str__(self) -> str:
        held, above, below, passed = np.mean(self.found, axis=0)
        return (
            f"{held:8.1%} {above:7.1%} {below:7.1%}   {passed:6.1%} {'' if self.truth else 'false positives'}".rstrip()
        )


def single_tasks() -> Iterator[tuple[str, Tally]]:
    for n in (100, 200, 1273, 4183):
        for discordant in (0.05, 0.1, 0.25):
            for difference in (0, 0.6 * discordant):
                task, tally, rng = Task(n, discordant, difference), Tally(difference), np.random.default_rng(SEED)
                for _ in range(RUNS):
                    drawn = task.draw(rng)
                    tally.add(statistics.bootstrap([drawn], [1]), statistics.mcnemar(drawn.sums))
                yield str(task), tally


FEW = [Task(100, 0.02), Task(100, 0.02, 0.02), Task(200, 0.02, 0.02)]
CLUSTERS = [Task(50, 0.1, 0, 4), Task(50, 0.25, 0.1, 4), Task(200, 0.25, 0, 4), Task(200, 0.1, 0.05, 12)]
SEVERAL = {
    "4 x 100": [Task(100, 0.05)] * 4,
    "4 x 200": [Task(200, 0.25, 0.05)] * 4,
    "9 x 100": [Task(100, 0.1)] * 9,
    "100 and 4183": [Task(100, 0.05, 0.02), Task(4183, 0.25)],
    "500, 1089, 1273, 4183": [Task(500, 0.1), Task(1089, 0.2), Task(1273, 0.25), Task(4183, 0.25)],
    "the same, differing": [Task(500, 0.1, 0.05), Task(1089, 0.2), Task(1273, 0.25, -0.02), Task(4183, 0.25, 0.02)],
    "4 x 200, opposite": [Task(200, 0.25, 0.06), Task(200, 0.25, -0.06)] * 2,
    "50 x 4 versions, 200": [Task(50, 0.25, 0.0, 4), Task(200, 0.1)],
}


def corners() -> Iterator[tuple[str, Tally]]:
    for task in [*FEW, *CLUSTERS]:
        tally, rng = Tally(task.difference), np.random.default_rng(SEED)
        for _ in range(RUNS):
            drawn = task.draw(rng)
            tally.add(statistics.bootstrap([drawn], [1]), statistics.mcnemar(drawn.sums))
        yield str(task), tally


def several_tasks() -> Iterator[tuple[str, Tally]]:
    for name, tasks in SEVERAL.items():
        rng, items = np.random.default_rng(SEED), [task.n * task.versions for task in tasks]
        shares = [n / sum(items) for n in items]
        truths = [float(np.dot(weights, [task.difference for task in tasks])) for weights in (alike(tasks), shares)]
        mean, together = (Tally(round(truth, 12)) for truth in truths)
        for _ in range(RUNS):
            drawn = [task.draw(rng) for task in tasks]
            mean.add(statistics.bootstrap(drawn, alike(tasks)), statistics.mean_test(drawn))
            sums = np.concatenate([task.sums for task in drawn])
            together.add(statistics.bootstrap(drawn, shares), statistics.mcnemar(sums))
        yield f"{name}: mean", mean
        yield f"{name}: pooled", together


def whole_tables() -> Iterator[tuple[str, float]]:
    """Share of tables of four variants that are no better than the base, in which a p-value passes."""
    for sizes in ([100, 200, 100, 200], [200] * 4, [500, 1089, 1273]):
        rng, corrected, uncorrected = np.random.default_rng(SEED), 0, 0
        for _ in range(RUNS):
            p_values = _table(sizes, rng)
            corrected += min(statistics.holm(p_values)) < ALPHA
            uncorrected += min(p_values) < ALPHA
        yield f"{sizes}, 4 variants: any p below .05, uncorrected", uncorrected / RUNS
        yield f"{sizes}, 4 variants: any p below .05 after Holm", corrected / RUNS


def _table(sizes: list[int], rng: np.random.Generator) -> list[float]:
    """p-values of four variants that answer like the base but for a tenth to a half of the items, which they guess."""
    bases = [rng.random(n) < 0.4 for n in sizes]
    p_values = []
    for guessed in (0.1, 0.2, 0.3, 0.5):
        drawn = []
        for base in bases:
            variant = np.where(rng.random(len(base)) < guessed, rng.random(len(base)) < 0.4, base)
            drawn.append(Differences.of(base, variant, np.arange(len(base))))
        p_values += [statistics.mcnemar(task.sums) for task in drawn]
        p_values += [statistics.mean_test(drawn), statistics.mcnemar(np.concatenate([task.sums for task in drawn]))]
    return p_values


def powers() -> Iterator[tuple[str, float]]:
    """Share of samples in which the difference is found that a first sample calls detectable."""
    for tasks in (
        [Task(100, 0.05)],
        [Task(100, 0.25)],
        [Task(200, 0.1)],
        [Task(200, 0.25)],
        [Task(1273, 0.25)],
        [Task(4183, 0.25)],
        [Task(200, 0.25, versions=4)],
        [Task(200, 0.25)] * 4,
        [Task(500, 0.1), Task(1089, 0.2), Task(1273, 0.25), Task(4183, 0.25)],
    ):
        rng = np.random.default_rng(SEED)
        weights = alike(tasks)
        d = np.median([statistics.detectable([task.draw(rng) for task in tasks], weights) for _ in range(200)])
        moved = [Task(task.n, max(task.discordant, d), d, task.versions, task.together) for task in tasks]
        found = 0
        for _ in range(RUNS):
            drawn = [task.draw(rng) for task in moved]
            found += (statistics.mean_test(drawn) if len(drawn) > 1 else statistics.mcnemar(drawn[0].sums)) < ALPHA
        named = " | ".join(f"{task.n}{f' x {task.versions} versions' * (task.versions > 1)}" for task in tasks)
        yield f"{named}, {tasks[0].discordant:.0%} discordant: {100 * d:.1f} points", found / RUNS


def accuracies() -> Iterator[tuple[str, float]]:
    """Coverage of Wilson's interval, with clusters too, and of the mean over tasks."""
    for n, versions, share in ((200, 1, 0.3), (200, 1, 0.97), (50, 4, 0.4), (200, 12, 0.4)):
        rng, held = np.random.default_rng(SEED), 0
        for _ in range(RUNS):
            right = rng.random((n, versions + 1)) < share
            correct = np.where(rng.random((n, 1)) < 0.5, right[:, :1], right[:, 1:])
            found = statistics.accuracy(correct.ravel(), np.repeat(np.arange(n), versions))
            held += found.low <= share <= found.high
        yield f"accuracy {share}, {n} items{f' x {versions} versions' * (versions > 1)}", held / RUNS
    shares = {100: 0.95, 200: 0.5, 1000: 0.3}
    rng, held = np.random.default_rng(SEED), 0
    for _ in range(RUNS):
        found = statistics.mean_accuracy([statistics.accuracy(rng.random(n) < share) for n, share in shares.items()])
        held += found.low <= np.mean(list(shares.values())) <= found.high
    yield f"mean accuracy of {shares}", held / RUNS


def calibrations(runs: int = 500) -> Iterator[tuple[str, float]]:
    """Coverage of the intervals of a change in ECE and Brier score: of what samples of this size show on average."""
    for n, sharper in ((200, 1.0), (200, 2.0), (1000, 2.0)):
        rng, found = np.random.default_rng(SEED), []
        for _ in range(runs):
            base, other = _two_models(n, sharper, rng)
            clusters = [np.arange(n)]
            before, after = calibration.bootstrap([base], clusters), calibration.bootstrap([other], clusters)
            differences = {"ece": calibration.ece(other) - calibration.ece(base)}
            differences["brier"] = calibration.brier(other) - calibration.brier(base)
            found.append({k: (d[0], *calibration.interval(d[0], after[k] - before[k])) for k, d in differences.items()})
        for name in ("ece", "brier"):
            values, low, high = np.array([row[name] for row in found]).T
            held = np.mean((low <= values.mean()) & (values.mean() <= high))
            yield f"{name}, {n} items, confidence sharpened by {sharper}: change {values.mean():+.3f}", held


def _two_models(n: int, sharper: float, rng: np.random.Generator) -> tuple[Answers, Answers]:
    """A calibrated model and one that is ``sharper`` times as sure of its answers, related by how hard items are."""
    models, easy = [], rng.normal(size=n)
    for factor in (1.0, sharper):
        logit = easy + rng.normal(size=n)
        correct = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(int)
        confidence = 1 / (1 + np.exp(-factor * logit))
        models.append(Answers(confidence, correct, 2 * (confidence - correct) ** 2))
    return models[0], models[1]


def main() -> None:
    for part in (single_tasks, corners, several_tasks):
        print(
            f"\n{part.__name__.replace('_', ' ')}: interval holds the truth, is above it, below it; p < .05", flush=True
        )
        for name, figure in part():
            print(f"{name:<42} {figure}", flush=True)
    for part in (whole_tables, powers, accuracies, calibrations):
        print(f"\n{part.__name__.replace('_', ' ')}: {part.__doc__}", flush=True)
        for name, figure in part():
            print(f"{name:<75} {figure:6.1%}", flush=True)


if __name__ == "__main__":
    main()
