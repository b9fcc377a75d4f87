"""The page and its HTTP API over one store: routes call the verbs of the store, and hold no logic of their own."""
