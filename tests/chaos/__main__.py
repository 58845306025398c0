"""`python -m tests.chaos --seed N --database sqlite|postgresql --for 60`: run it, and say what was found."""

import argparse
import sys
import time

from tests.chaos.run import PACE, run


def main() -> int:
    """Run each seed on each database; return 1 where one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seed", type=int, default=None, help="the first seed; without it one of the clock")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds")
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--for", dest="duration_s", type=float, default=60.0, help="seconds of load")
    parser.add_argument("--pace", type=float, default=PACE, help="requests a second and client")
    parser.add_argument("--impatient", action="store_true", help="leave what killed workers held to its timeout")
    arguments = parser.parse_args()
    first = int(time.time()) % 1_000_000 if arguments.seed is None else arguments.seed
    databases = ("sqlite", "postgresql") if arguments.database == "both" else (arguments.database,)
    failed = []
    for seed in range(first, first + arguments.seeds):
        for database in databases:
            sys.stdout.write(f"\nseed {seed} on {database}, {arguments.duration_s:.0f} s of load\n")
            report = run(
                seed, database, arguments.duration_s, pace=arguments.pace, patient=not arguments.impatient, say=_say
            )
            _say(str(report))
            if report.failed:
                failed.append(
                    f"python -m tests.chaos --seed {seed} --database {database} --for {arguments.duration_s:g}"
                )
    for command in failed:
        _say(f"again: {command}")
    return 1 if failed else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
