"""Pydantic's types in payloads: found by the hints, written and read back by pydantic itself, in its JSON mode.

Nothing here imports pydantic before a hint or a value is one of its own. Models are written by the names of their
fields and read by name or alias; computed fields are left out. In a call what was not set is left out, too, as far
as the reader's defaults then give an equal model: so `model_dump(exclude_unset=True)` says the same in the handler.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, TypeGuard

if typing.TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

OLDEST = (2, 11)  # the first that reads a model by the names of its fields whatever its aliases are


class ModelMisfit(ValueError):
    """What pydantic says against a value; `path` is where, below the value: `.lines[0].price`."""

    def __init__(self, text: str, path: str = "") -> None:
        super().__init__(text)
        self.path = path


class StandIn(type):
    """The type of classes that stand for a whole hint of which only pydantic knows how it is read."""

    adapter: TypeAdapter[Any]

    def __instancecheck__(cls, instance: object) -> bool:
        return True


def is_own(kind: object) -> TypeGuard[type]:
    """Whether this class is one that `read` understands."""
    return isinstance(kind, StandIn) or _is_pydantic(kind)


def is_model(value: object) -> bool:
    """Whether `value` is an instance of a pydantic model (or dataclass)."""
    return hasattr(type(value), "__pydantic_validator__")


def fields_of(value: object) -> Mapping[str, object] | None:
    """What a model holds, by name, extra values included; None if `value` is no model."""
    names = getattr(type(value), "__pydantic_fields__", None)
    if names is None or dataclasses.is_dataclass(value):
        return None
    held = vars(value)
    return {name: held[name] for name in names if name in held} | (getattr(value, "model_extra", None) or {})


def portable(hint: Any) -> Any:
    """`hint` with a stand-in for each part that pydantic alone can read: unions of models, its own annotations,
    its dataclasses, types like EmailStr that have no instances. Models stay as they are.

    TypeError if pydantic cannot read such a part, or is too old.
    """
    if _is_pydantic(hint):
        adapter = _adapter(hint)  # made here, so that a definition that cannot be used is found with the hint
        return hint if _has_instances(hint) else _stand_in(hint, adapter)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is None or origin is typing.Literal:
        return hint
    if origin is typing.Annotated:
        return _portable_annotated(hint)
    if origin in (typing.Union, types.UnionType):
        return _portable_union(hint)
    parts = tuple(portable(part) for part in args)
    if parts == args or any(isinstance(part, list) for part in args):  # a list is a Callable's: not ours to judge
        return hint
    return hint.copy_with(parts) if hasattr(hint, "copy_with") else origin[parts]


def read(kind: type, value: object) -> Any:
    """The plain JSON `value` as an instance of one of pydantic's types. ModelMisfit if it does not fit."""
    from pydantic import ValidationError
    from pydantic_core import to_json

    adapter = kind.adapter if isinstance(kind, StandIn) else _adapter(kind)
    try:
        return adapter.validate_json(to_json(value), by_alias=True, by_name=True)
    except ValidationError as error:
        raise _misfit(error) from error


def write(value: object, *, sparse: bool) -> bytes | None:
    """A model as JSON; None if `value` is no type of pydantic's. ModelMisfit if pydantic cannot write it.

    `sparse`: without what was not set, where an equal model is read back from the rest.
    """
    kind: Any = type(value)
    serializer: Any = getattr(kind, "__pydantic_serializer__", None)
    if serializer is None:
        if not _is_pydantic(kind):
            return None
        serializer = _adapter(kind).serializer
    write_json = functools.partial(serializer.to_json, value, by_alias=False, round_trip=True, warnings="error")
    try:
        full: bytes = write_json()
        return _sparse(value, full, write_json(exclude_unset=True)) if sparse else full
    except Exception as error:
        raise ModelMisfit(f"pydantic cannot write it as JSON: {_one_line(error)}") from error


def _sparse(value: object, full: bytes, short: bytes) -> bytes:
    if short == full:
        return full
    try:
        kind: Any = type(value)
        same = bool(_adapter(kind).validate_json(short, by_alias=True, by_name=True) == value)
    except Exception:  # noqa: BLE001  # a validator's own code runs here; the whole says what is wrong
        same = False
    return short if same else full


