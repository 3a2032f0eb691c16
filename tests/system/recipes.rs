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
/// Eleven of the thousand synsets have pictures, so that numbers sorted as text come in another order.
const WNIDS: usize = 11;
/// CoOp's sets with a split file: name, folder of the pictures, a picture's path in it.
const SPLIT: [(&str, &str, &str); 9] = [
    ("caltech101", "101_ObjectCategories", "accordion/image_0001.jpg"),
    ("oxford_pets", "images", "Abyssinian_1.jpg"),
    ("stanford_cars", "", "cars_test/00001.jpg"),
    ("oxford_flowers", "jpg", "image_00001.jpg"),
    ("food101", "images", "apple_pie/1.jpg"),
    ("sun397", "SUN397", "a/abbey/sun_1.jpg"),
    ("dtd", "images", "banded/banded_0002.jpg"),
    ("eurosat", "2750", "AnnualCrop/AnnualCrop_1.jpg"),
    ("ucf101", "UCF-101-midframes", "Apply_Eye_Makeup/v_ApplyEyeMakeup_g01_c01.jpg"),
];

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

/// The pictures of Kaggle's release, all in one folder, and a table that says what they show.
fn flat(release: &mut Release<'_>) -> BTreeMap<Vec<u8>, String> {
    let mut table = "ImageId,PredictionString\n".to_owned();
    let mut expected = BTreeMap::new();
    for (number, class) in [7, 10, 2].into_iter().enumerate() {
        let picture = release.picture(&format!("kaggle/val/ILSVRC2012_val_0000000{number}.JPEG"));
        table += &format!("ILSVRC2012_val_0000000{number},{} 1 2 3 4 {} 5 6 7 8\n", wnid(class), wnid(class));
        expected.insert(picture, class.to_string());
    }
    release.file("kaggle/LOC_val_solution.csv", &table);
    expected
}

/// A set as CoOp has it: one test picture, of the second class; the first class has a name of two words.
fn coop(release: &mut Release<'_>, (name, folder, path): (&str, &str, &str)) -> BTreeMap<Vec<u8>, String> {
    let shown = release.picture(&format!("{name}/{folder}/{path}"));
    let split = json!({ "train": [["other.jpg", 0, "first_class"]], "val": [], "test": [[path, 1, "second"]] });
    release.file(&format!("{name}/split_zhou_Its.json"), &split.to_string());
    BTreeMap::from([(shown, "1".to_owned())])
}

/// FGVC-Aircraft as its makers have it: CoOp has no split of its own for it.
fn aircraft(release: &mut Release<'_>) -> BTreeMap<Vec<u8>, String> {
    release.file("fgvc_aircraft/variants.txt", "707-320\nAn-12\nBAE 146-200\n");
    release.file("fgvc_aircraft/images_variant_test.txt", "1514522 BAE 146-200\n0747566 707-320\n");
    let shown = ["1514522", "0747566"].map(|number| release.picture(&format!("fgvc_aircraft/images/{number}.jpg")));
    shown.into_iter().zip(["2".to_owned(), "0".to_owned()]).collect()
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
    let words: Vec<String> = (0..1_000).map(|class| format!("{} thing {class}, other word", wnid(class))).collect();
    release.file("LOC_synset_mapping.txt", &(words.join("\n") + "\n"));
    let all: Vec<usize> = (0..WNIDS).collect();
    let mut expected = BTreeMap::new();
    expected.insert("imagenet", by_class(&mut release, "imagenet/val", &all, &wnid));
    expected.insert("imagenet-v2", by_class(&mut release, "imagenet-v2", &all, &|class| class.to_string()));
    expected.insert("imagenet-r", by_class(&mut release, "imagenet-r", &[1, 4, 10], &wnid));
    expected.insert("imagenet-a", by_class(&mut release, "imagenet-a", &[2, 9], &wnid));
    expected.insert("imagenet-sketch", by_class(&mut release, "imagenet-sketch/sketch", &all, &wnid));
    objectnet(&mut release);
    for set in SPLIT {
        expected.insert(set.0, coop(&mut release, set));
    }
    expected.insert("fgvc_aircraft", aircraft(&mut release));
    let kaggle = flat(&mut release);

    let at = |name: &str| text(folder.path().join(name));
    let prepare = |set: &str, from: &str| {
        let mut command = python.command();
        let script = in_tree("recipes/prepare.py");
        command.arg(script).args([set, &at(from), &at("out"), "--wnids", &at("LOC_synset_mapping.txt"), "--rows", "7"]);
        String::from_utf8(python::run("a recipe", &mut command)).unwrap()
    };
    let mut config = format!("bootstrap = 0\n[[models]]\nname = \"demo\"\nmodel = \"{}\"\n", model());
    config += "[classes.imagenet]\nnames = \"imagenet-names.txt\"\ntemplates = \"openai-imagenet-7\"\n";
    let mut sets = String::new();
    let _ = prepare("imagenet", "kaggle");
    let found: BTreeMap<Vec<u8>, String> = labels(&folder.path().join("out/imagenet")).into_iter().collect();
    assert_eq!(found, kaggle, "the flat layout");
    fs::remove_dir_all(at("out/imagenet")).unwrap();
    for (set, rows) in &expected {
        let said = prepare(set, set);
        assert!(said.contains(&format!("{} pictures", rows.len())), "{set}: {said}");
        let found = labels(&folder.path().join("out").join(set));
        assert_eq!(found.len(), rows.len(), "{set}");
        for (picture, label) in found {
            assert_eq!(rows.get(&picture), Some(&label), "{set}");
        }
        sets += &fs::read_to_string(folder.path().join(format!("out/{set}.toml"))).unwrap();
    }
    // An object without a class of ImageNet's is left out; the others' frames are cut, and their classes come from three tables.
    let _ = prepare("objectnet", "objectnet");
    let found: Vec<String> = labels(&folder.path().join("out/objectnet")).into_iter().map(|(_, label)| label).collect();
    assert_eq!(found, ["Alarm clock", "Chair"]);
    let map: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(folder.path().join("out/objectnet.json")).unwrap()).unwrap();
    assert_eq!(map, json!({ "Alarm clock": [3, 5], "Chair": [10] }));
    sets += &fs::read_to_string(folder.path().join("out/objectnet.toml")).unwrap();
    let subset = fs::read_to_string(folder.path().join("out/imagenet-r.json")).unwrap();
    assert_eq!(subset.trim(), "[1, 4, 10]");

    let read = |name: &str| fs::read_to_string(folder.path().join("out").join(name)).unwrap();
    assert_eq!(read("eurosat-names.txt"), "first class\nsecond\n");
    assert_eq!(read("fgvc_aircraft-names.txt"), "707-320\nAn-12\nBAE 146-200\n");
    let names = read("imagenet-names.txt");
    assert_eq!(names.lines().collect::<Vec<_>>()[..2], ["tench", "goldfish"]);
    assert_eq!(names.lines().count(), 1_000);
    // As many prompts as there are pictures here will do.
    fs::write(folder.path().join("out/imagenet-names.txt"), (0..WNIDS).map(|c| format!("thing {c}\n")).collect::<String>())
        .unwrap();
    fs::write(folder.path().join("out/eval.toml"), config + &sets).unwrap();
    let found = run(&["eval", &at("out/eval.toml"), "-o", &at("results")]).with(0);
    let table = fs::read_to_string(folder.path().join("results/evaluation.md")).unwrap_or(found.stdout);
    for set in expected.keys().chain([&"objectnet"]) {
        assert!(table.contains(set), "{set} is not in {table}");
    }
}
