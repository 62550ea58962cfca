"""Videos on disk: what a set holds (`manifest`, `indexing`), the one drawn here (`embedded`), and the `reader`."""
