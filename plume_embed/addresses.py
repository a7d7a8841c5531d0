"""Addresses of servers, as an option of the command line takes them."""

from urllib.parse import urlsplit


def check_address(address: str, option: str, example: str) -> str:
    """An address of http or https, as it was given.

    Args:
        option (`str`): Which takes it, for the message.
        example (`str`): An address as it should be.

    Raises:
        ValueError: it is no such address, or has a password, which the message does not repeat.
    """
    try:
        parts = urlsplit(address)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        has_user = parts.username is not None
    except ValueError:  # the port is no number, or a bracket stands alone
        is_whole, has_user = False, "@" in address
    if has_user:
        raise ValueError(
            f"{option} takes an address without user and password; the command line sends $PLUME_API_KEY as key."
        )
    if not is_whole or not address.isascii() or not address.isprintable() or " " in address:
        raise ValueError(f"{option} takes an address such as {example}, got {address!r}.")
    return address
