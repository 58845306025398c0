"""Instruments: the pairs that can be ordered, each venue's product for them, with its evidence. Open to everybody."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from api.prices import resolve
from api.services import services
from models.domain.decimals import plain
from models.domain.instruments import Instrument, Product

router = APIRouter(tags=["instruments"])


@router.get("/instruments")
async def read_all(request: Request) -> Response:
    """Return every pair, with its products."""
    made = services(request)
    shown = [_instrument_json(instrument) for instrument in made.instruments]
    return JSONResponse({"market": made.settings.market.value, "instruments": shown})


@router.get("/instruments/{pair:path}")
async def read_one(pair: str, request: Request) -> Response:
    """Return a pair, however it is spelled, with its products."""
    made = services(request)
    shown = _instrument_json(resolve(made.instruments, pair))
    return JSONResponse({"market": made.settings.market.value, **shown})


def _instrument_json(instrument: Instrument) -> dict[str, Any]:
    return {
        "pair": instrument.symbol,
        "base": instrument.base,
        "quote": instrument.quote,
        "tick": plain(instrument.tick),
        "lot": plain(instrument.lot),
        "products": [_product_json(product) for product in sorted(instrument.products, key=lambda each: each.venue)],
    }


def _product_json(product: Product) -> dict[str, Any]:
    steps = {"tick": product.tick, "lot": product.lot, "min_size": product.min_size}
    return {
        "venue": product.venue,
        "product_id": product.id,
        # An index has no steps.
        **{name: None if product.price_only else plain(step) for name, step in steps.items()},
        "price_only": product.price_only,
        "evidence": product.evidence,
    }
