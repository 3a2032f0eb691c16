//! `POST /v1/embeddings` and `GET /v1/models` in OpenAI's shape, so that its clients work as they are.
//!
//! Beyond OpenAI: `modality: "image"` (infinity's field) makes the inputs pictures, as `data:` URIs or bare base64; an input may also be
//! `{"text": ...}` or `{"image": ...}`. Embeddings are of unit length. Token ids are refused: they are another model's.

mod lane;

use std::sync::{Arc, OnceLock};

use anchorite_encoder::{Encode, Pixels, Tokens};
use axum::{body::Body, extract::State};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Limits,
    app::{App, Pool},
    body::{self, JsonBytes},
    error::{ApiError, ErrorBody},
};
use lane::Lane;

/// Items encoded together: as many as search and ingest take.
const BATCH: usize = 32;

/// An encoder, the pools it belongs to, and its queues.
pub(crate) struct Model {
    encoder: Arc<dyn Encode>,
    pools: Vec<String>,
    texts: OnceLock<Lane<Tokens>>,
    pictures: OnceLock<Lane<Pixels>>,
}

impl Model {
    /// The models of these pools, each once, in the pools' order.
    pub(crate) fn of(pools: &[Pool]) -> Vec<Self> {
        let mut models: Vec<Self> = Vec::new();
        for pool in pools {
            let encoder = pool.retriever.shared_encoder();
            match models.iter_mut().find(|m| m.encoder.fingerprint() == encoder.fingerprint()) {
                Some(model) => model.pools.push(pool.name.clone()),
                None => {
                    let pools = vec![pool.name.clone()];
                    models.push(Self { encoder, pools, texts: OnceLock::new(), pictures: OnceLock::new() });
                }
            }
        }
        models
    }

    fn is_called(&self, name: &str) -> bool {
        self.encoder.name() == name || self.encoder.fingerprint() == name || self.pools.iter().any(|pool| pool == name)
    }

    /// Items that wait for each tower, for the metrics.
    pub(crate) fn waiting(&self) -> [(&str, &'static str, usize); 2] {
        let name = self.encoder.name();
        [("text", self.texts.get().map_or(0, Lane::waiting)), ("image", self.pictures.get().map_or(0, Lane::waiting))]
            .map(|(tower, waiting)| (name, tower, waiting))
    }

    fn texts(&self, limits: &Limits) -> &Lane<Tokens> {
        let encoder = Arc::clone(&self.encoder);
        self.texts.get_or_init(|| Lane::start(limits.text_queue, BATCH, move |batch: &[Tokens]| encoder.encode_texts(batch)))
    }

    fn pictures(&self, limits: &Limits) -> &Lane<Pixels> {
        let encoder = Arc::clone(&self.encoder);
        self.pictures.get_or_init(|| Lane::start(limits.image_queue, BATCH, move |batch: &[Pixels]| encoder.encode_images(batch)))
    }
}

/// What to embed. Fields that are not known are ignored, as OpenAI's clients send them.
#[derive(Deserialize, ToSchema)]
pub(crate) struct EmbeddingsRequest {
    /// A model of `/v1/models`, or a pool's name.
    #[schema(example = "demo")]
    model: String,
    /// One input or several.
    input: Inputs,
    /// What plain inputs are. Default: text.
    #[serde(default)]
    modality: Modality,
    /// Numbers, or base64 of little-endian float32. Default: float.
    #[serde(default)]
    encoding_format: EncodingFormat,
    /// Refused unless it is the model's own.
    #[serde(default)]
    #[schema(minimum = 1)]
    dimensions: Option<usize>,
}

/// One input or several.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
enum Inputs {
    /// Several. First, because a list of numbers is also one input, of token ids.
    Many(Vec<Input>),
    /// One.
    One(Input),
}

/// Words, or a picture.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
enum Input {
    /// As `modality` says.
    Plain(String),
    /// One of both, by name.
    Named(NamedInput),
    /// A token id: refused.
    Token(#[expect(dead_code, reason = "recognised, to be refused in words")] i64),
    /// Token ids: refused.
    Tokens(#[expect(dead_code, reason = "recognised, to be refused in words")] Vec<i64>),
}

/// One of both.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum NamedInput {
    /// Words.
    Text(String),
    /// A picture, as a `data:` URI or base64.
    Image(String),
}

/// What plain inputs are.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Modality {
    /// Words.
    #[default]
    Text,
    /// Pictures.
    Image,
}

/// How embeddings are written.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum EncodingFormat {
    /// Numbers.
    #[default]
    Float,
    /// Base64 of little-endian float32.
    Base64,
}

