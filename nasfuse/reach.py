"""Reach: what budgets a space can meet, and what is said of one that it cannot.

Nothing heavy is imported here: pricing a network takes torch, whose import alone takes seconds,
and a budget far below what a space that comes with the package can meet is refused at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from nasfuse.costs import enough_for, show_macs
from nasfuse.errors import BudgetError


@dataclass(frozen=True)
class Reach:
    """MACs of the smallest and largest networks found in a space, and of some at their smallest."""

    least: int
    most: int
    smallest: tuple[int, ...] = ()

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
                fix=enough_for(self.least),
                needed=self.least,
            )


# of the spaces that come with the package, for grey images of two classes, which cost least; a
# test measures them
SHIPPED = {
    "cifar": Reach(4_504, 76_550_767_299_840),
    "default": Reach(7_084, 27_980_042_559_488),
    "densenet": Reach(7_330, 5_567_397_707_176_960),
    "fusions": Reach(66_084, 130_090_963_968),
    "mobile": Reach(81_480, 200_405_644_623_872),
    "multiscale": Reach(36_748, 1_556_381_439_552_288),
}


def refuse_at_once(space: str, budget: int) -> None:
    """Refuse what is known to be out of reach of a space that comes with the package.

    Raises:
        BudgetError: as `Reach.require` does.
    """
    if space in SHIPPED:
        SHIPPED[space].require(budget, space)
