"""Whose a token is, asked by many requests at once."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from api import tokens
from api.tokens import Tokens
from models.store.database import Database, StoreUnavailableError
from models.store.owners import Owner, ensure_owner


@contextmanager
def queries(database: Database) -> Iterator[list[str]]:
    """Note every query that is put to a database."""
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT"):
            found.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


async def ask(known: Tokens, count: int, token: str = "secret") -> list[Owner | BaseException | None]:
    return await asyncio.gather(*(known.owner_of(token) for _ in range(count)), return_exceptions=True)


def test_many_requests_with_one_token_ask_the_database_once(database: Database) -> None:
    """However many requests come with the same token at once, the database is asked once, and all have the answer."""
    with queries(database) as found:
        assert asyncio.run(ask(Tokens(database), 100)) == [Owner("local", "admin")] * 100
    assert len(found) == 1


@pytest.mark.parametrize(("kept_s", "then"), [(60.0, Owner("local", "admin")), (0.0, None)])
def test_what_the_database_said_is_believed_for_a_while(
    database: Database, monkeypatch: pytest.MonkeyPatch, kept_s: float, then: Owner | None
) -> None:
    """A token that was taken from its owner stays good for as long as what is known of it is kept."""
    monkeypatch.setattr(tokens, "KEPT_S", kept_s)

    async def lose() -> list[Owner | BaseException | None]:
        known = Tokens(database)
        before = await ask(known, 1)
        ensure_owner(database, "local", "admin", "another token")
        return [*before, *await ask(known, 1)]

    assert asyncio.run(lose()) == [Owner("local", "admin"), then]


def test_a_request_that_is_cut_off_takes_nobody_s_answer_away(database: Database) -> None:
    """The request that asked the database first may go; those that wait with it have their answer."""

    async def cut_off() -> list[Owner | BaseException | None]:
        known = Tokens(database)
        first = asyncio.create_task(known.owner_of("secret"))
        await asyncio.sleep(0)
        others = asyncio.create_task(ask(known, 3))
        await asyncio.sleep(0)
        first.cancel()
        return await others

    assert asyncio.run(cut_off()) == [Owner("local", "admin")] * 3


def test_a_database_that_is_down_is_told_to_all_and_asked_again(database: Database) -> None:
    """Where the database does not answer, every request is told so, and the next one asks again."""

    async def down() -> list[Owner | BaseException | None]:
        known = Tokens(Database.open("sqlite:////nowhere/at/all.db"))
        told = await ask(known, 3)
        known._database = database
        return [*told, *await ask(known, 1)]

    *told, now = asyncio.run(down())
    assert [type(each) for each in told] == [StoreUnavailableError] * 3
    assert now == Owner("local", "admin")
