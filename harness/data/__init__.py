"""Videos on disk: what a data set holds (`manifest`) and the small one this project draws itself (`embedded`)."""
