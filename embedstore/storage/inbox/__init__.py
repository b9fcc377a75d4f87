"""The inbox of a space: the plan of an embedding run in parts, and what remote workers wrote for each part."""
