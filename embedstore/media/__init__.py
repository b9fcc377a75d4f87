"""From the bytes of files to arrays, one room for each modality."""
