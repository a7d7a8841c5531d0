"""K, the number of latent steps, as it is asked for; it needs no torch, so that the client of a server has it too."""

import numbers


def checked_steps(num_latent_steps: int | None, default: int, most: int) -> int:
    """K as it will be used. What PlumeModel refuses is refused here, before a batch is made.

    Args:
        num_latent_steps (`int`, *optional*): As asked for.
        default (`int`): The model's own.
        most (`int`): That the model takes.

    Raises:
        ValueError: no whole number, or more steps than the model has.
    """
    steps = default if num_latent_steps is None else num_latent_steps
    if not isinstance(steps, numbers.Integral) or isinstance(steps, bool) or not 0 <= steps <= most:
        raise ValueError(
            f"num_latent_steps is a whole number, and this model takes 0 to {most} latent steps, got {steps!r}."
        )
    return int(steps)
