"""Training data as shards: WebDataset tars with an index, in a folder or an object store."""
