"""Says hello in as many languages as greetings.txt knows."""

import json
import pathlib
import platform


def main() -> None:
    lines = pathlib.Path(__file__).with_name("greetings.txt").read_text("utf-8").splitlines()
    greetings = dict(line.split(" ", 1) for line in lines)
    print(json.dumps({"python": platform.python_version(), "greetings": greetings}, ensure_ascii=False))


if __name__ == "__main__":
    main()
