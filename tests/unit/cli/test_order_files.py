"""Files of orders: three forms that mean the same, and a sentence for whatever is wrong."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from cli.order_files import Asked, OrderFileError, read_orders
from models.domain.instruments import INSTRUMENTS
from models.domain.orders import Side, TimeInForce

BEGUN = 1_700_000_000_000_000  # 2023-11-14T22:13:20Z
ENDED = BEGUN + 60_000_000
GOOD = {"symbol": "LTCBTC", "order_size": "1", "price": "0.001"}


def read(file: Path) -> list[Asked]:
    return read_orders(file, INSTRUMENTS, BEGUN, ENDED)


def test_the_three_forms_mean_the_same(tmp_path: Path) -> None:
    """JSON lines, an array over several lines, and CSV, where an empty cell is a field left out."""
    orders = [
        {**GOOD, "side": "buy", "price": 1e-4, "at": 2.5, "venues": ["binance", "coinbase"], "client_order_id": "a"},
        {**GOOD, "order_size": 1000, "time_in_force": "GTC", "at": "2023-11-14T22:13:21Z", "cancel_at": 30},
        {**GOOD, "timeout_s": 5},
    ]
    lines, array, table = tmp_path / "o.jsonl", tmp_path / "o.json", tmp_path / "o.csv"
    lines.write_text("\n\n".join(map(json.dumps, orders)))
    array.write_text(json.dumps(orders, indent=2))
    table.write_text(
        "\ufeffsymbol,order_size,price,side,at,venues,client_order_id,time_in_force,cancel_at,timeout_s\r\n"
        "LTCBTC,1,0.0001,buy,2.5,binance;coinbase,a,,,\r\n"
        "LTCBTC,1000,0.001,,2023-11-14T22:13:21Z,,,GTC,30,\r\n"
        "\r\n"
        "LTCBTC,1,0.001,,,,,,,5\r\n",
        encoding="utf-8",
    )
    first = read(lines)
    assert first == read(array) == read(table)
    assert [each.number for each in first] == [3, 2, 1]  # in the order of their times
    [early, middle, late] = [each.placing(seq, 7_000_000) for seq, each in enumerate(first, 1)]
    assert (early.at_us, early.order.deadline_us, early.order.id) == (BEGUN, BEGUN + 5_000_000, "3")
    assert (middle.at_us, middle.order.deadline_us, middle.cancel_us) == (BEGUN + 1_000_000, None, BEGUN + 30_000_000)
    assert (middle.order.side, middle.order.time_in_force) == (Side.SELL, TimeInForce.GTC)
    assert (late.order.deadline_us, late.order.venues) == (BEGUN + 9_500_000, frozenset({"binance", "coinbase"}))
    assert (late.order.seq, late.order.price, late.order.side) == (3, Decimal("0.0001"), Side.BUY)


FIELDS: list[tuple[dict[str, object], str]] = [
    ({"symbol": "LTCBTX"}, "symbol: unknown symbol 'LTCBTX'; did you mean LTC-BTC"),
    ({"sid": "buy"}, "sid: is unknown; one of symbol, order_size"),
    ({"side": "by"}, "side: 'by' is unknown; one of buy, sell"),
    ({"time_in_force": "DAY"}, "time_in_force: 'DAY' is unknown; one of GTD, GTC, IOC, FOK"),
    ({"order_size": "x"}, "order_size: 'x' is not a number; give a decimal number"),
    ({"order_size": None}, "order_size: null is not a number; give a decimal number"),
    ({"price": -1}, "price: -1 is not positive; give a number above 0"),
    ({"price": "0.0000000001"}, "price: 1E-10 is more precise than the step of 0.00000"),
    ({"venues": ["okex"]}, "venues: 'okex' does not list LTC-BTC; it is listed by"),
    ({"timeout_s": 5, "time_in_force": "IOC"}, "timeout_s: goes with GTD only, and the order is IOC"),
    ({"at": "noon"}, "at: noon is no time; give seconds from the session's beginning"),
    ({"at": True}, "at: true is no time; give seconds from"),
    ({"at": "2023-11-14T22:13:21"}, "at: 2023-11-14T22:13:21 is no time; give seconds from"),
    ({"at": 61}, "at: 61 is after the session's end; give 0 to 60.000000, or 2023-11-14T22:13:20.000000Z to"),
    ({"at": -1}, "at: -1 is before the session begins; give 0 to 60.000000"),
    ({"at": 5, "cancel_at": 4}, "cancel_at: 4 is before the order is placed; give `at` or later"),
]
TEXTS = {
    '{"symbol": "LTCBTC", "order_size": 1}': "line 1: price: is missing",
    '{"symbol": "LTCBTC", "price": 1, "price": 2}': "line 1: price: is given twice; give it once",
    '{"symbol": "LTCBTC",}': "line 1: is no JSON: ",
    "7": "line 1: 7 is no order; write it as {",
    "": "holds no orders; write one a line, as {",
    "[]": "holds no orders; write one a line, as {",
    "[7,\n8 9]": "line 2: a comma or ] is missing after the order of line 2",
    "[7": "line 1: a comma or ] is missing after the order of line 1",
    "[\n": "line 2: is no JSON: Expecting value",
    "[]\n]": "line 2: something follows the array's end; remove it",
    "[" * 100_000: "line 1: is nested too deeply",
}
WRONG = {**TEXTS, **{json.dumps(GOOD | more): f"line 1: {problem}" for more, problem in FIELDS}}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_said_with_file_line_and_field(text: str, tmp_path: Path) -> None:
    """The rules are those of POST /order/limit, and the sentence says what would be right."""
    file = tmp_path / "orders"
    file.write_text(text)
    with pytest.raises(OrderFileError) as raised:
        read(file)
    assert str(raised.value).startswith(f"{file}")
    assert WRONG[text] in str(raised.value)
    assert "\n" not in str(raised.value)


TABLES = {
    "symbol,size,price\nLTCBTC,1,1": "line 1: column 'size' is unknown; one of symbol, order_size",
    "symbol,price,price\nLTCBTC,1,1": "line 1: column 'price' is there twice; give it once",
    "symbol,order_size,price\nLTCBTC,1": "line 2: has 2 cells, and the header has 3 columns",
    "symbol,order_size,price\n\nLTCBTC,1,\n": "line 3: price: is missing",
    'symbol,order_size,price\n"LTCBTC,1,1': "line 2: is no CSV: ",
    "symbol,order_size,price\n": "holds no orders",
}


@pytest.mark.parametrize("text", TABLES)
def test_what_is_wrong_with_a_table_is_said(text: str, tmp_path: Path) -> None:
    """The header is line 1."""
    file = tmp_path / "orders.csv"
    file.write_text(text)
    with pytest.raises(OrderFileError) as raised:
        read(file)
    assert TABLES[text] in str(raised.value)


def test_every_fault_is_told_up_to_a_number(tmp_path: Path) -> None:
    """Who mends a file sees more than the first fault; a name may be taken once."""
    file = tmp_path / "orders.jsonl"
    bad = json.dumps({**GOOD, "client_order_id": "a"})
    file.write_text(f"{bad}\n" * 8)
    with pytest.raises(OrderFileError) as raised:
        read(file)
    lines = str(raised.value).splitlines()
    assert lines[0] == f"{file}, line 2: client_order_id: 'a' is taken by line 1; give each order its own"
    assert (len(lines), lines[-1]) == (6, "and 2 more")


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    """No file, or no text."""
    with pytest.raises(OrderFileError, match="cannot be read: No such file"):
        read(tmp_path / "nothing.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"{}\n\xff")
    with pytest.raises(OrderFileError, match="is no UTF-8 text: byte 3 is 0xff"):
        read(tmp_path / "bytes.jsonl")
