"""The machine: paths on a disk or in a bucket, files, processes, texts for people, errors."""
