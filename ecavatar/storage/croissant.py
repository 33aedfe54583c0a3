"""croissant.json: a release described for machines, every data file with its checksum.

Source:
    MLCommons, Croissant format specification 1.0 and its Responsible AI vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ecavatar.storage.card import CITATION, URL
from ecavatar.storage.columns import Column
from ecavatar.storage.files import sha256_file

_ENCODINGS = {".parquet": "application/x-parquet", ".json": "application/json", ".npz": "application/zip"}
_TERMS = (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format",
    "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
    "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
_CONTEXT = {name: f"cr:{name}" for name in _TERMS} | {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "sc": "https://schema.org/",
}
_TYPES = {
    "string": "sc:Text", "bool": "sc:Boolean", "int8": "cr:Int8", "int16": "cr:Int16", "int32": "cr:Int32",
    "float32": "cr:Float32", "float64": "cr:Float64", "image": "sc:ImageObject", "audio": "sc:AudioObject",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSet:
    """A table that lies in one or more Parquet files."""

    name: str
    files: str
    """Pattern of their paths in the release."""
    key: tuple[str, ...]
    """Columns that tell one row from another."""
    columns: tuple[Column, ...]


def croissant(
    directory: Path,
    *,
    name: str,
    description: str,
    licence: str,
    version: str,
    files: Sequence[Path],
    records: Sequence[RecordSet],
    responsible: Mapping[str, str],
) -> dict[str, object]:
    """Content of croissant.json.

    No publication date: equal data give equal bytes. Whoever publishes adds `datePublished`.

    Args:
        directory: where the files lie.
        name: of the dataset.
        description: one sentence.
        licence: its address.
        version: of the schema.
        files: to list with their checksums, relative to `directory`.
        records: its tables.
        responsible: entries of the Responsible AI vocabulary.

    Raises:
        AssetMissingError: a file is missing.
    """
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": name,
        "description": description,
        "license": licence,
        "url": URL,
        "version": version,
        "citeAs": CITATION,
        "distribution": [*(_file(directory, path) for path in files), *(_file_set(record) for record in records)],
        "recordSet": [_record_set(record) for record in records],
        **responsible,
    }


def one_line(text: str) -> str:
    """A text of several lines or bullets as one line."""
    return " ".join(text.replace("\n- ", " ").removeprefix("- ").split())


def _file(directory: Path, path: Path) -> dict[str, object]:
    return {
        "@type": "cr:FileObject",
        "@id": path.as_posix(),
        "name": path.as_posix(),
        "contentUrl": path.as_posix(),
        "encodingFormat": _ENCODINGS[path.suffix],
        "sha256": sha256_file(directory / path),
    }


def _file_set(record: RecordSet) -> dict[str, object]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{record.name}-files",
        "name": f"{record.name}-files",
        "encodingFormat": _ENCODINGS[".parquet"],
        "includes": record.files,
    }


def _record_set(record: RecordSet) -> dict[str, object]:
    keys = [{"@id": f"{record.name}/{name}"} for name in record.key]
    return {
        "@type": "cr:RecordSet",
        "@id": record.name,
        "name": record.name,
        "key": keys[0] if len(keys) == 1 else keys,
        "field": [_field(record.name, column) for column in record.columns],
    }


def _field(table: str, column: Column) -> dict[str, object]:
    extract: dict[str, object] = {"fileSet": {"@id": f"{table}-files"}, "extract": {"column": column.name}}
    if column.kind in ("image", "audio"):
        extract["transform"] = {"jsonPath": "bytes"}
    field = {
        "@type": "cr:Field",
        "@id": f"{table}/{column.name}",
        "name": column.name,
        "description": f"{column.about}; {column.unit}" if column.unit else column.about,
        "dataType": _TYPES[column.kind],
        "source": extract,
    }
    if column.shape:
        field |= {"cr:isArray": True, "cr:arrayShape": ",".join(map(str, column.shape))}
    return field
