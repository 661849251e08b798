"""The commands of this room, one a file: what ``medadapt study``, ``compare``, ``report`` and the others run."""


def listed(names: str) -> list[str]:
    """``a, b`` as ``["a", "b"]``."""
    return [name.strip() for name in names.split(",") if name.strip()]
