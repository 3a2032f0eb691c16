//! A tower's matrices in 8 bits, made while it is loaded: opt-in, faster, and not the same embeddings.
//!
//! ```text
//!   x ── MatMul(f32 matrix) ──►      becomes      x ── DynamicQuantizeMatMul(i8 matrix, a scale a column) ──►
//! ```
//!
//! That operator of ONNX Runtime's scales `x` by its own largest value, multiplies in integers and scales back. So an embedding
//! depends a little on what else is in its batch, and a pool filled this way has a fingerprint of its own.
//!
//! Levels go to [`LEVELS`] and not to 127: processors without a dot product of bytes add two products in 16 bits, which 127 times
//! 255 would overflow. Left in float: the first convolution, attention's products of activations, what is written as `Gemm`, and the
//! projection to the embedding, whose cost is nothing and whose error nothing averages out.

use std::collections::{HashMap, HashSet};

use super::scan::{self, Initializer, Node, ScanError, Scanned};
use super::tower::{LoadedModel, LoadedTensor};
use super::{ModelLimits, wire};

/// The largest level: 7 bits and a sign.
const LEVELS: f32 = 63.0;
/// Rows and columns below which a matrix is left alone: scaling would cost more than it saves.
const MIN_EDGE: i64 = 32;

const F32: i32 = 1;
const I8: i32 = 3;
const DOMAIN: &str = "com.microsoft";
const OPERATOR: &str = "DynamicQuantizeMatMul";

/// The model with the matrices of its layers in 8 bits; `None` where there are none. `output` names what comes out.
pub(crate) fn quantize(model: LoadedModel, output: &str, limits: &ModelLimits) -> Result<Option<LoadedModel>, ScanError> {
    let scanned = scan::scan(&model.bytes, limits)?;
    let matrices = Matrices::of(&scanned, &model.tensors, output);
    if matrices.data.is_empty() {
        return Ok(None);
    }
    let bytes = matrices.write(&scanned);
    let left = matrices.replaced(&scanned);
    let tensors = model.tensors.into_iter().filter(|tensor| !left.contains(&tensor.name)).collect();
    Ok(Some(LoadedModel { bytes, tensors }))
}

/// The matrices that are quantized, by name.
struct Matrices<'a> {
    data: HashMap<&'a str, Quantized>,
    output: &'a str,
}

/// A matrix of `shape` in row order, with a scale for each column.
struct Quantized {
    shape: [i64; 2],
    levels: Vec<u8>,
    scales: Vec<f32>,
}

impl<'a> Matrices<'a> {
    fn of(scanned: &Scanned<'a>, tensors: &[LoadedTensor], output: &'a str) -> Self {
        let mut all = Self { data: HashMap::new(), output };
        let used: HashSet<&str> = scanned.nodes.iter().filter_map(|node| all.matrix(node)).collect();
        for tensor in scanned.initializers.iter().filter(|i| used.contains(i.name)) {
            let [rows, columns] = tensor.dims[..] else { continue };
            if tensor.data_type != F32 || rows < MIN_EDGE || columns < MIN_EDGE {
                continue;
            }
            let beside = tensors.iter().find(|beside| beside.name == tensor.name);
            let values = beside.map_or_else(|| inline(tensor), |beside| floats(&beside.data));
            all.data.extend(Quantized::of(&values, [rows, columns]).map(|quantized| (tensor.name, quantized)));
        }
        all
    }

