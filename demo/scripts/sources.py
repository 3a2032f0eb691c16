"""Reads the fetched packages: every picture as a `Drawing`, with the words that its maker gave it.

What this is not: it chooses nothing. `build_pairs.py` decides what is rendered, trained on and shipped.

    npm tarball / Debian package  ->  Drawing(id, caption, keywords, ..., svg or picture bytes)
"""

import dataclasses
import io
import json
import pathlib
import re
import subprocess
import tarfile
import xml.etree.ElementTree as ElementTree
import zipfile

SOURCES = {s["name"]: s for s in json.loads((pathlib.Path(__file__).parent / "sources.json").read_text())}

EMOJI_SETS = ["noto", "twemoji", "fxemoji", "noto-v1", "emojione", "fluent-emoji-flat",
              "emojione-monotone", "fluent-emoji-high-contrast"]
ICON_SETS = ["streamline-emojis", "streamline-ultimate-color", "streamline-freehand-color", "streamline-kameleon-color",
             "streamline-stickies-color", "streamline-color", "flat-color-icons", "meteocons", "icon-park",
             "game-icons", "healthicons", "mdi", "ph", "tabler", "lucide"]


@dataclasses.dataclass
class Drawing:
    """One picture before it is rendered."""

    id: str
    caption: str
    keywords: str
    style: str
    source: str
    license: str
    creator: str
    concept: str  # equal for one emoji in several designs, else empty
    group: str  # the maker's own category, for the choice of what is shipped
    data: bytes
    is_svg: bool


def path_of(cache, name):
    source = SOURCES[name]
    return pathlib.Path(cache) / source["registry"] / source["file"]


def read_npm(cache, name, member):
    with tarfile.open(path_of(cache, name)) as tar:
        return tar.extractfile(f"package/{member}").read()


def has_npm(cache, name, member):
    with tarfile.open(path_of(cache, name)) as tar:
        return f"package/{member}" in tar.getnames()


def drawing(name, key, caption, data, **more):
    source = SOURCES[name]
    fields = dict(keywords="", style=source["style"], source=f"{source['package']} {source['version']}",
                  license=source["license"], creator=source["author"], concept="", group="", is_svg=True)
    fields.update(more)
    return Drawing(id=f"{name}/{key}", caption=caption, data=data, **fields)


def svg_of(icons, icon):
    """A whole SVG file from one entry of an Iconify collection."""
    get = lambda field, default: icon.get(field, icons.get(field, default))
    box = (get("left", 0), get("top", 0), get("width", 16), get("height", 16))
    return ('<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="#222" '
            f'width="{box[2]}" height="{box[3]}" viewBox="{box[0]} {box[1]} {box[2]} {box[3]}">{icon["body"]}</svg>').encode()


# --- emoji: labels and tags come from Emojibase, whatever the design ---

def emoji_caption(label):
    """The label as a person would say it: `flag: Chad` is the flag of Chad."""
    kind, colon, rest = label.partition(": ")
    if not colon:
        return label
    return f"flag of {rest}" if kind == "flag" else f"{kind} with {rest}"


def emoji_entries(cache):
    """Emojibase's base emoji (no skin tones, no letters), by hexcode without variation selectors."""
    data = json.loads(read_npm(cache, "emojibase-data", "en/data.json"))
    names = json.loads(read_npm(cache, "emojibase-data", "en/messages.json"))
    group = {g["order"]: g["key"] for g in names["groups"]}
    subgroup = {g["order"]: g["key"] for g in names["subgroups"]}
    return {plain_hex(e["hexcode"]): dict(caption=emoji_caption(e["label"]), tags=", ".join(e.get("tags", [])),
                                          slug=slug(e["label"]), group=f"{group[e['group']]}/{subgroup[e['subgroup']]}")
            for e in data if "group" in e and not e["label"].startswith("keycap")}


def plain_hex(code):
    return "-".join(part for part in code.upper().split("-") if part not in ("FE0F", "FE0E"))


def slug(label):
    return re.sub(r"[^a-z0-9]+", "-", label.lower().replace("’", "")).strip("-")


def emoji_drawing(name, code, entry, data, is_svg=True):
    return drawing(name, code, entry["caption"], data, keywords=entry["tags"], concept=code,
                   group=entry["group"], is_svg=is_svg)


