//! What Prometheus sees. clip-retrieval's histogram names are kept beside ours, so that its boards go on working.

use std::time::Duration;

use anchorite_anchors::Times;
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
    core::{Collector, Desc},
};

/// From a memory-mapped search (50 µs) to the deadline (30 s).
const SECONDS: [f64; 18] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

pub(crate) struct Metrics {
    registry: Registry,
    /// By method, route.
    request_seconds: HistogramVec,
    /// By method, route, status.
    requests: IntCounterVec,
    /// By code.
    errors: IntCounterVec,
    pub(crate) panics: IntCounter,
    /// By stage.
    stage_seconds: HistogramVec,
    /// By pool, side.
    pub(crate) rows: IntGaugeVec,
    /// By pool.
    pub(crate) generation: IntGaugeVec,
    /// By access: 1 for the one in use.
    pub(crate) access: IntGaugeVec,
    /// By model, tower.
    pub(crate) waiting: IntGaugeVec,
    legacy: Legacy,
}

/// One of clip-retrieval's histograms, summed up.
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) calls: u64,
    /// Seconds of all calls.
    seconds: f64,
}

impl Step {
    /// Seconds a call; 0 where there was none.
    pub(crate) fn average(&self) -> f64 {
        if self.calls == 0 { 0.0 } else { self.seconds / self.calls as f64 }
    }
}

/// clip-retrieval's names.
struct Legacy {
    full_knn_request: Histogram,
    /// Stay at zero.
    download: Histogram,
    safety: Histogram,
    text_inference: Histogram,
    image_inference: Histogram,
    text_prepro: Histogram,
    image_prepro: Histogram,
    knn_index: Histogram,
    metadata_get: Histogram,
    dedup: Histogram,
}

impl Metrics {
    /// # Panics
    /// Never: names and labels are constants, checked by every test that starts a server.
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        Self {
            request_seconds: seconds(
                &registry,
                "anchorite_http_request_seconds",
                "From request head to answer.",
                &["method", "route"],
            ),
            requests: counters(&registry, "anchorite_http_requests_total", "Answers.", &["method", "route", "status"]),
            errors: counters(&registry, "anchorite_errors_total", "Error answers by their stable code.", &["code"]),
            panics: added(&registry, IntCounter::new("anchorite_panics_total", "Requests that ended in a caught panic.")),
            stage_seconds: seconds(&registry, "anchorite_stage_seconds", "One call of one stage.", &["stage"]),
            rows: gauges(&registry, "anchorite_pool_rows", "Rows of a pool; side is all, image or text.", &["pool", "side"]),
            generation: gauges(&registry, "anchorite_pool_generation", "The generation that answers.", &["pool"]),
            access: gauges(&registry, "anchorite_pools_access", "How the system is told that pools are read.", &["access"]),
            waiting: gauges(&registry, "anchorite_embeddings_waiting", "Inputs that wait for a tower.", &["model", "tower"]),
            legacy: Legacy::new(&registry),
            registry,
        }
    }

    pub(crate) fn request(&self, method: &str, route: &str, status: &str, took: Duration) {
        self.request_seconds.with_label_values(&[method, route]).observe(took.as_secs_f64());
        self.requests.with_label_values(&[method, route, status]).inc();
    }

    pub(crate) fn error(&self, code: &str) {
        self.errors.with_label_values(&[code]).inc();
    }

    /// The stages of one retrieval; those that did not run are left out.
    pub(crate) fn retrieval(&self, times: &Times) {
        let stages = [
            ("prepare_text", times.prepare_texts, Some(&self.legacy.text_prepro)),
            ("prepare_image", times.prepare_pictures, Some(&self.legacy.image_prepro)),
            ("encode_text", times.encode_texts, Some(&self.legacy.text_inference)),
            ("encode_image", times.encode_pictures, Some(&self.legacy.image_inference)),
            ("look_up", times.look_up, None),
            ("search", times.search, Some(&self.legacy.knn_index)),
        ];
        for (stage, took, legacy) in stages.into_iter().filter(|(_, took, _)| !took.is_zero()) {
            self.stage(stage, took, legacy);
        }
    }

    pub(crate) fn metadata(&self, took: Duration) {
        self.stage("metadata", took, Some(&self.legacy.metadata_get));
    }

    pub(crate) fn dedup(&self, took: Duration) {
        self.stage("dedup", took, Some(&self.legacy.dedup));
    }

    pub(crate) fn knn_request(&self, took: Duration) {
        self.legacy.full_knn_request.observe(took.as_secs_f64());
    }

    pub(crate) fn stage(&self, stage: &str, took: Duration, legacy: Option<&Histogram>) {
        self.stage_seconds.with_label_values(&[stage]).observe(took.as_secs_f64());
        if let Some(histogram) = legacy {
            histogram.observe(took.as_secs_f64());
        }
    }

    /// clip-retrieval's searches, and the steps of them.
    pub(crate) fn legacy_steps(&self) -> (Step, Vec<Step>) {
        let legacy = &self.legacy;
        let steps = [
            &legacy.download,
            &legacy.text_inference,
            &legacy.image_inference,
            &legacy.metadata_get,
            &legacy.knn_index,
            &legacy.dedup,
            &legacy.safety,
            &legacy.image_prepro,
            &legacy.text_prepro,
        ];
        (step(&legacy.full_knn_request), steps.into_iter().map(step).collect())
    }

    /// The text exposition format.
    pub(crate) fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl Legacy {
    fn new(registry: &Registry) -> Self {
        let one = |name: &str, help: &str| {
            added(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec())))
        };
        // Upstream's dashboards ask for these as well; nothing is downloaded or judged here, so that they stay at zero.
        Self {
            download: one("download_time", "Nothing is downloaded."),
            safety: one("safety_time", "Nothing is judged."),
            full_knn_request: one("full_knn_request_time", "Time spent in knn-service."),
            text_inference: one("text_clip_inference_time", "Time spent in the text tower."),
            image_inference: one("image_clip_inference_time", "Time spent in the image tower."),
            text_prepro: one("text_prepro_time", "Time spent tokenizing."),
            image_prepro: one("image_prepro_time", "Time spent decoding and preprocessing pictures."),
            knn_index: one("knn_index_time", "Time spent searching."),
            metadata_get: one("metadata_get_time", "Time spent reading records."),
            dedup: one("dedup_time", "Time spent removing near-duplicates."),
        }
    }
}

fn step(histogram: &Histogram) -> Step {
    let of = |text: fn(&Desc) -> &String| histogram.desc().first().map_or_else(String::new, |desc| text(desc).clone());
    Step {
        name: of(|desc| &desc.fq_name),
        description: of(|desc| &desc.help),
        calls: histogram.get_sample_count(),
        seconds: histogram.get_sample_sum(),
    }
}

fn seconds(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    added(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), labels))
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    added(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    added(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn added<C: Collector + Clone + 'static>(registry: &Registry, metric: Result<C, prometheus::Error>) -> C {
    let metric = metric.expect("the metric's name and labels are well-formed constants");
    registry.register(Box::new(metric.clone())).expect("each metric is registered once");
    metric
}
