"""Bodies of requests: OpenAI's `input` and vLLM's `messages`, with what this server adds.

A field that would change the vector in a way that this model does not have is refused; nothing is ignored in silence.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_TOKEN_IDS = (
    "input holds token ids: this server takes texts, since ids of another tokenizer would be other words. Send "
    "strings; with langchain_openai pass check_embedding_ctx_length=False to OpenAIEmbeddings."
)
_SHOWN = 60  # characters of a value in an error


def _checked_number(value: Any) -> Any:
    """Refuses what the parser would take for a number. JSON has one kind of them: 8.0 is 8."""
    if isinstance(value, bool | str):
        raise ValueError(f"must be a whole number, got {json.dumps(value)[:_SHOWN]}.")
    return value


def _checked_flag(value: Any) -> Any:
    """Refuses what the parser would take for a boolean: 1, "yes"."""
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        raise ValueError(f"must be true or false, got {json.dumps(value)[:_SHOWN]}.")
    return value


def _checked_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("A text holds lone surrogates; decode its bytes with errors='replace'.") from error
    return text


Whole = Annotated[int, BeforeValidator(_checked_number)]
Zero = Annotated[Literal[0], BeforeValidator(_checked_number)]
Flag = Annotated[bool, BeforeValidator(_checked_flag)]
Yes = Annotated[Literal[True], BeforeValidator(_checked_flag)]
Text = Annotated[str, AfterValidator(_checked_text)]  # of an input or a message the processor says the same, by item


class Strict(BaseModel):
    """A body whose unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class Url(Strict):
    """An address or a data URL; `detail` is OpenAI's and changes nothing here, only "auto" is taken."""

    url: Text
    detail: Literal["auto"] | None = None


class TextPart(Strict):
    """A text."""

    type: Literal["text"]
    text: str


class ImagePart(Strict):
    """A picture."""

    type: Literal["image_url"]
    image_url: Url


class VideoPart(Strict):
    """A film, or its frames as vLLM takes them: `data:video/jpeg;base64,FRAME,FRAME`."""

    type: Literal["video_url"]
    video_url: Url


Part = Annotated[TextPart | ImagePart | VideoPart, Field(discriminator="type")]


class Message(Strict):
    """A message of a chat. The vector is of the user's message; a system message is its instruction."""

    role: Literal["system", "user", "assistant"]
    content: str | list[Part]

    @model_validator(mode="after")
    def _has_no_answer(self) -> "Message":
        if self.role == "assistant" and any(text for text in self.texts()):
            raise ValueError("an assistant message must be empty: what is embedded is the user's message.")
        return self

    def texts(self) -> list[str]:
        """The texts in it; something that is no text counts as one, for an assistant has nothing to show."""
        if isinstance(self.content, str):
            return [self.content]
        return [part.text if isinstance(part, TextPart) else part.type for part in self.content]


class EmbeddingRequest(Strict):
    """A body of `POST /v1/embeddings`.

    Args:
        model (`str`, *optional*): The served name.
        input: OpenAI's form: a text or a list of texts.
        messages: vLLM's form: one conversation, one vector.
        dimensions (`int`, *optional*): The first so many values, normalised again.
        encoding_format (`str`): "float" or "base64" (float32, little endian).
        latent_steps (`int`, *optional*): K; by default the model's own, for "document" its `document_latent_steps`.
        input_type (`str`, *optional*): "query" or "document": the prompt of that name in the model's
            config_sentence_transformers.json goes in front, as `encode_query` and `encode_document` put it.
        user (`str`, *optional*): OpenAI's; not used.
    """

    model: str | None = None
    input: str | list[str] | None = None
    messages: list[Message] | None = None
    dimensions: Annotated[Whole, Field(ge=1)] | None = None
    encoding_format: Literal["float", "base64"] = "float"
    latent_steps: Annotated[Whole, Field(ge=0)] | None = None
    input_type: Literal["query", "document"] | None = None
    user: str | None = None
    # Of vLLM: what says nothing about the vector, and the rest at the values that this model has.
    request_id: str | None = None
    priority: Zero = 0
    add_special_tokens: Flag | None = None
    add_generation_prompt: Flag | None = None
    continue_final_message: Flag | None = None
    truncate_prompt_tokens: None = None
    normalize: Yes | None = None
    use_activation: Yes | None = None
    embed_dtype: Literal["float32"] = "float32"
    endianness: Literal["native", "little"] = "native"
    chat_template: None = None
    chat_template_kwargs: None = None
    mm_processor_kwargs: None = None

    @model_validator(mode="before")
    @classmethod
    def _has_no_token_ids(cls, body: Any) -> Any:
        given = body.get("input") if isinstance(body, dict) else None
        if isinstance(given, list) and given and isinstance(given[0], int | list):
            raise ValueError(_TOKEN_IDS)
        return body

    @model_validator(mode="after")
    def _is_one_form(self) -> "EmbeddingRequest":
        if (self.input is None) == (self.messages is None):
            raise ValueError("give either input (texts) or messages (one conversation), and not both.")
        if self.input == [] or self.messages == []:
            raise ValueError("there is nothing to embed: the list is empty.")
        return self


class TokenizeRequest(Strict):
    """A body of `POST /tokenize`, vLLM's way to ask how long a text is.

    Args:
        model (`str`, *optional*): The served name.
        prompt (`str`): A text.
    """

    model: str | None = None
    prompt: Text
    add_special_tokens: Flag | None = None