# ---- which hints are pydantic's


def _is_pydantic(kind: object) -> TypeGuard[type]:
    if not inspect.isclass(kind) or isinstance(kind, types.GenericAlias):  # list[int] says that it is a class
        return False
    if hasattr(kind, "__pydantic_validator__"):
        return True
    known = issubclass(kind, Enum) or dataclasses.is_dataclass(kind) or hasattr(kind, "__struct_fields__")
    return hasattr(kind, "__get_pydantic_core_schema__") and not known


def _has_instances(kind: type[Any]) -> bool:
    """Whether what is read is an instance of `kind`, which EmailStr's texts are not; and no dataclass, which the
    codec would read without pydantic's validators.
    """
    if dataclasses.is_dataclass(kind):
        return False
    return hasattr(kind, "__pydantic_validator__") or hasattr(kind, "__pydantic_serializer__")


def _portable_annotated(hint: Any) -> Any:
    whole = any(_is_pydantics_word(word) for word in hint.__metadata__)
    if whole:
        return _stand_in(hint, _make_adapter(hint))
    part = portable(hint.__origin__)
    return hint if part is hint.__origin__ else typing.Annotated[(part, *hint.__metadata__)]


def _is_pydantics_word(word: object) -> bool:
    """Pydantic's own annotation, or one that only pydantic, where it is in use, enforces (`PositiveInt`'s Gt)."""
    package = type(word).__module__.partition(".")[0]
    return package == "pydantic" or (package == "annotated_types" and "pydantic" in sys.modules)


def _portable_union(hint: Any) -> Any:
    members = [part for part in typing.get_args(hint) if part is not types.NoneType]
    if not any(_within(part) for part in members):
        return hint
    if len(members) == 1:
        return typing.Optional[portable(members[0])]  # noqa: UP045  # a stand-in's class may not know `|`
    return _stand_in(hint, _make_adapter(hint))


def _within(hint: Any) -> bool:
    """Whether pydantic has a part in this hint; the fields of classes are not looked at."""
    if _is_pydantic(hint) or (typing.get_origin(hint) is typing.Annotated and portable(hint) is not hint):
        return True
    return any(_within(part) for part in typing.get_args(hint))


def _stand_in(hint: Any, adapter: TypeAdapter[Any]) -> type:
    return StandIn(getattr(hint, "__name__", "stand-in"), (), {"adapter": adapter})


@functools.lru_cache(maxsize=1024)
def _adapter(kind: type) -> TypeAdapter[Any]:
    return _make_adapter(kind)


def _make_adapter(hint: Any) -> TypeAdapter[Any]:
    try:
        import pydantic
    except ImportError as error:
        raise TypeError(f"it needs pydantic, which cannot be imported: {error}") from error
    if tuple(int(part) for part in pydantic.VERSION.split(".")[:2]) < OLDEST:
        raise TypeError(f"it needs pydantic {'.'.join(map(str, OLDEST))} or newer, this is {pydantic.VERSION}")
    # A model has a configuration of its own; all else reads bytes as the codec writes them.
    config: pydantic.ConfigDict = {"val_json_bytes": "base64"}
    try:
        return pydantic.TypeAdapter(hint, config=None if hasattr(hint, "__pydantic_validator__") else config)
    except Exception as error:
        raise TypeError(f"pydantic cannot read it: {_one_line(error)}") from error


# ---- what pydantic says


def _misfit(error: ValidationError) -> ModelMisfit:
    first, *more = error.errors(include_url=False, include_context=False, include_input=False)
    others = f" (and {len(more)} more)" if more else ""
    return ModelMisfit(f"{first['msg']}{others}", "".join(_steps(first["loc"])))


def _steps(path: tuple[int | str, ...]) -> Iterator[str]:
    for step in path:
        yield f"[{step}]" if isinstance(step, int) else f".{step}"


def _one_line(error: Exception) -> str:
    text = str(error).partition("For further information")[0]
    return " ".join(text.split()) or type(error).__name__