/// Embeddings, in the order of the inputs.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbeddingsResponse {
    /// Always `list`.
    object: &'static str,
    data: Vec<EmbeddingObject>,
    /// The model's name.
    model: String,
    usage: Usage,
}

/// One embedding.
#[derive(Serialize, ToSchema)]
struct EmbeddingObject {
    /// Always `embedding`.
    object: &'static str,
    /// Place of its input.
    index: usize,
    embedding: Written,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Written {
    Float(Vec<f32>),
    Base64(String),
}

/// Tokens of all texts, special ones included.
#[derive(Serialize, ToSchema)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// The models of this server.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelList {
    /// Always `list`.
    object: &'static str,
    data: Vec<ModelObject>,
}

/// One model.
#[derive(Serialize, ToSchema)]
struct ModelObject {
    /// Its name.
    id: String,
    /// Always `model`.
    object: &'static str,
    /// Not known: 0.
    created: u64,
    /// Always `anchorite`.
    owned_by: &'static str,
    /// Equal fingerprints give comparable vectors.
    fingerprint: String,
    /// Values of an embedding.
    dim: usize,
    /// Pools that it belongs to.
    pools: Vec<String>,
}

/// Lists the models that embed.
#[utoipa::path(get, path = "/v1/models", tag = "embeddings", responses((status = 200, description = "Every model", body = ModelList)))]
pub(crate) async fn models(State(app): State<Arc<App>>) -> Result<JsonBytes, ApiError> {
    let object = |model: &Model| ModelObject {
        id: model.encoder.name().to_owned(),
        object: "model",
        created: 0,
        owned_by: "anchorite",
        fingerprint: model.encoder.fingerprint().to_owned(),
        dim: model.encoder.dim(),
        pools: model.pools.clone(),
    };
    JsonBytes::of(&ModelList { object: "list", data: app.models.iter().map(object).collect() })
}

/// Embeds texts or pictures.
#[utoipa::path(
    post, path = "/v1/embeddings", tag = "embeddings", request_body = EmbeddingsRequest,
    responses(
        (status = 200, description = "One embedding of unit length for each input", body = EmbeddingsResponse),
        (status = 400, description = "The body is not JSON", body = ErrorBody),
        (status = 404, description = "No such model", body = ErrorBody),
        (status = 408, description = "The body came too slowly", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 422, description = "An input or another field is wrong; the message names it", body = ErrorBody),
        (status = 429, description = "The queue is full; see Retry-After", body = ErrorBody),
        (status = 500, description = "The server failed", body = ErrorBody),
        (status = 504, description = "Took longer than allowed", body = ErrorBody),
    )
)]
pub(crate) async fn embeddings(State(app): State<Arc<App>>, body: Body) -> Result<JsonBytes, ApiError> {
    let body = body::read(&app, body, app.limits().search_body_bytes).await?;
    let prepared = app.compute(move |app, _| Prepared::of(app, &body.bytes)).await?;
    let encoded = tokio::time::timeout(app.limits().deadline, prepared.encode(&app)).await;
    let (prepared, vectors) = encoded.unwrap_or_else(|_| Err(ApiError::deadline()))?;
    app.compute(move |app, _| prepared.answer(app, vectors)).await
}

/// Inputs as the towers take them, each kind with its places.
struct Prepared {
    model: usize,
    format: EncodingFormat,
    inputs: usize,
    text_places: Vec<usize>,
    picture_places: Vec<usize>,
    texts: Vec<Tokens>,
    pictures: Vec<Pixels>,
    tokens: usize,
}

enum Ready {
    Text(Tokens),
    Picture(Pixels),
}

impl Prepared {
    fn of(app: &App, bytes: &[u8]) -> Result<Self, ApiError> {
        let request: EmbeddingsRequest = body::json(bytes)?;
        let model = app.models.iter().position(|m| m.is_called(&request.model)).ok_or_else(|| no_model(&request.model))?;
        let encoder = &*app.models[model].encoder;
        if request.dimensions.is_some_and(|wanted| wanted != encoder.dim()) {
            let message = format!("dimensions: this model gives {} values and no other number; leave it out", encoder.dim());
            return Err(ApiError::unprocessable("dimensions", message));
        }
        let inputs = match request.input {
            Inputs::One(input) => vec![input],
            Inputs::Many(inputs) => inputs,
        };
        let inputs = kinds(inputs, request.modality)?;
        check_counts(&inputs, app.limits())?;
        let ready: Vec<Ready> = inputs.par_iter().enumerate().map(|i| prepare(i, encoder)).collect::<Result<_, _>>()?;
        let mut prepared = Self {
            model,
            format: request.encoding_format,
            inputs: ready.len(),
            text_places: Vec::new(),
            picture_places: Vec::new(),
            texts: Vec::new(),
            pictures: Vec::new(),
            tokens: 0,
        };
        ready.into_iter().enumerate().for_each(|(place, item)| prepared.put(place, item));
        Ok(prepared)
    }

