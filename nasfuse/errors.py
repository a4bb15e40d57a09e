"""Errors that are the user's to mend: shown in four lines, never as a traceback.

Anything else that is raised is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import re
from typing import Self

_PASSWORD = re.compile(r"(://[^:/@\s]*:)\S*(?=@)|([?&](?:ssl)?password=)[^&\s]+", re.IGNORECASE)


def hide_passwords(text: str) -> str:
    """The text with *** for every password in an address, such as that of a database."""
    return _PASSWORD.sub(lambda found: (found[1] or found[2]) + "***", text)


# what moves the cursor, colours, retitles, reverses or cannot be encoded; line ends and tabs aside
_ACTS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    """Text from anywhere for a terminal, with ? for every sign that the terminal would act upon."""
    return _ACTS.sub("?", text)


class NasfuseError(Exception):
    """What went wrong, where, why (with numbers) and a remedy that can be pasted.

    Each kind has its own exit code, so that scripts can tell them apart.
    """

    code = "NF000"
    exit_code = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        super().__init__(hide_passwords(what))
        self.what, self.where, self.why, self.fix = map(hide_passwords, (what, where, why, fix))

    def __str__(self) -> str:
        parts = (("where", self.where), ("why", self.why), ("fix", self.fix))
        lines = [f"{name + ':':<6} {text}" for name, text in parts if text]
        return visible("\n  ".join([f"error[{self.code}]: {self.what}", *lines]))

    def for_verb(self, verb: str, option: str) -> Self:
        """The same from a verb whose argument is what others name by this option."""
        self.where = verb if self.where == option else self.where
        self.fix = self.fix.replace(f"{option} ", f"{verb} ")
        return self


class UsageError(NasfuseError):
    """An option or a name that does not exist or cannot be used so."""

    code = "NF200"
    exit_code = 2


class DocumentError(NasfuseError):
    """An architecture, space, recipe or study file that says something impossible."""

    code = "NF300"
    exit_code = 3


class DataError(NasfuseError):
    """Images that are missing, unreadable or unusable."""

    code = "NF310"
    exit_code = 3


class BudgetError(NasfuseError):
    """No network of the space fits the budget; `needed` MACs would do."""

    code = "NF400"
    exit_code = 4

    def __init__(
        self, what: str, *, needed: int, where: str = "", why: str = "", fix: str = ""
    ) -> None:
        super().__init__(what, where=where, why=why, fix=fix)
        self.needed = needed


class SetupError(NasfuseError):
    """Something that this machine lacks."""

    code = "NF500"
    exit_code = 5


class SearchError(NasfuseError):
    """A search in which too much failed."""

    code = "NF600"
    exit_code = 6


class ExportError(NasfuseError):
    """An export whose check failed; nothing is left under the final name."""

    code = "NF700"
    exit_code = 7


class StorageError(NasfuseError):
    """A study's folder that is full, locked or damaged."""

    code = "NF800"
    exit_code = 8
