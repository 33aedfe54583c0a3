"""croissant.json of an Emolib release."""

from pathlib import Path

from ecavatar.emolib.card import texts_of
from ecavatar.emolib.schema import SCHEMA_VERSION, STATS, TOPOLOGY, EmolibInfo, Source
from ecavatar.storage.croissant import RecordSet, croissant, one_line

LICENCES: dict[Source, str] = {
    "affectnet": "http://mohammadmahoor.com/affectnet/",
    "sample": "https://creativecommons.org/publicdomain/zero/1.0/",
}


def croissant_json(directory: Path, info: EmolibInfo) -> dict[str, object]:
    """Content of croissant.json for the data files that lie in `directory`.

    Raises:
        AssetMissingError: a data file is missing.
    """
    return croissant(
        directory,
        name=texts_of(info).title,
        description=f"{info.total} emotional faces as coefficients of the face model {info.basis}, by category and "
        "intensity.",
        licence=LICENCES[info.source],
        version=SCHEMA_VERSION,
        files=[*info.data_files(), STATS, TOPOLOGY],
        records=[
            RecordSet(name=config, files=f"data/{config}/*.parquet", key=("item_id",), columns=columns)
            for config, columns in info.columns.items()
        ],
        responsible=_responsible(info),
    )


def _responsible(info: EmolibInfo) -> dict[str, str]:
    texts = texts_of(info)
    return {
        "rai:dataCollection": one_line(texts.collection),
        "rai:dataLimitations": one_line(texts.failures),
        "rai:dataUseCases": "Animating faces with a chosen emotion and intensity. Not for inferring what real people "
                            "feel, nor for identifying anyone.",
        "rai:personalSensitiveInformation": "Synthetic: none." if info.source == "sample" else
                                            "Shape coefficients are biometric; source_id names a photograph.",
    }  # fmt: skip
