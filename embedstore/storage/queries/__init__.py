"""Named queries of the catalog, one module per topic: no other room speaks SQL to it.

A query takes the store and reads by itself; or, if it is one of several in one generation or reads Python variables,
the connection of :meth:`embedstore.storage.catalog.Catalog.read`; or, if it changes rows, the connection of
:meth:`embedstore.storage.writer.Writer.transaction`.
"""
