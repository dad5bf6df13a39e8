"""LangChain's and LlamaIndex' pgvector stores on the rows and questions of bench_rag.py; run in an environment of their own.

Each stores by its own batch method, builds an HNSW index with the same parameters where it can, and is asked by vector.
Prints one line of JSON: seconds of ingest, searches a second of one client, and what was found.
"""

import json
import sys
import time

import numpy as np

K, DIMENSION, SECONDS, BATCH = 10, 384, 4.0, 1000


def langchain(dsn, vectors):
    from langchain_core.embeddings import Embeddings
    from langchain_postgres import PGEngine, PGVectorStore
    from langchain_postgres.v2.indexes import HNSWIndex, HNSWQueryOptions

    class None_(Embeddings):
        def embed_documents(self, texts):
            raise NotImplementedError

        def embed_query(self, text):
            raise NotImplementedError

    engine = PGEngine.from_connection_string(dsn.replace("postgresql://", "postgresql+psycopg://"))
    engine.init_vectorstore_table(table_name="peer_langchain", vector_size=DIMENSION)
    options = HNSWQueryOptions(ef_search=100)
    store = PGVectorStore.create_sync(engine, None_(), "peer_langchain", index_query_options=options)
    began = time.perf_counter()
    for start in range(0, len(vectors), BATCH):
        part = vectors[start : start + BATCH]
        texts = [str(start + i) for i in range(len(part))]
        store.add_embeddings(texts, part.tolist())
    store.apply_vector_index(HNSWIndex(m=16, ef_construction=100))
    ingest = time.perf_counter() - began
    return ingest, lambda q: [int(d.page_content) for d in store.similarity_search_by_vector(q.tolist(), k=K)]


def llamaindex(dsn, vectors):
    from llama_index.core.schema import TextNode
    from llama_index.core.vector_stores.types import VectorStoreQuery
    from llama_index.vector_stores.postgres import PGVectorStore
    from sqlalchemy.engine import make_url

    url = make_url(dsn)
    store = PGVectorStore.from_params(
        database=url.database, host=url.host, password=url.password or "", port=str(url.port), user=url.username,
        table_name="peer_llamaindex", embed_dim=DIMENSION,
        hnsw_kwargs={"hnsw_m": 16, "hnsw_ef_construction": 100, "hnsw_ef_search": 100, "hnsw_dist_method": "vector_cosine_ops"},
    )  # fmt: skip
    began = time.perf_counter()
    for start in range(0, len(vectors), BATCH):
        part = vectors[start : start + BATCH]
        store.add([TextNode(text=str(start + i), embedding=v.tolist()) for i, v in enumerate(part)])
    ingest = time.perf_counter() - began

    def ask(question):
        found = store.query(VectorStoreQuery(query_embedding=question.tolist(), similarity_top_k=K))
        return [int(node.text) for node in found.nodes]

    return ingest, ask


def main():
    name, dsn, file = sys.argv[1:]
    data = np.load(file)
    ingest, ask = {"langchain": langchain, "llamaindex": llamaindex}[name](dsn, data["vectors"])
    questions = data["questions"]
    found = [ask(question) for question in questions]
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        ask(questions[count % len(questions)])
        count += 1
    print(json.dumps({"ingest_s": ingest, "qps": count / (time.perf_counter() - began), "found": found}))


if __name__ == "__main__":
    main()
