//! For the operators' tests: one node in a model of its own, its gradients against central differences in float64, and what it
//! folds to against what ONNX Runtime computes.
//!
//! The runtime's CPU kernels of some operators (erf and its kin, convolutions, means over windows) have no float64; models with one
//! of them run node by node, those operators on the small reference at the end of this file, everything else on the runtime.

use std::collections::{BTreeMap, HashMap};

use ort::session::Session;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Limits;
use crate::graph::{Attribute, Dim, Element, Graph, Model, Node, Port, Tensor, TensorType};
use crate::program::{ParametersAs, Program};
use crate::testing;

/// Shapes that broadcast together in every way there is.
pub(super) const BROADCASTS: [(&[usize], &[usize]); 8] = [
    (&[2, 3], &[2, 3]),
    (&[2, 3], &[3]),
    (&[3], &[2, 3]),
    (&[2, 1, 4], &[3, 1]),
    (&[1], &[2, 2]),
    (&[], &[3]),
    (&[2, 1], &[]),
    (&[1, 1], &[1]),
];

/// Gradients and constants of a function of two numbers, whose second input `second` adds to a case.
pub(super) fn arithmetic(operator: &'static str, second: fn(Case, &[usize]) -> Case) {
    for (a, b) in BROADCASTS {
        second(Case::new(operator).float(a), b).gradients();
    }
    Case::new(operator).integers(&[2, 2], &[7, -8, 9, 10]).integers(&[2], &[3, 2]).folds();
    Case::new(operator).constant(&[3], &[0.1, -7.3, 1e9]).constant(&[], &[0.7]).folds();
}

/// Largest difference allowed, as a share of the largest gradient.
const TOLERANCE: f64 = 1e-6;

enum Input {
    Float(Vec<usize>, [f64; 2]),
    Constant(Vec<usize>, Vec<f64>),
    Integers(Element, Vec<usize>, Vec<i64>),
}

/// One use of an operator.
pub(super) struct Case {
    node: Node,
    inputs: Vec<Input>,
    seeds: usize,
}

impl Case {
    pub(super) fn new(operator: &str) -> Self {
        let node = Node { operator: operator.to_owned(), outputs: vec!["y0".to_owned()], ..Node::default() };
        Self { node, inputs: Vec::new(), seeds: 1 }
    }

    /// An input of random floats, which is differentiated for.
    pub(super) fn float(self, shape: &[usize]) -> Self {
        self.input(Input::Float(shape.to_vec(), [-2.0, 2.0]))
    }

    /// The same over a wider range.
    pub(super) fn wide(self, shape: &[usize]) -> Self {
        self.input(Input::Float(shape.to_vec(), [-5.0, 5.0]))
    }

    /// The same, away from zero on the positive side.
    pub(super) fn positive(self, shape: &[usize]) -> Self {
        self.input(Input::Float(shape.to_vec(), [0.5, 2.5]))
    }

    pub(super) fn constant(self, shape: &[usize], values: &[f64]) -> Self {
        self.input(Input::Constant(shape.to_vec(), values.to_vec()))
    }

    pub(super) fn integers(self, shape: &[usize], values: &[i64]) -> Self {
        self.input(Input::Integers(Element::I64, shape.to_vec(), values.to_vec()))
    }

    pub(super) fn booleans(self, shape: &[usize], values: &[i64]) -> Self {
        self.input(Input::Integers(Element::Bool, shape.to_vec(), values.to_vec()))
    }

    fn input(mut self, input: Input) -> Self {
        self.node.inputs.push(format!("x{}", self.inputs.len()));
        self.inputs.push(input);
        self
    }

    pub(super) fn attribute(mut self, name: &str, value: Attribute) -> Self {
        self.node.attributes.insert(name.to_owned(), value);
        self
    }

    /// As many outputs, each of which gets a gradient.
    pub(super) fn outputs(mut self, count: usize) -> Self {
        self.node.outputs = (0..count).map(|i| format!("y{i}")).collect();
        self.seeds = count;
        self
    }

    /// Only the first `count` outputs get a gradient.
    pub(super) fn seeds(mut self, count: usize) -> Self {
        self.seeds = count;
        self
    }

