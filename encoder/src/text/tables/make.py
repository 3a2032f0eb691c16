"""Writes the tables of the open_clip cleaning from the references themselves, so that none is typed by hand.

Run beside this file, with the versions that the parity figures name:

    pip install ftfy==6.3.1 regex==2026.11.15     # CPython 3.11
    python make.py

entities.txt   name<TAB>hex code points   Python's html.entities.html5 (HTML5 named character references)
charmaps.txt   name<TAB>128 hex values    what bytes 80..FF mean in each single-byte encoding that ftfy tries, in its order
mojibake.txt   hex<TAB>hex mask           ftfy's character classes; bit order as in `BADNESS` and `CLUES` below
classes.txt    first<TAB>last<TAB>mask    regex's letters (1), numbers (2) and others (4) under IGNORECASE, as open_clip's
                                          pattern uses them, and re's \\w (8) and \\d (16); ranges with mask 4 are left out
"""

import html.entities
import pathlib
import re
import sys

import ftfy.bad_codecs
import regex
from ftfy.badness import MOJIBAKE_CATEGORIES
from ftfy.chardata import CHARMAP_ENCODINGS, UTF8_CLUES

HERE = pathlib.Path(__file__).parent
BADNESS = ["common", "c1", "bad", "law", "currency", "start_punctuation", "end_punctuation", "numeric", "kaomoji",
           "upper_accented", "lower_accented", "upper_common", "lower_common", "box"]
CLUES = ["utf8_first_of_2", "utf8_first_of_3", "utf8_first_of_4", "utf8_continuation", "utf8_continuation_strict"]
SCALARS = [cp for cp in range(0x110000) if not 0xD800 <= cp < 0xE000]


def write(name, lines):
    text = "".join(line + "\n" for line in lines)
    (HERE / name).write_text(text, encoding="ascii", newline="\n")
    print(name, len(text), "bytes")


def entities():
    for name, value in sorted(html.entities.html5.items()):
        yield name + "\t" + " ".join(f"{ord(c):x}" for c in value)


def charmaps():
    ftfy.bad_codecs.ok()
    for encoding in CHARMAP_ENCODINGS:
        high = bytes(range(0x80, 0x100)).decode(encoding)
        yield encoding + "\t" + " ".join(f"{ord(c):x}" for c in high)


def mojibake():
    patterns = [re.compile(f"[{MOJIBAKE_CATEGORIES[name]}]") for name in BADNESS]
    patterns += [re.compile(f"[{UTF8_CLUES[name]}]") for name in CLUES]
    for cp in SCALARS:
        mask = sum(1 << bit for bit, pattern in enumerate(patterns) if pattern.match(chr(cp)))
        if mask:
            yield f"{cp:x}\t{mask:x}"


def classes():
    patterns = [(1, regex.compile(r"[\p{L}]", regex.I)), (2, regex.compile(r"[\p{N}]", regex.I)),
                (4, regex.compile(r"[^\s\p{L}\p{N}]", regex.I)), (8, re.compile(r"\w")), (16, re.compile(r"\d"))]
    ranges = []
    for cp in SCALARS:
        mask = sum(bit for bit, pattern in patterns if pattern.fullmatch(chr(cp)))
        if ranges and ranges[-1][2] == mask and ranges[-1][1] == cp - 1:
            ranges[-1][1] = cp
        else:
            ranges.append([cp, cp, mask])
    for first, last, mask in ranges:
        if mask != 4:
            yield f"{first:x}\t{last:x}\t{mask:x}"


if __name__ == "__main__":
    print(sys.version.split()[0], "ftfy", ftfy.__version__, "regex", regex.__version__)
    write("entities.txt", entities())
    write("charmaps.txt", charmaps())
    write("mojibake.txt", mojibake())
    write("classes.txt", classes())