    fn put(&mut self, place: usize, item: Ready) {
        match item {
            Ready::Text(tokens) => {
                self.tokens += tokens.ids.len();
                self.text_places.push(place);
                self.texts.push(tokens);
            }
            Ready::Picture(pixels) => {
                self.picture_places.push(place);
                self.pictures.push(pixels);
            }
        }
    }

    async fn encode(mut self, app: &App) -> Result<(Self, Vec<Vec<f32>>), ApiError> {
        let model = &app.models[self.model];
        let mut vectors = vec![Vec::new(); self.inputs];
        let (texts, pictures) = (std::mem::take(&mut self.texts), std::mem::take(&mut self.pictures));
        if !texts.is_empty() {
            let encoded = model.texts(app.limits()).encode(texts).await?;
            self.text_places.iter().zip(encoded).for_each(|(&place, vector)| vectors[place] = vector);
        }
        if !pictures.is_empty() {
            let encoded = model.pictures(app.limits()).encode(pictures).await?;
            self.picture_places.iter().zip(encoded).for_each(|(&place, vector)| vectors[place] = vector);
        }
        Ok((self, vectors))
    }

    fn answer(self, app: &App, vectors: Vec<Vec<f32>>) -> Result<JsonBytes, ApiError> {
        let written = |vector: Vec<f32>| match self.format {
            EncodingFormat::Float => Written::Float(vector),
            EncodingFormat::Base64 => {
                Written::Base64(body::base64(&vector.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()))
            }
        };
        let object = |(index, vector)| EmbeddingObject { object: "embedding", index, embedding: written(vector) };
        JsonBytes::of(&EmbeddingsResponse {
            object: "list",
            data: vectors.into_iter().enumerate().map(object).collect(),
            model: app.models[self.model].encoder.name().to_owned(),
            usage: Usage { prompt_tokens: self.tokens, total_tokens: self.tokens },
        })
    }
}

fn no_model(name: &str) -> ApiError {
    let name: String = name.chars().take(80).collect();
    ApiError::not_found("model_not_found", format!("there is no model {name:?}; GET /v1/models lists those there are"))
}

/// Every input by its kind.
fn kinds(inputs: Vec<Input>, modality: Modality) -> Result<Vec<NamedInput>, ApiError> {
    let kind = |input: Input| match (input, modality) {
        (Input::Plain(text), Modality::Text) => Ok(NamedInput::Text(text)),
        (Input::Plain(picture), Modality::Image) => Ok(NamedInput::Image(picture)),
        (Input::Named(named), _) => Ok(named),
        (Input::Token(_) | Input::Tokens(_), _) => {
            let message = "the input has token ids, which are another tokenizer's; send the words themselves";
            Err(ApiError::unprocessable("token_ids", message))
        }
    };
    inputs.into_iter().map(kind).collect()
}

fn check_counts(inputs: &[NamedInput], limits: &Limits) -> Result<(), ApiError> {
    let pictures = inputs.iter().filter(|i| matches!(i, NamedInput::Image(_))).count();
    let texts = inputs.len() - pictures;
    let (max_texts, max_pictures) = (limits.max_texts, limits.max_pictures);
    if inputs.is_empty() || texts > max_texts || pictures > max_pictures {
        let message =
            format!("there are {texts} texts and {pictures} pictures; send 1 to {max_texts} texts and {max_pictures} pictures");
        return Err(ApiError::unprocessable("input_count", message));
    }
    Ok(())
}

fn prepare((place, input): (usize, &NamedInput), encoder: &dyn Encode) -> Result<Ready, ApiError> {
    let wrong = |code, message: String| ApiError::unprocessable(code, format!("input {place}: {message}"));
    match input {
        NamedInput::Text(text) if text.trim().is_empty() => Err(wrong("empty_text", "it has no words".to_owned())),
        NamedInput::Text(text) => encoder.prepare_text(text).map(Ready::Text).map_err(|e| wrong(e.code(), e.to_string())),
        NamedInput::Image(url) if url.starts_with("http:") || url.starts_with("https:") => {
            let message = "this server fetches nothing; send the picture itself as a data: URI".to_owned();
            Err(wrong("image_url", message))
        }
        NamedInput::Image(text) => {
            let bytes = body::picture(text).map_err(|e| wrong(e.code, e.message))?;
            encoder.prepare_image(&bytes).map(Ready::Picture).map_err(|e| wrong(e.code(), e.to_string()))
        }
    }
}
