//! Promise: `recipes/prepare.py` turns the published evaluation sets, unpacked as their makers pack them, into what `anchorite eval` reads, with every label in
//! the class list's own numbering. On stand-in files: the layouts are the real ones, the pictures are not.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
};

use arrow_array::{cast::AsArray, types::Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;

use crate::{
    datasets::samples,
    program::{model, run, text},
    python::{self, environment, in_tree},
};

const PACKAGES: [&str; 2] = ["pyarrow==26.0.1", "pillow==13.0.0"];
/// Eleven synsets, so that numbers sorted as text come in another order.
const WNIDS: usize = 11;

fn wnid(class: usize) -> String {
    format!("n{:08}", 1_440_764 + 7 * class)
}

/// The pictures of a folder tree, by path.
struct Release<'a> {
    root: &'a Path,
    pictures: Vec<Vec<u8>>,
    next: usize,
}

impl Release<'_> {
    /// Another picture at this place; its bytes.
    fn picture(&mut self, path: &str) -> Vec<u8> {
        let place = self.root.join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        let bytes = self.pictures[self.next].clone();
        self.next += 1;
        fs::write(&place, &bytes).unwrap();
        bytes
    }

    fn file(&self, path: &str, content: &str) {
        let place = self.root.join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, content).unwrap();
    }
}

/// Labels by picture, of every file of the folder.
fn labels(folder: &Path) -> Vec<(Vec<u8>, String)> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let mut all = Vec::new();
    for file in files {
        for batch in ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let (pictures, labels) = (batch.column(0).as_binary::<i32>(), batch.column(1));
            for row in 0..batch.num_rows() {
                let label = match labels.as_string_opt::<i32>() {
                    Some(words) => words.value(row).to_owned(),
                    None => labels.as_primitive::<Int64Type>().value(row).to_string(),
                };
                all.push((pictures.value(row).to_vec(), label));
            }
        }
    }
    all
}

fn by_class(
    release: &mut Release<'_>,
    top: &str,
    classes: &[usize],
    name: &dyn Fn(usize) -> String,
) -> BTreeMap<Vec<u8>, String> {
    classes
        .iter()
        .flat_map(|&class| (0..2).map(move |n| (class, n)))
        .map(|(class, n)| (release.picture(&format!("{top}/{}/{n}.png", name(class))), class.to_string()))
        .collect()
}

/// ObjectNet's own numbering of ImageNet: the reverse of everyone's.
fn objectnet(release: &mut Release<'_>) {
    let folder_to_label = json!({ "alarm_clock": "Alarm clock", "chair": "Chair", "bread_knife": "Bread knife" });
    release.file("objectnet/mappings/folder_to_objectnet_label.json", &folder_to_label.to_string());
    let lines: Vec<String> = (0..WNIDS).map(|own| format!("words of {}, and more", WNIDS - 1 - own)).collect();
    release.file("objectnet/mappings/imagenet_to_label_2012_v2", &(lines.join("\n") + "\n"));
    let everyones: BTreeMap<String, usize> = (0..WNIDS).map(|class| (class.to_string(), WNIDS - 1 - class)).collect();
    release.file("objectnet/mappings/pytorch_to_imagenet_2012_id.json", &serde_json::to_string(&everyones).unwrap());
    let map = json!({ "Alarm clock": "words of 3, and more; words of 5, and more", "Chair": "words of 10, and more" });
    release.file("objectnet/mappings/objectnet_to_imagenet_1k.json", &map.to_string());
    for folder in ["alarm_clock", "chair", "bread_knife"] {
        let _ = release.picture(&format!("objectnet/images/{folder}/one.png"));
    }
}

