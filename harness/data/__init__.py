"""Videos on disk: what a data set holds (`manifest`, `indexing`), the small one drawn here (`embedded`), its `reader`."""
