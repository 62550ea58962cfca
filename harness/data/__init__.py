"""Videos to clips: what a data set holds, how one is prepared or drawn, and how clips are read from it."""
