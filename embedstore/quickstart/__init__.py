"""The whole journey in one command, its drawn scenes, benchmarks of the stages, and folder reports."""