    /// A model of the node; constants are Constant nodes, since float initializers would be parameters.
    fn model(&self, element: Element) -> Model {
        let mut graph = Graph { name: "case".to_owned(), ..Graph::default() };
        for (name, input) in self.node.inputs.iter().zip(&self.inputs) {
            let value = match input {
                Input::Float(shape, _) => {
                    let shape = Some(shape.iter().map(|&d| Dim::Fixed(d as u64)).collect());
                    graph.inputs.push(Port { name: name.clone(), element, shape });
                    continue;
                }
                Input::Constant(shape, values) => Tensor::from_floats(TensorType::new(element, shape.clone()), values),
                Input::Integers(element, shape, values) => {
                    Tensor::from_integers(TensorType::new(*element, shape.clone()), values)
                }
            };
            graph.nodes.push(Node {
                operator: "Constant".to_owned(),
                outputs: vec![name.clone()],
                attributes: BTreeMap::from([("value".to_owned(), Attribute::Tensor(value.unwrap()))]),
                ..Node::default()
            });
        }
        graph.nodes.push(self.node.clone());
        graph.outputs = self.node.outputs.iter().map(|name| Port { name: name.clone(), element, shape: None }).collect();
        let opsets = BTreeMap::from([(String::new(), 20)]);
        let (producer, producer_version) = (String::new(), String::new());
        Model { ir_version: 9, producer, producer_version, opsets, metadata: Vec::new(), graph }
    }

    /// Inputs and seeds, with values that are exact in float32 too.
    fn feeds(&self, program: &Program) -> Vec<(String, Tensor)> {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let mut draw = |shape: &[usize], [low, high]: [f64; 2]| {
            let values: Vec<f64> =
                (0..shape.iter().product()).map(|_| f64::from(random.random_range(low..high) as f32)).collect();
            Tensor::from_floats(TensorType::new(Element::F64, shape), &values).unwrap()
        };
        let mut feeds = Vec::new();
        for (name, input) in self.node.inputs.iter().zip(&self.inputs) {
            if let Input::Float(shape, range) = input {
                feeds.push((name.clone(), draw(shape, *range)));
            }
        }
        for i in 0..self.seeds {
            feeds.push((format!("d{i}"), draw(&program.kind(&format!("y{i}")).unwrap().shape, [-1.0, 1.0])));
        }
        feeds
    }

    /// The program with gradients of all float inputs, and their names.
    fn differentiated(&self, element: Element) -> (Program, Vec<(String, String)>) {
        let mut program = Program::specialise(&self.model(element), &[], &Limits::default()).unwrap();
        let ys: Vec<String> = (0..self.seeds).map(|i| format!("y{i}")).collect();
        let ds: Vec<String> = (0..self.seeds).map(|i| format!("d{i}")).collect();
        for (y, d) in ys.iter().zip(&ds) {
            let kind = program.kind(y).unwrap().clone();
            program.add_input(d, kind).unwrap();
        }
        let floats: Vec<&str> = program.inputs().iter().filter(|n| n.starts_with('x')).map(String::as_str).collect();
        let floats: Vec<String> = floats.into_iter().map(str::to_owned).collect();
        let of: Vec<&str> = floats.iter().map(String::as_str).collect();
        let seeds: Vec<(&str, &str)> = ys.iter().zip(&ds).map(|(y, d)| (y.as_str(), d.as_str())).collect();
        let gradients = program.gradients(&seeds, &of).unwrap();
        (program, gradients.into_iter().collect())
    }

    fn computed(&self, element: Element, feeds: &[(String, Tensor)]) -> BTreeMap<String, Tensor> {
        let (program, gradients) = self.differentiated(element);
        let names: Vec<&str> = gradients.iter().map(|(_, g)| g.as_str()).collect();
        let mut runner = Runner::new(program.to_model(&names, ParametersAs::Initializers).unwrap());
        let results = runner.run(feeds);
        for (name, tensor) in names.iter().zip(&results) {
            assert_eq!(program.kind(name), Some(tensor.kind()), "{}: inferred and computed type", self.node.operator);
        }
        gradients.into_iter().map(|(x, _)| x).zip(results).collect()
    }

