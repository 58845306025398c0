"""Cursors of lists: opaque to clients, so that what they hold may change."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

from starlette.requests import Request

from api.problems import bad_field


def encode(place: object) -> str:
    """Return a cursor for a place in a list."""
    return urlsafe_b64encode(str(place).encode()).decode().rstrip("=")


def decode(cursor: str | None) -> str | None:
    """Return the place of a cursor. Raises ProblemError for what is none."""
    if cursor is None:
        return None
    try:
        return urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except ValueError as error:
        raise bad_field("cursor", "is none of ours; take the one of the Link header") from error


def next_link(request: Request, cursor: str) -> dict[str, str]:
    """Return the header that leads to the next page."""
    return {"Link": f'<{request.url.include_query_params(cursor=cursor)}>; rel="next"'}