def emoji_names(cache, entries):
    """Every name that an emoji goes by, letters and digits only, to its code. The first, best, name of two wins."""
    known = {squash(e["slug"]): code for code, e in entries.items()}
    for code, name in json.loads(read_npm(cache, "noto", "chars.json")).items():
        known.setdefault(squash(name), plain_hex(code))
    for book in ("cldr", "emojibase", "github", "iamcal", "joypixels"):
        for code, names in json.loads(read_npm(cache, "emojibase-data", f"en/shortcodes/{book}.json")).items():
            for name in [names] if isinstance(names, str) else names:
                known.setdefault(squash(name), plain_hex(code))
    return known


def squash(name):
    return re.sub(r"[^a-z0-9]", "", name.lower())


def emoji_set(cache, name, entries, names):
    """A collection names its emoji by code (`chars.json`) or, where that file is empty, only by words."""
    icons = json.loads(read_npm(cache, name, "icons.json"))
    codes = json.loads(read_npm(cache, name, "chars.json")) if has_npm(cache, name, "chars.json") else {}
    icon_of = {plain_hex(code): icon for code, icon in codes.items()}
    if not icon_of:
        icon_of = {names[squash(icon)]: icon for icon in icons["icons"] if squash(icon) in names}
    for code, entry in entries.items():
        if icon_of.get(code) in icons["icons"]:
            yield emoji_drawing(name, code, entry, svg_of(icons, icons["icons"][icon_of[code]]))


def fluent_3d(cache, entries):
    with tarfile.open(path_of(cache, "fluent-emoji-3d")) as tar:
        for member in tar:
            code = plain_hex(pathlib.Path(member.name).stem)
            if member.name.endswith(".webp") and code in entries:
                yield emoji_drawing("fluent-emoji-3d", code, entries[code], tar.extractfile(member).read(), is_svg=False)


# --- icon collections: the file name is the caption ---

VARIANT = re.compile(r"-(outline|off|filled|negative|24px|thin|light|bold|flat|variant|box|circle|remix|line|alt|duo)(-|$)")
ACTIONS = {"alert", "plus", "minus", "remove", "lock", "edit", "cog", "refresh", "sync", "check", "cancel", "multiple",
           "pause", "up", "down", "left", "right", "small", "x", "add", "share", "search", "question", "discount",
           "code", "dollar", "pin", "star", "exclamation", "bolt", "brand", "logo", "letter", "number", "square"}


def icon_caption(name, key):
    """Words from a file name, or None for interface variants (`account-plus`), letters and brands."""
    if VARIANT.search(key):
        return None
    words = [w for w in key.split("-") if not w.isdigit()]
    words = [re.sub(r"\d+$", "", w) for w in words]
    interface = name in ("mdi", "tabler", "ph", "lucide")
    if interface and (words[-1] in ACTIONS or words[0] in ACTIONS):
        return None
    if not words or any(len(w) < 2 and w not in "at" for w in words) or len(words) > 5:
        return None
    return " ".join(words)


def categories(cache, name):
    if not has_npm(cache, name, "metadata.json"):
        return {}
    kinds = json.loads(read_npm(cache, name, "metadata.json")).get("categories", {})
    return {key: kind for kind, keys in kinds.items() for key in keys}


def spaced(category):
    return re.sub(r"\s*[/+]\s*", ", ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", category)).lower()


def icon_set(cache, name):
    icons = json.loads(read_npm(cache, name, "icons.json"))
    kind = categories(cache, name)
    for key, icon in icons["icons"].items():
        base, style = key, {}
        if name == "ph" and key.endswith(("-fill", "-duotone")):
            base = key.rsplit("-", 1)[0]
            style = dict(style="silhouette") if key.endswith("-fill") else {}
        elif name == "healthicons" and key.endswith("-outline"):
            base, style = key[:-8], dict(style="line icon")
        caption = icon_caption(name, base)
        if caption and not icon.get("hidden"):
            category = kind.get(key, kind.get(base, ""))
            caption = f"flag of {caption}" if category == "Flags" and "flag" not in caption else caption
            yield drawing(name, key, caption, svg_of(icons, icon), keywords=spaced(category), group=category, **style)


# --- Debian packages ---

