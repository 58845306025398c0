"""How long the server keeps a connection on which nothing is asked."""

import time
from http.client import HTTPConnection

import httpx

LONGER_THAN_A_CLIENT_LOOKS_S = 6.0


def test_an_idle_connection_is_still_there_when_its_client_looks_again(client: httpx.Client) -> None:
    """A server that closes first may close just as the next request is written, which then meets a reset."""
    connection = HTTPConnection(client.base_url.host, client.base_url.port or 0, timeout=10)
    connection.request("GET", "/health/live")
    connection.getresponse().read()
    kept = connection.sock
    time.sleep(LONGER_THAN_A_CLIENT_LOOKS_S)
    connection.request("GET", "/health/live")
    assert connection.getresponse().read()
    assert connection.sock is kept
    connection.close()
