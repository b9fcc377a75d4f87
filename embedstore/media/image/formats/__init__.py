"""Image formats that a library other than Pillow decodes: HEIF, camera RAW, and those of plug-ins."""
