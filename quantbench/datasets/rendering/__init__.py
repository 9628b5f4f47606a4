"""Images of text with their truth, drawn from a seed. Adding a file with a `draw` adds a content of rendered-text."""