    /// Gradients of every float input against central differences, both in float64.
    #[track_caller]
    pub(super) fn gradients(self) {
        let (program, _) = self.differentiated(Element::F64);
        let feeds = self.feeds(&program);
        let computed = self.computed(Element::F64, &feeds);
        let ys: Vec<&str> = self.node.outputs[..self.seeds].iter().map(String::as_str).collect();
        let mut forward = Runner::new(program.to_model(&ys, ParametersAs::Initializers).unwrap());
        let seeds: Vec<Vec<f64>> = feeds.iter().filter(|(n, _)| n.starts_with('d')).map(|(_, t)| t.floats().unwrap()).collect();
        let mut loss = |feeds: &[(String, Tensor)]| -> f64 {
            let ys = forward.run(feeds);
            ys.iter().zip(&seeds).flat_map(|(y, d)| y.floats().unwrap().into_iter().zip(d.clone())).map(|(y, d)| y * d).sum()
        };
        for (index, (name, x)) in feeds.iter().enumerate().filter(|(_, (n, _))| n.starts_with('x')) {
            let values = x.floats().unwrap();
            let mut moved = feeds.clone();
            let mut at = |i: usize, by: f64| {
                let mut values = values.clone();
                values[i] += by;
                moved[index].1 = Tensor::from_floats(x.kind().clone(), &values).unwrap();
                (loss(&moved), values[i])
            };
            let difference = |i: usize| {
                let ((above, right), (below, left)) = (at(i, 1e-5), at(i, -1e-5));
                (above - below) / (right - left)
            };
            let expected: Vec<f64> = (0..values.len()).map(difference).collect();
            self.compare(name, &computed[name].floats().unwrap(), &expected, TOLERANCE);
        }
    }

    /// Gradients in float32, where rules may emit other nodes and all kernels are the runtime's, against those in float64.
    #[track_caller]
    pub(super) fn gradients_in_float32(self) {
        let (program, _) = self.differentiated(Element::F64);
        let feeds = self.feeds(&program);
        let narrow = |tensor: &Tensor| {
            Tensor::from_floats(TensorType::new(Element::F32, tensor.shape()), &tensor.floats().unwrap()).unwrap()
        };
        let narrow: Vec<(String, Tensor)> = feeds.iter().map(|(name, tensor)| (name.clone(), narrow(tensor))).collect();
        let (wide, narrow) = (self.computed(Element::F64, &feeds), self.computed(Element::F32, &narrow));
        for (name, expected) in wide {
            self.compare(&name, &narrow[&name].floats().unwrap(), &expected.floats().unwrap(), 1e-5);
        }
    }

    #[track_caller]
    fn compare(&self, name: &str, found: &[f64], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        let largest = expected.iter().fold(1e-3_f64, |m, v| m.max(v.abs()));
        let error = found.iter().zip(expected).map(|(f, e)| (f - e).abs()).fold(0.0, f64::max) / largest;
        // Written so that NaN fails.
        assert!(error <= tolerance, "{} by {name}: {error:e}\nfound {found:?}\nexpected {expected:?}", self.node.operator);
    }

    /// The folded value against the runtime's, to the bit.
    #[track_caller]
    pub(super) fn folds(self) {
        let mut model = self.model(Element::F32);
        let program = Program::specialise(&model, &[], &Limits::default()).unwrap();
        let folded = program.constant("y0").unwrap_or_else(|| panic!("{} is not folded", self.node.operator));
        model.graph.outputs[0].element = folded.element();
        let feeds: Vec<(String, Tensor)> = model.graph.inputs.iter().map(zeros).collect();
        let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(n, t)| (n.as_str(), t)).collect();
        assert_eq!(folded, &testing::run_model(&model, &feeds).unwrap()[0], "{}", self.node.operator);
    }
}

fn zeros(port: &Port) -> (String, Tensor) {
    let shape: Vec<usize> = port.shape.iter().flatten().map(|d| d.fixed().unwrap()).collect();
    let values = vec![0.0; shape.iter().product()];
    (port.name.clone(), Tensor::from_floats(TensorType::new(port.element, shape), &values).unwrap())
}

/// A model that runs whole on the runtime, or node by node where a kernel lacks float64.
enum Runner {
    Whole(Session),
    Stepwise(Box<Model>, HashMap<usize, Session>),
}

impl Runner {
    fn new(model: Model) -> Self {
        let wide = model.graph.inputs.iter().any(|port| port.element == Element::F64);
        if wide && model.graph.nodes.iter().any(|node| reference::has(&node.operator)) {
            return Self::Stepwise(Box::new(model), HashMap::new());
        }
        Self::Whole(testing::session(&model.write()).unwrap())
    }

    fn run(&mut self, feeds: &[(String, Tensor)]) -> Vec<Tensor> {
        match self {
            Self::Whole(session) => {
                let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(n, t)| (n.as_str(), t)).collect();
                testing::run(session, &feeds).unwrap()
            }
            Self::Stepwise(model, sessions) => {
                let mut values: HashMap<String, Tensor> = feeds.iter().cloned().collect();
                values.extend(model.graph.initializers.iter().cloned());
                for (i, node) in model.graph.nodes.iter().enumerate() {
                    let inputs: Vec<&Tensor> = node.inputs.iter().map(|name| &values[name]).collect();
                    let result = if reference::has(&node.operator) {
                        reference::run(node, &inputs)
                    } else {
                        let session =
                            sessions.entry(i).or_insert_with(|| testing::session(&alone(model, node, &inputs).write()).unwrap());
                        let feeds: Vec<(&str, &Tensor)> = node.inputs.iter().map(String::as_str).zip(inputs).collect();
                        testing::run(session, &feeds).unwrap().remove(0)
                    };
                    values.insert(node.outputs[0].clone(), result);
                }
                model.graph.outputs.iter().map(|port| values[&port.name].clone()).collect()
            }
        }
    }
}

