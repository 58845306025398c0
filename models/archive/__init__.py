"""The archive: trades, best quotes and the times in which connections lived, as Parquet files in folders."""
