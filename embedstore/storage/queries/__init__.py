"""Named queries of the catalog, one module per topic: no other room speaks SQL to it."""
