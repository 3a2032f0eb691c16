"""Contact sheets of the benchmark's sets with labels and ids, for a person to look at.

Usage: sheets.py DATA_DIR OUT_DIR [SPLIT...]      PNG files of 8 x 10 pictures, in the manifest's order
"""

import io
import pathlib
import sys

import pyarrow.parquet as pq
from PIL import Image, ImageDraw

COLUMNS, ROWS, CELL, TEXT = 10, 8, 100, 24


def sheet(rows):
    page = Image.new("RGB", (COLUMNS * CELL, ROWS * (CELL + TEXT)), "white")
    draw = ImageDraw.Draw(page)
    for at, row in enumerate(rows):
        x, y = at % COLUMNS * CELL, at // COLUMNS * (CELL + TEXT)
        page.paste(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"), (x + 2, y))
        draw.text((x + 2, y + 97), row["label"][:16], fill="black")
        draw.text((x + 2, y + 108), row["id"].split("/")[-1][:16], fill="grey")
    return page


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    data, out = map(pathlib.Path, sys.argv[1:3])
    out.mkdir(parents=True, exist_ok=True)
    rows = pq.read_table(data / "bench.parquet").to_pylist()
    for split in sys.argv[3:] or sorted({r["split"] for r in rows}):
        of = [r for r in rows if r["split"] == split]
        for number, start in enumerate(range(0, len(of), COLUMNS * ROWS)):
            sheet(of[start:start + COLUMNS * ROWS]).save(out / f"{split}-{number}.png")


if __name__ == "__main__":
    main()
