"""The texts in a column of a CSV, TSV or JSON table, as items."""
