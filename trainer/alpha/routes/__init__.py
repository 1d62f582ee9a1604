"""The ways to slope and curvature along a direction, behind one interface (`base.Route`)."""

from .base import Line, Route
from .curvature_products import by_curvlinops, by_thesis
from .differences import by_finite_difference, by_parabola
from .forward_mode import by_jvp

ROUTES: dict[str, Route] = {
    "jvp": by_jvp,
    "finite_difference": by_finite_difference,
    "curvlinops": by_curvlinops,
    "thesis": by_thesis,
    "parabola": by_parabola,
}

__all__ = [
    "ROUTES", "Line", "Route", "by_curvlinops", "by_finite_difference", "by_jvp", "by_parabola", "by_thesis",
]  # fmt: skip
