"""Reads the benchmark's packages: every picture as (id, caption, keywords, bytes, is_svg), ids as in split.parquet.

    npm tarball / Debian package  ->  Picture

What this is not: it chooses nothing (split.parquet does) and renders nothing (build_data.py does).
"""

import collections
import dataclasses
import json
import pathlib
import posixpath
import re
import struct
import subprocess
import tarfile
import xml.etree.ElementTree as ElementTree
import zlib

SOURCES = {s["name"]: s for s in json.loads((pathlib.Path(__file__).parent / "sources.json").read_text())}
EMOJI = ["noto", "noto-v1", "twemoji", "fxemoji", "emojione", "emojione-monotone", "emojione-v1"]
ICONS = ["flat-color-icons", "game-icons", "healthicons", "icon-park", "lucide", "mdi", "ph", "streamline-emojis",
         "streamline-ultimate-color", "tabler"]
# Names that no book of names has: Unicode's of 2015, by code.
FXEMOJI = {
    "1F346": "aubergine", "1F376": "sakebottleandcup", "1F387": "fireworksparkler", "1F4BB": "personalcomputer",
    "1F517": "linksymbol", "1F526": "electrictorch", "2702": "blackscissors", "1F0CF": "playingcardblackjoker",
    "1F3BF": "skiandskiboot", "1F4BF": "opticaldisc", "260E": "blacktelephone", "1F307": "sunsetoverbuildings",
    "1F33D": "earofmaize", "1F355": "sliceofpizza", "1F35B": "curryandrice", "1F3B6": "multiplemusicalnotes",
    "1F3C0": "basketballandhoop", "1F3E0": "housebuilding", "1F42B": "bactriancamel", "1F513": "openlock",
    "1F576": "darksunglasses", "1F699": "recreationalvehicle", "1F6A8": "policecarsrevolvinglight",
    "1F6AC": "smokingsymbol", "1F4F6": "antennawithbars", "1F3E7": "automatedtellermachine",
    "27A1": "blackrightwardsarrow", "267B": "blackuniversalrecyclingsymbol", "1F251": "circledideographaccept",
    "1F250": "circledideographadvantage", "3297": "circledideographcongratulation", "3299": "circledideographsecret",
    "24C2": "circledlatincapitalletterm", "1F48F": "couplekiss", "1F6AF": "donotlittersymbol",
    "1F385": "fatherchristmas", "1F482": "guardsman", "2B55": "heavylargecircle", "1F4AF": "hundredpointssymbol",
    "1F520": "inputsymbolforlatincapitalletters", "1F524": "inputsymbolforlatinletters",
    "1F521": "inputsymbolforlatinsmallletters", "1F522": "inputsymbolfornumbers", "1F523": "inputsymbolforsymbols",
    "1F534": "largeredcircle", "2B05": "leftwardsblackarrow", "1F444": "lips", "26AB": "mediumblackcircle",
    "26AA": "mediumwhitecircle", "1F6B9": "menssymbol", "1F18E": "negativesquaredab",
    "1F17F": "negativesquaredlatincapitalletterp", "1F6B1": "nonpotablewatersymbol", "2197": "northeastarrow",
    "2196": "northwestarrow", "1F6AD": "nosmokingsymbol", "1F6AE": "putlitterinitsplacesymbol", "2198": "southeastarrow",
    "1F191": "squaredcl", "1F192": "squaredcool", "1F193": "squaredfree", "1F194": "squaredid",
    "1F201": "squaredkatakanakoko", "1F202": "squaredkatakanasa", "1F195": "squarednew", "1F196": "squaredng",
    "1F197": "squaredok", "1F198": "squaredsos", "1F19A": "squaredvs", "26A0": "warningsign",
    "2705": "whiteheavycheckmark", "263A": "whitesmilingface", "1F6BA": "womenssymbol",
    "1F53B": "downpointingredtriangle", "1F53A": "uppointingredtriangle",
}
EMOJIONE = {
    "1F470": "bride-with-veil", "1F639": "cat-face-with-tears-of-joy", "1F63C": "cat-face-with-wry-smile",
    "1F638": "grinning-cat-face-with-smiling-eyes", "2B55": "heavy-large-circle", "1F63E": "pouting-cat-face",
    "1F640": "weary-cat-face", "2705": "white-heavy-check-mark",
}
OLD_NAMES = {"fxemoji": FXEMOJI, "emojione": EMOJIONE | {"002A-20E3": "asterisk"}, "emojione-v1": EMOJIONE}


@dataclasses.dataclass
class Picture:
    """One picture before it is rendered."""

    id: str
    caption: str
    keywords: str
    data: bytes
    is_svg: bool = True


