"""Errors as OpenAI's clients read them: {"error": {"message", "type", "param", "code"}}."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteError

from plume_embed.serve.schema import EmbeddingRequest, Message, TokenizeRequest

# Names of fields in the path of an error; the rest are the parser's own names for its alternatives.
_FIELDS = {*EmbeddingRequest.model_fields, *TokenizeRequest.model_fields, *Message.model_fields}
_FIELDS |= {"text", "image_url", "video_url", "url", "detail", "type"}
_TYPES: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}


class RequestError(HTTPException):
    """What a client is told. It is FastAPI's own exception, so that it may also be raised while a body is read.

    Args:
        status (`int`): Of HTTP.
        message (`str`): What is wrong, and what to do.
        param (`str`, *optional*): The field that it is about.
        code (`str`, *optional*): OpenAI's name for the case.
        headers: Of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(status, message, headers)
        self.param, self.code = param, code

    def response(self) -> JSONResponse:
        """The answer."""
        return _response(self, self.param, self.code)


def plain_response(error: StarletteError) -> JSONResponse:
    """The answer for what the framework itself refuses: no such path, no such method."""
    return _response(error, None, None)


def of_validation(error: RequestValidationError) -> RequestError:
    """What is wrong with a body, by the field's path; of several forms that do not fit, the one that fits furthest."""
    worst = max(error.errors(), key=lambda one: len(one["loc"]))
    path = _path(worst["loc"])
    message = worst["msg"].removeprefix("Value error, ")
    if worst["type"] == "json_invalid":
        message, path = f"The body is no JSON: {worst['ctx']['error']}.", ""
    elif worst["loc"] == ("body",) and worst["type"] == "model_attributes_type":
        message = "The body must be a JSON object, sent with Content-Type: application/json."
    elif worst["type"] == "extra_forbidden":
        path = _path(worst["loc"], worst["loc"][-1])
        message = "this server does not know the field, and does not ignore what could change a vector; leave it out."
    return RequestError(HTTPStatus.BAD_REQUEST, f"{path}: {message}" if path else message, path or None)


def _path(loc: tuple[int | str, ...], unknown: int | str = "") -> str:
    """The path of a field as it is written: messages[0].content[1].text."""
    path, before = "", None
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part in (*_FIELDS, unknown) and part != before:  # a part's type and its field have one name
            path += f".{part}" if path else part
        before = part
    return path


def _response(error: StarletteError, param: str | None, code: str | None) -> JSONResponse:
    kind = "invalid_request_error" if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    # By the plain number: Python has no name for 499, by which proxies and we count clients that have gone.
    body = {"message": error.detail, "type": _TYPES.get(error.status_code, kind)}
    return JSONResponse({"error": {**body, "param": param, "code": code}}, error.status_code, error.headers)
