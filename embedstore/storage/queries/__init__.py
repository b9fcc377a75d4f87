"""Named queries of the catalog, one module per topic: no other room speaks SQL to it.

A query takes the connection of :meth:`embedstore.storage.catalog.Catalog.read`, or, if it changes rows, of
:meth:`embedstore.storage.writer.Writer.transaction`.
"""