/// A model of one node of another.
fn alone(model: &Model, node: &Node, inputs: &[&Tensor]) -> Model {
    let mut ports: BTreeMap<&str, Port> = BTreeMap::new();
    for (name, tensor) in node.inputs.iter().zip(inputs) {
        ports.insert(name, Port { name: name.clone(), element: tensor.element(), shape: None });
    }
    let output = Port { name: node.outputs[0].clone(), element: inputs[0].element(), shape: None };
    let graph = Graph {
        name: "alone".to_owned(),
        nodes: vec![node.clone()],
        inputs: ports.into_values().collect(),
        outputs: vec![output],
        ..Graph::default()
    };
    Model { graph, ..model.clone() }
}

/// Operators in float64, by their definition.
mod reference {
    use super::{Attribute, Node, Tensor, TensorType};

    pub(super) fn has(operator: &str) -> bool {
        let plain = matches!(operator, "Erf" | "Gelu" | "Softplus" | "HardSigmoid" | "HardSwish");
        plain || matches!(operator, "Conv" | "ConvTranspose" | "AveragePool" | "GlobalAveragePool")
    }

    pub(super) fn run(node: &Node, inputs: &[&Tensor]) -> Tensor {
        let tanh = matches!(node.attributes.get("approximate"), Some(Attribute::Text(text)) if text == b"tanh");
        let map = |f: fn(f64) -> f64| {
            let values: Vec<f64> = inputs[0].floats().unwrap().into_iter().map(f).collect();
            Tensor::from_floats(inputs[0].kind().clone(), &values).unwrap()
        };
        match node.operator.as_str() {
            "Erf" => map(erf),
            "Softplus" => map(|x| x.exp().ln_1p()),
            "Gelu" if tanh => {
                map(|x| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh()))
            }
            "Gelu" => map(|x| 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))),
            "HardSwish" => map(|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
            "HardSigmoid" => {
                let number = |name: &str, default: f64| match node.attributes.get(name) {
                    Some(Attribute::Float(value)) => f64::from(*value),
                    _ => default,
                };
                let (alpha, beta) = (number("alpha", 0.2), number("beta", 0.5));
                let values: Vec<f64> =
                    inputs[0].floats().unwrap().into_iter().map(|x| (alpha * x + beta).clamp(0.0, 1.0)).collect();
                Tensor::from_floats(inputs[0].kind().clone(), &values).unwrap()
            }
            "AveragePool" | "GlobalAveragePool" => average(node, inputs[0]),
            "Conv" => conv(node, inputs, false),
            _ => conv(node, inputs, true),
        }
    }

    /// erf x = 2/sqrt(pi) e^-x^2 times the sum of 2^n x^(2n+1) / (1 3 5 .. (2n+1)), whose terms all have one sign.
    fn erf(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
    }

    /// Means over windows; over everything where the node has no kernel.
    fn average(node: &Node, x: &Tensor) -> Tensor {
        let spatial = &x.shape()[2..];
        let list = |name: &str, default: Vec<i64>| match node.attributes.get(name) {
            Some(Attribute::Ints(values)) => values.clone(),
            _ => default,
        };
        let kernel = list("kernel_shape", spatial.iter().map(|&n| n as i64).collect());
        let (strides, pads) = (list("strides", vec![1; spatial.len()]), list("pads", vec![0; 2 * spatial.len()]));
        let padding = matches!(node.attributes.get("count_include_pad"), Some(Attribute::Int(1)));
        let size = |i: usize| ((spatial[i] as i64 + pads[i] + pads[spatial.len() + i] - kernel[i]) / strides[i] + 1) as usize;
        let shape: Vec<usize> = x.shape()[..2].iter().copied().chain((0..spatial.len()).map(size)).collect();
        let values = x.floats().unwrap();
        let taps: Vec<usize> = kernel.iter().map(|&k| k as usize).collect();
        let mean = |at: Vec<usize>| {
            let (mut sum, mut count) = (0.0, 0.0);
            for tap in indices(&taps) {
                let place = |i: usize| at[i + 2] as i64 * strides[i] + tap[i] as i64 - pads[i];
                let inside = (0..spatial.len()).all(|i| (0..spatial[i] as i64).contains(&place(i)));
                if inside {
                    let place: Vec<usize> =
                        at[..2].iter().copied().chain((0..spatial.len()).map(|i| place(i) as usize)).collect();
                    sum += values[flat(x.shape(), &place)];
                }
                count += f64::from(u8::from(inside || padding));
            }
            sum / count
        };
        let means: Vec<f64> = indices(&shape).into_iter().map(mean).collect();
        Tensor::from_floats(TensorType::new(x.element(), shape), &means).unwrap()
    }

    /// Both convolutions touch the same triples of (small side, large side, weight); they differ in which side is summed into.
    fn conv(node: &Node, inputs: &[&Tensor], transposed: bool) -> Tensor {
        let (x, w) = (inputs[0], inputs[1]);
        let spatial = x.shape().len() - 2;
        let list = |name: &str, count: usize, default: i64| match node.attributes.get(name) {
            Some(Attribute::Ints(values)) => values.clone(),
            _ => vec![default; count],
        };
        let (strides, dilations) = (list("strides", spatial, 1), list("dilations", spatial, 1));
        let (pads, extra) = (list("pads", 2 * spatial, 0), list("output_padding", spatial, 0));
        let groups = match node.attributes.get("group") {
            Some(Attribute::Int(v)) => *v as usize,
            _ => 1,
        };
        let size = |i: usize| {
            let (n, k) = (x.shape()[i + 2] as i64, w.shape()[i + 2] as i64);
            let (reach, pad) = (dilations[i] * (k - 1) + 1, pads[i] + pads[spatial + i]);
            let size =
                if transposed { (n - 1) * strides[i] + reach + extra[i] - pad } else { (n + pad - reach) / strides[i] + 1 };
            size as usize
        };
        let channels = if transposed { w.shape()[1] * groups } else { w.shape()[0] };
        let shape: Vec<usize> = [x.shape()[0], channels].into_iter().chain((0..spatial).map(size)).collect();
        let (small, large) = if transposed { (x.shape(), &shape[..]) } else { (&shape[..], x.shape()) };
        let (xs, ws) = (x.floats().unwrap(), w.floats().unwrap());
        let mut ys = vec![0.0; shape.iter().product()];
        // w is [channels of the small side, channels of one group of the large side, ..] in both.
        for s in indices(small) {
            for k in indices(&w.shape()[1..]) {
                let group = s[1] / (small[1] / groups);
                let mut l = vec![s[0], group * w.shape()[1] + k[0]];
                l.extend(
                    (0..spatial).map(|i| (s[i + 2] as i64 * strides[i] + k[i + 1] as i64 * dilations[i] - pads[i]) as usize),
                );
                if (0..spatial).any(|i| l[i + 2] >= large[i + 2]) {
                    continue;
                }
                let weight = ws[flat(w.shape(), &[&[s[1]], &k[..]].concat())];
                let (from, to) = if transposed { (&s, &l) } else { (&l, &s) };
                ys[flat(&shape, to)] += weight * xs[flat(x.shape(), from)];
            }
        }
        if let Some(bias) = inputs.get(2).map(|b| b.floats().unwrap()) {
            for i in indices(&shape) {
                ys[flat(&shape, &i)] += bias[i[1]];
            }
        }
        Tensor::from_floats(TensorType::new(x.element(), shape), &ys).unwrap()
    }

    fn flat(shape: &[usize], index: &[usize]) -> usize {
        shape.iter().zip(index).fold(0, |at, (size, i)| at * size + i)
    }

    fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
        shape.iter().fold(vec![Vec::new()], |all, &size| {
            all.iter().flat_map(|head| (0..size).map(move |i| [&head[..], &[i]].concat())).collect()
        })
    }
}

#[test]
fn elementwise_gradients_match_central_differences_on_random_broadcast_shapes() {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    for round in 0..30 {
        let full: Vec<usize> = (0..random.random_range(1..4)).map(|_| random.random_range(1..4)).collect();
        let mut part = || {
            let skip = random.random_range(0..=full.len());
            full[skip..].iter().map(|&size| if random.random_bool(0.4) { 1 } else { size }).collect::<Vec<_>>()
        };
        let (a, b) = (part(), part());
        let operator = ["Add", "Sub", "Mul", "Div"][round % 4];
        Case::new(operator).positive(&a).positive(&b).gradients();
    }
}
