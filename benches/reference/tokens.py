"""Nasty captions, and the ids that the two references give them.

    pip install tokenizers==0.23.3 transformers==5.23.0 open_clip_torch==3.3.0 ftfy==6.3.1 regex==2026.11.15
    python benches/reference/tokens.py full OUT                  5,000 captions, CLIP's whole vocabulary (parity run)
    python benches/reference/tokens.py full OUT --time           the same, and microseconds a caption of both references
    python benches/reference/tokens.py fixtures DIR              what encoder/tests/fixtures/text holds

`full` writes OUT/clip/tokenizer.json (with tokenizer_config.json, special_tokens_map.json, config.json), the same model in
the open_clip layout in OUT/open_clip, and OUT/captions.jsonl. A line is {"class", "text", "hf", "open_clip"}:

  hf          ids by Python `tokenizers` and the CLIP tokenizer.json that transformers' CLIPTokenizerFast writes
  open_clip   ids by open_clip's SimpleTokenizer

both cut to 77 and without padding. `fixtures` does the same with the first 4,000 merges, a few hundred captions, a WordPiece
and a Unigram tokenizer, and SigLIP's cleaning. Everything is seeded: the same versions write the same bytes.
"""

import argparse
import gzip
import json
import os
import pathlib
import random
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import open_clip
import tokenizers
from open_clip.tokenizer import SimpleTokenizer, canonicalize_text, basic_clean, default_bpe, whitespace_clean

SEED = 20261122
CONTEXT = 77
CLASSES = {"plain": 900, "punctuation": 600, "unicode": 1200, "emoji": 400, "html": 500, "mojibake": 400, "space": 300,
           "long": 240, "control": 200, "special": 150, "empty": 10, "over_context": 100}

WORDS = """a the of in on with and red blue small large old wooden metal photo picture painting drawing close-up view man
woman child people dog cat horse bird car train boat city street house beach mountain river forest sunset night morning
black white green yellow wearing holding sitting standing riding playing looking near under over behind beautiful vintage
antidisestablishmentarianism supercalifragilistic iPhone DSLR 35mm HDR Nikon McDonald's O'Reilly don't it's we're they've
I'm you'll he'd 1080p 4K 2021 3.14 $5 50% e-mail rock'n'roll jalapeno cafe naive resume facade Zurich Sao Paulo""".split()
ACCENTED = """café naïve résumé façade Zürich São Paulo Ångström Ærø señor mañana piñata crème brûlée déjà vu Øresund łódź
Žižek Dvořák Škoda İstanbul ılık Đakovo ðorn þing ſtraße STRAẞE straße œuvre ŒUVRE ﬁnd ﬂow oﬃce Ǆungla ŉ Ĳssel""".split()
SCRIPTS = ["Привет мир кошка на столе", "Москва — столица", "Ελληνικά ΟΔΟΣ ΣΊΣΥΦΟΣ Σ ΑΣ. τέλος", "שלום עולם", "مرحبا بالعالم",
           "नमस्ते दुनिया", "สวัสดีชาวโลก", "日本語のテキスト", "中文字幕 猫在桌子上", "한국어 텍스트 고양이", "ｶﾀｶﾅ ﾊﾝｶｸ ガギグ",
           "ＦＵＬＬ　ＷＩＤＴＨ １２３！", "ქართული ᲥᲐᲠᲗᲣᲚᲘ", "Հայերեն", "አማርኛ", "ᏣᎳᎩ ꮳꮃꭹ", "Tiếng Việt có dấu", "Türkçe IĞDIR ısı"]
SYMBOLS = "©®™€£¥¢§¶†‡•…‰′″‹›«»¿¡°±²³¹¼½¾×÷√∞≈≠≤≥∂∑∏∫Ωµπ♥★☆♪←↑→↓─│┌┐└┘░▒▓█①②Ⅷⅷ㎏℃№℡ª º"
COMBINING = [0x300, 0x301, 0x302, 0x303, 0x308, 0x30a, 0x327, 0x328, 0x345, 0x323, 0x338, 0x93c, 0x94d, 0x5b0, 0x64b, 0x3099]
EMOJI = ["😀", "😂", "❤️", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "🏴\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f", "1️⃣", "☺", "✂️",
         "🫠", "🫨", "🪿", "⚽", "🎉", "🤷‍♀️", "©️", "〰️", "㊗️"]
