"""Images with captions: read from tables, archives, data sets and tar shards, and made into batches."""
