"""Export items, with their vectors and images, in the formats of other tools."""