def debian_members(cache, name, suffix):
    unpack = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(path_of(cache, name))], stdout=subprocess.PIPE)
    with tarfile.open(fileobj=unpack.stdout, mode="r|") as tar:
        for member in tar:
            if member.isfile() and member.name.endswith(suffix):
                yield member.name, tar.extractfile(member).read()


MAX_SVG_BYTES = 400_000  # larger files are photo tracings: slow, and no better at 96 px
PIXELS = {"mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96.0, "pt": 96 / 72, "pc": 16.0, "px": 1.0, "": 1.0}


def clip_art(cache):
    """Only files whose own metadata says public domain; the package holds a few that say otherwise."""
    for path, data in debian_members(cache, "openclipart", ".svg"):
        key = path.split("/svg/")[-1]
        if len(data) > MAX_SVG_BYTES or b'cc:license rdf:resource="http://web.resource.org/cc/PublicDomain"' not in data:
            continue
        meta = clip_art_words(data)
        if meta:
            title, subjects, artist = meta
            yield drawing("openclipart", key, title, sized(data), keywords=subjects, creator=artist,
                          group="/".join(key.split("/")[:-1]))


def clip_art_words(data):
    """Title, keywords and artist from the RDF in the file."""
    dc = "{http://purl.org/dc/elements/1.1/}"
    try:
        work = next(n for n in ElementTree.fromstring(data).iter() if n.tag.endswith("}Work"))
    except (ElementTree.ParseError, StopIteration):
        return None
    title = re.sub(r"[\s_\-]*\d*$", "", (work.findtext(f"{dc}title") or "").replace("_", " ").strip()).lower()
    subjects = [n.text.strip() for n in work.iterfind(f"{dc}subject//") if n.tag.endswith("}li") and n.text]
    artist = next((n.text.strip() for n in work.iterfind(f"{dc}creator//{dc}title") if n.text and n.text.strip()), "unknown")
    return (title, ", ".join(subjects), artist) if title else None


def sized(data):
    """Gives a viewBox in pixels to a file that has only a width and height: the renderer refuses such a file else."""
    text = data.decode("utf-8", "replace")
    root = re.search(r"<svg\b[^>]*>", text, re.S)
    if not root or "viewBox" in root[0]:
        return data
    sizes = [re.search(rf'\s{side}\s*=\s*"([\d.]+)\s*(\w*)"', root[0]) for side in ("width", "height")]
    if not all(sizes) or any(s[2] not in PIXELS for s in sizes):
        return data
    width, height = (float(s[1]) * PIXELS[s[2]] for s in sizes)
    bare = re.sub(r'\s(width|height)\s*=\s*"[^"]*"', "", root[0])
    new = bare.replace("<svg", f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}"', 1)
    return text.replace(root[0], new, 1).encode()


FURNITURE = {"BlendSwap-CC-0": "CC0-1.0", "BlendSwap-CC-BY": "CC-BY-3.0", "KatorLegaz": "CC-BY-3.0", "Scopia": "CC-BY-3.0"}


def furniture(cache):
    for path, data in debian_members(cache, "sweethome3d", ".sh3f"):
        catalogue = pathlib.Path(path).stem
        if catalogue in FURNITURE:
            yield from furniture_catalogue(catalogue, zipfile.ZipFile(io.BytesIO(data)))


def furniture_catalogue(catalogue, archive):
    rows = {}
    text = archive.read("PluginFurnitureCatalog.properties").decode("latin-1")
    for field, number, value in re.findall(r"^(\w+)#(\d+)=(.*)$", text, re.M):
        rows.setdefault(number, {})[field] = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), value.strip())
    for number, row in rows.items():
        icon = row.get("icon", "").lstrip("/")
        if icon in archive.namelist():
            caption = re.sub(r"[\s\d]+$", "", row["name"]).lower()
            yield drawing("sweethome3d", f"{catalogue}/{number}", caption, archive.read(icon),
                          keywords=row.get("category", "").lower(), license=FURNITURE[catalogue],
                          creator=row.get("creator", catalogue), group=row.get("category", ""), is_svg=False)


def all_drawings(cache):
    entries = emoji_entries(cache)
    names = emoji_names(cache, entries)
    for name in EMOJI_SETS:
        yield from emoji_set(cache, name, entries, names)
    yield from fluent_3d(cache, entries)
    for name in ICON_SETS:
        yield from icon_set(cache, name)
    yield from clip_art(cache)
    yield from furniture(cache)
