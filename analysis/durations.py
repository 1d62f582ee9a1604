"""Write times in the unit that suits their length."""

from __future__ import annotations


def time_unit(seconds: float) -> tuple[float, str]:
    """Return the seconds in a unit that suits an axis up to `seconds`, and the unit's name."""
    if seconds < 300:
        return 1.0, "s"
    return (60.0, "min") if seconds < 3 * 3600 else (3600.0, "h")


def duration(seconds: float | None) -> str:
    """Return a time as text, in a unit that suits it: 12.3 s, 4.6 min, 17.1 h."""
    if seconds is None:
        return "–"
    per_unit, unit = time_unit(seconds)
    return f"{seconds / per_unit:.3g} {unit}" if seconds < 1e6 else f"{seconds / per_unit:,.0f} {unit}"
