"""The archive's files: written whole or not at all, listed by what they may tell of, and deleted when they are old.

A file that cannot be read is named and left where it is; whoever reads goes on without it.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Self
from uuid import uuid4

import fsspec
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pyarrow import ArrowException

from models.archive.layout import (
    SUFFIX,
    Entry,
    File,
    Kind,
    Series,
    day_of,
    file_at,
    name_of,
    value_of,
)
from models.domain.errors import CrossfillError

PART_ROWS = 65_536  # are held at a time
OPTIONS = {"compression": "zstd", "store_decimal_as_integer": True}


class ArchiveError(CrossfillError):
    """The archive cannot be reached, or takes nothing more."""

    retryable = True

    def __init__(self, url: str, cause: Exception) -> None:
        super().__init__(f"the archive {url} cannot be used: {cause or repr(cause)}")
        self.url = url


class Archive:
    """One market's files under a folder or any fsspec URL. Nothing is connected before it is used."""

    def __init__(self, url: str, market: str) -> None:
        self.url = url
        self.market = market
        self._root = f"/market={market}"
        self._made: tuple[Any, str] | None = None

    @property
    def filesystem(self) -> Any:  # noqa: ANN401 -- fsspec carries no types
        """The fsspec filesystem. Raises ArchiveError."""
        return self._opened()[0]

    def _opened(self) -> tuple[Any, str]:
        if self._made is None:
            try:
                filesystem, path = fsspec.core.url_to_fs(self.url)
            except (OSError, ValueError, ImportError) as error:
                raise ArchiveError(self.url, error) from error
            self._made = filesystem, str(path).rstrip("/") + self._root
        return self._made

    @property
    def local(self) -> bool:
        """Whether it is a folder of this machine."""
        return isinstance(self.filesystem, LocalFileSystem)

    def address(self, path: str) -> str:
        """Return a file's path as DuckDB takes it, which knows other filesystems by their protocol."""
        return path if self.local else str(self.filesystem.unstrip_protocol(path))

    def write(self, series: Series, table: Any, first: Entry, last: Entry) -> File:  # noqa: ANN401 -- pyarrow carries no types
        """Write a table of one series, all of whose entries are of one day. Raises ArchiveError.

        It is there whole or not at all, also after a power cut; another file of the same range is replaced.
        """
        with self.writing(series, first, last) as writing:
            pq.write_table(table, writing.stream, row_group_size=PART_ROWS, **OPTIONS)
        return writing.file

    def writing(self, series: Series, first: Entry, last: Entry) -> "Writing":
        """Return a context manager whose stream becomes the file when it ends without an error."""
        filesystem, root = self._opened()
        folder = f"{root}/{series.folder}/day={day_of(first.ms)}"
        path = f"{folder}/{name_of(series.kind, first, last)}"
        return Writing(self, filesystem, folder, File(path, series.kind, series.venue, first, last))

    def series(self, kind: Kind) -> list[Series]:
        """Return every series of a kind that there is anything of. Raises ArchiveError."""
        _, root = self._opened()
        venues = self._folders(f"{root}/{kind}")
        if kind is Kind.SPANS:
            return [Series(kind, value_of(venue)) for venue in venues]
        return [Series(kind, value_of(venue), value_of(pair)) for venue in venues for pair in self._folders(venue)]

    def venues(self, kind: Kind) -> list[str]:
        """Return the venues of which there is a folder. Raises ArchiveError."""
        return [value_of(folder) for folder in self._folders(f"{self._opened()[1]}/{kind}")]

    def days(self, series: Series) -> list[str]:
        """Return the days of a series, in order. Raises ArchiveError."""
        return sorted(map(value_of, self._folders(f"{self._opened()[1]}/{series.folder}")))

    def of_day(self, series: Series, day: str) -> list[File]:
        """Return the files of one day, in the order of their first entries. Raises ArchiveError."""
        listed = self._listed(f"{self._opened()[1]}/{series.folder}/day={day}")
        found = (file_at(each["name"], series.venue, each.get("size") or 0) for each in listed)
        return sorted((file for file in found if file is not None), key=lambda file: (file.first, file.last))

    def last(self, series: Series) -> Entry | None:
        """Return the last entry that is archived of a series, or None. Raises ArchiveError."""
        for day in reversed(self.days(series)):
            if files := self.of_day(series, day):
                return max(file.last for file in files)
        return None

    def between(self, series: Series, first_ms: int, last_ms: int) -> list[File]:
        """Return the files that hold entries of a range, both ends included. Raises ArchiveError."""
        first_day, last_day = day_of(max(0, first_ms)), day_of(last_ms)
        return [
            file
            for day in self.days(series)
            if first_day <= day <= last_day
            for file in self.of_day(series, day)
            if file.last.ms >= first_ms and file.first.ms <= last_ms
        ]

    def delete(self, files: Iterable[File]) -> None:
        """Delete files; one that is gone is no error. Raises ArchiveError."""
        try:
            for file in files:
                with suppress(FileNotFoundError):
                    self.filesystem.rm_file(file.path)
        except OSError as error:
            raise ArchiveError(self.url, error) from error

    def delete_before(self, day: str) -> int:
        """Delete the days before one, and return how many folders went. Raises ArchiveError."""
        filesystem, root = self._opened()
        count = 0
        for series in (each for kind in Kind for each in self.series(kind)):
            for old in self.days(series):
                if old >= day:
                    break
                try:
                    filesystem.rm(f"{root}/{series.folder}/day={old}", recursive=True)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise ArchiveError(self.url, error) from error
                count += 1
        return count

    def parts(self, file: File) -> Iterator[Any]:
        """Yield a file's rows in Arrow batches. Raises OSError and pyarrow's errors where it is broken or gone."""
        with self.filesystem.open(file.path, "rb") as stream, pq.ParquetFile(stream) as parquet:
            yield from parquet.iter_batches(PART_ROWS)

    def footer(self, file: File) -> Any:  # noqa: ANN401 -- pyarrow carries no types
        """Return a file's metadata. Raises OSError and pyarrow's errors likewise."""
        with self.filesystem.open(file.path, "rb") as stream:
            return pq.read_metadata(stream)

    def broken(self, file: File) -> str | None:
        """Return why a file cannot be read from its beginning to its end, or None; one that is gone is not broken."""
        try:
            for _ in self.parts(file):
                pass
        except FileNotFoundError:
            return None
        except (OSError, ArrowException) as error:
            return str(error).splitlines()[0] if str(error) else repr(error)
        return None

    def _listed(self, folder: str) -> list[dict[str, Any]]:
        filesystem = self.filesystem
        try:
            filesystem.invalidate_cache(folder)
            return list(filesystem.ls(folder, detail=True))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ArchiveError(self.url, error) from error

    def _folders(self, folder: str) -> list[str]:
        return sorted(each["name"] for each in self._listed(folder) if each["type"] == "directory")


