"""croissant.json: the release described for machines, every data file with its checksum.

Source:
    MLCommons, Croissant format specification 1.0 and its Responsible AI vocabulary.
"""

from pathlib import Path

from ecavatar.emolib.card import CITATION, texts_of
from ecavatar.emolib.schema import SCHEMA_VERSION, STATS, TOPOLOGY, Column, EmolibInfo, Source
from ecavatar.storage.files import sha256_file

_PARQUET = "application/x-parquet"
_ENCODINGS = {STATS: "application/json", TOPOLOGY: "application/zip"}
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
    "float32": "cr:Float32", "image": "sc:ImageObject",
}  # fmt: skip
LICENCES: dict[Source, str] = {
    "affectnet": "http://mohammadmahoor.com/affectnet/",
    "sample": "https://creativecommons.org/publicdomain/zero/1.0/",
}
_URL = "https://doi.org/10.1145/3664647.3681328"


def croissant_json(directory: Path, info: EmolibInfo) -> dict[str, object]:
    """Content of croissant.json for the data files that lie in `directory`.

    No publication date: equal faces give equal bytes. Whoever publishes adds `datePublished`.

    Raises:
        AssetMissingError: a data file is missing.
    """
    files = [*info.data_files(), STATS, TOPOLOGY]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": texts_of(info).title,
        "description": f"{info.total} emotional faces as coefficients of the face model {info.basis}, by category and "
                       "intensity.",
        "license": LICENCES[info.source],
        "url": _URL,
        "version": SCHEMA_VERSION,
        "citeAs": CITATION,
        "distribution": [*(_file(directory, path) for path in files), *(_file_set(config) for config in info.columns)],
        "recordSet": [_record_set(config, columns) for config, columns in info.columns.items()],
        **_responsible(info),
    }  # fmt: skip


def _responsible(info: EmolibInfo) -> dict[str, str]:
    texts = texts_of(info)
    return {
        "rai:dataCollection": _line(texts.collection),
        "rai:dataLimitations": _line(texts.failures),
        "rai:dataUseCases": "Animating faces with a chosen emotion and intensity. Not for inferring what real people "
                            "feel, nor for identifying anyone.",
        "rai:personalSensitiveInformation": "Synthetic: none." if info.source == "sample" else
                                            "Shape coefficients are biometric; source_id names a photograph.",
    }  # fmt: skip


def _file(directory: Path, path: Path) -> dict[str, object]:
    return {
        "@type": "cr:FileObject",
        "@id": path.as_posix(),
        "name": path.as_posix(),
        "contentUrl": path.as_posix(),
        "encodingFormat": _ENCODINGS.get(path, _PARQUET),
        "sha256": sha256_file(directory / path),
    }


def _file_set(config: str) -> dict[str, object]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{config}-files",
        "name": f"{config}-files",
        "encodingFormat": _PARQUET,
        "includes": f"data/{config}/*.parquet",
    }


def _record_set(config: str, columns: tuple[Column, ...]) -> dict[str, object]:
    return {
        "@type": "cr:RecordSet",
        "@id": config,
        "name": config,
        "key": {"@id": f"{config}/item_id"},
        "field": [_field(config, column) for column in columns],
    }


def _field(config: str, column: Column) -> dict[str, object]:
    extract: dict[str, object] = {"fileSet": {"@id": f"{config}-files"}, "extract": {"column": column.name}}
    if column.kind == "image":
        extract["transform"] = {"jsonPath": "bytes"}
    field = {
        "@type": "cr:Field",
        "@id": f"{config}/{column.name}",
        "name": column.name,
        "description": f"{column.about}; {column.unit}" if column.unit else column.about,
        "dataType": _TYPES[column.kind],
        "source": extract,
    }
    if column.shape:
        field |= {"cr:isArray": True, "cr:arrayShape": ",".join(map(str, column.shape))}
    return field


def _line(text: str) -> str:
    return " ".join(text.replace("\n- ", " ").removeprefix("- ").split())
