//! A batch's number to the run's streams: the task's pairs, their captions, and anchors.

use std::sync::Arc;

use anchorite_anchors::policy::Templates;
use anchorite_index::Cancel;

use super::{
    DataError, Draw, Order, PairData, PairSet, Place, Preparer,
    anchors::{AnchorPair, AnchorSource, Query, Wanted},
    stream,
};
use crate::runner::{RunConfig, SameClass, TaskText};
use crate::step::{Pictures, StreamBatch};

/// What the streams are made from.
pub struct StreamsPlan {
    /// The finetune set.
    pub task: PairSet,
    /// Anchors, where the run has them.
    pub anchors: Option<Box<dyn AnchorSource>>,
    /// Pictures and texts to what towers take.
    pub preparer: Arc<Preparer>,
    /// Ends a wait for anchors.
    pub cancel: Cancel,
}

/// All batches of a run, by number. Shared among threads.
pub struct Streams {
    seed: u64,
    task: PairSet,
    task_weight: f64,
    text: TaskText,
    templates: Templates,
    same_class: SameClass,
    /// The classifier's groups are its classes, whatever they are to contrastive losses.
    classes_are_targets: bool,
    captions_weight: Option<f64>,
    anchors: Option<Box<dyn AnchorSource>>,
    anchor_weight: f64,
    anchor_batch: usize,
    same_caption: SameClass,
    order: Order,
    preparer: Arc<Preparer>,
    cancel: Cancel,
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("task", &self.task).finish_non_exhaustive()
    }
}

/// One batch of each stream.
#[derive(Debug)]
pub struct Batch {
    /// Its number, counted from 0 over the whole run.
    pub number: u64,
    /// The pass over the finetune set it belongs to.
    pub epoch: u64,
    /// The streams, in the order task, captions, anchors.
    pub streams: Vec<StreamBatch>,
}

impl Streams {
    /// The streams that `config` asks for.
    #[must_use]
    pub fn new(config: &RunConfig, plan: StreamsPlan) -> Self {
        let StreamsPlan { task, anchors, preparer, cancel } = plan;
        let order = Order::new(config.seed, stream::TASK, task.spool.len(), config.batch);
        let anchor = config.anchors.clone().unwrap_or_default();
        Self {
            seed: config.seed,
            task,
            task_weight: config.task.weight,
            text: config.task.text,
            templates: config.task.templates.clone(),
            same_class: config.task.same_class,
            classes_are_targets: config.is_classifier(),
            captions_weight: config.captions.as_ref().map(|c| c.weight),
            anchors,
            anchor_weight: anchor.weight,
            anchor_batch: anchor.batch.unwrap_or(config.batch),
            same_caption: anchor.same_caption,
            order,
            preparer,
            cancel,
        }
    }

    /// Batches of one pass over the finetune set.
    #[must_use]
    pub fn per_epoch(&self) -> u64 {
        self.order.per_epoch()
    }

    /// The finetune set.
    #[must_use]
    pub fn task(&self) -> &PairSet {
        &self.task
    }

    /// Where anchors come from.
    #[must_use]
    pub fn anchors(&self) -> Option<&dyn AnchorSource> {
        self.anchors.as_deref()
    }

    /// How pictures and texts are prepared.
    #[must_use]
    pub fn preparer(&self) -> &Arc<Preparer> {
        &self.preparer
    }

