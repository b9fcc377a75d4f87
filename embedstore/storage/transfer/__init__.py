"""Write a whole store as Parquet files in one folder, and read it back; export items with the vectors of one space.

``export.json`` lists the files of the folder: tables with the types of their columns, sizes and XXH3-128 checksums.
``<table>.parquet`` are the tables of the catalog. ``vectors/<space>/NNNNNN.parquet`` hold ``content`` and ``vector``, a
list of FLOAT, which holds float16 exactly. ``heads/`` and ``checkpoints/`` are copied. Not exported are indexes, which
are built again, the quarantine, and the store's id and migration log, since the new store gets its own.
"""
