//! Micro-batches across requests: items wait in a bounded queue while the tower is busy, and all that have gathered by then go together.
//! Nothing waits for company: an idle tower starts at once, so batches grow with the load and cost no latency without it.

use std::sync::Arc;

use anchorite_encoder::{Embedding, EncodeError};
use tokio::sync::{mpsc, oneshot};

use crate::error::ApiError;

type Reply = Result<Vec<f32>, ApiError>;

/// An item that waits, and who waits for it.
struct Job<T> {
    item: T,
    reply: oneshot::Sender<Reply>,
}

/// One tower's queue.
pub(crate) struct Lane<T> {
    queue: mpsc::Sender<Job<T>>,
}

impl<T: Send + 'static> Lane<T> {
    /// Starts a lane that holds `capacity` items and encodes up to `batch` together. It ends when it is dropped.
    pub(crate) fn start<F>(capacity: usize, batch: usize, encode: F) -> Self
    where
        F: Fn(&[T]) -> Result<Vec<Embedding>, EncodeError> + Send + Sync + 'static,
    {
        let (queue, waiting) = mpsc::channel(capacity.max(1));
        drop(tokio::spawn(run(waiting, batch.max(1), Arc::new(encode))));
        Self { queue }
    }

    /// Items in the queue.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// The embeddings of `items`, in order. Refused at once when they do not all fit into the queue; a caller that leaves takes its items
    /// along.
    pub(crate) async fn encode(&self, items: Vec<T>) -> Result<Vec<Vec<f32>>, ApiError> {
        let places = self.queue.try_reserve_many(items.len()).map_err(|_| ApiError::busy())?;
        let mut replies = Vec::with_capacity(items.len());
        for (place, item) in places.zip(items) {
            let (reply, answer) = oneshot::channel();
            place.send(Job { item, reply });
            replies.push(answer);
        }
        let mut embeddings = Vec::with_capacity(replies.len());
        for answer in replies {
            embeddings.push(answer.await.map_err(ApiError::panicked)??);
        }
        Ok(embeddings)
    }
}

async fn run<T, F>(mut waiting: mpsc::Receiver<Job<T>>, batch: usize, encode: Arc<F>)
where
    T: Send + 'static,
    F: Fn(&[T]) -> Result<Vec<Embedding>, EncodeError> + Send + Sync + 'static,
{
    loop {
        let mut jobs = Vec::new();
        if waiting.recv_many(&mut jobs, batch).await == 0 {
            return;
        }
        jobs.retain(|job| !job.reply.is_closed());
        let encode = Arc::clone(&encode);
        // A panic drops the replies: their callers learn of it, and the lane goes on.
        if let Err(error) = tokio::task::spawn_blocking(move || answer(jobs, &*encode)).await {
            tracing::error!(%error, "a batch of embeddings ended in a panic");
        }
    }
}

fn answer<T, F>(jobs: Vec<Job<T>>, encode: &F)
where
    F: Fn(&[T]) -> Result<Vec<Embedding>, EncodeError>,
{
    if jobs.is_empty() {
        return;
    }
    let (items, replies): (Vec<T>, Vec<_>) = jobs.into_iter().map(|job| (job.item, job.reply)).unzip();
    match encode(&items) {
        // Too few embeddings leave callers without a reply, which is an error to them.
        Ok(embeddings) => {
            for (reply, embedding) in replies.into_iter().zip(embeddings) {
                // Whoever does not wait any longer needs no answer.
                let _ = reply.send(Ok(embedding.into_vec()));
            }
        }
        Err(error) => {
            let error = ApiError::from(anchorite_anchors::RetrieveError::from(error));
            for reply in replies {
                let _ = reply.send(Err(error.clone()));
            }
        }
    }
}
