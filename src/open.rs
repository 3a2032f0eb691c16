//! From flags to open things: the model, the pools, both joined.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use anchorite::{
    anchors::Retriever,
    encoder::{
        Encode, Encoder, EncoderOptions, Load, VectorsOnly,
        hub::{self, HubOptions, Variant},
        model::{Arithmetic, Dtype, Folder, MissingTower, ModelOptions},
        runtime::{self, Provider, Runtime, RuntimeOptions},
    },
    index::{
        PairStore,
        pool::{OpenOptions, Pool},
    },
};
use anyhow::{Context, Result};
use clap::{Args, builder::FalseyValueParser};

use crate::progress::say;

/// Which ONNX Runtime computes, and on what.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "ONNX Runtime")]
pub(crate) struct RuntimeArgs {
    /// The ONNX Runtime library. Default: ORT_DYLIB_PATH, then the usual places, then fetched by pip or npm and verified.
    #[arg(long, env = "ANCHORITE_ORT_LIBRARY", value_name = "FILE")]
    pub(crate) ort_library: Option<PathBuf>,
    /// What computes: cpu, cuda, tensorrt, rocm or coreml. Refused when the library lacks it.
    #[arg(long, env = "ANCHORITE_PROVIDER", default_value = "cpu", value_name = "NAME")]
    pub(crate) provider: Provider,
    /// Fetch nothing: neither ONNX Runtime nor models.
    #[arg(long, env = "ANCHORITE_OFFLINE", value_parser = FalseyValueParser::new())]
    pub(crate) offline: bool,
}

impl RuntimeArgs {
    /// Where to look for the library, as flags and environment say.
    pub(crate) fn options(&self) -> RuntimeOptions {
        let mut options = RuntimeOptions::from_env();
        options.library.clone_from(&self.ort_library);
        if let Some(fetch) = &mut options.fetch {
            fetch.offline |= self.offline;
        }
        options
    }

    /// How models are had from the hub, as flags and environment say.
    pub(crate) fn hub_options(&self) -> HubOptions {
        let mut options = HubOptions::from_env();
        options.offline |= self.offline;
        options
    }

    /// Finds (or fetches) and loads the library.
    pub(crate) fn load(&self) -> Result<&'static Runtime> {
        Ok(runtime::init(&self.options(), &say)?)
    }
}

/// Which model.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// The CLIP model: a folder in the Hugging Face ONNX or open_clip/immich layout, or a hub id (org/name, org/name@revision).
    #[arg(long, env = "ANCHORITE_MODEL", value_name = "DIR|ORG/NAME")]
    pub(crate) model: Option<String>,
    /// Which files of a model that has several: plain, fp16, int8, uint8, quantized, q4, q4f16, bnb4.
    #[arg(long, env = "ANCHORITE_DTYPE", default_value = Dtype::default().name(), value_name = "KIND")]
    pub(crate) dtype: Dtype,
    /// The same for the image tower alone.
    #[arg(long, env = "ANCHORITE_IMAGE_DTYPE", value_name = "KIND")]
    pub(crate) image_dtype: Option<Dtype>,
    /// The same for the text tower alone.
    #[arg(long, env = "ANCHORITE_TEXT_DTYPE", value_name = "KIND")]
    pub(crate) text_dtype: Option<Dtype>,
    /// Take a model that has one tower only.
    #[arg(long, env = "ANCHORITE_ONE_TOWER", value_parser = FalseyValueParser::new())]
    pub(crate) one_tower: bool,
    /// Multiply the model's float32 matrices in 8 bits: two to three times as fast, and not quite the same embeddings, so a pool filled
    /// this way is asked this way. `ingest` checks it on your first rows, and refuses where it changes too much.
    #[arg(long, env = "ANCHORITE_INT8", value_parser = FalseyValueParser::new())]
    pub(crate) int8: bool,
    /// Threads that compute. Default: every core.
    #[arg(long, env = "ANCHORITE_THREADS", value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// The model's name for people. Default: the folder's own name.
    #[arg(skip)]
    pub(crate) called: Option<String>,
    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
}

/// What the encoder is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Many rows: one session a core, each with one thread.
    Ingest,
    /// A question now and then: one session a tower, all threads.
    Queries,
}

