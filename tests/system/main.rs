//! Whole-system tests: the built program, driven from outside as a user drives it. One module per promise.
//!
//! | module | promise |
//! | --- | --- |
//! | `demo.rs` | the first command works, its answers make sense, and every way of asking gives the same |
//! | `service.rs` | a served pool answers people, programs and clip-retrieval's own client |
//! | `compose.rs` | docker's compose program takes compose.yaml, and the program what it says |
//! | `copies.rs` | copies of protected pictures are told by the copy-detection model that is named |
//! | `browser.rs` | the page and clip-retrieval's own page work in a real browser; pairs selected there are a manifest |
//! | `guarded.rs` | a server that others reach asks for keys, and shows what is ingested while it runs |
//! | `bad_data.rs` | nothing in a dataset stops an ingest without a clear word, or takes back what was accepted |
//! | `refusals.rs` | models, pools and flags that do not fit are refused, and the message says what to do |
//! | `interruption.rs` | Ctrl-C, SIGTERM and a second writer cost nothing that was accepted |
//! | `int8.rs` | matrices in 8 bits are checked on the rows at hand |
//! | `kills.rs` | `kill -9` at any instant costs nothing that was acknowledged |
//! | `generations.rs` | a reader in another process keeps its generation while files go; a second writer is refused |
//! | `full_disk.rs` | a full disk is a named error and costs nothing that was committed |
//! | `jobs.rs` | pools are filled by jobs over HTTP, and a killed server costs a job nothing |
//! | `pools.rs` | compacting, deleting, merging, copying and mending pools |
//! | `resume.rs` | killed at any moment, the same command does the rest and nothing twice |
//! | `told.rs` | an ingest says what it does, how far it is and what it did |
//! | `ready_vectors.rs` | vectors made elsewhere are ingested and served without a model |
//! | `evaluation.rs` | models are measured, mixed, and reported; chosen anchors are shown |
//! | `finetune.rs` | a run file becomes a model that every command opens |
//! | `losses.rs` | FLYP, SigLIP's sigmoid and a classifier's head are run files away, start as their formulas say and come out whole |
//! | `run_ends.rs` | a run killed anywhere, out of disk, or left by its server goes on exactly, or says why it does not |
//! | `experiment.rs` | the experiment is one command, from data to page |
//! | `finetune.rs` | a run file becomes a model that every command opens; a killed run goes on exactly where it was |
//! | `recipes.rs` | the published evaluation sets are prepared as eval reads them |
//! | `doctor.rs` | the machine's report says what is missing and what to do |
//! | `settings.rs` | help, usage errors, environment variables |
//!
//! No fixed port, no sleep, no order among tests. ONNX Runtime is found or fetched as the program does it for a user.
#![expect(clippy::unwrap_used, reason = "tests")]

mod bad_data;
mod browser;
#[path = "../clients/chromium.rs"]
mod chromium;
#[path = "../clients/clip_client.rs"]
mod clip_client;
mod compose;
mod copies;
mod datasets;
mod demo;
mod doctor;
mod evaluation;
mod experiment;
mod finetune;
mod full_disk;
mod generations;
mod guarded;
mod int8;
mod interruption;
mod jobs;
mod kills;
mod losses;
mod pools;
mod program;
#[path = "../clients/python.rs"]
mod python;
mod reading;
mod ready_vectors;
mod recipes;
mod refusals;
mod resume;
mod run_ends;
mod runs;
mod service;
mod settings;
mod tiny_clip;
mod told;