    /// What decides the batches besides the run file.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let anchors = self.anchors.as_ref().map(|a| a.fingerprint()).unwrap_or_default();
        format!("{} {anchors}", self.task.spool.fingerprint())
    }

    /// The generation of the pool that anchors are asked of, unless the run follows it.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        self.anchors.as_ref().and_then(|a| a.generation())
    }

    /// Batch `number`.
    ///
    /// # Errors
    /// [`DataError`].
    pub fn batch(&self, number: u64) -> Result<Batch, DataError> {
        if self.cancel.is_cancelled() {
            return Err(DataError::Cancelled);
        }
        let places = self.order.batch(number);
        let pairs = places.iter().map(|p| self.task.spool.get(p.row)).collect::<Result<Vec<_>, _>>()?;
        let mut streams = Vec::new();
        let mut task = Filler::new("task", self.task_weight, &self.preparer);
        for (place, pair) in places.iter().zip(&pairs) {
            let crop = Draw::at(&[self.seed, stream::CROP, stream::TASK, place.epoch, place.row as u64]);
            task.add(place.row, &pair.picture, &self.text_of(*place, pair), crop)?;
        }
        let grouped = self.classes_are_targets || self.same_class == SameClass::Grouped;
        let groups = grouped.then(|| pairs.iter().map(|p| p.group).collect());
        streams.push(task.finish(groups));
        if let Some(weight) = self.captions_weight {
            streams.push(self.captions(&places, &pairs, weight)?);
        }
        if let Some(source) = &self.anchors {
            let queries = self.queries(&places, &pairs);
            let wanted = Wanted { number, epoch: number / self.per_epoch(), count: self.anchor_batch };
            streams.push(self.anchor_stream(number, &source.batch(wanted, &queries, &self.cancel)?)?);
        }
        Ok(Batch { number, epoch: number / self.per_epoch(), streams })
    }

    /// The text that this sample of the row is paired with.
    fn text_of(&self, place: Place, pair: &PairData) -> String {
        let mut draw = Draw::at(&[self.seed, stream::TEXT, place.epoch, place.row as u64]);
        let own = &pair.texts[draw.below(pair.texts.len())];
        match self.text {
            TaskText::Caption => own.clone(),
            TaskText::Class => {
                let prompts = self.templates.prompts(own);
                let drawn = draw.below(prompts.len().max(1));
                prompts.into_iter().nth(drawn).unwrap_or_else(|| own.clone())
            }
        }
    }

    /// The same pictures with their captions.
    fn captions(&self, places: &[Place], pairs: &[PairData], weight: f64) -> Result<StreamBatch, DataError> {
        let mut filler = Filler::new("captions", weight, &self.preparer);
        for (place, pair) in places.iter().zip(pairs) {
            let mut draw = Draw::at(&[self.seed, stream::CAPTION, place.epoch, place.row as u64]);
            let caption = pair.captions.get(draw.below(pair.captions.len().max(1))).map_or("", String::as_str);
            filler.text(place.row, caption)?;
        }
        Ok(StreamBatch { pictures: Pictures::SameAs(0), ..filler.finish(None) })
    }

    fn queries<'p>(&self, places: &[Place], pairs: &'p [PairData]) -> Vec<Query<'p>> {
        let class = |pair: &PairData| self.task.classes.get(pair.group as usize).cloned();
        let query = |(place, pair): (&Place, &'p PairData)| Query {
            row: place.row,
            picture: &pair.picture,
            class: if self.text == TaskText::Class { class(pair) } else { None },
            caption: pair.captions.first().or(pair.texts.first()).map(String::as_str),
        };
        places.iter().zip(pairs).map(query).collect()
    }

    fn anchor_stream(&self, number: u64, pairs: &[AnchorPair]) -> Result<StreamBatch, DataError> {
        let mut filler = Filler::new("anchors", self.anchor_weight, &self.preparer);
        for (place, pair) in pairs.iter().enumerate() {
            let crop = Draw::at(&[self.seed, stream::CROP, stream::ANCHORS, number, place as u64]);
            filler.add(place, &pair.picture, &pair.caption, crop)?;
        }
        let groups = (self.same_caption == SameClass::Grouped).then(|| groups_of(pairs));
        Ok(filler.finish(groups))
    }
}

/// Groups mean the same in all streams of a step: those of anchors' captions are none of the finetune set's classes.
const FIRST_CAPTION_GROUP: u32 = 1 << 31;

/// Pairs of one caption have one group.
fn groups_of(pairs: &[AnchorPair]) -> Vec<u32> {
    let mut known = std::collections::HashMap::new();
    let mut number = |caption| {
        let next = FIRST_CAPTION_GROUP + known.len() as u32;
        *known.entry(caption).or_insert(next)
    };
    pairs.iter().map(|pair| number(pair.caption.as_str())).collect()
}

/// One stream's batch being filled.
struct Filler<'a> {
    set: &'static str,
    weight: f64,
    preparer: &'a Preparer,
    pairs: usize,
    pixels: Vec<f32>,
    tokens: Vec<i64>,
    mask: Option<Vec<i64>>,
}

impl<'a> Filler<'a> {
    fn new(set: &'static str, weight: f64, preparer: &'a Preparer) -> Self {
        let mask = preparer.masked().then(Vec::new);
        Self { set, weight, preparer, pairs: 0, pixels: Vec::new(), tokens: Vec::new(), mask }
    }

    fn add(&mut self, row: usize, picture: &[u8], text: &str, mut crop: Draw) -> Result<(), DataError> {
        let set = self.set;
        let pixels = self.preparer.pixels(picture, &mut crop);
        self.pixels.extend(pixels.map_err(|e| DataError::Row { set, row, reason: e.to_string() })?);
        self.text(row, text)
    }

    fn text(&mut self, row: usize, text: &str) -> Result<(), DataError> {
        let set = self.set;
        self.pairs += 1;
        let added = self.preparer.text(text, &mut self.tokens, &mut self.mask);
        added.map_err(|e| DataError::Row { set, row, reason: e.to_string() })
    }

    fn finish(self, groups: Option<Vec<u32>>) -> StreamBatch {
        let Self { set, weight, pairs, pixels, tokens, mask, .. } = self;
        let pictures = Pictures::Own(pixels);
        StreamBatch { name: set.to_owned(), weight: weight as f32, pairs, pictures, tokens, mask, groups }
    }
}
