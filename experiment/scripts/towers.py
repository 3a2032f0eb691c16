"""A look at towers that are trained as well, from what a finished run of the experiment left behind.

Usage: towers.py OUT [--program anchorite] [--steps 100] [--rates 3e-5,1e-4,3e-4] [--pool-steps 220]

    OUT/models/base, sets, seed-N/{pool,anchors} -> plain finetuning and ARF of every weight -> rate by validation -> tests
                                                 -> the base trained on its pool, every weight -> finetune set, tests

OUT is what `anchorite experiment arf-mini --out OUT` filled, its first seed with ARF. Each arm's rate is the best of --rates on the validation set, of equals the lowest, and
only then are the test sets opened. Steps are of 32 pictures, not 128: towers cost a hundred times what heads do. Everything is in OUT/towers, the figures in
OUT/towers/result.json; what is done is not done again.
"""

import argparse
import json
import resource
import subprocess
import time
from pathlib import Path

TEMPLATES = ["{}", "a picture of a {}", "a drawing of a {}", "an icon of a {}", "clip art of a {}"]  # src/experiment/base.rs
POOL_RATE = "3e-5"
ARMS = ["flyp", "arf"]


def words(items):
    return json.dumps(items, ensure_ascii=False)


def common(name, seed, steps, batch):
    return f'model = "models/base"\noutput = "towers/{name}"\nseed = {seed}\nsteps = {steps}\nbatch = {batch}\n'


REST = """[step]
same_group = "positive"
threads = 2
[checkpoint]
every = 1000000
keep = 1
[log]
every = 10
tensorboard = false
"""


def finetune(arm, steps, categories, seed):
    """The run file of an arm: the experiment's own streams, every weight trained."""
    anchors = f"""[captions]
column = "rich"
[anchors]
manifest = "seed-{seed}/anchors/nearest.jsonl"
pool = "seed-{seed}/pool"
"""
    return f"""{common(arm, seed, steps, 32)}[task]
sources = ["sets/train.parquet"]
label = "category"
class_names = {words(categories)}
templates = {words(TEMPLATES)}
same_class = "grouped"
{anchors if arm == "arf" else ""}{REST}"""


def pretrain(steps, seed):
    """The run file that goes on with the base on its pool."""
    return f"""{common("pool", seed, steps, 64)}[task]
sources = ["sets/pool.parquet"]
text = "caption"
caption = "either"
same_class = "grouped"
[schedule]
rate = {POOL_RATE}
{REST}"""


def evaluation(sets, classes, roles):
    chosen = [s for s in sets if s["role"] in roles]
    text = "bootstrap = 1000\n"
    for name in sorted({s["classes"] for s in chosen}):
        text += f'[classes."{name}"]\nnames = {words(classes[name])}\ntemplates = {words(TEMPLATES)}\n'
    for s in chosen:
        column = "category" if s["classes"] == "category" else "label"
        text += f'[[sets]]\nname = "{s["name"]}"\ngroup = "{s["role"]}"\nsources = ["../sets/{s["name"]}.parquet"]\n'
        text += f'classes = "{s["classes"]}"\nlabel_column = "{column}"\n'
    return text


class Look:
    def __init__(self, given):
        self.out, self.program, self.folder = given.out, given.program, given.out / "towers"
        self.sets, self.classes = json.loads((self.out / "sets/sets.json").read_text())
        self.seed = json.loads((self.out / "experiment.json").read_text())["first_seed"]
        self.folder.mkdir(exist_ok=True)
        write = lambda name, text: (self.folder / f"{name}.toml").write_text(text)
        for arm in ARMS:
            write(arm, finetune(arm, given.steps, self.classes["category"], self.seed))
        write("pool", pretrain(given.pool_steps, self.seed))
        write("validation", evaluation(self.sets, self.classes, {"validation"}))
        write("untrained", evaluation(self.sets, self.classes, {"train", "validation"}))
        write("tests", evaluation(self.sets, self.classes, {"id", "shift", "resample", "zero-shot"}))
        self.result = self.folder / "result.json"
        self.found = json.loads(self.result.read_text()) if self.result.is_file() else {}

    def keep(self, name, value):
        self.found[name] = value
        self.result.write_text(json.dumps(self.found, indent=1) + "\n")
        print(name, json.dumps(value), flush=True)

    def run(self, *words):
        """Runs the program; wall and processor seconds. The peak of memory is the largest of all so far."""
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run([self.program, *words], cwd=self.out, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {"wall_s": round(time.monotonic() - start, 1), "cpu_s": round(cpu, 1), "peak_mib_so_far": after.ru_maxrss // 1024}

    def train(self, command, file, name, *settings):
        if (self.folder / name / "model").is_dir():
            return
        given = [word for setting in (f'output="towers/{name}"', *settings) for word in ("--set", setting)]
        self.keep(f"{name} cost", self.run(command, f"towers/{file}.toml", *given))

    def measure(self, file, models, output):
        """Top-1 of every model, by set and averaged by group."""
        if output in self.found:
            return self.found[output]
        added = [word for name, where in models.items() for word in ("--add", f"{name}={where}")]
        self.run("eval", f"towers/{file}.toml", *added, "-o", f"towers/{output}")
        whole = json.loads((self.folder / output / "evaluation.json").read_text())
        rows = [(r["model"], r["set"], r) for r in whole["results"]] + [(r["model"], "mean " + r["group"], r) for r in whole["averages"]]
        found = {}
        for model, where, row in rows:
            top = row["figures"]["top1"]
            found.setdefault(model, {})[where] = [round(100 * top[key], 2) for key in ("value", "low", "high")]
        wanted = [d for d in whole["differences"] if d["group"] and d["metric"] == "top1"]
        found["less the first"] = [{k: d[k] for k in ("model", "baseline", "on", "value", "low", "high", "p")} for d in wanted]
        self.keep(output, found)
        return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--program", default="anchorite")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rates", default="3e-5,1e-4,3e-4")
    parser.add_argument("--pool-steps", type=int, default=220, help="of 64: half a pass over the pool")
    given = parser.parse_args()
    look, rates = Look(given), given.rates.split(",")
    base = {"base": "models/base"}
    for arm in ARMS:
        for rate in rates:
            look.train("finetune", arm, f"{arm}-{rate}", f"schedule.rate={rate}")
    tried = {f"{arm}-{rate}": f"towers/{arm}-{rate}/model" for arm in ARMS for rate in rates}
    right = look.measure("validation", base | tried, "validation")
    best = lambda arm: max(rates, key=lambda rate: (right[f"{arm}-{rate}"]["validation"][0], -float(rate)))
    chosen = {arm: f"towers/{arm}-{best(arm)}/model" for arm in ARMS}
    look.measure("tests", base | chosen, "tests")
    # Against plain finetuning, paired picture by picture.
    look.measure("tests", {"flyp": chosen["flyp"], "arf": chosen["arf"]}, "arf-less-flyp")
    look.train("pretrain", "pool", "pool")
    look.measure("untrained", base | {"pool": "towers/pool/model"}, "base-untrained")
    look.measure("tests", base | {"pool": "towers/pool/model"}, "base-tests")


main()
