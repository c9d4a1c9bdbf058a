"""What a report says about how its numbers came about."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pyg_stmamba.visualization.page import facts, folded, heading


def circumstances(
    metrics: Mapping[str, Any],
    versions: Mapping[str, Any],
    configuration: str,
    shown_elsewhere: Sequence[str],
) -> list[str]:
    r"""The sections on the run, the versions and the configuration, those there is something for.

    Args:
        metrics: The content of :obj:`metrics.json`.
        versions: Versions of packages by name.
        configuration: The content of :obj:`config.yaml`.
        shown_elsewhere: What of the metrics other sections show.
    """
    sections = []
    rows = [
        (name.replace("_", " "), _fact(name, value))
        for name, value in metrics.items()
        if name not in shown_elsewhere
    ]
    if rows:
        sections += [heading("The run"), facts(rows)]
    if versions:
        sections += [heading("Versions"), facts(list(versions.items()))]
    if configuration:
        sections += [heading("Configuration"), folded("config.yaml", configuration)]
    return sections


def number(value: Any) -> float:
    """A value of a file as a number; not-a-number where it is none."""
    return float(value) if isinstance(value, int | float) else math.nan


def _fact(name: str, value: Any) -> str:
    if name.endswith("seconds") and isinstance(value, int | float) and math.isfinite(value):
        if value >= 120:
            return f"{value:.0f} s ({value / 60:.1f} min)"
        return f"{value:.1f} s" if value >= 1 else f"{value:.3g} s"
    if isinstance(value, list):
        return ", ".join(str(part) for part in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {part}" for key, part in value.items())
    return f"{value:,}" if name == "parameters" and isinstance(value, int) else str(value)
