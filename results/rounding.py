"""Numbers as people read them: every table, card and page rounds alike."""

import math

P_FLOOR = 0.001
"""p-values below are shown as being below."""


def percent(share: float, sign: str = "", digits: int = 1) -> str:
    """A share, or a difference of two, in percent or points; ``sign="+"`` shows both signs.

    Halves are rounded away from zero, so that a gain and a loss look alike; nothing is shown as a negative zero.
    """
    rounded = round(100 * share + math.copysign(1e-9, share), digits)
    return f"{rounded + 0:{sign}.{digits}f}"


def p_value(p: float) -> str:
    """``0.019``, or ``<0.001``."""
    return f"<{P_FLOOR:.3f}" if p < P_FLOOR else f"{p:.3f}"
