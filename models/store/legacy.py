"""Views with the names and columns of an older service, for those who come from it; see docs/coming-from.md.

`symbol` is spelled as that service spelled it (LTCBTC); `price` of an order is its average price;
`update_id` of a split is the number of the quote that filled it.
"""

_CREATED_AT = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%S', created_us / 1000000, 'unixepoch')"
    " || printf('.%06d', created_us % 1000000)",
    "postgresql": "timestamptz 'epoch' + created_us * interval '1 microsecond'",
}

FULFILLED_ORDERS = {
    dialect: f"""
CREATE VIEW fulfilled_orders AS
SELECT id, {created_at} AS created_at, replace(symbol, '-', '') AS symbol, size AS quantity, avg_price AS price
FROM orders WHERE state = 'filled'
"""  # noqa: S608 -- made of the two constants above
    for dialect, created_at in _CREATED_AT.items()
}

FULFILLED_ORDER_SPLITS = """
CREATE VIEW fulfilled_order_splits AS
SELECT splits.id, orders.id AS order_id, splits.quote_number AS update_id, splits.size AS quantity, splits.price
FROM splits JOIN orders ON orders.seq = splits.order_seq WHERE orders.state = 'filled'
"""
