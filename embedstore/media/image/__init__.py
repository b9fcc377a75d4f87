"""Images: screening, decoding, color, preprocessing."""
