"""Columns of a released table: what is in them, as Arrow, the Hugging Face hub and people are told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

Kind = Literal["string", "bool", "int8", "int16", "int32", "float32", "float64", "image", "audio"]
ARROW_TYPES: Mapping[str, pa.DataType] = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    "audio": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
}
"""By kind, of one value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a config."""

    name: str
    kind: Kind
    """Of one number; `image` and `audio` are structs of bytes and path, as Hugging Face has it."""
    shape: tuple[int, ...]
    """() for one value, (K,) for a vector, (V, 3) for a mesh."""
    unit: str
    """Empty where there is none."""
    about: str

    @property
    def arrow_type(self) -> pa.DataType:
        """Nested fixed-size lists, the innermost last."""
        kind = ARROW_TYPES[self.kind]
        for size in reversed(self.shape):
            kind = pa.list_(kind, size)
        return kind

    @property
    def is_numeric(self) -> bool:
        """Whether mean and spread mean something: coded categories and flags are counted instead."""
        return self.kind in ("float32", "int32")


def arrow_schema(columns: Sequence[Column]) -> pa.Schema:
    """Arrow schema of a table with these columns."""
    return pa.schema([(column.name, column.arrow_type) for column in columns])


def schema_difference(expected: pa.Schema, found: pa.Schema) -> str:
    """In what way `found` is not `expected`, which it must not equal."""
    wrong = [f"{f.name} is {found.field(f.name).type} instead of {f.type}" for f in expected
             if f.name in found.names and found.field(f.name).type != f.type]  # fmt: skip
    wrong += [f"{name} is missing" for name in expected.names if name not in found.names]
    wrong += [f"{name} is unknown" for name in found.names if name not in expected.names]
    return ", ".join(wrong) or f"their order is {', '.join(found.names)}"


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether values hold bytes, as pictures and sound are stored."""
    if pa.types.is_nested(kind):
        return any(holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def is_mesh(kind: pa.DataType) -> bool:
    """Whether a value is a list of lists, as meshes are stored."""
    return pa.types.is_nested(kind) and any(pa.types.is_nested(kind.field(i).type) for i in range(kind.num_fields))
