"""Writes the split manifest and the class lists of arf-mini from the cut benchmark and Emojibase's subgroups.

Usage: make_split.py DATA_DIR EMOJIBASE_TGZ EXPERIMENT_DIR

    DATA/pool.parquet, DATA/bench.parquet, DATA/classes.json, emojibase-data 17.0.0 -> split.parquet, classes.json

A category is an Emojibase subgroup that holds at least four of the finetune concepts; its name for people is in NAMES.
"""

import collections
import hashlib
import json
import pathlib
import sys
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq

EMOJIBASE = "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a"
# Found by the experiment's own check (duplicates.json of a first run): the same or nearly the same picture as one of a test set.
NOT_IN_POOL = [
    "emojione-monotone/1F315",
    "emojione-monotone/26AA",
    "emojione/1F4A7",
    "fxemoji/1F535",
    "healthicons/star-large-outline",
    "noto-v1/1F535",
    "noto-v1/1F63A",
    "noto-v1/1F63D",
    "noto/1F63C",
    "openclipart/food/meats_and_eggs/chicken_burger.svg",
    "openclipart/food/meats_and_eggs/chicken_burger_bw.svg",
    "openclipart/people/clothing/hats/sombrero_dave_pena_01.svg",
    "openclipart/recreation/holiday/pumpkin2_yemu_01.svg",
    "openclipart/recreation/toys/stylized_teddy_bear_wit_02.svg",
    "tuxpaint/food/dessert/cartoon/pink_cake.png",
    "tuxpaint/food/dessert/cartoon/pink_cake.svg",
    "tuxpaint/vehicles/blue_truck.svg",
    "tuxpaint/vehicles/race/f1_car.svg",
    "twemoji/1F535",
    "twemoji/1F7E1",
]
NAMES = {
    "animal-mammal": "mammal", "animal-bird": "bird", "animal-bug": "insect", "animal-marine": "sea animal", "plant-flower": "flower",
    "plant-other": "plant", "food-fruit": "fruit", "food-vegetable": "vegetable", "food-prepared": "meal", "food-asian": "Asian food",
    "food-sweet": "dessert", "drink": "drink", "place-geographic": "landscape", "place-building": "building",
    "place-religious": "place of worship", "transport-ground": "land vehicle", "transport-water": "ship or boat",
    "transport-air": "aircraft", "sky-weather": "sky or weather", "event": "celebration", "sport": "sport", "game": "game or toy",
    "clothing": "piece of clothing", "sound": "sound or alarm", "musical-instrument": "musical instrument", "phone": "telephone",
    "computer": "computer part", "light-video": "camera, film or light", "book-paper": "book or paper", "money": "money",
    "mail": "mail", "office": "office supply", "tool": "tool", "medical": "medical item", "household": "household item",
}


def subgroups(archive):
    data = pathlib.Path(archive).read_bytes()
    if hashlib.sha256(data).hexdigest() != EMOJIBASE:
        sys.exit(f"{archive} is not emojibase-data 17.0.0")
    with tarfile.open(archive) as tar:
        read = lambda name: json.load(tar.extractfile(f"package/{name}"))
        names = read("meta/groups.json")["subgroups"]
        return {e["hexcode"]: names[str(e["subgroup"])] for e in read("en/data.json") if "subgroup" in e}


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    data, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[3])
    columns = ["id", "split", "label", "style", "source", "license"]
    of_code = subgroups(sys.argv[2])
    bench = pq.read_table(data / "bench.parquet", columns=columns).to_pylist()
    pool = pq.read_table(data / "pool.parquet", columns=columns).to_pylist()
    of_label = {r["label"]: of_code[code] for r in bench if (code := r["id"].partition("/")[2]) in of_code}
    classes = json.loads((data / "classes.json").read_text())["classes"]
    count = collections.Counter(of_label.get(label) for label in classes["ft"])
    category = {label: NAMES[group] for label, group in sorted(of_label.items()) if group in NAMES and count[group] >= 4}
    lists = {"finetune": classes["ft"], "held_out": classes["zs"], "category": category, "not_in_pool": NOT_IN_POOL}
    (out / "classes.json").write_text(json.dumps(lists, indent=0, ensure_ascii=False) + "\n")
    table = pa.Table.from_pylist([{**r, "category": category.get(r["label"], "")} for r in bench + [r for r in pool if r["id"] not in NOT_IN_POOL]])
    pq.write_table(table, out / "split.parquet", compression="zstd", compression_level=19)
    print(f"{len(bench)} + {len(pool)} rows, {len(set(category.values()))} categories")


if __name__ == "__main__":
    main()
