"""Laws of the three layers: arrows point one way, and each layer keeps to its own tools."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    "storage",
    "face",
    "mouth",
    "corpora",
    "reconstruction",
    "emolib",
    "vocateeth",
    "speech",
    "models",
    "training",
    "animation",
    "rendering",
    "evaluation",
    "sample",
)
LIBRARY = sorted((ROOT / "ecavatar").rglob("*.py"))
FLOWS = sorted((ROOT / "flows").glob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_room_is_a_known_one():
    rooms = {
        path.parent.name for path in LIBRARY if path.parent.parent.name == "ecavatar" and path.name == "__init__.py"
    }
    assert rooms == set(ROOMS)


def test_a_room_imports_only_rooms_above_it():
    for path in LIBRARY:
        room = path.relative_to(ROOT / "ecavatar").parts[0]
        if room in ROOMS:
            for name in imports(path):
                other = name.split(".")[1] if name.startswith("ecavatar.") else None
                if other in ROOMS:
                    assert ROOMS.index(other) <= ROOMS.index(room), f"{path} imports {name}"
                assert other not in ("cli", "assets", "doctor", "animate"), f"{path} imports {name}"


def test_the_library_knows_no_orchestrator():
    for path in LIBRARY:
        for name in imports(path):
            assert name.split(".")[0] not in ("prefect", "dvc", "flows"), f"{path} imports {name}"


def test_the_library_reads_no_params_file_and_no_environment_variables():
    for path in LIBRARY:
        text = path.read_text(encoding="utf-8")
        assert "os.getenv" not in text, path
        if path.name != "config.py":
            assert "safe_load" not in text, path


def test_nothing_is_unpickled_but_by_the_restricted_reader():
    for path in [*LIBRARY, *FLOWS]:
        text = path.read_text(encoding="utf-8")
        assert "allow_pickle=True" not in text, path
        assert "weights_only=False" not in text, path
        if path.name != "unpickle.py":
            assert "pickle" not in {name.split(".")[0] for name in imports(path)} or path.parent.name == "sample", path


def test_flows_do_not_chain_stages_and_cache_nothing():
    for path in FLOWS:
        text = path.read_text(encoding="utf-8")
        if path.name not in ("_run.py",):
            assert "cache_policy" not in text, path
        products = {other.stem for other in FLOWS} - {"__init__", "_run", "_server", "paths", "code_deps"}
        imported = {name.split(".")[1] for name in imports(path) if name.startswith("flows.")}
        assert not imported & products, f"{path.name} imports another product's stages"
