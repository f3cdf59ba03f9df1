"""What a template is: its parameters, their types and defaults, and a config with `$name` in it."""

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema
from pydantic import model_validator as validator

from flowfast.config.problem import Fault, Faulty, faulty, quoted
from flowfast.config.scalar import found, scalar
from flowfast.config.section import ANY, SOME, Section
from flowfast.config.selectors import device
from flowfast.config.values import DISTINCT, Truth, address, choice, items, listed, prefix, truth, whole, words

_PARAMETER = re.compile(r"[a-z][a-z0-9_]{0,31}")
_TEMPLATE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_NUMBERS = 1 << 63
MAX_USED = 16  # templates of one config

_Value = TypeVar("_Value")


class Type(StrEnum):
    """What the value of a parameter may be."""

    DEVICE = "device"
    DEVICES = "devices"
    PREFIX = "prefix"
    PREFIXES = "prefixes"
    ADDRESS = "address"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    STRING = "string"
    CHOICE = "choice"

    @property
    def listed(self) -> bool:
        """True where the value is a list."""
        return self in (Type.DEVICES, Type.PREFIXES)


def _all(what: str, read: Callable[[object], _Value]) -> Callable[[object], tuple[_Value, ...]]:
    def read_all(value: object) -> tuple[_Value, ...]:
        result: list[_Value] = []
        faults: list[Fault] = []
        for at, item in enumerate(items(value, what, empty=True)):
            try:
                result.append(read(item))
            except Faulty as error:
                faults += [Fault(one.sentence, one.remedy, (at, *one.path)) for one in error.faults]
        if faults:
            raise Faulty(*faults)
        return tuple(result)

    return read_all


def _choice(value: object) -> str:
    return words(value, "one of the choices", loose=True)


_READERS: Mapping[Type, Callable[[object], object]] = {
    Type.DEVICE: device,
    Type.DEVICES: _all("device names", device),
    Type.PREFIX: prefix,
    Type.PREFIXES: _all("prefixes", prefix),
    Type.ADDRESS: address,
    Type.INTEGER: lambda value: whole(value, "a whole number", -_NUMBERS, _NUMBERS - 1),
    Type.BOOLEAN: truth,
    Type.STRING: lambda value: words(value, "text"),
    Type.CHOICE: _choice,
}


def _sentence(value: object) -> str:
    text = words(value, "a description in words")
    if not text.strip():
        raise faulty("expected a description in words, found nothing")
    return text


