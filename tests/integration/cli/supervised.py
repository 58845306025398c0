"""A supervisor of programs given as JSON, in a process of its own, as `crossfill up` runs one."""

import json
import os
import sys
from pathlib import Path

from cli.console import Console
from cli.leftovers import end_leftovers
from cli.supervisor import Program, Supervisor
from cli.up import _wanted


def main() -> int:
    """Run `{name: source}` of argv[2] with the state folder argv[1]."""
    home = Path(sys.argv[1])
    end_leftovers(home / "pids.json")
    (home / "alive").touch()
    wanted = _wanted()

    programs = [
        Program(
            name=name,
            command=source if isinstance(source, list) else (sys.executable, "-u", "-c", source),
            environment={**os.environ, "PYTHONUNBUFFERED": "1"},
            ready=(home / "first.ready").exists if name == "first" else None,
            ends_last=name == "first",
        )
        for name, source in json.loads(sys.argv[2]).items()
    ]
    return Supervisor(programs, home / "pids.json", Console(), lambda: wanted() and (home / "alive").exists()).run(
        lambda: "THE SCREEN\n"
    )


if __name__ == "__main__":
    sys.exit(main())
