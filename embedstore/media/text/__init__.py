"""From the bytes of a text to the text, or a reason why not."""
