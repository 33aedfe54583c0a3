"""Which source files decide the bytes of each stage, read off the imports; keeps dvc.yaml's lists of code true.

    python -m flows.code_deps            say what is wrong with the lists (exit code 2 when something is)
    python -m flows.code_deps --write    put the lists right

A stage depends on its flow's module, on the library modules that the flow's own functions reach, on what those import,
and on the package data that they name. So a change in one room reruns the stages that use it and no others.
"""

import argparse
import ast
import functools
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from ecavatar.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent

NOT_DECIDING = frozenset(
    {
        "ecavatar/errors.py",  # what is said when nothing is written
        "ecavatar/config.py",  # parses numbers; dvc.yaml tracks the numbers themselves
        "flows/_run.py",  # starts, retries and reports
        "flows/paths.py",  # dvc.yaml names the same paths as deps and outs
    }
)
"""Files that every stage uses and that cannot change its bytes; listing them would rerun everything for a docstring."""

_CODE = re.compile(r"      - (ecavatar|flows)/\S+\n")
_STAGE = re.compile(r"  (\w+):\n")
_COMMAND = re.compile(r"python -m flows\.(\w+) (\w+)")


def code_deps(module: str, stage: str) -> list[str]:
    """Files that decide the bytes of flow `stage` in flows/`module`.py, relative to the repository, sorted.

    Raises:
        ConfigError: there is no such module, or no function of that name in it.
    """
    path = ROOT / "flows" / f"{module}.py"
    if not path.is_file():
        raise ConfigError(f"dvc.yaml names flows.{module}, and {path.relative_to(ROOT)} does not exist.")
    found = {path}
    nodes = reached_code(module, stage)
    imports = _top_level(_tree(path))[1]
    waiting = [imports[node.id] for node in nodes if isinstance(node, ast.Name) and node.id in imports]
    waiting += [file for node in nodes if isinstance(node, ast.stmt) for file in _targets(node).values()]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting.extend(_imported(file))
    data = {resource for file in found for resource in _named_data(file)}
    names = {file.relative_to(ROOT).as_posix() for file in found | data}
    return sorted(names - NOT_DECIDING)


def stages(pipeline: str) -> dict[str, tuple[str, str]]:
    """Name of each stage in a dvc.yaml text -> (flow module, flow name), as its command says."""
    return {name: match.groups() for name, body in _bodies(pipeline) if (match := _COMMAND.search(body))}  # type: ignore[misc]


def listed(pipeline: str, stage: str) -> list[str]:
    """The code that a dvc.yaml text lists for `stage`, in its order."""
    body = dict(_bodies(pipeline))[stage]
    return [match.group().strip().removeprefix("- ") for match in _CODE.finditer(body)]


def put_right(pipeline: str) -> str:
    """The dvc.yaml text with every stage's list of code as it should be, at the top of its deps."""
    wanted = {name: code_deps(*command) for name, command in stages(pipeline).items()}
    for name, body in _bodies(pipeline):
        if name in wanted:
            lines = "".join(f"      - {file}\n" for file in wanted[name])
            new = _CODE.sub("", body).replace("    deps:\n", f"    deps:\n{lines}", 1)
            pipeline = pipeline.replace(body, new, 1)
    return pipeline


def main() -> None:
    """Compare or rewrite; exit code 2 when the lists are wrong."""
    parser = argparse.ArgumentParser(
        description="Lists of code in dvc.yaml.", epilog="example: python -m flows.code_deps"
    )
    parser.add_argument("--write", action="store_true", help="rewrite dvc.yaml")
    write = parser.parse_args().write
    path = ROOT / "dvc.yaml"
    pipeline = path.read_text(encoding="utf-8")
    new = put_right(pipeline)
    if write and new != pipeline:
        path.write_text(new, encoding="utf-8")
        print("dvc.yaml: lists of code rewritten.")
    elif new != pipeline:
        print("error: dvc.yaml's lists of code differ from the imports; run `make deps`.", file=sys.stderr)
        sys.exit(2)


def _bodies(pipeline: str) -> Iterator[tuple[str, str]]:
    """(name, text) of each stage: from its name's line to the next line that is indented less than its content."""
    section = pipeline.split("\nstages:\n", 1)[1]
    section = re.split(r"\n(?=\S)", section, maxsplit=1)[0] + "\n"
    starts = list(_STAGE.finditer(section))
    starts = [match for match in starts if match.start() == 0 or section[match.start() - 1] == "\n"]
    ends = [match.start() for match in starts[1:]] + [len(section)]
    for match, end in zip(starts, ends, strict=True):
        yield match.group(1), section[match.start() : end]


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _module_file(name: str) -> Path | None:
    base = ROOT.joinpath(*name.split("."))
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if name.split(".")[0] in ("ecavatar", "flows") and file.is_file():
            return file
    return None


def _targets(node: ast.stmt) -> dict[str, Path]:
    """Name bound by an import statement -> file of ours it comes from."""
    if isinstance(node, ast.Import):
        pairs = [(alias.asname or alias.name, _module_file(alias.name)) for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        pairs = [
            (alias.asname or alias.name, _module_file(f"{node.module}.{alias.name}") or _module_file(node.module))
            for alias in node.names
        ]
    else:
        pairs = []
    return {name: file for name, file in pairs if file is not None and file.name != "__init__.py"}


def _imported(path: Path) -> Iterable[Path]:
    return {file for node in ast.walk(_tree(path)) if isinstance(node, ast.stmt) for file in _targets(node).values()}


def reached_code(module: str, stage: str) -> list[ast.AST]:
    """Syntax nodes of the function `stage` in flows/`module`.py and of everything in that module that it uses.

    Raises:
        ConfigError: the module has no function of that name.
    """
    path = ROOT / "flows" / f"{module}.py"
    definitions, _ = _top_level(_tree(path))
    if stage not in definitions:
        raise ConfigError(f"dvc.yaml runs stage {stage!r}, and {path.name} defines no function of that name.")
    seen: dict[str, list[ast.AST]] = {}
    waiting = [stage]
    while waiting:
        name = waiting.pop()
        if name in definitions and name not in seen:
            seen[name] = list(ast.walk(definitions[name]))
            waiting.extend(node.id for node in seen[name] if isinstance(node, ast.Name))
    return [node for nodes in seen.values() for node in nodes]


def _top_level(tree: ast.Module) -> tuple[dict[str, ast.stmt], dict[str, Path]]:
    definitions: dict[str, ast.stmt] = {}
    imports: dict[str, Path] = {}
    for node in tree.body:
        imports.update(_targets(node))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            definitions[node.name] = node
        elif isinstance(node, ast.Assign):
            definitions.update({target.id: node for target in node.targets if isinstance(target, ast.Name)})
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            definitions[node.target.id] = node
    return definitions, imports


@functools.cache
def _package_data() -> dict[str, Path]:
    files = (path for path in (ROOT / "ecavatar").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.name: path for path in files if path.suffix not in (".py", ".md")}


def _named_data(path: Path) -> Iterable[Path]:
    texts = {
        node.value for node in ast.walk(_tree(path)) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    last_parts = {text.rsplit("/", 1)[-1] for text in texts if len(text) < 200}
    return {file for name, file in _package_data().items() if name in last_parts}


if __name__ == "__main__":
    main()
