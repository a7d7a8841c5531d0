"""Clients of other makers, as they stand: the official openai package, LangChain, LlamaIndex."""

import base64

import numpy as np
import openai
import pytest
from serve_thread import running

TEXTS = ["a red bicycle", "the harbour at night"]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def client(server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)


def test_openai_gives_the_vectors_of_encode_in_both_formats(client, encoder):
    """Without a format the client asks for base64 and decodes it."""
    expected = encoder.encode(TEXTS)
    for options in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        answer = client.embeddings.create(model="plume", input=TEXTS, **options)
        rows = [one.embedding for one in answer.data]
        if options.get("encoding_format") == "base64":
            rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
        assert np.abs(np.array(rows) - expected).max() < TOLERANCE
        assert [one.index for one in answer.data] == [0, 1] and answer.usage.prompt_tokens > 0


def test_openai_passes_dimensions_and_our_fields(client, encoder):
    answer = client.embeddings.create(model="plume", input=TEXTS[0], dimensions=8, extra_body={"latent_steps": 2})
    short = encoder.encode(TEXTS[:1], num_latent_steps=2)[0, :8]
    assert np.abs(np.array(answer.data[0].embedding) - short / np.linalg.norm(short)).max() < TOLERANCE


def test_openai_lists_the_model(client):
    assert [model.id for model in client.models.list()] == ["plume"]


def test_openai_raises_its_own_errors(client, encoder):
    with pytest.raises(openai.NotFoundError, match="not served here") as missing:
        client.embeddings.create(model="gpt", input="a")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="max_length") as bad:
        client.embeddings.create(model="plume", input=["a", "word " * 20_000])
    assert bad.value.param == "input[1]"
    with running(encoder, key="secret", name="plume") as address:
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{address}/v1", api_key="wrong").embeddings.create(model="plume", input="a")
        right = openai.OpenAI(base_url=f"{address}/v1", api_key="secret")
        assert len(right.embeddings.create(model="plume", input="a").data) == 1


def test_langchain_embeds_texts(server, encoder):
    langchain = pytest.importorskip("langchain_openai")
    options = {"model": "plume", "base_url": f"{server}/v1", "api_key": "none", "max_retries": 0}
    embeddings = langchain.OpenAIEmbeddings(**options, check_embedding_ctx_length=False)
    expected = encoder.encode(TEXTS)
    assert np.abs(np.array(embeddings.embed_documents(TEXTS)) - expected).max() < TOLERANCE
    assert np.abs(np.array(embeddings.embed_query(TEXTS[0])) - expected[0]).max() < TOLERANCE


def test_llama_index_embeds_texts(server, encoder):
    llama = pytest.importorskip("llama_index.embeddings.openai")
    model = llama.OpenAIEmbedding(model_name="plume", api_base=f"{server}/v1", api_key="none", max_retries=0)
    expected = encoder.encode(TEXTS)
    assert np.abs(np.array(model.get_text_embedding_batch(TEXTS)) - expected).max() < TOLERANCE
    assert np.abs(np.array(model.get_query_embedding(TEXTS[0])) - expected[0]).max() < TOLERANCE
