"""A value that reaches the task it was minted for and nothing else."""

from typing import Final, Generic, NoReturn, TypeVar, final

T = TypeVar("T")

_HIDDEN: Final = "[secret]"


@final
class Secret(Generic[T]):
    """
    Holds a value that must not print.

    `repr`, `str`, formatting and exceptions show a placeholder; copying by pickle is refused.
    `reveal` is the one way out, so that a search for it lists every place a secret leaves.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        """Return the value; the caller answers for where it goes."""
        return self._value

    def __repr__(self) -> str:
        return _HIDDEN

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return _HIDDEN

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not serialised")
