"""Images inside Parquet files, also in the layout of Hugging Face's data sets, read in place by DuckDB."""
