from models.store.database import Database
from models.store.owners import Owner, ensure_owner, owner_of_token
from models.store.tables import owners


def test_an_owner_is_found_by_token(database: Database) -> None:
    """A new token takes the place of the old one, and the owner's events go on counting."""
    ensure_owner(database, "bob", "admin", "new")
    with database.read() as connection:
        assert owner_of_token(connection, "token of ann") == Owner("ann", "admin")
        assert owner_of_token(connection, "token of bob") is None
        assert owner_of_token(connection, "new") == Owner("bob", "admin")
        assert owner_of_token(connection, "") is None


def test_a_token_is_not_stored(database: Database) -> None:
    """The database has its hash only."""
    with database.read() as connection:
        stored = connection.execute(owners.select()).all()
    assert not any("token of" in str(value) for row in stored for value in row)
