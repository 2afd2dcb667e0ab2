"""The built-in family: one small base and four experts, trained here and shipped along.

Real fine-tunes of a real (tiny) language model, so that merging can be tried with no download.
Light to import: the trainer (`merging.demo.build`) is the only module here that needs torch.
"""

from pathlib import Path

from merging.system.shipped import ASSETS

DOMAINS: tuple[str, ...] = ("add", "reverse", "spanish", "sort")
NAMES: tuple[str, ...] = ("base", *DOMAINS)

_SHIPPED = ASSETS / "demo"


def folder(name: str) -> Path:
    """Return the shipped checkpoint folder of one built-in model.

    Args:
        name: one of `NAMES`, without the `demo:` prefix.

    Raises:
        ValueError: no built-in model has this name; the message lists those that exist.
    """
    if name not in NAMES:
        valid = ", ".join(f"demo:{demo}" for demo in NAMES)
        raise ValueError(f"there is no built-in model 'demo:{name}': choose one of {valid}")
    return _SHIPPED / name