def path_of(cache, name):
    return pathlib.Path(cache) / SOURCES[name]["registry"] / SOURCES[name]["file"]


# --- npm ---

def npm_members(cache, name):
    with tarfile.open(path_of(cache, name)) as tar:
        for member in tar:
            if member.isfile():
                yield member.name.removeprefix("package/"), tar.extractfile(member)


def npm_json(cache, name, wanted):
    return next((json.load(file) for member, file in npm_members(cache, name) if member == wanted), {})


def plain(code):
    """A hexcode without variation selectors."""
    return "-".join(part for part in code.upper().split("-") if part not in ("FE0F", "FE0E"))


def emoji(cache):
    """Emojibase's label and tags by hexcode."""
    data = npm_json(cache, "emojibase-data", "en/data.json")
    return {plain(e["hexcode"]): (e["label"], ", ".join(e.get("tags", []))) for e in data}


def svg_of(icons, icon):
    """A whole SVG file from one entry of an Iconify collection."""
    get = lambda field, default: icon.get(field, icons.get(field, default))
    box = " ".join(str(v) for v in (get("left", 0), get("top", 0), get("width", 16), get("height", 16)))
    size = f'width="{get("width", 16)}" height="{get("height", 16)}"'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {size} viewBox="{box}">'
            f'{icon["body"]}</svg>').encode()


def emoji_set(cache, name, known, names):
    """A collection names its emoji by code (chars.json) or, where it has no such file, by words."""
    icons = npm_json(cache, name, "icons.json")
    icon_of = {plain(code): icon for code, icon in npm_json(cache, name, "chars.json").items()}
    if not icon_of:
        icon_of = {names[squash(icon)]: icon for icon in icons["icons"] if squash(icon) in names}
        icon_of |= OLD_NAMES.get(name, {})
    for code, (caption, tags) in known.items():
        if icon_of.get(code) in icons["icons"]:
            yield Picture(f"{name}/{code}", caption, tags, svg_of(icons, icons["icons"][icon_of[code]]))


def emoji_names(cache, known):
    """Every name that an emoji goes by, letters and digits only, to its code. The first of two wins."""
    found = {}
    for code, (label, _) in known.items():
        found.setdefault(squash(label), code)
    for code, name in npm_json(cache, "noto", "chars.json").items():
        found.setdefault(squash(name), plain(code))
    for book in ("cldr", "emojibase", "github", "iamcal", "joypixels"):
        for code, words in npm_json(cache, "emojibase-data", f"en/shortcodes/{book}.json").items():
            for word in [words] if isinstance(words, str) else words:
                found.setdefault(squash(word), plain(code))
    return found


def squash(name):
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("’", ""))


def files_by_code(cache, package, known, prefix, folder, ending):
    for member, file in npm_members(cache, package):
        path = pathlib.PurePosixPath(member)
        code = plain(path.stem)
        if path.suffix == ending and (not folder or str(path.parent) == folder) and code in known:
            yield Picture(f"{prefix}/{code}", *known[code], file.read(), ending == ".svg")


def icon_words(name, key):
    if name == "ph":
        key = re.sub(r"-(fill|duotone)$", "", key)
    if name == "healthicons":
        key = re.sub(r"-outline$", "", key)
    if name == "tabler":
        key = re.sub(r"-filled$", "", key)
    if name.startswith("streamline"):
        key = re.sub(r"-\d+$", "", key)
    return key.replace("-", " ")


def icon_set(cache, name):
    icons = npm_json(cache, name, "icons.json")
    kinds = npm_json(cache, name, "metadata.json").get("categories", {})
    kind = {}
    for name_of, keys in kinds.items():
        for key in keys:
            kind.setdefault(key, name_of)
    for key, icon in icons["icons"].items():
        words = icon_words(name, key)
        yield Picture(f"{name}/{key}", words, kind.get(key, ""), svg_of(icons, icon))


# --- Debian ---

def linked_members(cache, name, endings):
    """Files of a package, and links with the place that they lead to."""
    unpack = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(path_of(cache, name))], stdout=subprocess.PIPE)
    with tarfile.open(fileobj=unpack.stdout, mode="r|") as tar:
        for member in tar:
            if not member.name.endswith(endings):
                continue
            if member.issym():
                yield member.name, b"", posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname))
            elif member.islnk():
                yield member.name, b"", member.linkname
            elif member.isfile():
                yield member.name, tar.extractfile(member).read(), None


def debian_members(cache, name, endings):
    return ((path, data) for path, data, link in linked_members(cache, name, endings) if link is None)


