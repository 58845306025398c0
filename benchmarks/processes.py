"""What processes use: CPU seconds, and memory over a run."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from statistics import mean
from types import TracebackType
from typing import Self

import psutil

SAMPLE_S = 0.5


def family(process: psutil.Process) -> list[psutil.Process]:
    """Return a process and all of its children."""
    with suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


def cpu_s(process: psutil.Process) -> float:
    """Return the CPU seconds of a process, of its children and of those that have ended."""
    total = 0.0
    for each in family(process):
        with suppress(psutil.NoSuchProcess):
            total += sum(each.cpu_times()[:4])  # user, system, and both of the children that were waited for
    return total


def own_cpu_s(process: psutil.Process) -> float:
    """Return the CPU seconds of a process alone."""
    times = process.cpu_times()
    return float(times.user + times.system)


def program(process: psutil.Process) -> str:
    """Return the short name of a program: what follows `-m`, or the name of its binary."""
    words = process.cmdline()
    if "-m" in words:
        rest = words[words.index("-m") + 1 :]
        words = [each for each in rest if not each.startswith("-")]
        return " ".join(words[:2] if words[0] == "workers" else words[:1])
    return process.name()


def thirds(values: Sequence[float]) -> list[float]:
    """Return the mean of each third."""
    third = len(values) // 3
    return [mean(values[start : start + third]) for start in (0, third, 2 * third)]


class MemoryWatch:
    """Samples the RSS of processes, by name, in bytes, for as long as it is entered."""

    def __init__(self, processes: Mapping[str, psutil.Process]) -> None:
        self.samples: dict[str, list[float]] = {name: [] for name in processes}
        self._processes = processes
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End."""
        self._ended.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            for name, process in self._processes.items():
                with suppress(psutil.NoSuchProcess):
                    self.samples[name].append(process.memory_info().rss)


def named(processes: Iterable[psutil.Process]) -> dict[str, psutil.Process]:
    """Return processes by the names of their programs; of two with one name the second is told as a child."""
    found: dict[str, psutil.Process] = {}
    for process in processes:
        name = program(process)
        while name in found:
            name += ", child"
        found[name] = process
    return found
