"""Text that may go to a terminal."""


def printable(text: str) -> str:
    """Without what would steer a terminal: reasons may quote bytes of a file."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)
