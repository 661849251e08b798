"""The curve in a noisy loss."""


def smoothed(values: list[float], weight: float = 0.8) -> list[float]:
    """Exponential moving average without the pull of its start (Kingma & Ba 2015, arXiv:1412.6980, section 3)."""
    mean, means = 0.0, []
    for n, value in enumerate(values, 1):
        mean = weight * mean + (1 - weight) * value
        means.append(mean / (1 - weight**n))
    return means
