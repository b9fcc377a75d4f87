"""Files on servers: buckets and HTTP, read by fsspec."""
