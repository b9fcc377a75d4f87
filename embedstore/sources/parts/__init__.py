"""Parts of files as items: a box of a photo, a page of a PDF, a frame of a video."""
