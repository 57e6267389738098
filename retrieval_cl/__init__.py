"""retrieval-cl: contrastive embedding models and the retrievers built on them."""
