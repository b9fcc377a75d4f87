"""Check embedstore on a GPU: ``python -m tools.gpu_check``. It has not run on one yet."""
