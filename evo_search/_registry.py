"""Objects by name: those of this package, and those that other distributions register as entry points.

The look-up behind ``get_space`` and ``get_strategy``. It knows no space and no strategy; nothing is imported before its name
is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from cg.errors import CGError

T = TypeVar("T")


@dataclass(frozen=True)
class Registry(Generic[T]):
    """Makers of objects, by name.

    Attributes:
        what: one object in words, for messages.
        group: entry points whose values are makers; a name of ``built_in`` cannot be taken over.
        built_in: name -> ``module:maker``.
        kind: the class that what a registered maker gives must have.
        error: the class of the errors.
    """

    what: str
    group: str
    built_in: Mapping[str, str]
    kind: type
    error: type[CGError]

    def _registered(self) -> dict[str, EntryPoint]:
        return {e.name: e for e in entry_points(group=self.group)}

    def names(self) -> list[str]:
        """Sorted names that ``make`` accepts."""
        return sorted({*self.built_in, *self._registered()})

    def make(self, name: str, **arguments: Any) -> T:
        """A new object called ``name``; ``arguments`` go to its maker.

        Raises ``error`` for an unknown name, and for a registered one that cannot be loaded or gives something else than a
        ``kind``. What a built-in maker raises passes through.
        """
        if name in self.built_in:
            module, _, attribute = self.built_in[name].partition(":")
            built: T = getattr(import_module(module), attribute)(**arguments)
            return built
        entry = self._registered().get(name)
        if entry is None:
            known = self.names()
            close = get_close_matches(name, known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise self.error(f"there is no {self.what} {name!r}{hint}. Known: {', '.join(known)}")
        try:
            made: T = entry.load()(**arguments)
        except Exception as error:
            raise self.error(f"{self.what} {name!r} ({entry.value!r}) cannot be loaded: {error!r}") from error
        if not isinstance(made, self.kind):
            raise self.error(f"{self.what} {name!r} ({entry.value!r}) gives a {type(made).__name__}, not a "
                             f"{self.kind.__name__}")
        return made
