"""Run every measurement, one after the other: `python -m bench`, or `python -m bench NAME ...` for some."""

import argparse
import subprocess
import sys
from pathlib import Path

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))


def main() -> None:
    """Run the named measurements and exit: 0 all done, 1 one failed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure, print, and record under reports/bench/.",
        epilog="example: python -m bench align",
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(NAMES)} (default: all)")
    names = parser.parse_args().names or NAMES
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"no measurement called {', '.join(unknown)}; there are: {', '.join(NAMES)}.")
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode:
            failed.append(name)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
