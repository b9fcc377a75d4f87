"""Networks of ``transformers`` by ``hf/<repository or folder>``: texts, sound and images, from files, without code."""