def _name(pattern: re.Pattern[str], what: str, remedy: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        name = words(value, f"the name of {what}")
        if not pattern.fullmatch(name):
            raise faulty(f"{quoted(name)} cannot be the name of {what}", remedy)
        return name

    return read


def _mapping(what: str) -> BeforeValidator:
    def read(value: object) -> object:
        if not isinstance(value, Mapping):
            raise faulty(f"expected a mapping {what}, found {found(value)}")
        return dict(value)

    return BeforeValidator(read)


Words = Annotated[str, PlainValidator(_sentence), WithJsonSchema({"type": "string", "minLength": 1})]
TemplateName = Annotated[
    str,
    PlainValidator(_name(_TEMPLATE, "a template", "small letters, digits and -, at most 63")),
    WithJsonSchema({"type": "string", "pattern": f"^{_TEMPLATE.pattern}$"}),
]
ParameterName = Annotated[
    str,
    PlainValidator(_name(_PARAMETER, "a parameter", "small letters, digits and _, at most 32, a letter first")),
    WithJsonSchema({"type": "string", "pattern": f"^{_PARAMETER.pattern}$"}),
]


class Parameter(Section):
    """A value that the user of a template gives."""

    type: Annotated[
        Type,
        choice(Type, "a type of parameter"),
        Field(description="What the value may be. devices and prefixes are lists.", examples=["devices"]),
    ]
    description: Annotated[Words, Field(description="What the value is for.", examples=["Devices towards the hosts."])]
    default: Annotated[
        Any, Field(description="The value where none is given."), WithJsonSchema({"not": {"type": "null"}})
    ] = None
    required: Annotated[
        Truth,
        Field(
            description="true: a value must be given. false, without a default: the keys that the parameter stands for "
            "are left out where none is given."
        ),
    ] = False
    choices: Annotated[
        tuple[Annotated[str, PlainValidator(_choice), WithJsonSchema({"type": "string"})], ...],
        Field(description="The words that a choice may be.", json_schema_extra=SOME),
        listed("words"),
        DISTINCT,
    ] = ()

    @property
    def has_default(self) -> bool:
        """False where there is nothing to fall back on."""
        return "default" in self.model_fields_set

    def read(self, value: object) -> object:
        """The value (a Scalar, a list or mapping of them) as Python's. Raises Faulty where it is not of the type."""
        result = _READERS[self.type](value)
        if self.type is Type.CHOICE and result not in self.choices:
            raise faulty(f"{quoted(str(result))} is none of the choices", f"one of {', '.join(self.choices)}")
        return result

    @validator(mode="after")
    def _complete(self) -> "Parameter":
        if self.type is Type.CHOICE and not self.choices:
            fault = Fault("missing, a choice has some", "as choices: [guarded, outbound-only]", ("choices",))
            raise Faulty(fault)
        if self.choices and self.type is not Type.CHOICE:
            raise Faulty(Fault(f"a parameter of type {self.type} has none", "leave them out", ("choices",)))
        if self.required and self.has_default:
            raise Faulty(Fault("of no use where a value is required", "keep one of the two", ("default",)))
        if not {"default", "required"} & self.model_fields_set:
            raise Faulty(Fault("missing", "give it a default, or required: true", ("default",)))
        if self.has_default:
            try:
                self.read(self.default)
            except Faulty as error:
                raise Faulty(
                    *(Fault(one.sentence, one.remedy, ("default", *one.path)) for one in error.faults)
                ) from None
        return self


class Template(Section):
    """A config with parameters."""

    template: Annotated[TemplateName, Field(description="Name of the template.", examples=["site-to-site-policy"])]
    description: Annotated[
        Words, Field(description="What it is for, in a sentence or two.", examples=["A branch office router."])
    ]
    parameters: Annotated[
        dict[ParameterName, Parameter],
        _mapping("of parameter names to what they are"),
        Field(
            description="Values that are given when the template is used.",
            json_schema_extra={"additionalProperties": False},
        ),
    ] = Field(default_factory=dict)
    config: Annotated[
        dict[str, Any],
        _mapping("of the keys of a config"),
        Field(
            description="The config. A value that is $name stands for that parameter's; in a list, the items of a "
            "parameter that is a list are put in its place. $$ at the beginning is a $.",
            examples=[{"devices": {"lan": "$lan", "wan": "$wan"}}],
        ),
    ]


def _settings(value: object) -> object:
    match value:
        case list() | tuple():
            return tuple(_settings(item) for item in value)
        case Mapping():
            return {key: _settings(item) for key, item in value.items()}
    one = scalar(value)
    return None if one is None else one.text


class Use(Section):
    """A template that a config is made of."""

    template: Annotated[
        str,
        PlainValidator(lambda value: words(value, "the name of a template or the path of one")),
        WithJsonSchema({"type": "string", "minLength": 1}),
        Field(
            description="Name of a template of flowfast (`flowfast rules list`), or the path of one, from this file's "
            "folder on (./mine.yaml).",
            examples=["site-to-site-policy"],
        ),
    ]
    set: Annotated[
        dict[str, Annotated[Any, PlainValidator(_settings), WithJsonSchema({})]],
        _mapping("of parameter names to their values"),
        Field(description="Values of the template's parameters."),
    ] = Field(default_factory=dict)


UseList = Annotated[
    tuple[Use, ...],
    Field(description="Templates that this config is made of, besides its own keys.", json_schema_extra=ANY),
    listed("templates", MAX_USED, empty=True),
]


class Uses(Section):
    """The key `use` alone, which is read before there is a whole config."""

    use: UseList = ()
