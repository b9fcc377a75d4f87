"""Images: screening, decoding, color and preprocessing."""
