"""Options as data: all that whoever lists, reads, checks or saves options needs to know of each.

The node's widgets, the configuration, `--network_args`, the metadata of the file, what a state holds a training to, and
the help page's table come from these fields.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import TrainError
from .rules import Number, Rule, Texts, WholeOrAuto

__all__ = ["Option", "OptionGroup", "Saved", "option", "options_in"]


class Saved(enum.Enum):
    """How an option stands in the metadata of a file."""

    NOT = enum.auto()
    """Not at all, or something that is computed from it."""
    NETWORK = enum.auto()
    """As `ss_NAME`, with `no_metadata` too: what Musubi Tuner needs to read the file."""
    ALWAYS = enum.auto()
    """As `ss_NAME`."""
    OR_NONE = enum.auto()
    """As `ss_NAME`, which is None where the option is empty or 0."""
    IF_SET = enum.auto()
    """As `ss_NAME`, unless it has its default."""
    NETWORK_ARG = enum.auto()
    """In `ss_network_args`, unless it has its default; and `--network_args` may give it."""
    MODELSPEC = enum.auto()
    """As `modelspec.NAME`, without `metadata_`, unless it is empty."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a training."""

    name: str
    """The name of its field."""
    default: Any
    rule: Rule
    help: str
    """What it does, for a tooltip and the help page."""
    rare: bool
    """Whether most people never touch it."""
    called: str
    """Musubi's name: that of its widget and in a configuration."""
    read: Callable[[Any], Any] | None
    """Makes its value of what a configuration says under `called`, where that is another form. Raises `TrainError`."""
    node_default: Any
    """Its default in the node: what Musubi's pages use, where the configuration's default is another."""
    saved: Saved
    draws: bool
    """Whether it decides which items come in which step, or what is drawn for them: a saved state goes on only with
    the value that it was saved with."""
    since: int
    """Widgets come in this order, so that a saved workflow, which knows them by their places, keeps its values."""
    graph: bool
    """Whether the node has a widget for it; `lyco train` takes all."""


def option(
    default: Any,  # noqa: ANN401 - the field's own type
    rule: Rule,
    help: str,
    *,
    rare: bool = True,
    called: str = "",
    read: Callable[[Any], Any] | None = None,
    node_default: Any = None,  # noqa: ANN401
    saved: Saved = Saved.NOT,
    draws: bool = False,
    since: int = 0,
    graph: bool = True,
) -> Any:  # noqa: ANN401
    """A field of `OptionGroup`; the arguments are those of `Option`."""
    node_default = default if node_default is None else node_default
    made = Option("", default, rule, help, rare, called, read, node_default, saved, draws, since, graph)
    return dataclasses.field(default=default, metadata={"option": made})


def options_in(cls: type[OptionGroup]) -> Iterator[Option]:
    """Every option that has a rule, in the order in which a person meets them."""
    for field in dataclasses.fields(cls):
        if made := field.metadata.get("option"):
            yield dataclasses.replace(made, name=field.name, called=made.called or field.name)


@dataclasses.dataclass(frozen=True)
class OptionGroup:
    """Options of one kind, as a dataclass of fields that `option` makes.

    Raises `TrainError` for a value that its rule does not allow.
    """

    def __post_init__(self) -> None:
        for made in options_in(type(self)):
            value = getattr(self, made.name)
            if not made.rule.holds(value):
                raise TrainError(f"{made.name} is {value!r}, expected {made.rule.expected}")
            object.__setattr__(self, made.name, _kept(made.rule, value))


def _kept(rule: Rule, value: Any) -> Any:  # noqa: ANN401
    """`value` in the type that the option always has."""
    if isinstance(rule, Texts):  # of which one kind may be a file's name
        return value if isinstance(value, str) else tuple(value)
    if isinstance(rule, WholeOrAuto):
        return value if value == "auto" else int(value)
    return float(value) if isinstance(rule, Number) else value
