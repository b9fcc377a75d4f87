"""A whole store as Parquet files in one folder, and back: what another program reads, and nothing is left out.

``export.json`` says what belongs to it: format, tables with their columns' types, files with size and XXH3-128.
``<table>.parquet`` are the catalog's tables; ``vectors/<space>/NNNNNN.parquet`` hold ``content`` and ``vector`` (a list
of FLOAT, which holds float16 exactly); ``heads/`` and ``checkpoints/`` are copied as they are. Not carried: indexes,
which are built again; the quarantine; the store's id and the log of its migrations, which the new store has its own of.
"""
