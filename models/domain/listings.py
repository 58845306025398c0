"""The bundled table of listings: which venue has which pair, under which name, in which steps.

One row a venue product: pair, venue, the venue's own name, tick, lot, minimum size, evidence. A price
that cannot be traded (an index) has `-` for its steps. A pair without evidence at a venue is left out
there. Steps that a venue has made coarser since are harmless: what is bought and sold here is judged
by the finest step of a pair's venues. Binance's LTCUSDT tick was 0.1 in its list and is finer now.
"""

EVIDENCE = {
    "binance-2021": "GET /api/v3/exchangeInfo of api.binance.com, 2021-10-12",
    "coinbase-2021": "GET /products of api.pro.coinbase.com, 2021-04-17",
    "coinbase-public": "GET /products of api.exchange.coinbase.com as public test data has it, seen 2026-11",
    "kraken-2021": "GET /0/public/AssetPairs of api.kraken.com, 2021-04-17, in the names of API v2",
    "htx-2021": "GET /v1/common/symbols of api.huobi.pro, 2021-04-17",
    "okx-2024": "GET /api/v5/public/instruments?instType=SPOT of www.okx.com, listed since 2024-12",
    "okx-frames": "bbo-tbt frames of 2025 and 2026: the steps are those of their prices and sizes",
    "deribit-frames": "a ticker frame of BTC_USDT, 2026-09: the steps are those of its prices and sizes",
    "deribit-docs": "docs.deribit.com, spot instruments, 2026-11; the steps of BTC_USDT, scaled by the price",
    "deribit-index": "docs.deribit.com, deribit_price_index, 2026-11: an index, not a book",
}

