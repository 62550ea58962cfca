"""What commands share: their flags, how errors end them, the text of a plan."""
