"""The venues that are simulated. A new one is one module and one line here."""

from simulator import binance, coinbase, deribit, htx, kraken, okx
from simulator.wire import Wire

WIRES: dict[str, Wire] = {
    wire.name: wire for wire in (binance.WIRE, coinbase.WIRE, kraken.WIRE, htx.WIRE, okx.WIRE, deribit.WIRE)
}