ENTITIES = ["&amp;", "&lt;", "&gt;", "&quot;", "&nbsp;", "&eacute;", "&EACUTE;", "&copy", "&copy;", "&notit;", "&#39;", "&#x27;", "&#8217;",
            "&#x2014;", "&#150;", "&#x80;", "&#0;", "&#xD800;", "&#x110000;", "&#13;", "&#31;", "&hellip;", "&amp;amp;", "&amp;lt;b&amp;gt;",
            "&NotEqualTilde;", "&nosuch;", "&;", "& ", "&#;", "&#x;", "&ampquot;", "&ltimes", "&szlig;", "&SZLIG;", "&#59;", "&AMP;",
            "&amp;#8230;", "<b>", "</p>", "<br/>", "&rarr;", "&zwj;", "&shy;", "&fjlig;", "&Aacutebc", "&amp;amp;amp;quot;"]
SPACES = ["\t", "\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x1f", "\x85", "\xa0", "\u1680", "\u2000", "\u2003", "\u2009", "\u200a",
          "\u200b", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff", "\u180e", "\u2060", "  "]
SPECIALS = ["<|endoftext|>", "<|startoftext|>", "<end_of_text>", "<start_of_text>", "<END_OF_TEXT>", "<|ENDOFTEXT|>", "<end_of_text", "end_of_text>",
            "<|endoftext", "</w>", "<ſtart_of_text>", "[PAD]", "[SEP]", "[CLS]", "[UNK]", "</s>", "<pad>", "<unk>", "＜end_of_text＞", "&lt;end_of_text&gt;",
            "<|endoftext|><|endoftext|>", "'ſ", "'S", "'LL"]
EMPTY = ["", " ", "\n", "\ufeff", "\x00", "&", "'", ".", "\u3000", "</w>"]
MISREAD = ["latin-1", "cp1252", "cp1251", "cp1250", "cp1253", "cp1254", "cp1257", "iso-8859-2", "mac-roman", "cp437"]


def word(rng):
    return rng.choice(WORDS)


def phrase(rng, low=2, high=12):
    return " ".join(word(rng) for _ in range(rng.randint(low, high)))


def sprinkle(rng, text, things, count):
    parts = list(text)
    for _ in range(count):
        parts.insert(rng.randint(0, len(parts)), rng.choice(things))
    return "".join(parts)


def any_unicode(rng):
    high = rng.choice([0x250, 0x800, 0x3000, 0x10000, 0x20000])
    while True:
        cp = rng.randrange(0xa0, high)
        if not 0xd800 <= cp < 0xe000:
            return chr(cp)


def plain(rng):
    if rng.random() < 0.1:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789 ") for _ in range(rng.randint(3, 60)))
    text = phrase(rng)
    return rng.choice([text, text, text.capitalize() + ".", text.title(), text.upper()])


def punctuation(rng):
    curly = ["“", "”", "‘", "’", "‚", "„", "–", "—", "…", "‛", "‟", "ʼ", "′"]
    ascii_marks = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + ["...", "!!!", "--", "'s", "'T", "''"]
    return sprinkle(rng, phrase(rng), curly if rng.random() < 0.4 else ascii_marks, rng.randint(1, 12))


def unicode_text(rng):
    kind = rng.randrange(6)
    if kind == 0:
        return phrase(rng, 1, 3) + " " + rng.choice(SCRIPTS)
    if kind == 1:
        return " ".join(rng.choice(ACCENTED + WORDS) for _ in range(rng.randint(2, 8)))
    if kind == 2:
        return sprinkle(rng, phrase(rng), [chr(c) for c in COMBINING], rng.randint(1, 8))
    if kind == 3:
        return sprinkle(rng, phrase(rng), list(SYMBOLS), rng.randint(1, 10))
    if kind == 4:
        return "".join(any_unicode(rng) for _ in range(rng.randint(1, 30)))
    return rng.choice([str.upper, str.lower, str.title, str.swapcase])(rng.choice(SCRIPTS) + " " + rng.choice(ACCENTED))


def emoji(rng):
    return sprinkle(rng, phrase(rng, 0, 8), EMOJI, rng.randint(1, 8))


def html_text(rng):
    text = sprinkle(rng, phrase(rng), ENTITIES, rng.randint(1, 6))
    return text.replace(" ", rng.choice([" ", " ", "\n", "&nbsp;"]))


def mojibake(rng):
    source = rng.choice([rng.choice(SCRIPTS), " ".join(rng.choice(ACCENTED) for _ in range(3)), punctuation(rng), emoji(rng), rng.choice(list(SYMBOLS))])
    for _ in range(rng.choice([1, 1, 1, 2])):
        encoding = rng.choice(MISREAD[:2] if rng.random() < 0.6 else MISREAD)
        source = source.encode("utf-8", "replace").decode(encoding, rng.choice(["replace", "ignore"]))
    kind = rng.randrange(4)
    if kind == 0:
        source = source.replace("\xa0", " ")
    if kind == 1:
        source = source.replace("\ufffd", "?")
    return rng.choice([source, phrase(rng, 1, 4) + " " + source, source + " " + rng.choice(SCRIPTS), source + "\n" + phrase(rng, 1, 3), "<i> " + source])


def odd_space(rng):
    return sprinkle(rng, phrase(rng), SPACES, rng.randint(1, 10))


def long_text(rng):
    kind = rng.randrange(5)
    if kind == 0:
        return phrase(rng, 200, 3000)
    if kind == 1:
        return rng.choice(["a", "ab", "!", "é", "猫", "😀", "1", "haha"]) * rng.randint(200, 3000)
    if kind == 2:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(200, 3000)))
    if kind == 3:
        return " ".join(unicode_text(rng) for _ in range(60))
    return " ".join(html_text(rng) for _ in range(40))


