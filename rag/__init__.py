"""Retrieval-augmented answers on pgvector."""