impl ModelArgs {
    /// A model named by a file rather than by flags, with every default.
    pub(crate) fn of(model: String, runtime: RuntimeArgs) -> Self {
        Self {
            model: Some(model),
            dtype: Dtype::default(),
            image_dtype: None,
            text_dtype: None,
            one_tower: false,
            int8: false,
            threads: None,
            called: None,
            runtime,
        }
    }

    /// Threads to compute with.
    pub(crate) fn thread_count(&self) -> NonZeroUsize {
        let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.threads.unwrap_or_else(cores)
    }

    /// The same settings for another model.
    pub(crate) fn for_path(&self, model: &str) -> Self {
        Self { model: Some(model.to_owned()), ..self.clone() }
    }

    /// The same model with its matrices as they are stored.
    pub(crate) fn as_stored(&self) -> Self {
        Self { int8: false, ..self.clone() }
    }

    /// Opens the model.
    pub(crate) fn open(&self, purpose: Use) -> Result<Arc<Encoder>> {
        let name = self.model.as_deref().context("which model? give --model DIR or --model ORG/NAME (ANCHORITE_MODEL)")?;
        let folder = self.folder(name)?;
        let encoder = anchorite::encoder::open(
            self.runtime.load()?,
            self.runtime.provider,
            &folder,
            &self.model_options(),
            self.encoder_options(purpose),
        )
        .with_context(|| format!("open the model {name}"))?;
        let called = self.called.clone().or_else(|| (!Path::new(name).exists()).then(|| name.to_owned()));
        Ok(Arc::new(match called {
            Some(called) => encoder.with_name(called),
            None => encoder,
        }))
    }

    /// The model's files, read and scanned, without a runtime.
    pub(crate) fn open_folder(&self) -> Result<Folder> {
        let name = self.model.as_deref().context("which model? give --model DIR or --model ORG/NAME (ANCHORITE_MODEL)")?;
        Folder::open(&self.folder(name)?, &self.model_options()).with_context(|| format!("open the model {name}"))
    }

    /// The model's folder; downloaded when `name` is a hub id.
    fn folder(&self, name: &str) -> Result<PathBuf> {
        let options = self.runtime.hub_options();
        let resolve = |dtype: Dtype| {
            let variant = Variant { suffix: dtype.suffix().to_owned() };
            hub::resolve(name, &variant, &options, &say)
        };
        let model = self.model_options();
        let folder = resolve(model.image_dtype)?;
        if model.text_dtype != model.image_dtype {
            resolve(model.text_dtype)?;
        }
        Ok(folder)
    }

    fn model_options(&self) -> ModelOptions {
        ModelOptions {
            image_dtype: self.image_dtype.unwrap_or(self.dtype),
            text_dtype: self.text_dtype.unwrap_or(self.dtype),
            missing_tower: if self.one_tower { MissingTower::Accept } else { MissingTower::Refuse },
            arithmetic: if self.int8 { Arithmetic::Int8 } else { Arithmetic::AsStored },
            ..ModelOptions::default()
        }
    }

    fn encoder_options(&self, purpose: Use) -> EncoderOptions {
        let threads = self.thread_count();
        match purpose {
            Use::Ingest => EncoderOptions {
                image_sessions: threads,
                text_sessions: threads,
                threads: 1,
                load: Load::Now,
                ..EncoderOptions::default()
            },
            Use::Queries => EncoderOptions { threads: threads.get(), ..EncoderOptions::default() },
        }
    }

    /// The encoder that a pool is asked with: the model, or none where the pool's vectors came ready made and no model is given.
    pub(crate) fn open_for(&self, pool: &Pool) -> Result<Arc<dyn Encode>> {
        if self.model.is_some() {
            return Ok(self.open(Use::Queries)?);
        }
        say("no --model given: questions by vector, id and key are answered, words and pictures are not");
        Ok(Arc::new(VectorsOnly::new(pool.spec().dim, pool.spec().encoder.clone())))
    }
}

/// Opens the pool in `dir`.
pub(crate) fn pool(dir: &Path) -> Result<Pool> {
    Pool::open(dir, &OpenOptions::default()).with_context(|| format!("open the pool {}", dir.display()))
}

/// Joins an encoder and a pool; refuses a pool of another encoder.
pub(crate) fn retriever(encoder: Arc<dyn Encode>, pool: Pool) -> Result<Retriever> {
    let dir = pool.dir().display().to_string();
    Retriever::new(encoder, Arc::new(pool)).with_context(|| format!("search the pool {dir}"))
}