#[test]
fn every_recipe_gives_what_eval_reads_with_the_labels_of_the_class_list() {
    let Some(python) = environment("recipes", |python| python.pip("pyarrow and Pillow", &[&["install"][..], &PACKAGES].concat()))
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let pictures: Vec<Vec<u8>> = samples(400).into_iter().map(|s| s.picture).collect();
    let mut release = Release { root: folder.path(), pictures, next: 0 };
    let words: Vec<String> = (0..WNIDS).map(|class| format!("{} thing {class}, other word", wnid(class))).collect();
    release.file("LOC_synset_mapping.txt", &(words.join("\n") + "\n"));
    let all: Vec<usize> = (0..WNIDS).collect();
    let mut expected = BTreeMap::new();
    expected.insert("imagenet", by_class(&mut release, "imagenet/val", &all, &wnid));
    expected.insert("imagenet-v2", by_class(&mut release, "imagenet-v2", &all, &|class| class.to_string()));
    expected.insert("imagenet-r", by_class(&mut release, "imagenet-r", &[1, 4, 10], &wnid));
    expected.insert("imagenet-a", by_class(&mut release, "imagenet-a", &[2, 9], &wnid));
    expected.insert("imagenet-sketch", by_class(&mut release, "imagenet-sketch/sketch", &all, &wnid));
    objectnet(&mut release);
    let shown = release.picture("oxford_pets/images/Abyssinian_1.jpg");
    let split = json!({
        "train": [["Bombay_1.jpg", 1, "bombay"]], "val": [], "test": [["Abyssinian_1.jpg", 0, "abyssinian_cat"]]
    });
    release.file("oxford_pets/split_zhou_OxfordPets.json", &split.to_string());
    expected.insert("oxford_pets", BTreeMap::from([(shown, "0".to_owned())]));

    let at = |name: &str| text(folder.path().join(name));
    let prepare = |set: &str| {
        let mut command = python.command();
        let script = in_tree("recipes/prepare.py");
        command.arg(script).args([set, &at(set), &at("out"), "--wnids", &at("LOC_synset_mapping.txt"), "--rows", "7"]);
        String::from_utf8(python::run("a recipe", &mut command)).unwrap()
    };
    let mut config = format!("bootstrap = 0\n[[models]]\nname = \"demo\"\nmodel = \"{}\"\n", model());
    config += "[classes.imagenet]\nnames = \"imagenet-names.txt\"\ntemplates = \"openai-imagenet-7\"\n";
    let mut sets = String::new();
    for (set, rows) in &expected {
        let said = prepare(set);
        assert!(said.contains(&format!("{} pictures", rows.len())), "{set}: {said}");
        for (picture, label) in labels(&folder.path().join("out").join(set)) {
            assert_eq!(rows.get(&picture), Some(&label), "{set}");
        }
        sets += &fs::read_to_string(folder.path().join(format!("out/{set}.toml"))).unwrap();
    }
    // An object without a class of ImageNet's is left out; the others' frames are cut, and their classes come from three tables.
    let _ = prepare("objectnet");
    let found: Vec<String> = labels(&folder.path().join("out/objectnet")).into_iter().map(|(_, label)| label).collect();
    assert_eq!(found, ["Alarm clock", "Chair"]);
    let map: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(folder.path().join("out/objectnet.json")).unwrap()).unwrap();
    assert_eq!(map, json!({ "Alarm clock": [3, 5], "Chair": [10] }));
    sets += &fs::read_to_string(folder.path().join("out/objectnet.toml")).unwrap();
    let subset = fs::read_to_string(folder.path().join("out/imagenet-r.json")).unwrap();
    assert_eq!(subset.trim(), "[1, 4, 10]");

    fs::write(folder.path().join("out/imagenet-names.txt"), (0..WNIDS).map(|c| format!("thing {c}\n")).collect::<String>())
        .unwrap();
    fs::write(folder.path().join("out/eval.toml"), config + &sets).unwrap();
    let found = run(&["eval", &at("out/eval.toml"), "-o", &at("results")]).with(0);
    let table = fs::read_to_string(folder.path().join("results/evaluation.md")).unwrap_or(found.stdout);
    for set in expected.keys().chain([&"objectnet"]) {
        assert!(table.contains(set), "{set} is not in {table}");
    }
}
