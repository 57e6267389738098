"""Stored embeddings, exact and FAISS search, BM25, fusion, and the index folder."""
