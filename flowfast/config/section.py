"""What every section of the config has in common, and what JSON Schema says of lists in one place."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict
from pydantic import model_validator as validator
from pydantic.config import JsonDict

from flowfast.config.problem import faulty
from flowfast.config.scalar import Kind, found, scalar

# For the JSON Schema only: our own validators say it in better words.
SOME: JsonDict = {"minItems": 1, "uniqueItems": True}
ANY: JsonDict = {"uniqueItems": True}


def _nothing(value: object) -> bool:
    one = scalar(value)
    return one is not None and one.kind is Kind.NOTHING


class Section(BaseModel):
    """A mapping with fixed keys. A key without a value is a key left out, so that its content can be commented out."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @validator(mode="before")
    @classmethod
    def _given(cls, value: object) -> object:
        if isinstance(value, Section):
            return value
        if _nothing(value):
            return {}
        if not isinstance(value, Mapping):
            raise faulty(f"expected a mapping with the keys {', '.join(cls.model_fields)}, found {found(value)}")
        return {key: item for key, item in value.items() if not (key in cls.model_fields and _nothing(item))}
