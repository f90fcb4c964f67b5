"""`python -m monitoring.grafana`: write every dashboard as a file that Grafana imports."""

import json
from pathlib import Path

from monitoring.grafana.boards import BOARDS

FOLDER = Path(__file__).parent


def texts() -> dict[str, str]:
    """The content of each file by its name."""
    return {
        f"{board.name}.json": json.dumps(board.as_json(), indent=1, ensure_ascii=False) + "\n"
        for board in BOARDS
    }


if __name__ == "__main__":
    for name, text in texts().items():
        (FOLDER / name).write_text(text)
