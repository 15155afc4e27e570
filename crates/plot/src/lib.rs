//! Figures from data: panels of lines, points and bands on linear or logarithmic axes, written as SVG
//! or PNG. What the numbers mean is the caller's business.

mod axis;
mod draw;
mod error;
mod figure;
mod legend;
mod palette;

pub use axis::{Axis, Scale};
pub use error::PlotError;
pub use figure::{Figure, Layer, Panel, Stroke};
pub use palette::Color;