def control(rng):
    codes = [chr(c) for c in [*range(0x20), 0x7f, *range(0x80, 0xa0), 0x200c, 0x200e, 0x202e, 0x206a, 0xfff9, 0xfffc, 0xfeff, 0xfffd, 0xad]]
    escapes = ["\x1b[31m", "\x1b[0m", "\x1b[1;3", "\x1b]0;", "\x1b[٣m", "\x1b[²m"]
    return sprinkle(rng, phrase(rng), codes if rng.random() < 0.8 else escapes, rng.randint(1, 6))


def special(rng):
    return sprinkle(rng, phrase(rng, 0, 6), SPECIALS, rng.randint(1, 4))


def over_context(rng):
    tail = rng.choice(["", " <|endoftext|>", " ’s", " &amp;", "."])
    return phrase(rng, 60, 90) + tail


MAKERS = {"plain": plain, "punctuation": punctuation, "unicode": unicode_text, "emoji": emoji, "html": html_text, "mojibake": mojibake,
          "space": odd_space, "long": long_text, "control": control, "special": special, "over_context": over_context}


def captions(scale=1.0):
    """Class and text, in a fixed order; a class that is scaled keeps its first ones."""
    for name, count in CLASSES.items():
        rng = random.Random(f"{SEED}-{name}")
        made = EMPTY[:count] if name == "empty" else [MAKERS[name](rng) for _ in range(count)]
        for text in made[: max(1, int(count * scale))]:
            yield name, text


def merge_lines(path):
    lines = gzip.open(path).read().decode("utf-8").split("\n")
    return lines[1 : 49152 - 256 - 2 + 1]


