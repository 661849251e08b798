"""From options scored with and without passages to an answer: the argument ``mode`` of the harness model ``rag``.

A mode is ``always``, or some of :data:`STEPS` joined by ``+`` (``gate+mix``). Whatever their order there, they act so:

1. ``gate`` opens the book only where the closed-book margin, the log-probability of the likeliest option less that of
   the second, is below ``gate_margin``; other items, and those with a single option, keep their closed-book answer
   (the margin signal of TARG, Wang et al. 2025, arXiv:2511.09803).
2. ``per_passage`` shows the model one passage at a time and adds up the options' probabilities, each passage weighing
   as the softmax of its retrieval score (REPLUG, Shi et al. 2023, arXiv:2301.12652). The probabilities are those of the
   options among themselves, so that no passage counts more for making any letter at all more likely.
3. ``calibrate`` subtracts ``calibration`` times what the options get where the question is content-free, "N/A"
   (contextual calibration, Zhao et al. 2021, arXiv:2102.09690, where it is 1). All else stays: passages, the item's own
   context, options, few-shot examples. What is left is what the question makes of them.
4. ``mix`` takes (1 - w) closed-book plus w open-book log-probabilities, a logarithmic opinion pool.

To normalize log-probabilities over an item's options adds the same to each of them. In ``gate``, ``calibrate`` and
``mix`` that moves no option past another and leaves their probabilities among themselves as they are, so it is left
out: answers keep the scale of the model's own, w=0 is the closed book and w=1 the open one to the last bit, and
lm-eval's ``acc_norm`` stays defined.

Arrays end in the axis of an item's options; axes before it (items) are free. Log-probabilities are in nats.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from medtasks.errors import InputError

if TYPE_CHECKING:
    import numpy as np

ALWAYS = "always"
STEPS = ("gate", "per_passage", "calibrate", "mix")


@dataclass(frozen=True)
class Mode:
    """One way to answer.

    Attributes:
        steps: of :data:`STEPS`, in that order; none is ``always``.
        gate_margin: nats below which a closed-book margin opens the book.
        calibration: weight of the content-free scores, 0 or more.
        w: weight of the open book, 0 to 1.
    """

    steps: tuple[str, ...] = ()
    gate_margin: float = float("inf")
    calibration: float = 0.0
    w: float = 1.0

    @property
    def name(self) -> str:
        """As the argument ``mode`` has it."""
        return "+".join(self.steps) or ALWAYS

    @property
    def settings(self) -> dict[str, float]:
        """The arguments that the steps take, by name."""
        taken = {"gate": "gate_margin", "calibrate": "calibration", "mix": "w"}
        return {taken[step]: getattr(self, taken[step]) for step in self.steps if step in taken}

    @property
    def per_passage(self) -> bool:
        """Whether each passage is shown by itself."""
        return "per_passage" in self.steps

    @property
    def needs_closed(self) -> bool:
        """Whether items are also scored without passages."""
        return "gate" in self.steps or "mix" in self.steps

    @property
    def needs_neutral(self) -> bool:
        """Whether items are also scored with a content-free question."""
        return "calibrate" in self.steps

    def opens(self, closed: "np.ndarray") -> "np.ndarray":
        """Whether passages are looked at, by the closed-book scores: bool, shape ``(...)``."""
        import numpy as np

        found = margin(closed)
        return found < self.gate_margin if "gate" in self.steps else np.ones_like(found, dtype=bool)

    def answer(
        self,
        closed: "np.ndarray | None",
        opened: "np.ndarray",
        neutral: "np.ndarray | None",
        scores: "np.ndarray",
    ) -> "np.ndarray":
        """The options' log-probabilities, shape ``(..., options)``, of items whose book was opened.

        Args:
            closed: shape ``(..., options)``; None where the mode does not need it.
            opened: one row for each prompt that an item was shown, ``(..., prompts, options)``.
            neutral: likewise with a content-free question; None where the mode does not need it.
            scores: of the retrieval, ``(..., prompts)``; -inf for a prompt that an item does not have.
        """
        found = _pooled(opened if neutral is None else opened - self.calibration * neutral, scores)
        return found if self.w == 1 else (1 - self.w) * closed + self.w * found

    def is_greedy(self, closed: "np.ndarray | None", opened: "np.ndarray", answer: "np.ndarray") -> "np.ndarray":
        """Whether greedy decoding gives an option, shape ``(options,)``: where it does so in every arm that counts.

        What the arms agree on is also what their pool would decode. Calibration is defined among the options alone, so
        there the option must also be the one that is chosen.

        Args:
            closed: the arm's own flags, ``(options,)``.
            opened: likewise, ``(prompts, options)``.
            answer: what :meth:`answer` gave, ``(options,)``.
        """
        greedy = opened.all(axis=0) if self.w > 0 else closed
        greedy = greedy & closed if 0 < self.w < 1 else greedy
        return greedy & (answer == answer.max()) if self.calibration else greedy


def parse(
    name: str, gate_margin: float | None = None, calibration: float | None = None, w: float | None = None
) -> Mode:
    """The mode with this name and these settings; None is one that is not given.

    Raises:
        InputError: an unknown step, one without its setting, or a setting without its step or out of its range.
    """
    named = [] if name == ALWAYS else str(name).split("+")
    if unknown := [step for step in named if step not in STEPS]:
        raise InputError(f"mode={name}: no '{unknown[0]}'; give {ALWAYS}, or one or several of {'+'.join(STEPS)}")
    given = {"gate": ("gate_margin", gate_margin), "calibrate": ("calibration", calibration), "mix": ("w", w)}
    settings = {}
    for step, (setting, value) in given.items():
        if step not in named and value is not None:
            raise InputError(f"{setting}={value} is for mode={step}, not for mode={name}")
        if step in named:
            value = 1.0 if value is None and step == "calibrate" else value
            if value is None:
                raise InputError(f"mode={name} needs {setting}=<number>; medadapt rag tune fits one on dev splits")
            settings[setting] = _number(setting, value, at_most=1.0 if step == "mix" else float("inf"))
    return Mode(tuple(step for step in STEPS if step in named), **settings)


def _number(setting: str, value, at_most: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= at_most:
        raise InputError(f"{setting}={value}: must be a number, 0 " + ("to 1" if at_most == 1 else "or more"))
    return float(value)


def margin(closed: "np.ndarray") -> "np.ndarray":
    """The likeliest option's log-probability less the second's, shape ``(...)``; of one option, inf."""
    import numpy as np

    if closed.shape[-1] < 2:
        return np.full(closed.shape[:-1], np.inf)
    best = np.sort(closed, axis=-1)
    return best[..., -1] - best[..., -2]


def _pooled(rows: "np.ndarray", scores: "np.ndarray") -> "np.ndarray":
    """The rows of an item as one: log of the weighted sum of the options' probabilities, on the rows' mean scale."""
    import numpy as np

    if rows.shape[-2] == 1:
        return rows[..., 0, :]
    logs = scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)
    totals = np.logaddexp.reduce(rows, axis=-1, keepdims=True)
    mixture = np.logaddexp.reduce(rows - totals + logs[..., None], axis=-2)
    return mixture + (np.exp(logs)[..., None] * totals).sum(axis=-2)
