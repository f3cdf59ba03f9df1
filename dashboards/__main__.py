"""Writes every dashboard beside this file. --check: only says whether they are up to date."""

import sys
from pathlib import Path

from dashboards.boards import boards
from dashboards.parts import text

FOLDER = Path(__file__).parent


def main(arguments: list[str]) -> int:
    """0 where all is written, or with --check up to date."""
    stale = []
    for name, board in boards().items():
        file, wanted = FOLDER / f"{name}.json", text(board)
        if not file.exists() or file.read_text() != wanted:
            stale.append(file.name)
            if "--check" not in arguments:
                file.write_text(wanted)
    print(f"{'stale' if '--check' in arguments else 'written'}: {', '.join(stale) or 'none'}")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