    /// The second operand of a product of two that is no last one.
    fn matrix(&self, node: &Node<'a>) -> Option<&'a str> {
        match (node.operator, &node.reads[..]) {
            ("MatMul", &[_, matrix]) if !node.writes.contains(&self.output) => Some(matrix),
            _ => None,
        }
    }

    /// Matrices that nothing else reads.
    fn replaced(&self, scanned: &Scanned<'_>) -> HashSet<String> {
        let mut replaced: HashSet<String> = self.data.keys().map(|&name| name.to_owned()).collect();
        for node in &scanned.nodes {
            let quantized = self.is_quantized(node);
            for (at, &name) in node.reads.iter().enumerate() {
                if !quantized || at != 1 {
                    replaced.remove(name);
                }
            }
        }
        replaced
    }

    fn is_quantized(&self, node: &Node<'_>) -> bool {
        node.operator == "MatMul"
            && !node.writes.contains(&self.output)
            && matches!(node.reads[..], [_, matrix] if self.data.contains_key(matrix))
    }

    fn write(&self, scanned: &Scanned<'_>) -> Vec<u8> {
        let replaced = self.replaced(scanned);
        let mut graph = Vec::new();
        for node in &scanned.nodes {
            match (self.is_quantized(node), &node.reads[..], &node.writes[..]) {
                (true, &[x, matrix], &[result]) => wire::put_bytes(&mut graph, 1, &product(x, matrix, result)),
                _ => graph.extend_from_slice(node.raw),
            }
        }
        for raw in &scanned.graph_fields {
            graph.extend_from_slice(raw);
        }
        for tensor in scanned.initializers.iter().filter(|i| !replaced.contains(i.name)) {
            wire::put_bytes(&mut graph, 5, tensor.body);
        }
        for (name, quantized) in &self.data {
            let scales: Vec<u8> = quantized.scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
            wire::put_bytes(&mut graph, 5, &tensor(&levels_name(name), I8, &quantized.shape, &quantized.levels));
            wire::put_bytes(&mut graph, 5, &tensor(&scales_name(name), F32, &quantized.shape[1..], &scales));
        }
        let declared = scanned.inputs.iter().chain(&scanned.outputs).map(|declared| declared.raw);
        for raw in scanned.sparse.iter().map(|(_, raw)| *raw).chain(declared) {
            graph.extend_from_slice(raw);
        }
        let mut model = Vec::with_capacity(graph.len() + 1024);
        for raw in &scanned.model_fields {
            model.extend_from_slice(raw);
        }
        if !imports_contrib(scanned) {
            wire::put_bytes(&mut model, 8, &import(DOMAIN));
        }
        wire::put_bytes(&mut model, 7, &graph);
        model
    }
}

impl Quantized {
    /// `None` where the values are not as many as the shape says, or not finite.
    fn of(values: &[f32], shape: [i64; 2]) -> Option<Self> {
        let [rows, columns] = shape.map(|edge| usize::try_from(edge).ok());
        let columns = columns?;
        if values.len() != rows?.checked_mul(columns)? || !values.iter().all(|value| value.is_finite()) {
            return None;
        }
        let mut largest = vec![0.0_f32; columns];
        for row in values.chunks_exact(columns) {
            for (largest, value) in largest.iter_mut().zip(row) {
                *largest = largest.max(value.abs());
            }
        }
        // A column of nothing is nothing at any scale.
        let scales: Vec<f32> = largest.into_iter().map(|largest| if largest > 0.0 { largest / LEVELS } else { 1.0 }).collect();
        let level = |(value, scale): (&f32, &f32)| ((value / scale).round_ties_even() as i8).cast_unsigned();
        let levels = values.chunks_exact(columns).flat_map(|row| row.iter().zip(&scales).map(level)).collect();
        Some(Self { shape, levels, scales })
    }
}

fn levels_name(matrix: &str) -> String {
    format!("anchorite/int8/{matrix}")
}

fn scales_name(matrix: &str) -> String {
    format!("anchorite/scales/{matrix}")
}

/// A `NodeProto`.
fn product(x: &str, matrix: &str, result: &str) -> Vec<u8> {
    let mut node = Vec::new();
    for input in [x, &levels_name(matrix), &scales_name(matrix)] {
        wire::put_bytes(&mut node, 1, input.as_bytes());
    }
    wire::put_bytes(&mut node, 2, result.as_bytes());
    wire::put_bytes(&mut node, 4, OPERATOR.as_bytes());
    wire::put_bytes(&mut node, 7, DOMAIN.as_bytes());
    node
}

/// A `TensorProto` with its data inside.
fn tensor(name: &str, data_type: i32, dims: &[i64], data: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(data.len() + name.len() + 64);
    for &dim in dims {
        put_integer(&mut body, 1, dim.cast_unsigned());
    }
    put_integer(&mut body, 2, u64::from(data_type.unsigned_abs()));
    wire::put_bytes(&mut body, 8, name.as_bytes());
    wire::put_bytes(&mut body, 9, data);
    body
}

fn put_integer(out: &mut Vec<u8>, number: u32, value: u64) {
    wire::put_varint(out, u64::from(number) << 3);
    wire::put_varint(out, value);
}

/// An `OperatorSetIdProto` of version 1.
fn import(domain: &str) -> Vec<u8> {
    let mut body = Vec::new();
    wire::put_bytes(&mut body, 1, domain.as_bytes());
    put_integer(&mut body, 2, 1);
    body
}

fn imports_contrib(scanned: &Scanned<'_>) -> bool {
    scanned
        .model_fields
        .iter()
        .any(|raw| raw.windows(DOMAIN.len()).any(|part| part == DOMAIN.as_bytes()) && raw.first() == Some(&0x42))
}

/// Values that lie in the model: as raw bytes, or as a list of floats.
fn inline(tensor: &Initializer<'_>) -> Vec<f32> {
    let mut values = Vec::new();
    for field in wire::fields(tensor.body).map_while(Result::ok) {
        match (field.number, field.value) {
            (4 | 9, wire::Value::Bytes(bytes)) => values.extend(floats(bytes)),
            (4, wire::Value::Fixed32(bytes)) => values.push(f32::from_le_bytes(bytes)),
            _ => {}
        }
    }
    values
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
}
