"""Why not: travels with every decision that says no, and is printed the same everywhere."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a Reason matters to the operator."""

    INFO = "info"  # by choice, or as it should be
    WARNING = "warning"  # works, but slower or with less than it could
    ERROR = "error"  # does not work, or is not safe


@dataclass(frozen=True, slots=True, order=True)
class Reason:
    """A decision that says no: `code` (stable, UPPER_CASE), the object it is about, a sentence, and what to do."""

    code: str
    object: str
    sentence: str
    remedy: str = ""
    severity: Severity = Severity.WARNING

    def __str__(self) -> str:
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{self.object}: {self.sentence}{remedy}"
