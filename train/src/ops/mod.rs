//! Operators: one file each with its shape rule, what it folds to, its gradient rule and its tests; one line each in [`OPERATORS`].
//!
//! | file | subject |
//! |---|---|
//! | `site` | what shape and folding rules see of a node |
//! | `reverse` | what gradient rules see of a node |
//! | `families` | rules that several operators share: elementwise, reductions, comparisons |
//! | `check` | gradients against central differences, for the tests |
//! | the others | one operator each, named after it |
//!
//! Notation in gradient rules: y = op(x..), d the gradient of y. Rules emit standard operators of opset 20 only.
//!
//! Invariant: a gradient rule is only called on a node whose shape rule has accepted it.

#[cfg(test)]
mod check;
mod families;
mod reverse;
mod site;

mod abs;
mod add;
mod and;
mod arg_max;
mod average_pool;
mod batch_normalization;
mod cast;
mod clip;
mod concat;
mod constant;
mod constant_of_shape;
mod conv;
mod conv_transpose;
mod div;
mod equal;
mod erf;
mod exp;
mod expand;
mod flatten;
mod gather;
mod gather_nd;
mod gelu;
mod gemm;
mod global_average_pool;
mod greater;
mod greater_or_equal;
mod hard_sigmoid;
mod hard_swish;
mod identity;
mod is_nan;
mod layer_normalization;
mod less;
mod less_or_equal;
mod log;
mod log_softmax;
mod mat_mul;
mod max;
mod max_pool;
mod min;
mod mod_;
mod mul;
mod neg;
mod not;
mod or;
mod pad;
mod pow;
mod range;
mod reciprocal;
mod reduce_l2;
mod reduce_mean;
mod reduce_sum;
mod relu;
mod reshape;
mod scatter_elements;
mod scatter_nd;
mod shape_;
mod sigmoid;
mod sign;
mod slice;
mod softmax;
mod softplus;
mod split;
mod sqrt;
mod squeeze;
mod sub;
mod tanh;
mod tile;
mod transpose;
mod trilu;
mod unsqueeze;
mod where_;

pub(crate) use reverse::Reverse;
pub(crate) use site::Site;

use crate::graph::{Node, Tensor, TensorType};
use crate::program::{NodeProblem, ProgramError};

/// An operator's rules.
pub(crate) struct Operator {
    pub(crate) name: &'static str,
    /// Types of the outputs.
    pub(crate) shape: fn(&Site<'_>) -> Result<Vec<TensorType>, NodeProblem>,
    /// The value of the only output where it follows from shapes and constants; `None` where it does not.
    pub(crate) fold: Option<Fold>,
    pub(crate) gradient: Gradient,
}

pub(crate) type Fold = fn(&Site<'_>) -> Result<Option<Tensor>, NodeProblem>;

/// What becomes of a gradient that arrives at an operator's outputs.
pub(crate) enum Gradient {
    /// It goes on to the inputs by this rule.
    Rule(fn(&mut Reverse<'_>) -> Result<(), ProgramError>),
    /// It ends: the operator is constant almost everywhere, or its results are no floats.
    Stops,
    /// Nobody wrote a rule; it is an error for one to arrive. For operators that appear in backward graphs only.
    Missing,
}

/// Every operator that is known.
const OPERATORS: &[&Operator] = &[
    &abs::RULES,
    &add::RULES,
    &and::RULES,
    &arg_max::RULES,
    &average_pool::RULES,
    &batch_normalization::RULES,
    &cast::RULES,
    &clip::RULES,
    &concat::RULES,
    &constant::RULES,
    &constant_of_shape::RULES,
    &conv::RULES,
    &conv_transpose::RULES,
    &div::RULES,
    &equal::RULES,
    &erf::RULES,
    &exp::RULES,
    &expand::RULES,
    &flatten::RULES,
    &gather::RULES,
    &gather_nd::RULES,
    &gelu::RULES,
    &gemm::RULES,
    &global_average_pool::RULES,
    &greater::RULES,
    &greater_or_equal::RULES,
    &hard_sigmoid::RULES,
    &hard_swish::RULES,
    &identity::RULES,
    &is_nan::RULES,
    &layer_normalization::RULES,
    &less::RULES,
    &less_or_equal::RULES,
    &log::RULES,
    &log_softmax::RULES,
    &mat_mul::RULES,
    &max::RULES,
    &max_pool::RULES,
    &min::RULES,
    &mod_::RULES,
    &mul::RULES,
    &neg::RULES,
    &not::RULES,
    &or::RULES,
    &pad::RULES,
    &pow::RULES,
    &range::RULES,
    &reciprocal::RULES,
    &reduce_l2::RULES,
    &reduce_mean::RULES,
    &reduce_sum::RULES,
    &relu::RULES,
    &reshape::RULES,
    &scatter_elements::RULES,
    &scatter_nd::RULES,
    &shape_::RULES,
    &sigmoid::RULES,
    &sign::RULES,
    &slice::RULES,
    &softmax::RULES,
    &softplus::RULES,
    &split::RULES,
    &sqrt::RULES,
    &squeeze::RULES,
    &sub::RULES,
    &tanh::RULES,
    &tile::RULES,
    &transpose::RULES,
    &trilu::RULES,
    &unsqueeze::RULES,
    &where_::RULES,
];

/// The rules of a node's operator.
pub(crate) fn find(node: &Node) -> Option<&'static Operator> {
    OPERATORS.iter().find(|o| node.domain.is_empty() && o.name == node.operator).copied()
}

/// Names of the operators that are known, and whether each has a gradient (`false` where gradients end or cannot pass).
#[must_use]
pub fn operators() -> Vec<(&'static str, bool)> {
    OPERATORS.iter().map(|o| (o.name, matches!(o.gradient, Gradient::Rule(_)))).collect()
}