LISTINGS = """
BTC-USD     coinbase  BTC-USD    0.01          0.00000001  0.0001   coinbase-2021
BTC-USD     kraken    BTC/USD    0.1           0.00000001  0.0002   kraken-2021
BTC-USD     okx       BTC-USD    0.1           0.00000001  0.00001  okx-2024
BTC-USD     deribit   btc_usd    -             -           -        deribit-index
ETH-USD     coinbase  ETH-USD    0.01          0.00000001  0.001    coinbase-2021
ETH-USD     kraken    ETH/USD    0.01          0.00000001  0.005    kraken-2021
ETH-USD     okx       ETH-USD    0.01          0.000001    0.0001   okx-2024
ETH-USD     deribit   eth_usd    -             -           -        deribit-index
LTC-USD     coinbase  LTC-USD    0.01          0.00000001  0.01     coinbase-2021
LTC-USD     kraken    LTC/USD    0.01          0.00000001  0.05     kraken-2021
XRP-USD     kraken    XRP/USD    0.00001       0.00000001  20       kraken-2021
XRP-USD     okx       XRP-USD    0.0001        0.000001    1        okx-2024
BCH-USD     coinbase  BCH-USD    0.01          0.00000001  0.01     coinbase-2021
BCH-USD     kraken    BCH/USD    0.01          0.00000001  0.02     kraken-2021
ADA-USD     coinbase  ADA-USD    0.0001        0.01        1        coinbase-2021
ADA-USD     kraken    ADA/USD    0.000001      0.00000001  25       kraken-2021
SOL-USD     okx       SOL-USD    0.01          0.000001    0.001    okx-2024
LINK-USD    coinbase  LINK-USD   0.00001       0.01        0.1      coinbase-2021
LINK-USD    kraken    LINK/USD   0.00001       0.00000001  0.5      kraken-2021
UNI-USD     coinbase  UNI-USD    0.0001        0.000001    0.1      coinbase-2021
UNI-USD     kraken    UNI/USD    0.001         0.00000001  1        kraken-2021
XLM-USD     coinbase  XLM-USD    0.000001      1           1        coinbase-2021
XLM-USD     kraken    XLM/USD    0.000001      0.00000001  20       kraken-2021
ETC-USD     coinbase  ETC-USD    0.001         0.00000001  0.1      coinbase-2021
ETC-USD     kraken    ETC/USD    0.001         0.00000001  1        kraken-2021
EOS-USD     coinbase  EOS-USD    0.001         0.1         0.1      coinbase-2021
EOS-USD     kraken    EOS/USD    0.0001        0.00000001  2.5      kraken-2021
ATOM-USD    coinbase  ATOM-USD   0.001         0.1         0.1      coinbase-2021
ATOM-USD    kraken    ATOM/USD   0.0001        0.00000001  1        kraken-2021
ALGO-USD    coinbase  ALGO-USD   0.0001        1           1        coinbase-2021
ALGO-USD    kraken    ALGO/USD   0.00001       0.00000001  15       kraken-2021
AAVE-USD    coinbase  AAVE-USD   0.001         0.001       0.01     coinbase-2021
AAVE-USD    kraken    AAVE/USD   0.01          0.00000001  0.05     kraken-2021
XTZ-USD     coinbase  XTZ-USD    0.0001        0.01        1        coinbase-2021
XTZ-USD     kraken    XTZ/USD    0.0001        0.00000001  3        kraken-2021
ZEC-USD     coinbase  ZEC-USD    0.01          0.00001     0.01     coinbase-2021
ZEC-USD     kraken    ZEC/USD    0.01          0.00000001  0.1      kraken-2021
FIL-USD     coinbase  FIL-USD    0.0001        0.001       0.01     coinbase-2021
FIL-USD     kraken    FIL/USD    0.001         0.00000001  0.3      kraken-2021
GRT-USD     coinbase  GRT-USD    0.0001        0.01        10       coinbase-2021
GRT-USD     kraken    GRT/USD    0.00001       0.00000001  20       kraken-2021
DOGE-USD    kraken    DOGE/USD   0.0000001     0.00000001  50       kraken-2021
USDT-USD    kraken    USDT/USD   0.0001        0.00000001  5        kraken-2021
USDT-USD    okx       USDT-USD   0.0001        0.0001      1        okx-2024
USDC-USD    kraken    USDC/USD   0.0001        0.00000001  5        kraken-2021
BTC-USDT    binance   BTCUSDT    0.01          0.00001     0.00001  binance-2021
BTC-USDT    coinbase  BTC-USDT   0.01          0.00000001  0.0001   coinbase-public
BTC-USDT    kraken    BTC/USDT   0.1           0.00000001  0.0002   kraken-2021
BTC-USDT    htx       btcusdt    0.01          0.000001    0.0001   htx-2021
BTC-USDT    okx       BTC-USDT   0.1           0.00000001  0.00001  okx-frames
BTC-USDT    deribit   BTC_USDT   1             0.0001      0.0001   deribit-frames
ETH-USDT    binance   ETHUSDT    0.01          0.0001      0.0001   binance-2021
ETH-USDT    coinbase  ETH-USDT   0.01          0.00000001  0.001    coinbase-public
ETH-USDT    kraken    ETH/USDT   0.01          0.00000001  0.005    kraken-2021
ETH-USDT    htx       ethusdt    0.01          0.0001      0.001    htx-2021
ETH-USDT    okx       ETH-USDT   0.01          0.000001    0.0001   okx-frames
LTC-USDT    binance   LTCUSDT    0.01          0.001       0.001    binance-2021
LTC-USDT    kraken    LTC/USDT   0.00001       0.00000001  0.05     kraken-2021
LTC-USDT    htx       ltcusdt    0.01          0.0001      0.001    htx-2021
XRP-USDT    binance   XRPUSDT    0.0001        1           1        binance-2021
XRP-USDT    kraken    XRP/USDT   0.00001       0.00000001  20       kraken-2021
XRP-USDT    htx       xrpusdt    0.00001       0.01        1        htx-2021
BCH-USDT    binance   BCHUSDT    0.1           0.001       0.001    binance-2021
BCH-USDT    kraken    BCH/USDT   0.01          0.00000001  0.02     kraken-2021
BCH-USDT    htx       bchusdt    0.01          0.0001      0.001    htx-2021
ADA-USDT    binance   ADAUSDT    0.001         0.1         0.1      binance-2021
ADA-USDT    kraken    ADA/USDT   0.000001      0.00000001  25       kraken-2021
ADA-USDT    htx       adausdt    0.000001      0.0001      0.1      htx-2021
DOT-USDT    binance   DOTUSDT    0.01          0.01        0.01     binance-2021
DOT-USDT    kraken    DOT/USDT   0.0001        0.00000001  0.5      kraken-2021
DOT-USDT    htx       dotusdt    0.0001        0.0001      0.01     htx-2021
DOGE-USDT   binance   DOGEUSDT   0.0001        1           1        binance-2021
DOGE-USDT   kraken    DOGE/USDT  0.00001       0.00000001  50       kraken-2021
DOGE-USDT   htx       dogeusdt   0.000001      0.01        1        htx-2021
LINK-USDT   binance   LINKUSDT   0.01          0.01        0.01     binance-2021
LINK-USDT   kraken    LINK/USDT  0.00001       0.00000001  0.5      kraken-2021
LINK-USDT   htx       linkusdt   0.0001        0.01        0.01     htx-2021
SOL-USDT    binance   SOLUSDT    0.01          0.01        0.01     binance-2021
SOL-USDT    htx       solusdt    0.0001        0.01        0.01     htx-2021
UNI-USDT    binance   UNIUSDT    0.01          0.01        0.01     binance-2021
UNI-USDT    htx       uniusdt    0.0001        0.0001      0.01     htx-2021
TRX-USDT    binance   TRXUSDT    0.00001       0.1         0.1      binance-2021
TRX-USDT    htx       trxusdt    0.000001      0.01        1        htx-2021
EOS-USDT    binance   EOSUSDT    0.001         0.1         0.1      binance-2021
EOS-USDT    kraken    EOS/USDT   0.0001        0.00000001  2.5      kraken-2021
EOS-USDT    htx       eosusdt    0.0001        0.0001      0.1      htx-2021
ETC-USDT    binance   ETCUSDT    0.01          0.01        0.01     binance-2021
ETC-USDT    htx       etcusdt    0.0001        0.0001      0.01     htx-2021
XLM-USDT    binance   XLMUSDT    0.0001        1           1        binance-2021
XLM-USDT    htx       xlmusdt    0.000001      0.0001      0.1      htx-2021
FIL-USDT    binance   FILUSDT    0.01          0.01        0.01     binance-2021
FIL-USDT    htx       filusdt    0.0001        0.0001      0.0001   htx-2021
AVAX-USDT   binance   AVAXUSDT   0.01          0.01        0.01     binance-2021
AVAX-USDT   htx       avaxusdt   0.0001        0.0001      0.001    htx-2021
ATOM-USDT   binance   ATOMUSDT   0.01          0.01        0.01     binance-2021
ATOM-USDT   htx       atomusdt   0.0001        0.001       0.01     htx-2021
MATIC-USDT  binance   MATICUSDT  0.001         0.1         0.1      binance-2021
MATIC-USDT  htx       maticusdt  0.000001      0.0001      0.1      htx-2021
USDC-USDT   binance   USDCUSDT   0.0001        1           1        binance-2021
USDC-USDT   kraken    USDC/USDT  0.0001        0.00000001  5        kraken-2021
USDC-USDT   htx       usdcusdt   0.0001        0.0001      0.001    htx-2021
USDC-USDT   deribit   usdc_usdt  -             -           -        deribit-index
BTC-USDC    binance   BTCUSDC    0.01          0.00001     0.00001  binance-2021
BTC-USDC    coinbase  BTC-USDC   0.01          0.00000001  0.0001   coinbase-2021
BTC-USDC    kraken    BTC/USDC   0.01          0.00000001  0.0002   kraken-2021
BTC-USDC    deribit   BTC_USDC   1             0.0001      0.0001   deribit-docs
ETH-USDC    binance   ETHUSDC    0.01          0.0001      0.0001   binance-2021
ETH-USDC    coinbase  ETH-USDC   0.01          0.00000001  0.001    coinbase-2021
ETH-USDC    kraken    ETH/USDC   0.01          0.00000001  0.005    kraken-2021
ETH-USDC    deribit   ETH_USDC   0.1           0.0001      0.0001   deribit-docs
ETH-BTC     binance   ETHBTC     0.000001      0.0001      0.0001   binance-2021
ETH-BTC     coinbase  ETH-BTC    0.00001       0.00000001  0.001    coinbase-2021
ETH-BTC     kraken    ETH/BTC    0.00001       0.00000001  0.005    kraken-2021
ETH-BTC     htx       ethbtc     0.000001      0.0001      0.001    htx-2021
ETH-BTC     deribit   eth_btc    -             -           -        deribit-index
LTC-BTC     binance   LTCBTC     0.000001      0.001       0.001    binance-2021
LTC-BTC     coinbase  LTC-BTC    0.000001      0.00000001  0.01     coinbase-2021
LTC-BTC     kraken    LTC/BTC    0.000001      0.00000001  0.05     kraken-2021
LTC-BTC     htx       ltcbtc     0.000001      0.0001      0.001    htx-2021
XRP-BTC     binance   XRPBTC     0.00000001    1           1        binance-2021
XRP-BTC     kraken    XRP/BTC    0.00000001    0.00000001  20       kraken-2021
XRP-BTC     htx       xrpbtc     0.000000001   0.01        1        htx-2021
ADA-BTC     binance   ADABTC     0.00000001    0.1         0.1      binance-2021
ADA-BTC     coinbase  ADA-BTC    0.00000001    0.01        1        coinbase-2021
ADA-BTC     kraken    ADA/BTC    0.00000001    0.00000001  25       kraken-2021
ADA-BTC     htx       adabtc     0.00000001    0.01        0.1      htx-2021
LINK-BTC    binance   LINKBTC    0.0000001     0.01        0.01     binance-2021
LINK-BTC    coinbase  LINK-BTC   0.00000001    0.01        0.1      coinbase-2021
LINK-BTC    kraken    LINK/BTC   0.00000001    0.00000001  0.5      kraken-2021
LINK-BTC    htx       linkbtc    0.00000001    0.01        0.01     htx-2021
XLM-BTC     binance   XLMBTC     0.00000001    1           1        binance-2021
XLM-BTC     coinbase  XLM-BTC    0.00000001    1           1        coinbase-2021
XLM-BTC     kraken    XLM/BTC    0.00000001    0.00000001  20       kraken-2021
XLM-BTC     htx       xlmbtc     0.00000001    0.01        0.1      htx-2021
ETC-BTC     binance   ETCBTC     0.000001      0.01        0.01     binance-2021
ETC-BTC     coinbase  ETC-BTC    0.000001      0.00000001  0.1      coinbase-2021
ETC-BTC     kraken    ETC/BTC    0.000001      0.00000001  1        kraken-2021
ETC-BTC     htx       etcbtc     0.000001      0.0001      0.01     htx-2021
ATOM-BTC    binance   ATOMBTC    0.0000001     0.01        0.01     binance-2021
ATOM-BTC    coinbase  ATOM-BTC   0.000001      0.1         0.1      coinbase-2021
ATOM-BTC    kraken    ATOM/BTC   0.0000001     0.00000001  1        kraken-2021
ATOM-BTC    htx       atombtc    0.00000001    0.001       0.01     htx-2021
ALGO-BTC    binance   ALGOBTC    0.00000001    1           1        binance-2021
ALGO-BTC    coinbase  ALGO-BTC   0.00000001    1           1        coinbase-2021
ALGO-BTC    kraken    ALGO/BTC   0.00000001    0.00000001  15       kraken-2021
ALGO-BTC    htx       algobtc    0.00000001    0.01        0.01     htx-2021
DOT-BTC     binance   DOTBTC     0.0000001     0.01        0.01     binance-2021
DOT-BTC     kraken    DOT/BTC    0.00000001    0.00000001  0.5      kraken-2021
DOT-BTC     htx       dotbtc     0.00000001    0.0001      0.01     htx-2021
DOGE-BTC    binance   DOGEBTC    0.00000001    1           1        binance-2021
DOGE-BTC    kraken    DOGE/BTC   0.00000001    0.00000001  50       kraken-2021
DOGE-BTC    htx       dogebtc    0.0000000001  0.01        1        htx-2021
TRX-BTC     binance   TRXBTC     0.00000001    1           1        binance-2021
TRX-BTC     kraken    TRX/BTC    0.0000000001  0.00000001  250      kraken-2021
TRX-BTC     htx       trxbtc     0.0000000001  0.01        1        htx-2021
BCH-BTC     binance   BCHBTC     0.00001       0.001       0.001    binance-2021
BCH-BTC     coinbase  BCH-BTC    0.00001       0.00000001  0.01     coinbase-2021
BCH-BTC     kraken    BCH/BTC    0.00001       0.00000001  0.02     kraken-2021
BCH-BTC     htx       bchbtc     0.000001      0.0001      0.001    htx-2021
XMR-BTC     binance   XMRBTC     0.000001      0.001       0.001    binance-2021
XMR-BTC     kraken    XMR/BTC    0.000001      0.00000001  0.05     kraken-2021
XMR-BTC     htx       xmrbtc     0.000001      0.0001      0.0001   htx-2021
BTC-EUR     binance   BTCEUR     0.01          0.00001     0.00001  binance-2021
BTC-EUR     coinbase  BTC-EUR    0.01          0.00000001  0.0001   coinbase-2021
BTC-EUR     kraken    BTC/EUR    0.1           0.00000001  0.0002   kraken-2021
ETH-EUR     binance   ETHEUR     0.01          0.0001      0.0001   binance-2021
ETH-EUR     coinbase  ETH-EUR    0.01          0.00000001  0.001    coinbase-2021
ETH-EUR     kraken    ETH/EUR    0.01          0.00000001  0.005    kraken-2021
"""
