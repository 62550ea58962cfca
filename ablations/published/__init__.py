"""The numbers that the paper printed, as CSV files; sources.json says where each of them stands."""
