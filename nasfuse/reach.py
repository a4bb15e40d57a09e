"""Reach: what budgets a space can meet, and what is said of one that it cannot.

Nothing heavy is imported here: pricing a network takes torch, whose import alone takes seconds,
and a budget far below what a space that comes with the package can meet is refused at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from nasfuse.costs import show_macs
from nasfuse.errors import BudgetError


@dataclass(frozen=True)
class Reach:
    """MACs of some members of a space at their smallest, and of the largest one found."""

    smallest: tuple[int, ...]
    most: int

    @property
    def least(self) -> int:
        """About the smallest budget that can be met."""
        return min(self.smallest)

    def fitting(self, budget: int) -> float:
        """The share of the members that can meet a budget."""
        return sum(macs <= budget for macs in self.smallest) / len(self.smallest)

    def require(self, budget: int, space: str) -> None:
        """Refuse a budget that no network of the space of this name can meet.

        Raises:
            BudgetError: with the smallest budget that can be met.
        """
        if budget < self.least:
            raise BudgetError(
                f"no network of the space '{space}' fits {show_macs(budget)} MACs",
                where="--budget",
                why=f"those found need {show_macs(self.least)} to {show_macs(self.most)} MACs",
                fix=f"--budget {-(-self.least // 100_000) / 10:g}MFLOPs",
                needed=self.least,
            )


# of the spaces that come with the package, for their own images; a test measures them
SHIPPED = {
    "cifar": Reach((9_700,), 76_550_928_517_888),
    "default": Reach((10_300,), 27_981_210_574_848),
    "densenet": Reach((10_924,), 5_567_416_186_133_504),
    "fusions": Reach((75_636,), 130_100_417_536),
    "mobile": Reach((132_360,), 200_410_778_468_352),
    "multiscale": Reach((46_604,), 1_556_388_467_795_360),
}


def refuse_at_once(space: str, budget: int) -> None:
    """Refuse what is known to be out of reach of a space that comes with the package.

    Raises:
        BudgetError: as `Reach.require` does.
    """
    if space in SHIPPED:
        SHIPPED[space].require(budget, space)
