"""Packs: compressed text embedded in a page, which keeps a thousand cells smaller than a photo.

A pack is raw DEFLATE (RFC 1951) in Base64, in a `<script type="text/plain">` that no browser runs.
Its characters are A-Z, a-z, 0-9, +, / and =, so the text can neither close the element nor open
another. templates/claims.js unpacks it with the browser's DecompressionStream.
"""

import base64
import binascii
import json
import re
import zlib
from collections.abc import Mapping

from tinyablation.errors import TinyAblationError
from tinyablation.files.contents import MOST_BYTES

_RAW = -15  # zlib's name of raw DEFLATE with the largest window
LEVEL = 9  # 1.3 s for the whole embedded set, and 4 % smaller than the default
_ELEMENT = re.compile(
    r'<script type="text/plain" class="pack" id="pack-([\w.-]+)">([A-Za-z0-9+/=]*)</script>',
    re.ASCII,
)


class PackError(TinyAblationError):
    """A pack cannot be opened or written; the message says which and why."""


def pack(text: str) -> str:
    """`text`, compressed and encoded in Base64."""
    press = zlib.compressobj(LEVEL, zlib.DEFLATED, _RAW)
    data = press.compress(text.encode("utf-8")) + press.flush()
    return base64.b64encode(data).decode("ascii")


def unpack(letters: str, name: str = "pack") -> str:
    """The text of a pack; PackError if it is broken or unpacks to more than MOST_BYTES."""
    try:
        press = zlib.decompressobj(_RAW)
        data = press.decompress(base64.b64decode(letters, validate=True), MOST_BYTES)
        if press.unconsumed_tail or not press.eof:
            cause = "it is cut off" if not press.unconsumed_tail else f"over {MOST_BYTES} bytes"
            raise PackError(f"{name}: cannot be opened: {cause}")
        return data.decode("utf-8")
    except (binascii.Error, zlib.error, UnicodeDecodeError) as error:
        raise PackError(f"{name}: cannot be opened: {error}") from error


def element(name: str, content: str | Mapping[str, object]) -> str:
    """The HTML element that holds a pack of text, or of a mapping as JSON.

    Raises PackError if the name has characters other than letters, digits, dots, hyphens and
    underscores.
    """
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    made = f'<script type="text/plain" class="pack" id="pack-{name}">{pack(text)}</script>'
    if not _ELEMENT.fullmatch(made):
        raise PackError(
            f"{name!r} is not a valid pack name: use letters, digits, dots, hyphens and underscores"
        )
    return made


def packs(page: str) -> dict[str, str]:
    """The packs of a page by name, still packed."""
    return {found[1]: found[2] for found in _ELEMENT.finditer(page)}