def clip_art(cache):
    """Files under the package's folder; a few are links to others. A title that many files share says nothing: then the file's name does."""
    files, links = {}, {}
    for path, data, link in linked_members(cache, "openclipart", ".svg"):
        key = path.split("/svg/")[-1]
        if link is None:
            files[key] = data
        else:
            links[key] = link.split("/svg/")[-1]
    uses = collections.Counter(found[0] for data in files.values() if (found := clip_art_words(data)))
    files |= {key: files[target] for key, target in links.items() if target in files}
    words = {key: clip_art_words(data) for key, data in files.items()}
    for key, data in files.items():
        title, keywords = words[key] or ("", "")
        if not title or uses[title] > SHARED:
            title = file_words(pathlib.PurePosixPath(key).stem)
        yield Picture(f"openclipart/{key}", title, keywords, data)


SHARED = 12  # a title of more files than these is a series' name


def file_words(stem):
    return re.sub(r"\s?\d+$", "", spaced(stem)).removeprefix("aiga ")


def spaced(text):
    return " ".join(re.sub(r"[_\-]+", " ", text).split())


def clip_art_words(data):
    """Title, and keywords and the beginning of the description, from the RDF in the file."""
    dc = "{http://purl.org/dc/elements/1.1/}"
    try:
        work = next(n for n in ElementTree.fromstring(data).iter() if n.tag.endswith("}Work"))
    except (ElementTree.ParseError, StopIteration):
        return None
    subjects = [(n.text or "").strip() for n in work.iterfind(f"{dc}subject//") if n.tag.endswith("}li")]
    description = spaced(work.findtext(f"{dc}description") or "")[:200]
    return spaced(work.findtext(f"{dc}title") or "").lower(), " | ".join(part for part in (", ".join(subjects), description) if part)


def stamps(cache):
    """A stamp's words stand in a text file of its name."""
    pictures, texts = {}, {}
    for path, data in debian_members(cache, "tuxpaint", (".png", ".svg", ".txt")):
        key = path.split("/stamps/")[-1]
        if key.endswith(".txt"):
            texts[key.removesuffix(".txt")] = data.decode("utf-8", "replace").splitlines()
        else:
            pictures[key] = data
    for key, data in pictures.items():
        lines = texts.get(key.rpartition(".")[0])
        if lines and lines[0].strip():
            yield Picture(f"tuxpaint/{key}", lines[0].strip(), "", data, key.endswith(".svg"))


def drawings(cache):
    for path, data in debian_members(cache, "pysiogame", ".jpg"):
        if "/art4apps/" in path:
            key = path.split("/art4apps/")[-1]
            yield Picture(f"art4apps/{key}", pathlib.PurePosixPath(key).stem.replace("_", " "), "", data, False)


def photographs(cache):
    for path, data in debian_members(cache, "gcompris", ".rcc"):
        for key, picture in resources(data):
            if key.endswith((".webp", ".jpg", ".png")):
                key = key.split("/activities/")[-1]
                stem = re.sub(r"\d+$", "", pathlib.PurePosixPath(key).stem)
                words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", stem).replace("_", " ").strip().lower()
                yield Picture(f"gcompris/{key}", words, "", picture, False)


def resources(data):
    """Files of a Qt resource bundle (rcc): a tree of nodes, names in UTF-16, contents that may be deflated."""
    if data[:4] != b"qres":
        return
    version, tree, contents, names = struct.unpack(">4I", data[4:20])
    size = 14 if version < 2 else 22

    def name_at(offset):
        length = struct.unpack(">H", data[names + offset:names + offset + 2])[0]
        return data[names + offset + 6:names + offset + 6 + 2 * length].decode("utf-16-be")

    def walk(node, folder):
        at = tree + node * size
        name, flags = struct.unpack(">IH", data[at:at + 6])
        path = f"{folder}/{name_at(name)}" if node else ""
        if flags & 2:
            count, first = struct.unpack(">2I", data[at + 6:at + 14])
            for child in range(first, first + count):
                yield from walk(child, path)
            return
        start = contents + struct.unpack(">I", data[at + 10:at + 14])[0]
        length = struct.unpack(">I", data[start:start + 4])[0]
        body = data[start + 4:start + 4 + length]
        if flags & 4:
            return
        yield path, zlib.decompress(body[4:]) if flags & 1 else body

    yield from walk(0, "")


def every_picture(cache):
    known = emoji(cache)
    names = emoji_names(cache, known)
    for name in EMOJI:
        yield from emoji_set(cache, name, known, names)
    yield from files_by_code(cache, "openmoji", known, "openmoji-black", "black/svg", ".svg")
    yield from files_by_code(cache, "fluent-emoji-3d", known, "fluent-3d", "", ".webp")
    for name in ICONS:
        yield from icon_set(cache, name)
    yield from clip_art(cache)
    yield from stamps(cache)
    yield from drawings(cache)
    yield from photographs(cache)