def clip_vocabulary(merges):
    """SimpleTokenizer's ids, with the special tokens named as Hugging Face names them."""
    symbols = list(open_clip.tokenizer.bytes_to_unicode().values())
    vocab = symbols + [s + "</w>" for s in symbols] + ["".join(m) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    return {token: at for at, token in enumerate(vocab)}


def clip_tokenizer(merges):
    from transformers import CLIPTokenizerFast

    fast = CLIPTokenizerFast(vocab=clip_vocabulary(merges), merges=merges)
    backend = fast.backend_tokenizer
    backend.enable_truncation(CONTEXT)
    return backend


def dump(path, value, compact=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")) if compact else json.dumps(value, indent=1)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


CLIP_SPECIALS = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}


def write_clip_folders(out, backend, pack):
    """The Hugging Face layout without stored truncation, and the open_clip layout of the same vocabulary."""
    backend.no_truncation()
    text = backend.to_str()
    backend.enable_truncation(CONTEXT)
    dump(out / "clip/tokenizer_config.json", {**CLIP_SPECIALS, "model_max_length": CONTEXT, "tokenizer_class": "CLIPTokenizer"})
    dump(out / "clip/special_tokens_map.json", CLIP_SPECIALS)
    dump(out / "clip/config.json", {"model_type": "clip", "text_config": {"model_type": "clip_text_model", "max_position_embeddings": CONTEXT}})
    dump(out / "open_clip/config.json", {"embed_dim": 512, "text_cfg": {"context_length": CONTEXT, "vocab_size": backend.get_vocab_size()}})
    if pack:
        (out / "clip_tokenizer.json.gz").write_bytes(gzip.compress(text.encode("utf-8"), 9, mtime=0))
        return
    for folder in ("clip", "open_clip/textual"):
        (out / folder).mkdir(parents=True, exist_ok=True)
        (out / folder / "tokenizer.json").write_text(text, encoding="utf-8")


def strip_padding(row):
    """Zero is both padding and "!": the end token is the last id that is not padding."""
    end = len(row)
    while end and row[end - 1] == 0:
        end -= 1
    return row[:end]


def write_captions(path, rows, pack=False):
    text = "".join(json.dumps(row, ensure_ascii=True, separators=(",", ":")) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0) if pack else text.encode())


def clip_rows(backend, simple, chosen):
    for name, text in chosen:
        yield {"class": name, "text": text, "hf": backend.encode(text).ids, "open_clip": strip_padding(simple([text])[0].tolist())}


def microseconds(encode, texts, passes=5):
    """Of the fastest pass, so that what else the machine does counts least; the caches of the references are warm then."""
    best = float("inf")
    for _ in range(passes):
        began = time.perf_counter()
        for text in texts:
            encode(text)
        best = min(best, time.perf_counter() - began)
    return round(best / len(texts) * 1e6, 1)


def report_times(backend, simple):
    """One thread, one caption at a time, the fastest of five passes."""
    for kind, texts in (("all", [t for _, t in captions()]), ("plain", [t for c, t in captions() if c == "plain"])):
        print(json.dumps({"captions": kind, "tokenizers_us": microseconds(backend.encode, texts),
                          "open_clip_us": microseconds(lambda t: simple([t]), texts)}))


def full(out, timed):
    merges_path = default_bpe()
    backend = clip_tokenizer([tuple(line.split()) for line in merge_lines(merges_path)])
    simple = SimpleTokenizer(merges_path)
    write_clip_folders(out, backend, pack=False)
    rows = list(clip_rows(backend, simple, captions()))
    write_captions(out / "captions.jsonl", rows)
    print(len(rows), "captions;", sum(row["hf"] != row["open_clip"] for row in rows), "on which the references differ")
    if timed:
        report_times(backend, simple)


def cut_merges(count, path):
    lines = merge_lines(default_bpe())[:count]
    path.write_bytes(gzip.compress(("#version: 0.2\n" + "\n".join(lines)).encode("utf-8"), 9, mtime=0))
    return [tuple(line.split()) for line in lines]