class Writing:
    """A file that is not there before it is whole."""

    def __init__(self, archive: Archive, filesystem: Any, folder: str, file: File) -> None:  # noqa: ANN401 -- fsspec
        self.file = file
        self.stream: Any = None
        self._archive = archive
        self._filesystem = filesystem
        self._folder = folder
        # A name that no reader takes for one of ours.
        self._temporary = f"{folder}/.{uuid4().hex}{SUFFIX}.tmp"

    def __enter__(self) -> Self:
        try:
            self._filesystem.makedirs(self._folder, exist_ok=True)
            self.stream = self._filesystem.open(self._temporary, "wb")
        except OSError as error:
            raise ArchiveError(self._archive.url, error) from error
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self.stream.flush()
                if self._archive.local:
                    os.fsync(self.stream.fileno())
            self.stream.close()
            if error is None:
                self._rename()
        except OSError as failure:
            self._forget()
            raise ArchiveError(self._archive.url, failure) from failure
        if error is not None:
            self._forget()
            if isinstance(error, OSError):
                raise ArchiveError(self._archive.url, error) from error

    def _rename(self) -> None:
        if self._archive.local:
            os.replace(self._temporary, self.file.path)  # noqa: PTH105 -- fsspec's paths are texts
        else:
            self._filesystem.mv(self._temporary, self.file.path)

    def _forget(self) -> None:
        with suppress(OSError):
            self._filesystem.rm_file(self._temporary)
