"""`make run`: seconds from a warm environment to ready, memory and processor time of all processes, size on disk."""

import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.e2e.system import running_system


def _processes(root: int) -> list[psutil.Process]:
    return [psutil.Process(root), *psutil.Process(root).children(recursive=True)]


def _cpu_s(processes: list[psutil.Process]) -> list[float]:
    return [sum(process.cpu_times()[:2]) for process in processes]


def _size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main(minutes: float = 10) -> None:
    """Print the figures of an idle system over some minutes."""
    with tempfile.TemporaryDirectory(prefix="crossfill-bench-") as folder:
        home = Path(folder) / "home"
        started = time.perf_counter()
        with running_system(home) as system:
            print(f"ready after {time.perf_counter() - started:.1f} s")
            time.sleep(5)
            processes = _processes(system.process.pid)
            before, begun = _cpu_s(processes), time.perf_counter()
            for _ in range(max(1, round(minutes))):
                time.sleep(min(60, minutes * 60))
                print(f"state folder {_size_mb(home):.1f} MB")
            took_s = time.perf_counter() - begun
            shares = [(after - earlier) / took_s for earlier, after in zip(before, _cpu_s(processes), strict=True)]
            memory = [process.memory_full_info() for process in processes]
            rss, pss = (sum(getattr(each, name, 0) for each in memory) / 1e6 for name in ("rss", "pss"))
            total = sum(shares)
            print(f"{len(processes)} processes: {total:.1%} of one core, RSS {rss:,.0f} MB, PSS {pss:,.0f} MB together")
            for process, share, each in zip(processes, shares, memory, strict=True):
                print(f"  {share:6.1%} {each.rss / 1e6:6.0f} MB  {' '.join(process.cmdline())[:100]}")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