def siglip_like():
    """A Unigram tokenizer as SigLIP's is built (Metaspace, end token), over a vocabulary of a few hundred pieces."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = sorted({w.lower() for w in WORDS})
    pieces += [("\u2581" + w, -5.0 - len(w) / 10) for w in words]
    pieces += [(c, -9.0) for c in sorted(set("abcdefghijklmnopqrstuvwxyz0123456789.,'!?-\u2581éüñ"))]
    pieces += [(p, -7.0) for p in ("ing", "ed", "er", "tion", "al", "s", "th", "an")if p != "s"]
    made = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
    made.decoder = decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    made.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return made


def word_piece():
    """A BERT tokenizer with padding and truncation stored, as sentence encoders ship them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,'!?-&;#()"
    vocab = specials + sorted({w.lower() for w in WORDS if w.isalpha()}) + list(letters) + ["##" + c for c in letters] + ["##ing", "##ed", "##s's"]
    made = Tokenizer(models.WordPiece({t: i for i, t in enumerate(dict.fromkeys(vocab))}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    made.add_special_tokens(specials)
    made.enable_truncation(32)
    made.enable_padding(length=128, pad_id=0, pad_token="[PAD]")
    return made


def other_rows(made, chosen):
    """Without padding, whatever the file stores."""
    made.no_padding()
    for name, text in chosen:
        yield {"class": name, "text": text, "hf": made.encode(text).ids,
               "canonicalize": made.encode(canonicalize_text(basic_clean(text))).ids,
               "whitespace": made.encode(whitespace_clean(basic_clean(text))).ids}


def fixtures(out):
    out.mkdir(parents=True, exist_ok=True)
    merges_path = out / "merges.txt.gz"
    merges = cut_merges(4000, merges_path)
    backend = clip_tokenizer(merges)
    write_clip_folders(out, backend, pack=True)
    chosen = [(name, text) for name, text in captions(0.12) if len(text) < 3000]
    write_captions(out / "captions.jsonl.gz", clip_rows(backend, SimpleTokenizer(str(merges_path)), chosen), pack=True)
    merges_path.unlink()
    few = [(name, text) for name, text in captions(0.04) if len(text) < 1000]
    siglip = siglip_like()
    dump(out / "siglip/textual/tokenizer.json", json.loads(siglip.to_str()), compact=True)
    dump(out / "siglip/textual/tokenizer_config.json", {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"})
    dump(out / "siglip/config.json", {"embed_dim": 768, "text_cfg": {"context_length": 64, "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
                                                                    "tokenizer_kwargs": {"clean": "canonicalize"}}})
    siglip.enable_truncation(64)
    write_captions(out / "siglip.jsonl.gz", other_rows(siglip, few), pack=True)
    bert = word_piece()
    dump(out / "wordpiece/tokenizer.json", json.loads(bert.to_str()), compact=True)
    dump(out / "wordpiece/tokenizer_config.json", {"model_max_length": 512, "pad_token": "[PAD]", "sep_token": "[SEP]", "tokenizer_class": "BertTokenizer"})
    dump(out / "wordpiece/config.json", {"model_type": "vision-text-dual-encoder"})
    write_captions(out / "wordpiece.jsonl.gz", other_rows(bert, few), pack=True)
    dump(out / "VERSIONS.json", versions())


def versions():
    import ftfy
    import regex
    import transformers

    return {"python": sys.version.split()[0], "tokenizers": tokenizers.__version__, "transformers": transformers.__version__,
            "open_clip_torch": open_clip.__version__, "ftfy": ftfy.__version__, "regex": regex.__version__, "seed": SEED}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["full", "fixtures"])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--seed", type=int, default=SEED, help="other captions than those of the figures")
    chosen = parser.parse_args()
    globals()["SEED"] = chosen.seed
    print(json.dumps(versions()))
    if chosen.what == "full":
        full(chosen.out, chosen.time)
    else:
        fixtures(chosen.out)


if __name__ == "__main__":
    main()
