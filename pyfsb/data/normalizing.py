# SPDX-License-Identifier: Apache-2.0
r"""One spelling for one text, without touching what Chinese readers see.

Rules, in order:
1. Line ends (CRLF, CR, U+2028, U+2029, U+0085, vertical tab, form feed) become `\\n`.
2. Control characters, zero-width characters, byte-order marks and unpaired surrogates go.
3. NFKC, except where it would change Chinese typography or a number's meaning: general punctuation
   (“ ” — …), CJK punctuation (、。《》), full-width punctuation (，！？：；（）), vertical forms,
   super- and subscripts, fractions, Roman numerals, enclosed and squared signs (①, ㎡) stay.
   So full-width letters and digits become ASCII, compatibility ideographs and radicals their
   unified hanzi, the ideographic space a space. Traditional and simplified are never converted.
4. Spaces and tabs in a row become one space; lines and the text are stripped; empty lines go.
   `normalise_layout` leaves lines, blank lines and indentation instead.

Source: our choice; the full-width comma lost to ASCII cost earlier users ten ROUGE points (FS#405).
"""

from __future__ import annotations

import re
import unicodedata

_KEPT = (
    "\u00b2\u00b3\u00b9\u00bc-\u00be"  # superscripts and fractions of Latin-1
    "\u2010-\u205e"  # general punctuation
    "\u2070-\u209f\u2100-\u218b"  # super- and subscripts, letter-like signs, number forms
    "\u2460-\u24ff"  # enclosed letters and digits
    "\u3001-\u303f"  # CJK punctuation
    "\u3200-\u33ff"  # enclosed and squared CJK signs
    "\ufe10-\ufe1f\ufe30-\ufe4f"  # vertical and compatibility forms
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"  # full-width punctuation
)
_CHANGEABLE = re.compile(f"[\\x00-\\x7f]?[^\\x00-\\x7f\u4e00-\u9fff{_KEPT}]+")
"""What NFKC may change, with the letter before it: a combining mark joins it."""
_LINE_ENDS = re.compile("\r\n|[\r\u2028\u2029\u0085\v\f]")
_REMOVED = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff"
    "\ufff9-\ufffb\ud800-\udfff]"
)
_OTHER_SPACES = "\u00a0\u2000-\u200a\u202f\u205f\u3000"
_SPACES = re.compile(f"[ \t{_OTHER_SPACES}]+")
_OTHER_SPACE = re.compile(f"[{_OTHER_SPACES}]")
_LINE_EDGES = re.compile(r" ?\n[ \n]*")
_FIRST_BLANKS = re.compile(r"\A(?:[ \t]*\n)+")


def normalise_text(text: str) -> str:
    """Return the text in its one spelling (see the module); applying it twice changes nothing."""
    text = _SPACES.sub(" ", _normalise_characters(text))
    return _LINE_EDGES.sub("\n", text).strip()


def normalise_layout(text: str) -> str:
    """Return the text with its lines: only characters are normalised (rules 1 to 3).

    Newlines, blank lines, indentation and spaces within lines stay; other spaces become a plain one
    each, blank lines before the first and whatever is empty behind the last go. Applying it twice
    changes nothing. For texts whose layout is to be learned: answers, code, lists.
    """
    text = _OTHER_SPACE.sub(" ", _normalise_characters(text))
    return _FIRST_BLANKS.sub("", text).rstrip(" \t\n")


def _normalise_characters(text: str) -> str:
    text = _LINE_ENDS.sub("\n", text)
    text = _REMOVED.sub("", text)
    return _CHANGEABLE.sub(_nfkc, text)


def _nfkc(match: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", match.group())
