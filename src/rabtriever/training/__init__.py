"""Training: stage I teaches the reranker, stage III distils it into the retriever."""
