"""What the cards of all released datasets have in common, as the Hugging Face hub reads it."""

from ecavatar.storage.columns import Column

CITATION = "ECAvatar, ACM Multimedia 2024, doi:10.1145/3664647.3681328"
URL = "https://doi.org/10.1145/3664647.3681328"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def size_category(rows: int) -> str:
    """The hub's word for so many rows."""
    return next((name for limit, name in _SIZES if rows < limit), "n>1M")


def features_yaml(config: str, columns: tuple[Column, ...]) -> str:
    """One entry of dataset_info: meshes as array2_d, without which `datasets` reads them a hundred times slower."""
    lines = [f"- config_name: {config}", "  features:"]
    for column in columns:
        if len(column.shape) == 2:
            lines += [f"  - name: {column.name}", "    dtype:",
                      f"      array2_d: {{shape: {list(column.shape)}, dtype: {column.kind}}}"]  # fmt: skip
        elif column.shape:
            lines.append(f"  - {{name: {column.name}, list: {column.kind}, length: {column.shape[0]}}}")
        else:
            lines.append(f"  - {{name: {column.name}, dtype: {column.kind}}}")
    return "\n".join(lines)


def column_row(column: Column) -> str:
    """One line of a table of columns: name, kind, unit, what."""
    size = "".join(f"[{n}]" for n in column.shape)
    return f"| `{column.name}` | {column.kind}{size} | {column.unit} | {column.about} |"
