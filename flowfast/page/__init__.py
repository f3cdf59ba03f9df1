"""What the HTML reports share: one file that needs nothing but itself. jinja2 and matplotlib are an extra."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flowfast.model.errors import Unavailable

STYLE = Path(__file__).with_name("style.css")


def check() -> None:
    """Raises Unavailable where what draws a report is not installed."""
    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        raise Unavailable(
            f"the report needs {' and '.join(missing)}: pip install 'flowfast[report]' (or `make setup-lab`)"
        )


def page(template: Path, filters: dict[str, Callable[..., Any]], **values: Any) -> str:
    """The template, rendered; `style` is the sheet. Raises Unavailable as check() does."""
    check()
    jinja2 = import_module("jinja2")  # an extra: imported only where it is used
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(filters)
    text: str = environment.from_string(template.read_text()).render(style=STYLE.read_text(), **values)
    return text
