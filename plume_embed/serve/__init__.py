"""A model behind HTTP: OpenAI's and vLLM's embedding requests, batched across clients; and a client of it."""
