"""What an exported model raises."""

from __future__ import annotations


class PictureRejected(ValueError):  # noqa: N818  it names what happened to the picture
    """An exported model rejects a picture, or the request as a whole.

    Attributes:
        index: the picture's, in the list that was passed in; None where no single one is the reason.
        reason: what must hold, and what was received.
    """

    def __init__(self, index: int | None, reason: str) -> None:
        super().__init__(reason if index is None else f"picture {index} {reason}")
        self.index = index
        self.reason = reason
